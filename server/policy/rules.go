package policy

import "iter"

// Rule is a rule as the file has it. Its lists must not be changed. What is empty the
// file doesn't say.
type Rule struct {
	Name       string
	Line       int // in the file
	Effect     Effect
	Callers    []string // identities, patterns and groups
	Actions    []string
	Namespaces []string
	Classes    []string
	Profiles   []string // those of Classes included
	Purposes   []string
	Reveal     []Reveal // Full alone stands for all where it is allowed
	AtMost     []Reveal
	Conditions []string // in words
	Limits     *Limits
	Approval   *Approval
	Notify     bool
}

// Rules goes through the rules in the order of the file.
func (p *Policy) Rules() iter.Seq[Rule] {
	return func(yield func(Rule) bool) {
		for i := range p.rules {
			r := &p.rules[i]
			if !yield(Rule{
				Name: r.name, Line: r.line, Effect: r.effect, Callers: r.callers.names, Actions: r.actions, Namespaces: r.namespaces,
				Classes: r.classes, Profiles: r.profiles, Purposes: r.purposes, Reveal: r.reveal.list(), AtMost: r.atMost.list(),
				Conditions: r.conditionWords(), Limits: r.limits, Approval: r.approval, Notify: r.notify,
			}) {
				return
			}
		}
	}
}

// Groups returns the groups of callers by name. The lists must not be changed.
func (p *Policy) Groups() map[string][]string {
	groups := make(map[string][]string, len(p.groups))
	for name, g := range p.groups {
		groups[name] = g.callers
	}
	return groups
}

// Approval returns the approval that a rule needs, nil if there is no such rule or it
// needs none.
func (p *Policy) Approval(rule string) *Approval {
	if r, ok := p.byName[rule]; ok {
		return r.approval
	}
	return nil
}

// Count returns how many rules there are.
func (p *Policy) Count() int { return len(p.rules) }

// CheckPurpose returns an error for a purpose that no profile allows, with what may have
// been meant. "" is none, and good.
func (p *Policy) CheckPurpose(purpose string) error {
	v := Vocabulary{Profiles: p.profiles}
	return oneOf("purpose", purpose, v.purposes())
}

// Knows says whether there is such an action.
func (p *Policy) Knows(action string) bool {
	_, ok := p.actions[action]
	return ok
}
