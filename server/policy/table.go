package policy

import "slices"

// table is what the rules say about what a caller does in a namespace. Callers whom
// the same rules are about share one.
type table struct {
	actions     map[string]string // the first rule that allows anything of an action
	targets     map[target]verdicts
	size        int  // how many combinations the rules make that allow
	restricting int  // how much work it was to find which rules deny and oblige
	tooMuch     bool // whether the rules come to more than is kept, so that nothing is allowed
}

type target struct{ action, profile string }

// verdicts is what the rules say about a target: about all of it, or, if the action is
// a RevealAction, about each purpose.
type verdicts struct {
	any      *ruleSet
	purposes map[string]*ruleSet
}

// size returns how many combinations the rule makes, for each of its callers,
// or a few more.
func (r *rule) size() int {
	return max(len(r.actions), 1) * max(len(r.profiles), 1) * max(len(r.purposes), 1)
}

// add adds what a rule allows to what the rules before it do.
func (t *table) add(r *rule, namespace string, actions map[string]ActionKind, traits map[string]ActionTraits) {
	for action, kind := range r.actionsIn(namespace, actions) {
		if _, ok := t.actions[action]; !ok {
			t.actions[action] = r.name
		}
		if kind == PlainAction {
			t.addTo(r, target{action, ""}, kind, false)
			continue
		}
		for _, profile := range r.profiles {
			t.addTo(r, target{action, profile}, kind, traits[action].Values)
		}
	}
}

// addTo adds what a rule allows of a target. An action that gives values away without
// naming a form gives them whole.
func (t *table) addTo(r *rule, at target, kind ActionKind, values bool) {
	v := t.targets[at]
	if kind != RevealAction {
		if v.any == nil {
			v.any = &ruleSet{kind: kind, whole: values}
		}
		if v.any.add(r); values {
			v.any.granted = 1 << Full
		}
		t.targets[at] = v
		return
	}
	if v.purposes == nil {
		v.purposes = make(map[string]*ruleSet)
	}
	for _, purpose := range r.purposes {
		if v.purposes[purpose] == nil {
			v.purposes[purpose] = &ruleSet{kind: kind}
		}
		v.purposes[purpose].add(r)
	}
	t.targets[at] = v
}

// finish adds the rules that deny and oblige to all targets.
func (t *table) finish(restricting []*rule, namespace string) error {
	all := 0 // what it costs to look at each of them
	for _, r := range restricting {
		all += 1 + (len(r.namespaces)+len(r.actions)+len(r.profiles))/8
	}
	for at, v := range t.targets {
		t.restricting += all
		var denying, obliging []*rule
		for _, r := range restricting {
			if !r.about(namespace, at.action, at.profile) {
				continue
			}
			t.restricting += len(v.purposes) * (1 + len(r.purposes)/8)
			if r.effect == Deny {
				denying = append(denying, r)
			} else {
				obliging = append(obliging, r)
			}
		}
		if t.restricting > maxRestricting {
			return errRestricting
		}
		if v.any != nil {
			if err := v.any.finish(denying, obliging, ""); err != nil {
				return err
			}
		}
		for purpose, set := range v.purposes {
			if err := set.finish(denying, obliging, purpose); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds a rule that allows, unless those before it say all that it could, or there
// are too many.
func (s *ruleSet) add(r *rule) {
	if len(s.allowing) > maxAllowing {
		return
	}
	before, had := forms(0), false
	for _, earlier := range s.allowing {
		if !earlier.conditional() && (earlier.consent == consentIgnore || earlier.consent == r.consent) {
			before, had = before|earlier.reveal, true
		}
	}
	if had && (s.kind != RevealAction || r.reveal&^before == 0) {
		return
	}
	s.allowing = append(s.allowing, r)
	s.granted |= r.reveal
}

// finish adds the rules that deny and oblige about the target, as far as they are about
// the purpose.
func (s *ruleSet) finish(denying, obliging []*rule, purpose string) error {
	elsewhere := func(r *rule) bool {
		return !inOrAny(r.purposes, purpose) || r.reveal != 0 && s.kind != RevealAction && !s.whole
	}
	s.denying, s.obliging = without(denying, elsewhere), without(obliging, elsewhere)
	switch {
	case len(s.allowing) > maxAllowing:
		return errAllowing
	case len(s.obliging) > maxObliging:
		return errObliging
	}
	s.simple = len(s.denying)+len(s.obliging) == 0 && !slices.ContainsFunc(s.allowing, (*rule).conditional)
	return nil
}

// without returns rules without some, the same list if there are none of those.
func without(rules []*rule, some func(*rule) bool) []*rule {
	if !slices.ContainsFunc(rules, some) {
		return rules
	}
	return slices.DeleteFunc(slices.Clone(rules), some)
}
