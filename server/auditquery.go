package server

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

const (
	// lookAtMost is how many events a query looks at in one call, or blocks of them that
	// the index lets it pass over.
	lookAtMost = 1 << 15

	// auditReserve is what there is in an answer beside the events themselves, in bytes:
	// for each, and once.
	auditReserve = 64
)

// QueryEvents returns events of the audit log.
func (s *auditService) QueryEvents(ctx context.Context, req *coatcheckv1.QueryEventsRequest) (*coatcheckv1.QueryEventsResponse, error) {
	c := callFrom(ctx)
	filter := req.GetFilter()
	if filter == nil {
		filter = new(coatcheckv1.AuditFilter)
	}
	a, err := s.ask(ctx, filter, req.GetNewestFirst())
	if err != nil {
		return nil, err
	}
	if a.item != (audit.Item{}) {
		c.event.Items = []audit.Item{a.item}
	}
	limit, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	from, err := openAuditPage(req.GetPageToken(), a.sum, req.GetNewestFirst())
	if err != nil {
		return nil, err
	}
	room := s.room()
	found, err := s.index.Find(ctx, audit.NewFilter(a.query), from, req.GetNewestFirst(), audit.Bounds{
		Events: limit, Bytes: room - auditReserve*limit, Look: lookAtMost,
	})
	if err != nil {
		return nil, err
	}
	resp := &coatcheckv1.QueryEventsResponse{LogId: s.server.logID.String()}
	for _, e := range found.Entries {
		resp.Events = append(resp.Events, auditEvent(e, room))
	}
	if !found.End {
		resp.NextPageToken = sealAuditPage(found.Next, a.sum)
	}
	return resp, nil
}

// room returns how many bytes the events in an answer may have.
func (s *auditService) room() int { return s.server.limits.MessageSize - 2*auditReserve }

// auditEvent returns an event as it is told, without what it says if that has no room.
func auditEvent(e tokenizer.Entry, room int) *coatcheckv1.AuditEvent {
	hash := e.Hash()
	m := &coatcheckv1.AuditEvent{Sequence: e.Sequence, Hash: hash[:], Size: uint32(len(e.Body))}
	if len(e.Body) <= room-auditReserve {
		m.Event = string(e.Body)
	}
	return m
}

// A page token is the number of the event that comes next and the sum of the question, in
// hexadecimal digits. It says nothing that the events of the page don't.
func sealAuditPage(next uint64, sum uint32) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, next), sum))
}

// openAuditPage returns the number of the event that a page begins with.
func openAuditPage(page string, sum uint32, newest bool) (uint64, error) {
	switch {
	case page == "" && newest:
		return math.MaxUint64, nil
	case page == "":
		return 1, nil
	}
	b, err := hex.DecodeString(page)
	if err != nil || len(b) != 12 || binary.BigEndian.Uint32(b[8:]) != sum {
		return 0, tokenizer.ErrInvalidPage
	}
	return binary.BigEndian.Uint64(b), nil
}
