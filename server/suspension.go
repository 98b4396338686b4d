package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
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

// suspensionKey is the key of the state, which has no room for the longest names.
func suspensionKey(caller string) string {
	sum := sha256.Sum256([]byte(caller))
	return suspensionPrefix + hex.EncodeToString(sum[:])
}

// suspensions are the callers who are kept out. It is safe for concurrent use.
type suspensions struct {
	store tokenizer.Store

	mu      sync.RWMutex
	callers map[string]bool
	changes int // how often a caller was suspended or restored by this server
}

// suspensionPeriod is how often it is looked whom other servers of the store have
// suspended or restored.
const suspensionPeriod = 2 * time.Second

// has says whether a caller is suspended.
func (s *suspensions) has(caller string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.callers[caller]
}

// set notes that a caller is suspended from now on, or isn't any more.
func (s *suspensions) set(caller string, suspended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes++; suspended {
		s.callers[caller] = true
	} else {
		delete(s.callers, caller)
	}
}

// load reads from the store who is suspended. What this server changes at the same time
// is not undone by it.
func (s *suspensions) load(ctx context.Context) error {
	s.mu.RLock()
	before := s.changes
	s.mu.RUnlock()
	found := make(map[string]bool)
	for after := ""; ; {
		rows, err := s.store.ListStates(ctx, suspensionPrefix, after, maxPage)
		if err != nil {
			return fmt.Errorf("suspensions: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			kept, err := parseSuspension(row.Value)
			if err != nil {
				return err
			}
			found[kept.Caller] = true
		}
		after = rows[len(rows)-1].Key
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == before {
		s.callers = found
	}
	return nil
}

// run follows the store until ctx ends. While it can't be read, who is suspended stays
// so.
func (s *suspensions) run(ctx context.Context) {
	tick := time.NewTicker(suspensionPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.load(ctx)
		}
	}
}

// change returns what suspends a caller, and what is kept then; or, if it is suspended
// already, no change and what is kept.
func (s *suspensions) change(ctx context.Context, next suspension) (*tokenizer.StateChange, suspension, error) {
	key := suspensionKey(next.Caller)
	old, err := s.store.State(ctx, key)
	if err != nil {
		return nil, suspension{}, err
	}
	if old != nil {
		kept, err := parseSuspension(old)
		return nil, kept, err
	}
	row, err := json.Marshal(next)
	return &tokenizer.StateChange{Key: key, New: row}, next, err
}

func parseSuspension(row []byte) (kept suspension, err error) {
	if err = json.Unmarshal(row, &kept); err != nil {
		err = fmt.Errorf("%w: a suspension doesn't parse", tokenizer.ErrDamaged)
	}
	return kept, err
}

// barred returns errSuspended, and records that, if the caller of a call is kept out.
func (s *Server) barred(c *call) error {
	if !s.suspended.has(c.event.Caller) {
		return nil
	}
	c.event.Decision = audit.Deny
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
	if err != nil || change == nil {
		return false, err
	}
	c.unit.States = append(c.unit.States, *change)
	c.event.AboutCaller = c.event.Caller
	return true, nil
}
