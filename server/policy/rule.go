package policy

import (
	"iter"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Effect is what a rule does to what it matches.
type Effect string

// Effects.
const (
	// Allow: it may be done.
	Allow Effect = "allow"

	// Deny: it may not, whatever other rules allow.
	Deny Effect = "deny"

	// Oblige: if another rule allows it, then only as this one says.
	Oblige Effect = "oblige"
)

// rule is a rule of the file. It is about each combination of what it names. What a
// rule that allows leaves out it doesn't allow; what one that denies or obliges leaves
// out doesn't matter to it.
type rule struct {
	line, column int
	name         string
	effect       Effect
	callers      callerSet
	actions      []string
	namespaces   []string
	classes      []string // of profiles, all of which are in profiles
	profiles     []string
	purposes     []string
	reveal       forms // what is allowed, or denied; none if it doesn't matter

	// Conditions, all of which have to be met.

	metadata    []label
	networks    []netip.Prefix
	from, until time.Time // zero stands for no bound
	when        *condition
	reason      *regexp.Regexp // of one that obliges it is no condition, but what it demands
	consent     consentRule

	// Duties.

	atMost   forms // none if it doesn't matter
	notify   bool
	limits   *Limits
	approval *Approval
}

// label is what the metadata of a token has to have: one of the values under the key.
type label struct {
	key    string
	values []string
}

// consentRule says what a rule that allows makes of the subject's consent.
type consentRule string

const (
	consentRespect consentRule = "respect" // it doesn't allow what is not consented to any more
	consentRequire consentRule = "require" // nor what was never consented to
	consentIgnore  consentRule = "ignore"  // there is another ground for it
)

// verdict says whether the conditions of a rule are met.
type verdict uint8

const (
	no      verdict = iota
	yes             //
	unknown         // that depends on the token, of which nothing is known yet
	failed          // that can't be found out
)

// conditional says whether it takes more than a match for the rule to apply, consent
// that is respected where consents are kept apart.
func (r *rule) conditional() bool {
	return len(r.metadata) > 0 || len(r.networks) > 0 || r.timed() || r.when != nil ||
		r.effect == Allow && (r.reason != nil || r.consent == consentRequire)
}

// meets says whether a request meets the conditions of the rule, and if not, which
// reason there is to deny it.
func (r *rule) meets(q *Request, kind ActionKind) (verdict, Reason) {
	if len(r.networks) > 0 && !q.Address.IsValid() || r.timed() && q.Time.IsZero() {
		return failed, ConditionFailed
	}
	if !r.inNetwork(q.Address) || !r.inForce(q.Time) {
		return no, ConditionNotMet
	}
	if r.effect == Allow && r.reason != nil && !r.stated(q) {
		return no, ReasonRequired
	}
	switch v := r.meetsToken(q); v {
	case yes:
	case failed:
		return v, ConditionFailed
	default:
		return v, ConditionNotMet
	}
	if r.effect == Allow && kind == RevealAction {
		return r.consented(q)
	}
	return yes, ""
}

// meetsToken looks at the conditions that may be about the token.
func (r *rule) meetsToken(q *Request) verdict {
	if r.when != nil {
		if q.Token == nil && r.when.needsToken {
			return unknown
		}
		switch is, err := r.when.met(q); {
		case err != nil:
			return failed
		case !is:
			return no
		}
	}
	return r.hasLabels(q)
}

// hasLabels says whether the token has the labels that the rule is about.
func (r *rule) hasLabels(q *Request) verdict {
	switch {
	case len(r.metadata) == 0:
		return yes
	case q.Token == nil:
		return unknown
	}
	labels, err := q.Token.Metadata()
	if err != nil {
		return failed
	}
	for _, want := range r.metadata {
		if value, ok := labels[want.key]; !ok || !slices.Contains(want.values, value) {
			return no
		}
	}
	return yes
}

// consented says whether the subject's consent allows it.
func (r *rule) consented(q *Request) (verdict, Reason) {
	if r.consent == consentIgnore || (r.consent == consentRespect && !q.Consents) {
		return yes, ""
	}
	if q.Token == nil {
		return unknown, ""
	}
	consent, err := q.Token.Consent(q.Purpose)
	switch {
	case err != nil:
		return failed, ConditionFailed
	case consent == ConsentWithdrawn:
		return no, ConsentIsWithdrawn
	case consent == NoConsent && r.consent == consentRequire:
		return no, ConsentMissing
	}
	return yes, ""
}

func (r *rule) inNetwork(address netip.Addr) bool {
	if len(r.networks) == 0 {
		return true
	}
	address = address.Unmap().WithZone("")
	for _, network := range r.networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// timed says whether the rule is in force for a time only.
func (r *rule) timed() bool { return !r.from.IsZero() || !r.until.IsZero() }

func (r *rule) inForce(now time.Time) bool {
	return (r.from.IsZero() || !now.Before(r.from)) && (r.until.IsZero() || now.Before(r.until))
}

// stated says whether the caller has stated a reason that will do.
func (r *rule) stated(q *Request) bool {
	return q.StatedReason != "" && r.reason.MatchString(q.StatedReason)
}

// about says whether a rule that denies or obliges is about a target. A profile "" is
// that of an action that is about none.
func (r *rule) about(namespace, action, profile string) bool {
	return inOrAny(r.namespaces, namespace) && inOrAny(r.actions, action) && inOrAny(r.profiles, profile)
}

// actionsIn goes through the actions that a rule allows in a namespace.
func (r *rule) actionsIn(namespace string, kinds map[string]ActionKind) iter.Seq2[string, ActionKind] {
	return func(yield func(string, ActionKind) bool) {
		if !slices.Contains(r.namespaces, namespace) {
			return
		}
		for _, action := range r.actions {
			if !yield(action, kinds[action]) {
				return
			}
		}
	}
}

// inOrAny says whether a list has an element, or is empty.
func inOrAny(list []string, element string) bool {
	return len(list) == 0 || slices.Contains(list, element)
}
