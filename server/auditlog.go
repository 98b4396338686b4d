package server

import (
	"context"
	"errors"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// auditService is coatcheck.v1.AuditService.
type auditService struct {
	coatcheckv1.UnimplementedAuditServiceServer
	segments  *audit.Segments
	notary    *audit.Notary
	index     *audit.Index
	tokenizer *tokenizer.Tokenizer
	server    *Server
}

// Prune removes old segments. Its event says what is about to go, and is committed before
// anything goes.
func (s *auditService) Prune(ctx context.Context, req *coatcheckv1.PruneRequest) (*coatcheckv1.PruneResponse, error) {
	c := callFrom(ctx)
	d := &c.newDeeds(1)[0]
	d.stated(req.GetReason())
	c.event.StatedReason, c.event.ValidateOnly = d.StatedReason, req.GetValidateOnly()
	if d.err != nil {
		return nil, d.err
	}
	if req.GetBefore() == nil || req.GetBefore().CheckValid() != nil {
		return nil, errBefore
	}
	plan, err := s.segments.PlanPrune(req.GetBefore().AsTime())
	if err != nil {
		return nil, damagedSegment(err)
	}
	resp := &coatcheckv1.PruneResponse{FirstEvent: plan.First, LastEvent: plan.Last, Segments: int32(plan.Segments), More: plan.More}
	if plan.Segments > 0 {
		c.event.PrunedFirst, c.event.PrunedLast, c.event.PrunedHash = plan.First, plan.Last, plan.Hash.String()
	}
	if plan.Segments == 0 || req.GetValidateOnly() {
		return resp, nil
	}
	if err := s.server.commit(c, nil); err != nil {
		return nil, err
	}
	// The event says that they go, so they do, whoever waits for it.
	if err := s.segments.Prune(context.WithoutCancel(ctx), plan, c.sequence, c.event.Caller); err != nil {
		s.server.log.Error("audit segments not pruned", "request_id", c.event.RequestID, "error", err)
		return nil, damagedSegment(err)
	}
	return resp, nil
}

// damagedSegment returns what a client is told of an error of the segments.
func damagedSegment(err error) error {
	if errors.Is(err, audit.ErrBroken) {
		return errors.Join(errSegmentDamaged, err)
	}
	return err
}
