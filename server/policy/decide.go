package policy

import "math/bits"

// ruleSet is what the rules say about one target: of a caller, an action, a profile
// and a purpose, as far as they matter to the action. The lists are in the order of
// the file.
type ruleSet struct {
	kind     ActionKind
	whole    bool // it gives values away, whole, though none is named
	denying  []*rule
	obliging []*rule // at most maxObliging
	allowing []*rule // at most maxAllowing
	granted  forms   // by all that allow
	simple   bool    // nothing but rules that allow, without conditions
}

// decide decides about a request for the target.
func (s *ruleSet) decide(q *Request) Decision {
	if s.simple && !(q.Consents && s.kind == RevealAction) {
		return s.decideSimply(q.Reveal)
	}
	d := Decision{duties: Duties{set: s}}
	out, ok := s.restrict(q, &d)
	switch {
	case !ok:
		return d
	case s.kind == RevealAction:
		return s.allowForm(q, d, out)
	case s.whole && out.has(Full):
		return s.outBy(q, out)
	}
	return s.allow(q, d)
}

// decideSimply decides by rules that have no conditions.
func (s *ruleSet) decideSimply(asked Reveal) Decision {
	if s.kind != RevealAction {
		return s.allowing[0].allows(Decision{})
	}
	if asked == Unspecified {
		var ok bool
		if asked, ok = s.granted.choice(); !ok {
			return Decision{Reason: RevealAmbiguous}
		}
	}
	for _, r := range s.allowing {
		if r.reveal.has(asked) {
			return r.allows(Decision{Reveal: asked})
		}
	}
	return Decision{Reason: RevealNotAllowed}
}

// allows makes d one by which the rule allows.
func (r *rule) allows(d Decision) Decision {
	d.Allowed, d.Reason, d.Rule, d.duties.allow = true, "", r.name, r
	return d
}

// denies makes d one by which the rule, which has decided it, denies.
func (r *rule) denies(d *Decision, why Reason) bool {
	*d = Decision{Reason: why, Rule: r.name}
	return false
}

// restrict asks the rules that deny and oblige. It returns which forms are out of the
// question; or false, if d denies.
func (s *ruleSet) restrict(q *Request, d *Decision) (out forms, ok bool) {
	pending := false
	for _, r := range s.denying {
		switch v, _ := r.meets(q, s.kind); {
		case v == no:
		case v == unknown:
			pending = true
		case r.reveal != 0: // what can't be found out denies too
			out |= r.reveal
		case v == failed:
			return 0, r.denies(d, ConditionFailed)
		default:
			return 0, r.denies(d, DeniedByRule)
		}
	}
	for i, r := range s.obliging {
		switch v, _ := r.meets(q, s.kind); {
		case v == no:
		case v == unknown:
			pending = true
		case v == failed:
			return 0, r.denies(d, ConditionFailed)
		case r.reason != nil && !r.stated(q):
			return 0, r.denies(d, ReasonRequired)
		default:
			d.duties.met |= 1 << i
			if r.atMost != 0 {
				out |= allForms &^ r.atMost
			}
		}
	}
	d.Pending = pending
	return out, true
}

// allow asks the rules that allow an action that reveals nothing. The first decides.
func (s *ruleSet) allow(q *Request, d Decision) Decision {
	why := NoRule
	for _, r := range s.allowing {
		switch v, reason := r.meets(q, s.kind); v {
		case yes, unknown:
			if d.Pending = d.Pending || v == unknown; d.Pending {
				d.Allowed = true
				return d
			}
			return r.allows(d)
		default:
			why = nearer(why, reason)
		}
	}
	return Decision{Reason: why}
}

// allowForm asks the rules that allow something to be revealed, for what is not out of
// the question.
func (s *ruleSet) allowForm(q *Request, d Decision, out forms) Decision {
	var applies [maxAllowing / 64]uint64
	var granted, maybe forms // by those that apply, and by those that may
	why := RevealNotAllowed
	for i, r := range s.allowing {
		has := r.reveal &^ out
		if q.Reveal != Unspecified && !has.has(q.Reveal) || has == 0 {
			continue
		}
		switch v, reason := r.meets(q, s.kind); v {
		case yes:
			granted |= has
			applies[i/64] |= 1 << (i % 64)
		case unknown:
			maybe |= has
		default:
			why = nearer(why, reason)
		}
	}
	restricted := d.Pending
	d.Pending = d.Pending || maybe != 0
	if granted|maybe == 0 {
		if why == RevealNotAllowed {
			return s.outBy(q, out)
		}
		return Decision{Reason: why}
	}
	if d.Pending {
		d.Allowed, d.Reveal = true, q.Reveal
		if q.Reveal == Unspecified {
			d.Reveal = most(granted, maybe, restricted)
		}
		return d
	}
	asked := q.Reveal
	if asked == Unspecified {
		var ok bool
		if asked, ok = granted.choice(); !ok {
			return Decision{Reason: RevealAmbiguous}
		}
	}
	d.Reveal = asked
	for k, word := range applies {
		for ; word != 0; word &= word - 1 {
			if r := s.allowing[64*k+bits.TrailingZeros64(word)]; r.reveal.has(asked) {
				return r.allows(d)
			}
		}
	}
	return Decision{Reason: RevealNotAllowed}
}

// most returns the form which includes all that a request that names none may be given,
// of what is granted, unless it is restricted yet, and of what may be; Unspecified if
// that may be one of several, or none.
func most(granted, maybe forms, restricted bool) Reveal {
	switch all := granted | maybe; {
	case all.has(Full):
		return Full
	case bits.OnesCount16(uint16(all)) == 1:
		return Reveal(bits.TrailingZeros16(uint16(all)))
	case granted.has(Masked) && !restricted:
		return Masked
	}
	return Unspecified
}

// outBy denies since nothing is left of the forms that are allowed: it names the rule that
// denies them, or lets no more be revealed, if there is one.
func (s *ruleSet) outBy(q *Request, out forms) Decision {
	wanted := s.granted & out
	if s.kind == RevealAction && q.Reveal != Unspecified {
		wanted &= 1 << q.Reveal
	}
	if wanted == 0 {
		return Decision{Reason: RevealNotAllowed}
	}
	for _, r := range s.denying {
		if r.reveal&wanted == 0 {
			continue
		}
		switch v, _ := r.meets(q, s.kind); v {
		case yes:
			return Decision{Reason: DeniedByRule, Rule: r.name}
		case failed:
			return Decision{Reason: ConditionFailed, Rule: r.name}
		}
	}
	for _, r := range s.obliging {
		if v, _ := r.meets(q, s.kind); v == yes && r.atMost != 0 && wanted&^r.atMost != 0 {
			return Decision{Reason: RevealNotAllowed, Rule: r.name}
		}
	}
	return Decision{Reason: RevealNotAllowed}
}

// nearer returns the reason that tells more: the further a rule got, the nearer it came
// to allowing the request.
func nearer(a, b Reason) Reason {
	for _, reason := range [...]Reason{ConsentIsWithdrawn, ConsentMissing, ReasonRequired, ConditionFailed, ConditionNotMet} {
		if a == reason || b == reason {
			return reason
		}
	}
	return a
}
