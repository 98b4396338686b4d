package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// suspension is what is kept of a caller who is kept out, as JSON in a state.
type suspension struct {
	Caller    string    `json:"caller"`
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"` // "" for the server itself
	Reason    string    `json:"reason,omitempty"`
	RequestID string    `json:"request_id"`
}

const suspensionPrefix = "suspension/"

// suspensions are the callers who are kept out. It is safe for concurrent use.
type suspensions struct {
	store tokenizer.Store
	log   *slog.Logger

	mu      sync.RWMutex
	callers map[string]bool // by their digests, so that a row that is damaged keeps its caller out too
	changes int             // how often a caller was suspended or restored by this server
	damaged int             // rows, when they were last read
}

// suspensionPeriod is how often it is looked whom other servers of the store have
// suspended or restored.
const suspensionPeriod = 2 * time.Second

// has says whether a caller is suspended.
func (s *suspensions) has(caller string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.callers) > 0 && s.callers[callerDigest(caller)]
}

// set notes that a caller is suspended from now on, or isn't any more.
func (s *suspensions) set(caller string, suspended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes++; suspended {
		s.callers[callerDigest(caller)] = true
	} else {
		delete(s.callers, callerDigest(caller))
	}
}

// load reads from the store who is suspended. What this server changes at the same time
// is not undone by it.
func (s *suspensions) load(ctx context.Context) error {
	s.mu.RLock()
	before := s.changes
	s.mu.RUnlock()
	found, damaged := make(map[string]bool), 0
	for after := ""; ; {
		rows, err := s.store.ListStates(ctx, suspensionPrefix, after, maxPage)
		if err != nil {
			return fmt.Errorf("suspensions: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			found[strings.TrimPrefix(row.Key, suspensionPrefix)] = true
			if _, err := parseSuspension(row); err != nil {
				damaged++
			}
		}
		after = rows[len(rows)-1].Key
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == before {
		s.callers = found
	}
	if damaged > s.damaged {
		s.log.Error("suspensions are damaged; those callers are kept out, and can be suspended anew or restored by name", "count", damaged)
	}
	s.damaged = damaged
	return nil
}

// run follows the store until ctx ends. While it can't be read, who is suspended stays
// so.
func (s *suspensions) run(ctx context.Context) {
	tick := time.NewTicker(suspensionPeriod)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err := s.load(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				s.log.Error("who is suspended can't be read, and stays so", "error", err)
			}
			failing = err != nil
		}
	}
}

// change returns what suspends a caller, and what is kept then. If it is suspended
// already, that stays as it is, and the unit rests on it; one that is damaged is replaced.
func (s *suspensions) change(ctx context.Context, next suspension) (tokenizer.StateChange, suspension, error) {
	key := suspensionPrefix + callerDigest(next.Caller)
	old, err := s.store.State(ctx, key)
	if err != nil {
		return tokenizer.StateChange{}, suspension{}, err
	}
	if old != nil {
		if kept, err := parseSuspension(tokenizer.StateRow{Key: key, Value: old}); err == nil {
			return tokenizer.StateChange{Key: key, Old: old, New: old}, kept, nil
		}
	}
	return tokenizer.StateChange{Key: key, Old: old, New: encodeRow(next)}, next, nil
}

// parseSuspension reads a row, which has to be of the caller of its key.
//
// Errors: tokenizer.ErrDamaged.
func parseSuspension(row tokenizer.StateRow) (suspension, error) {
	kept, err := parseRow[suspension]("a suspension", row.Value)
	if err == nil && row.Key != suspensionPrefix+callerDigest(kept.Caller) {
		err = fmt.Errorf("%w: a suspension is of another caller", tokenizer.ErrDamaged)
	}
	return kept, err
}

// barred returns errSuspended, and records that, if the caller of a call is kept out.
func (s *Server) barred(c *call) error {
	if !s.suspended.has(c.event.Caller) {
		return nil
	}
	c.event.Decision, c.event.Rule = audit.Deny, ""
	return errSuspended
}

// suspendThief adds to the unit of a call that used a honeytoken what suspends its
// caller, if the server is to do that, and says whether it has.
func (s *Server) suspendThief(c *call) (bool, error) {
	if !s.suspendThieves || !slices.Contains(c.event.Alerts, audit.AlertHoneytoken) {
		return false, nil
	}
	change, _, err := s.suspended.change(s.commits.context(), suspension{
		Caller: c.event.Caller, Since: c.event.Time.UTC(), Reason: audit.AlertHoneytoken, RequestID: c.event.RequestID,
	})
	if err != nil {
		return false, err
	}
	c.unit.States = append(c.unit.States, change)
	c.event.AboutCaller = c.event.Caller
	return true, nil
}
