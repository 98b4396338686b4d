package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Bounds of approvals.
const (
	// pendingTime is how long a request can be decided on.
	pendingTime = 24 * time.Hour

	// keptTime is how long what is over is kept.
	keptTime = 30 * 24 * time.Hour

	// maxPending is how many requests of one caller are pending at once.
	maxPending = 20
)

// approvalState is what has become of a request. What it is now depends on the time too:
// see approval.at.
type approvalState string

const (
	approvalPending approvalState = "pending"
	approvalGranted approvalState = "granted"
	approvalDenied  approvalState = "denied"
	approvalEnded   approvalState = "ended"
)

// approval is a request for approval and what has become of it, as JSON in a state. Its
// times are in UTC.
type approval struct {
	ID          string        `json:"id"`
	State       approvalState `json:"state"`
	Requester   string        `json:"requester"`
	Certificate string        `json:"certificate"` // of the requester
	Rule        string        `json:"rule"`
	Action      string        `json:"action"`
	Profile     string        `json:"profile,omitempty"` // "" for any of the rule's
	Purpose     string        `json:"purpose,omitempty"` // likewise
	Reason      string        `json:"reason,omitempty"`
	Items       uint64        `json:"items"` // that are asked for
	Filed       time.Time     `json:"filed"`
	Expires     time.Time     `json:"expires"` // undecided, or the grant: whole seconds

	DecidedBy    string    `json:"decided_by,omitempty"`
	Decided      time.Time `json:"decided,omitzero"`
	DecideReason string    `json:"decide_reason,omitempty"`
	Granted      uint64    `json:"granted,omitempty"` // items

	EndedBy   string    `json:"ended_by,omitempty"`
	Ended     time.Time `json:"ended,omitzero"`
	EndReason string    `json:"end_reason,omitempty"`
}

// at returns the state at a time.
func (a *approval) at(now time.Time) approvalState {
	if (a.State == approvalPending || a.State == approvalGranted) && !now.Before(a.Expires) {
		return approvalEnded
	}
	return a.State
}

// over returns when it was or will be over, at the latest.
func (a *approval) over() time.Time {
	switch a.State {
	case approvalDenied:
		return a.Decided
	case approvalEnded:
		return a.Ended
	}
	return a.Expires
}

// grant returns what is granted by it.
func (a *approval) grant() grant {
	return grant{ID: a.ID, Action: a.Action, Profile: a.Profile, Purpose: a.Purpose, By: a.DecidedBy, Since: a.Decided, Expires: a.Expires, Items: a.Granted}
}

const (
	approvalPrefix = "approval/"
	pendingPrefix  = "approval-pending/"
)

// newApprovalID returns 32 random hexadecimal digits.
func newApprovalID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// validApprovalID says whether a text can be an id.
func validApprovalID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == 16 && strings.ToLower(id) == id
}

// approvals are the requests and grants of a store. It is safe for concurrent use.
type approvals struct {
	store     tokenizer.Store
	suspended *suspensions
	now       func() time.Time

	mu    sync.Mutex
	swept string // up to which key what is long over has been looked for
}

// find returns a request and the row that it is kept in.
func (a *approvals) find(ctx context.Context, id string) (found approval, row []byte, err error) {
	if !validApprovalID(id) {
		return approval{}, nil, errApprovalNotFound
	}
	if row, err = a.store.State(ctx, approvalPrefix+id); err != nil {
		return approval{}, nil, err
	}
	if row == nil {
		return approval{}, nil, errApprovalNotFound
	}
	found, err = parseRow[approval]("an approval", row)
	return found, row, err
}

// file adds a request to a unit, and what removes some that have long been over.
//
// Errors: errTooManyApprovals, tokenizer.ErrDamaged, tokenizer.ErrUnavailable.
func (a *approvals) file(ctx context.Context, next approval, unit *tokenizer.Unit) error {
	if err := a.pend(ctx, &next, unit); err != nil {
		return err
	}
	unit.States = append(unit.States, tokenizer.StateChange{Key: approvalPrefix + next.ID, New: encodeRow(next)})
	return a.sweep(ctx, next.Filed, unit)
}

