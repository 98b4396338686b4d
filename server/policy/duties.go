package policy

import (
	"math/bits"
	"slices"
	"time"
)

// Limits bound what a rule lets one caller do. A zero field is no bound.
type Limits struct {
	Rule string // whose limits they are

	// ItemsPerSecond and ItemsPerMinute bound the rate: each is a bucket of so many,
	// full at first, that fills up in a second, or a minute.
	ItemsPerSecond, ItemsPerMinute uint64

	// ValuesPerHour and ValuesPerDay are budgets of values that are revealed in
	// another form than Masked, in an hour and a day of UTC.
	ValuesPerHour, ValuesPerDay uint64

	// SubjectsPerHour and SubjectsPerDay are budgets of different subjects, of whom
	// such values are.
	SubjectsPerHour, SubjectsPerDay uint64
}

// Approval is what somebody else has to grant before a rule allows anything.
type Approval struct {
	Rule     string // whose approval it is
	For      time.Duration
	MaxItems uint64 // how many values a grant is good for

	approvers callerSet
}

// ApprovedBy says whether a caller may grant it to another. Nobody grants anything to
// themselves.
func (a *Approval) ApprovedBy(approver, caller string) bool {
	return approver != caller && a.approvers.has(approver)
}

// Approvers returns who may grant it, as the file has it.
func (a *Approval) Approvers() []string { return a.approvers.names }

// NeedsApproval returns the approvals of the rules, in the order of the file, that would
// allow a request with one if their other conditions were met. A profile and a purpose
// that are "", and a form that is Unspecified, don't matter.
func (p *Policy) NeedsApproval(q Request) (all []*Approval) {
	for i := range p.rules {
		if r := &p.rules[i]; r.approval != nil && r.mayBeFor(&q, p.actions[q.Action]) {
			all = append(all, r.approval)
		}
	}
	return all
}

// NeedsApprovalBy is NeedsApproval for one rule alone; nil if it isn't one of those.
func (p *Policy) NeedsApprovalBy(rule string, q Request) *Approval {
	if r, ok := p.byName[rule]; ok && r.approval != nil && r.mayBeFor(&q, p.actions[q.Action]) {
		return r.approval
	}
	return nil
}

// mayBeFor says whether a rule names all of a request that matters.
func (r *rule) mayBeFor(q *Request, kind ActionKind) bool {
	if !r.callers.has(q.Caller) || !slices.Contains(r.namespaces, q.namespace()) || !slices.Contains(r.actions, q.Action) {
		return false
	}
	if q.Profile != "" && !slices.Contains(r.profiles, q.Profile) {
		return false
	}
	return kind != RevealAction || (q.Purpose == "" || slices.Contains(r.purposes, q.Purpose)) && (q.Reveal == Unspecified || r.reveal.has(q.Reveal))
}

// Duties is what a decision that allows asks of the server. The zero Duties asks
// nothing.
type Duties struct {
	allow *rule    // the one that allows
	set   *ruleSet // of the target
	met   uint64   // which of its rules that oblige apply
}

// Any says whether there are any.
func (d *Duties) Any() bool {
	return d.met != 0 || d.allow != nil && (d.allow.limits != nil || d.allow.approval != nil || d.allow.notify)
}

// Notify says whether an alert is to be raised.
func (d *Duties) Notify() bool {
	if d.allow != nil && d.allow.notify {
		return true
	}
	for met := d.met; met != 0; met &= met - 1 {
		if d.set.obliging[bits.TrailingZeros64(met)].notify {
			return true
		}
	}
	return false
}

// Approval returns the approval that is needed, nil if none is.
func (d *Duties) Approval() *Approval {
	if d.allow == nil {
		return nil
	}
	return d.allow.approval
}

// Limits appends the limits that apply.
func (d *Duties) Limits(to []*Limits) []*Limits {
	if d.allow != nil && d.allow.limits != nil {
		to = append(to, d.allow.limits)
	}
	for met := d.met; met != 0; met &= met - 1 {
		if l := d.set.obliging[bits.TrailingZeros64(met)].limits; l != nil {
			to = append(to, l)
		}
	}
	return to
}

// obligedBy returns the names of the rules that oblige.
func (d *Duties) obligedBy() (names []string) {
	for met := d.met; met != 0; met &= met - 1 {
		names = append(names, d.set.obliging[bits.TrailingZeros64(met)].name)
	}
	return names
}
