// Package policy says who may do what with which data, for which purpose and
// to which extent, and by which rule.
//
// A policy is a YAML file of named rules, beside the configuration:
//
//	version: 1
//	rules:
//	  - name: payments-charge
//	    description: Charge and refund cards. # optional
//	    callers: ["spiffe://coatcheck.example/payments"]
//	    actions: [detokenize]
//	    profiles: [card]
//	    purposes: [charge, refund]
//	    reveal: FULL # or a list, as in [MASKED, LAST4]
//
// Every rule allows; what no rule allows is denied, so a file with "rules: []"
// denies everything. A rule allows each of its callers each of its actions on
// each of its profiles for each of its purposes; nothing is pieced together
// from several rules. Callers are exact identities in one of the three forms
// that ValidateCaller describes.
//
// What an action is decides what a rule about it must say: see ActionKind.
package policy

import "slices"

// Policy is a set of rules made ready for decisions. It never changes, and it
// is safe for concurrent use.
type Policy struct {
	hash    string
	callers map[string]*table

	// The rest is for explanations.

	file     string
	rules    []rule
	actions  map[string]ActionKind
	profiles map[string]ProfileVocabulary
	notes    problems
}

// Hash returns the SHA-256 hash of the file's bytes, in hexadecimal. Two
// servers with the same hash and the same vocabulary decide alike.
func (p *Policy) Hash() string { return p.hash }

// Notes returns what is to be noted about the file though it is good: what its
// rules allow in vain. It is nil if there is nothing, and else like the error of
// Parse.
func (p *Policy) Notes() error {
	notes := problems{file: p.notes.file, list: slices.Clone(p.notes.list), more: p.notes.more}
	return notes.err()
}

// Request is what is to be decided.
type Request struct {
	// Caller is the identity of the caller, in a form of ValidateCaller.
	Caller string

	// Action is the name of what the caller wants to do.
	Action string

	// Profile is the name of the profile. It doesn't matter to a PlainAction.
	Profile string

	// Purpose says what for, and Reveal in which form: Unspecified leaves the
	// choice to the policy. They only matter to a RevealAction.
	Purpose string
	Reveal  Reveal
}

// Reason says in a machine-readable form why something is denied. It is empty
// when it is allowed.
type Reason string

// Reasons.
const (
	// NoRule says that no rule allows the caller the action on the profile,
	// whatever the purpose.
	NoRule Reason = "NO_RULE"

	// PurposeNotAllowed says that there are such rules, but none for the
	// purpose.
	PurposeNotAllowed Reason = "PURPOSE_NOT_ALLOWED"

	// RevealNotAllowed says that there are such rules for the purpose too, but
	// that none grants the form that was asked for.
	RevealNotAllowed Reason = "REVEAL_NOT_ALLOWED"

	// RevealAmbiguous says that such rules grant several parts and neither
	// Masked nor Full, so that the caller must name the one it wants.
	RevealAmbiguous Reason = "REVEAL_AMBIGUOUS"
)

// Decision is what the policy says to a Request. The zero Decision denies.
type Decision struct {
	// Allowed says whether the caller may.
	Allowed bool

	// Reason says why not. It is empty when Allowed.
	Reason Reason

	// Rule names the rule that allows: of those that grant what is given, the
	// first of the file. It is empty unless Allowed.
	Rule string

	// Reveal is the form that the caller gets to see. It is Unspecified unless
	// the action is a RevealAction and Allowed.
	Reveal Reveal
}

// May says whether any rule at all allows the caller the action, and which is
// the first of the file that does. For a PlainAction that is the decision; for
// any other it is only good for refusing early.
func (p *Policy) May(caller, action string) (rule string, ok bool) {
	t, ok := p.callers[caller]
	if !ok {
		return "", false
	}
	a, ok := t.actions[action]
	return a.rule, ok
}

// Decide decides a request. It doesn't allocate, and what it costs doesn't
// grow with the number of rules.
//
// For a RevealAction, the rules that match the caller, the action, the profile
// and the purpose are looked at together. A form that is named is given if any
// of them grants it or Full; whether values of the profile have it is for the
// server to know. A request that leaves Reveal Unspecified is given Full, if any
// of them grants it, else Masked, if any does, else the part that they grant, if
// it is only one.
func (p *Policy) Decide(r Request) Decision {
	t, ok := p.callers[r.Caller]
	if !ok {
		return Decision{Reason: NoRule}
	}
	a, ok := t.actions[r.Action]
	if !ok {
		return Decision{Reason: NoRule}
	}
	if a.kind == PlainAction {
		return Decision{Allowed: true, Rule: a.rule}
	}
	g, ok := t.grants[target{r.Action, r.Profile}]
	if !ok {
		return Decision{Reason: NoRule}
	}
	if a.kind == ProfileAction {
		return Decision{Allowed: true, Rule: g.rule}
	}
	reveal, ok := g.purposes[r.Purpose]
	if !ok {
		return Decision{Reason: PurposeNotAllowed}
	}
	return reveal.decide(r.Reveal)
}
