package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// maxGrants bounds what the rules of a file may expand to: the number of
// combinations of caller, action, profile and purpose, where callers whom the
// same rules are about count once.
const maxGrants = 1 << 18

// Too much in one file.
var (
	errGrants   = fmt.Errorf("the rules make more than %d combinations of callers, actions, profiles and purposes", maxGrants)
	errAllowing = fmt.Errorf("more than %d rules with conditions allow the same caller the same", maxAllowing)
	errObliging = fmt.Errorf("more than %d rules oblige the same caller about the same", maxObliging)
)

// table is what the rules say about what a caller does in a namespace. Callers whom
// the same rules are about share one.
type table struct {
	actions map[string]string // the first rule that allows anything of an action
	targets map[target]verdicts
}

type target struct{ action, profile string }

// verdicts is what the rules say about a target: about all of it, or, if the action is
// a RevealAction, about each purpose.
type verdicts struct {
	any      *ruleSet
	purposes map[string]*ruleSet
}

// tables are those of all callers.
type tables struct {
	rules   []rule
	actions map[string]ActionKind

	// exact has the callers that are named, in each of the namespaces. It never changes.
	exact map[inNamespace]*table

	// met has those that only patterns are about, as they come. It is emptied when it
	// has too many.
	mu   sync.RWMutex
	met  map[inNamespace]*table
	size int // of what met has
}

// inNamespace is a caller, or a set of rules by their numbers, in a namespace.
type inNamespace struct{ namespace, name string }

// maxMet is how many callers that only patterns are about are remembered.
const maxMet = 10_000

// compile makes tables for all callers that are named.
func compile(rules []rule, actions map[string]ActionKind, namespaces []string) (*tables, error) {
	t := &tables{rules: rules, actions: actions, exact: make(map[inNamespace]*table), met: make(map[inNamespace]*table)}
	size := 0
	for i := range rules {
		size += rules[i].size() // as if one caller were in all of them
	}
	if size > maxGrants {
		return nil, errGrants
	}
	named := make(map[string]bool)
	for i := range rules {
		for _, caller := range rules[i].callers.exact {
			named[caller] = true
		}
	}
	shared := make(map[inNamespace]*table)
	size = 0
	for _, namespace := range namespaces {
		for caller := range named {
			about := t.about(caller)
			key := inNamespace{namespace, string(about)}
			if shared[key] == nil {
				made, n, err := t.build(namespace, about)
				if err != nil {
					return nil, err
				}
				if size += n; size > maxGrants {
					return nil, errGrants
				}
				shared[key] = made
			}
			t.exact[inNamespace{namespace, caller}] = shared[key]
		}
	}
	return t, nil
}

// of returns the table of a caller.
func (t *tables) of(namespace, caller string) *table {
	key := inNamespace{namespace, caller}
	if found, ok := t.exact[key]; ok {
		return found
	}
	t.mu.RLock()
	found, ok := t.met[key]
	t.mu.RUnlock()
	if ok {
		return found
	}
	made, n, err := t.build(namespace, t.about(caller))
	if err != nil {
		return new(table) // it allows nothing
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.met) >= maxMet || t.size+n > maxGrants {
		clear(t.met)
		t.size = 0
	}
	t.met[key] = made
	t.size += n
	return made
}

// about returns the numbers of the rules that are about a caller, 4 bytes each.
func (t *tables) about(caller string) (numbers []byte) {
	for i := range t.rules {
		if t.rules[i].callers.has(caller) {
			numbers = binary.BigEndian.AppendUint32(numbers, uint32(i))
		}
	}
	return numbers
}

// build makes a table of rules, and says how large it is.
func (t *tables) build(namespace string, numbers []byte) (made *table, size int, err error) {
	made = &table{make(map[string]string), make(map[target]verdicts)}
	var restricting []*rule
	for ; len(numbers) > 0; numbers = numbers[4:] {
		r := &t.rules[binary.BigEndian.Uint32(numbers)]
		if r.effect != Allow {
			restricting = append(restricting, r)
			continue
		}
		size += r.size()
		made.add(r, namespace, t.actions)
	}
	for at, v := range made.targets {
		if v.any != nil {
			err = errors.Join(err, v.any.finish(restricting, namespace, at, ""))
		}
		for purpose, set := range v.purposes {
			err = errors.Join(err, set.finish(restricting, namespace, at, purpose))
		}
	}
	if errors.Is(err, errAllowing) {
		err = errAllowing
	} else if err != nil {
		err = errObliging
	}
	return made, size, err
}

// size returns how many combinations the rule makes, for each of its callers,
// or a few more.
func (r *rule) size() int {
	return max(len(r.actions), 1) * max(len(r.profiles), 1) * max(len(r.purposes), 1)
}

// add adds what a rule allows to what the rules before it do.
func (t *table) add(r *rule, namespace string, actions map[string]ActionKind) {
	for action, kind := range r.actionsIn(namespace, actions) {
		if _, ok := t.actions[action]; !ok {
			t.actions[action] = r.name
		}
		if kind == PlainAction {
			t.addTo(r, target{action, ""}, kind)
			continue
		}
		for _, profile := range r.profiles {
			t.addTo(r, target{action, profile}, kind)
		}
	}
}

// addTo adds what a rule allows of a target.
func (t *table) addTo(r *rule, at target, kind ActionKind) {
	v := t.targets[at]
	if kind != RevealAction {
		if v.any == nil {
			v.any = &ruleSet{kind: kind}
		}
		v.any.add(r)
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

// add adds a rule that allows, unless those before it say all that it could.
func (s *ruleSet) add(r *rule) {
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

// finish adds the rules that deny and oblige about the target.
func (s *ruleSet) finish(restricting []*rule, namespace string, at target, purpose string) error {
	s.simple = true
	for _, r := range s.allowing {
		s.simple = s.simple && !r.conditional()
	}
	for _, r := range restricting {
		if !r.about(namespace, at.action, at.profile) || !inOrAny(r.purposes, purpose) || (r.reveal|r.atMost != 0 && s.kind != RevealAction) {
			continue
		}
		s.simple = false
		if r.effect == Deny {
			s.denying = append(s.denying, r)
		} else {
			s.obliging = append(s.obliging, r)
		}
	}
	switch {
	case len(s.allowing) > maxAllowing:
		return errAllowing
	case len(s.obliging) > maxObliging:
		return errObliging
	}
	return nil
}
