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
// A rule allows, unless its effect is another; what no rule allows is denied, so a
// file with "rules: []" denies everything. A rule allows each of its callers each of
// its actions on each of its profiles for each of its purposes; nothing is pieced
// together from several rules. Callers are identities in one of the three forms that
// ValidateCaller describes, patterns of them, or groups.
//
// A rule may have conditions, such as networks, times or a CEL expression; it then
// allows only what meets all of them. Rules whose effect is deny win over all that
// allow; those whose effect is oblige put duties and bounds on what others allow.
// Whatever can't be found out is denied.
//
// What an action is decides what a rule about it must say: see ActionKind.
package policy

import "slices"

// Policy is a set of rules made ready for decisions. It never changes, and it
// is safe for concurrent use.
type Policy struct {
	hash   string
	tables *tables

	// The rest is for explanations.

	file     string
	text     []byte
	groups   map[string]*group
	rules    []rule
	byName   map[string]*rule
	actions  map[string]ActionKind
	traits   map[string]ActionTraits
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

	// DeniedByRule says that a rule denies it, whatever others allow.
	DeniedByRule Reason = "DENIED_BY_RULE"

	// ConditionNotMet says that there are rules that would allow it, but not from
	// there, not now, not for this token, or not as their expression says.
	ConditionNotMet Reason = "CONDITION_NOT_MET"

	// ConditionFailed says that it can't be found out whether the conditions of a
	// rule are met. Nothing is allowed then, and what the rule denies is denied.
	ConditionFailed Reason = "CONDITION_FAILED"

	// ReasonRequired says that the caller has to state a reason, of a certain form.
	ReasonRequired Reason = "REASON_REQUIRED"

	// ConsentIsWithdrawn says that the person whom it is about doesn't consent to the
	// purpose any more, and ConsentMissing that the person never has.
	ConsentIsWithdrawn Reason = "CONSENT_WITHDRAWN"
	ConsentMissing     Reason = "CONSENT_MISSING"

	// TooManyRules says that patterns of several rules match the caller which together
	// come to more than a policy may, so that nothing is allowed.
	TooManyRules Reason = "TOO_MANY_RULES"

	// RevealAmbiguous says that such rules grant several parts and neither
	// Masked nor Full, so that the caller must name the one it wants.
	RevealAmbiguous Reason = "REVEAL_AMBIGUOUS"
)

// Decision is what the policy says to a Request. The zero Decision denies.
type Decision struct {
	// Allowed says whether the caller may; if Pending, whether it may as far as can be
	// told before the token is known.
	Allowed bool

	// Pending says that it depends on the token. Decide again with it; until then
	// nothing may be done but to look it up. It is false unless Allowed.
	Pending bool

	// Reason says why not. It is empty when Allowed.
	Reason Reason

	// Rule names the rule that has decided: of those that grant what is given, the
	// first of the file; or the one that denies. It is empty if it is denied since no
	// rule allows it, and while it is Pending.
	Rule string

	// Reveal is the form that the caller gets to see. It is Unspecified unless
	// the action is a RevealAction and Allowed. While it is Pending, it is the most
	// that it may come to; Unspecified then, if the request names no form and may be
	// given one of several, none of which is Full. Nothing may be revealed by it.
	Reveal Reveal

	duties Duties
}

// Duties returns what a decision that allows demands. It is valid for as long as d is.
func (d *Decision) Duties() *Duties { return &d.duties }

// May says whether any rule at all allows the caller the action, and which is
// the first of the file that does. It is only good for refusing early.
func (p *Policy) May(caller, namespace, action string) (rule string, ok bool) {
	rule, ok = p.tables.of(namespace, caller).actions[action]
	return rule, ok
}

// Decide decides a request. It doesn't allocate unless rules about it have
// expressions, and what it costs doesn't grow with the number of rules that are not
// about it.
//
// A rule that denies comes first, wherever it stands in the file; then those that
// oblige; then those that allow, as far as all their conditions are met.
//
// For a RevealAction, the rules that match the caller, the action, the profile
// and the purpose are looked at together. A form that is named is given if any
// of them grants it or Full; whether values of the profile have it is for the
// server to know. A request that leaves Reveal Unspecified is given Full, if any
// of them grants it, else Masked, if any does, else the part that they grant, if
// it is only one.
func (p *Policy) Decide(r Request) Decision {
	t := p.tables.of(r.namespace(), r.Caller)
	if t.tooMuch {
		return Decision{Reason: TooManyRules}
	}
	kind := p.actions[r.Action]
	at := target{r.Action, r.Profile}
	if kind == PlainAction {
		at.profile = ""
	}
	found, ok := t.targets[at]
	if !ok {
		return Decision{Reason: NoRule}
	}
	set := found.any
	if kind == RevealAction {
		if set = found.purposes[r.Purpose]; set == nil {
			return Decision{Reason: PurposeNotAllowed}
		}
	}
	return set.decide(&r)
}
