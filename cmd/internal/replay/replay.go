// Package replay decides again what has been decided, by two policies, and says where
// they differ. It reads audit events; no value is asked for.
package replay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/server/policy"
)

// MaxRows is how many different changes there can be.
const MaxRows = 100_000

// ErrRows says that there are more than MaxRows.
var ErrRows = errors.New("replay: too many different changes")

// Change is a decision that differs, of a caller, an action, a profile and a purpose.
type Change struct {
	Caller, Action, Profile, Purpose string
	Old, New                         string // "allow", "allow FULL", "deny NO_RULE", Token or Call
	Count                            uint64
	First, Last                      time.Time // of the calls
}

// What a decision is called that can't be told from an event alone.
const (
	Token = "depends on the token"   // on its metadata, its times or its subject's consent
	Call  = "depends on the request" // of which the server had not read more when it refused it
)

// Result is what has been found.
type Result struct {
	Events    uint64 // in which a decision was made
	Decisions uint64
	Changed   uint64
	Undecided uint64   // that depend on the token, or the request, by both policies
	Unknown   uint64   // whose profile or action there is no more
	Changes   []Change // the most frequent first
}

// Replay compares two policies. It is not for concurrent use.
type Replay struct {
	old, new *policy.Policy
	about    policy.Vocabulary
	result   Result
	rows     map[row]*span
	most     int // rows
	event    event
}

// New returns a Replay of two policies that were read with the same vocabulary.
func New(old, new *policy.Policy, v policy.Vocabulary) *Replay {
	return &Replay{old: old, new: new, about: v, rows: make(map[row]*span), most: MaxRows}
}

// row is what is counted together.
type row struct {
	caller, action, profile, purpose string
	old, new                         outcome
}

type span struct {
	count       uint64
	first, last time.Time
}

// event is what of an audit event matters to a decision.
type event struct {
	Time         time.Time `json:"time"`
	Caller       string    `json:"caller"`
	Peer         string    `json:"peer"`
	Method       string    `json:"method"`
	Action       string    `json:"action"`
	Namespace    string    `json:"namespace"`
	Profile      string    `json:"profile"`
	Purpose      string    `json:"purpose"`
	Reveal       string    `json:"reveal"`
	Decision     string    `json:"decision"`
	StatedReason string    `json:"stated_reason"`
	Items        []item    `json:"items"`
}

type item struct {
	Profile      string `json:"profile"`
	Purpose      string `json:"purpose"`
	Reveal       string `json:"reveal"`
	Decision     string `json:"decision"`
	StatedReason string `json:"stated_reason"`
}

// Add decides again what an audit event tells of, of which it takes the JSON. Errors:
// ErrRows, or that of the JSON.
func (r *Replay) Add(body []byte) error {
	e := &r.event
	clear(e.Items) // else what an item leaves out would be that of another event
	*e = event{Items: e.Items[:0]}
	if err := json.Unmarshal(body, e); err != nil {
		return fmt.Errorf("replay: an event can't be read: %w", err)
	}
	if e.Caller == "" || e.Method == "" { // the system itself, or nobody
		return nil
	}
	before := r.result.Decisions + r.result.Unknown
	items := e.Items
	if !r.about.Traits[e.Action].Token || len(items) == 0 { // one decision about all of it
		items = []item{{}}
	}
	for i := range items {
		if err := r.decide(e, &items[i], len(items)); err != nil {
			return err
		}
	}
	if r.result.Decisions+r.result.Unknown > before {
		r.result.Events++
	}
	return nil
}

// decide decides again about an item of a call.
func (r *Replay) decide(e *event, i *item, items int) error {
	if cmp.Or(i.Decision, e.Decision) == "" {
		return nil // nobody was asked
	}
	q := policy.Request{
		Caller: e.Caller, Action: e.Action, Namespace: cmp.Or(e.Namespace, policy.DefaultNamespace), Profile: cmp.Or(i.Profile, e.Profile), Purpose: cmp.Or(i.Purpose, e.Purpose),
		StatedReason: cmp.Or(i.StatedReason, e.StatedReason), Time: e.Time, Items: items,
	}
	q.Reveal, _ = policy.ParseReveal(cmp.Or(i.Reveal, e.Reveal))
	if peer, err := netip.ParseAddrPort(e.Peer); err == nil {
		q.Address = peer.Addr().Unmap()
	}
	kind, known := r.about.Actions[q.Action]
	if _, ok := r.about.Profiles[q.Profile]; !known || !ok && q.Profile != "" {
		r.result.Unknown++
		return nil
	}
	r.result.Decisions++
	var old, new outcome
	if kind != policy.PlainAction && q.Profile == "" {
		old, new = atAll(r.old, &q), atAll(r.new, &q)
	} else {
		old, new = decided(r.old, q), decided(r.new, q)
	}
	switch {
	case old != new:
		return r.count(row{q.Caller, q.Action, q.Profile, q.Purpose, old, new}, e.Time)
	case old.open != "":
		r.result.Undecided++
	}
	return nil
}

// count counts a change.
func (r *Replay) count(at row, now time.Time) error {
	r.result.Changed++
	s, ok := r.rows[at]
	if !ok {
		if len(r.rows) == r.most {
			return ErrRows
		}
		s = &span{first: now, last: now}
		r.rows[at] = s
	}
	s.count++
	if now.Before(s.first) {
		s.first = now
	}
	if now.After(s.last) {
		s.last = now
	}
	return nil
}

// Result returns what has been found.
func (r *Replay) Result() Result {
	found := r.result
	for at, s := range r.rows {
		found.Changes = append(found.Changes, Change{
			at.caller, at.action, at.profile, at.purpose, at.old.String(), at.new.String(), s.count, s.first, s.last,
		})
	}
	slices.SortFunc(found.Changes, func(a, b Change) int {
		return cmp.Or(
			-cmp.Compare(a.Count, b.Count), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Action, b.Action),
			cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Purpose, b.Purpose), cmp.Compare(a.Old, b.Old), cmp.Compare(a.New, b.New),
		)
	})
	return found
}

// outcome is a decision as far as it matters to the caller.
type outcome struct {
	open     string // Token or Call, if it can't be told
	allowed  bool
	approval bool // somebody has to approve
	reveal   policy.Reveal
	reason   policy.Reason
}

// decided asks a policy.
func decided(p *policy.Policy, q policy.Request) outcome {
	d := p.Decide(q)
	if d.Pending {
		return outcome{open: Token}
	}
	return outcome{allowed: d.Allowed, approval: d.Duties().Approval() != nil, reveal: d.Reveal, reason: d.Reason}
}

// atAll asks a policy whether a caller may do something at all.
func atAll(p *policy.Policy, q *policy.Request) outcome {
	if _, ok := p.May(q.Caller, q.Namespace, q.Action); ok {
		return outcome{open: Call}
	}
	return outcome{reason: policy.NoRule}
}

// String says it as Change has it.
func (o outcome) String() string {
	if o.open != "" {
		return o.open
	}
	if !o.allowed {
		return "deny " + string(o.reason)
	}
	text := "allow"
	if o.reveal != policy.Unspecified {
		text += " " + o.reveal.String()
	}
	if o.approval {
		text += " after approval"
	}
	return text
}
