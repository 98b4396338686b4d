package server

import (
	"context"
	"time"

	"google.golang.org/grpc"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
)

// How the log is watched.
const (
	watchPace  = 100 * time.Millisecond // between two looks for new events
	watchTell  = 10 * time.Second       // after which it is said how far it was looked
	watchGroup = 256                    // events that are taken at once
	watchBytes = 1 << 20                // and bytes of them, about
)

// WatchEvents sends events as they are committed. It reads the log as a query does, so
// those who commit know nothing of it.
func (s *auditService) WatchEvents(req *coatcheckv1.WatchEventsRequest, stream grpc.ServerStreamingServer[coatcheckv1.WatchEventsResponse]) error {
	ctx := stream.Context()
	filter := req.GetFilter()
	if filter == nil {
		filter = new(coatcheckv1.AuditFilter)
	}
	a, err := s.ask(ctx, filter, false)
	if err != nil {
		return err
	}
	next := req.GetFromSequence()
	if next == 0 {
		last, err := s.index.LastEvent(ctx)
		if err != nil {
			return err
		}
		next = last + 1
	}
	w := watch{service: s, stream: stream, filter: audit.NewFilter(a.query), next: next, allowed: callFrom(ctx).policy}
	for err == nil {
		err = w.turn(ctx)
	}
	return err
}

// watch is a WatchEvents.
type watch struct {
	service *auditService
	stream  grpc.ServerStreamingServer[coatcheckv1.WatchEventsResponse]
	filter  *audit.Filter
	next    uint64
	told    time.Time
	allowed *policy.Policy // by which it was asked last
}

// turn sends what has come, or waits a little if nothing has.
func (w *watch) turn(ctx context.Context) error {
	if err := w.stillAllowed(ctx); err != nil {
		return err
	}
	found, err := w.service.index.Find(ctx, w.filter, w.next, false, audit.Bounds{Events: watchGroup, Bytes: watchBytes, Look: lookAtMost})
	if err != nil {
		return err
	}
	for _, e := range found.Entries {
		if err := w.send(auditEvent(e, w.service.room()), e.Sequence+1); err != nil {
			return err
		}
	}
	w.next = found.Next
	if time.Since(w.told) >= watchTell {
		if err := w.send(nil, w.next); err != nil {
			return err
		}
	}
	if !found.End {
		return nil
	}
	pause := time.NewTimer(watchPace)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-w.service.server.draining:
		return errDraining
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send sends an event, or only how far it was looked. It waits for a reader that is slow.
func (w *watch) send(event *coatcheckv1.AuditEvent, next uint64) error {
	w.told = time.Now()
	if err := w.stream.Send(&coatcheckv1.WatchEventsResponse{Event: event, NextSequence: next}); err != nil {
		return first(w.stream.Context().Err(), receiveError(err))
	}
	return nil
}

// stillAllowed says whether the caller may still watch: it isn't suspended, and if there
// is another policy since, that allows it too.
func (w *watch) stillAllowed(ctx context.Context) error {
	c := callFrom(ctx)
	s := w.service.server
	now := c.group(s.policy.Current())
	if err := s.barred(now); err != nil {
		return err
	}
	if now.policy == w.allowed {
		return nil
	}
	w.allowed = now.policy
	_, err := now.ask(now.request(""))
	return err
}