// turn adds to a unit that a request, which is kept in a row, becomes another.
func (a *approvals) turn(ctx context.Context, row []byte, from, to approval, unit *tokenizer.Unit) error {
	unit.States = append(unit.States, tokenizer.StateChange{Key: approvalPrefix + to.ID, Old: row, New: encodeRow(to)})
	if from.State == approvalPending {
		if err := a.settle(ctx, &to, unit); err != nil {
			return err
		}
	}
	if to.State == approvalGranted {
		unit.States = append(unit.States, tokenizer.StateChange{Key: to.grantKey(), New: encodeRow(to.grant())})
	}
	if from.State != approvalGranted {
		return nil
	}
	return a.ungrant(ctx, &from, unit)
}

// ungrant adds to a unit that a grant is no more, if there is one.
func (a *approvals) ungrant(ctx context.Context, of *approval, unit *tokenizer.Unit) error {
	old, err := a.store.State(ctx, of.grantKey())
	if err == nil && old != nil {
		unit.States = append(unit.States, tokenizer.StateChange{Key: of.grantKey(), Old: old})
	}
	return err
}

// pendingRow is a request of a caller that may be pending. All of one caller are in one
// row, so that two that are filed at once are counted.
type pendingRow struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

// pend adds to a unit that a request is one of those of its caller that are pending.
func (a *approvals) pend(ctx context.Context, next *approval, unit *tokenizer.Unit) error {
	return a.changePending(ctx, next.Requester, unit, func(rows []pendingRow) ([]pendingRow, error) {
		kept := make([]pendingRow, 0, len(rows)+1)
		for _, r := range rows {
			if next.Filed.Before(r.Expires) {
				kept = append(kept, r)
			}
		}
		if len(kept) >= maxPending {
			return nil, errTooManyApprovals
		}
		return append(kept, pendingRow{next.ID, next.Expires}), nil
	})
}

// settle adds to a unit that a request isn't pending any more.
func (a *approvals) settle(ctx context.Context, done *approval, unit *tokenizer.Unit) error {
	return a.changePending(ctx, done.Requester, unit, func(rows []pendingRow) (left []pendingRow, _ error) {
		for _, r := range rows {
			if r.ID != done.ID {
				left = append(left, r)
			}
		}
		return left, nil
	})
}

func (a *approvals) changePending(ctx context.Context, caller string, unit *tokenizer.Unit, change func([]pendingRow) ([]pendingRow, error)) error {
	c := tokenizer.StateChange{Key: pendingPrefix + callerDigest(caller)}
	var err error
	if c.Old, err = a.store.State(ctx, c.Key); err != nil {
		return err
	}
	var rows []pendingRow
	if c.Old != nil {
		if rows, err = parseRow[[]pendingRow]("a list of what is pending", c.Old); err != nil {
			return err
		}
	}
	if rows, err = change(rows); err != nil {
		return err
	}
	if len(rows) > 0 {
		c.New = encodeRow(rows)
	}
	if c.Old != nil || c.New != nil {
		unit.States = append(unit.States, c)
	}
	return nil
}

// sweepStretch is how many rows are looked at when a request is filed, for those to
// remove. It is so much more than the one that is added that none stays for long.
const sweepStretch = 64

// sweep adds to a unit what removes requests that have long been over. Each call looks
// at a stretch of its own.
func (a *approvals) sweep(ctx context.Context, now time.Time, unit *tokenizer.Unit) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rows, err := a.store.ListStates(ctx, approvalPrefix, a.swept, sweepStretch)
	if err != nil {
		return err
	}
	a.swept = ""
	if len(rows) == sweepStretch {
		a.swept = rows[len(rows)-1].Key
	}
	for _, row := range rows {
		old, err := parseRow[approval]("an approval", row.Value)
		if err != nil || now.Before(old.over().Add(keptTime)) {
			continue // what doesn't parse is told to who asks for it
		}
		unit.States = append(unit.States, tokenizer.StateChange{Key: row.Key, Old: row.Value})
		if old.State == approvalGranted {
			if err := a.ungrant(ctx, &old, unit); err != nil {
				return err
			}
		}
	}
	return nil
}
