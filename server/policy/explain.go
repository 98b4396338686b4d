package policy

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Part is a part of a rule that a request has to meet.
type Part string

// Parts, in the order in which they are looked at.
const (
	CallerPart  Part = "caller"
	ActionPart  Part = "action"
	ProfilePart Part = "profile"
	PurposePart Part = "purpose"
	RevealPart  Part = "reveal"
)

// Miss is a rule that doesn't allow a request, and what the request lacks for it.
type Miss struct {
	Rule  string
	Line  int // of the rule in the file
	Lacks []Part
	Names string // what the rule has for these parts, in words
}

// Explanation is a decision, and if it denies, why: the rules that come nearest.
type Explanation struct {
	Decision

	// Line is where the rule that allows is in the file; 0 if none does.
	Line int

	// Near are the rules that lack fewest, in the order of the file. A rule that lacks
	// the caller and more is none of them, unless there is nothing nearer.
	Near []Miss
}

// maxNear is how many rules an explanation has at most.
const maxNear = 10

// Explain decides as Decide does, and says why. It looks at each rule, so it is not
// for the way of a call.
func (p *Policy) Explain(r Request) Explanation {
	e := Explanation{Decision: p.Decide(r)}
	if e.Allowed {
		i := slices.IndexFunc(p.rules, func(rule rule) bool { return rule.name == e.Rule })
		e.Line = p.rules[i].line
		return e
	}
	for _, rule := range p.rules {
		m := Miss{Rule: rule.name, Line: rule.line}
		var names []string
		for _, part := range p.lacks(rule, r) {
			m.Lacks = append(m.Lacks, part)
			names = append(names, fmt.Sprintf("%s %s", part, rule.words(part)))
		}
		m.Names = strings.Join(names, "; ")
		if len(m.Lacks) > 0 {
			e.Near = append(e.Near, m)
		}
	}
	slices.SortStableFunc(e.Near, func(a, b Miss) int { return cmp.Compare(len(a.Lacks), len(b.Lacks)) })
	if len(e.Near) > 0 {
		fewest := len(e.Near[0].Lacks)
		n := slices.IndexFunc(e.Near, func(m Miss) bool { return len(m.Lacks) > fewest })
		if n < 0 {
			n = len(e.Near)
		}
		e.Near = e.Near[:min(n, maxNear)]
	}
	return e
}

// lacks returns which parts of a rule a request doesn't meet.
func (p *Policy) lacks(rule rule, r Request) (lacks []Part) {
	if !slices.Contains(rule.callers, r.Caller) {
		lacks = append(lacks, CallerPart)
	}
	if !slices.Contains(rule.actions, r.Action) {
		lacks = append(lacks, ActionPart)
	}
	kind := p.actions[r.Action]
	if kind != PlainAction && !slices.Contains(rule.profiles, r.Profile) {
		lacks = append(lacks, ProfilePart)
	}
	if kind != RevealAction {
		return lacks
	}
	if !slices.Contains(rule.purposes, r.Purpose) {
		lacks = append(lacks, PurposePart)
	}
	asked := r.Reveal
	if asked == Unspecified {
		asked, _ = rule.reveal.choice()
	}
	if !rule.reveal.has(asked) {
		lacks = append(lacks, RevealPart)
	}
	return lacks
}

// words returns what a rule has for a part.
func (r rule) words(part Part) string {
	list := map[Part][]string{
		CallerPart: r.callers, ActionPart: r.actions, ProfilePart: r.profiles, PurposePart: r.purposes, RevealPart: r.reveal.names(),
	}[part]
	switch len(list) {
	case 0:
		return "is none"
	case 1:
		return "is " + list[0]
	}
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("is one of %s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return "is one of " + strings.Join(list, ", ")
}

// list returns the forms, Full alone if that is one.
func (f forms) list() (list []Reveal) {
	if f.has(Full) {
		return []Reveal{Full}
	}
	for form := Masked; int(form) < len(revealNames); form++ {
		if f.has(form) {
			list = append(list, form)
		}
	}
	return list
}

// names returns the names of the forms, as list does.
func (f forms) names() (names []string) {
	for _, form := range f.list() {
		names = append(names, form.String())
	}
	return names
}

// Rule is a rule as the file has it. Its lists must not be changed.
type Rule struct {
	Name                                 string
	Line                                 int // in the file
	Callers, Actions, Profiles, Purposes []string
	Reveal                               []Reveal // Full alone stands for all
}

// Rules goes through the rules in the order of the file.
func (p *Policy) Rules() iter.Seq[Rule] {
	return func(yield func(Rule) bool) {
		for _, r := range p.rules {
			if !yield(Rule{r.name, r.line, r.callers, r.actions, r.profiles, r.purposes, r.reveal.list()}) {
				return
			}
		}
	}
}

// Count returns how many rules there are.
func (p *Policy) Count() int { return len(p.rules) }

// Knows says whether there is such an action.
func (p *Policy) Knows(action string) bool {
	_, ok := p.actions[action]
	return ok
}

// Query asks who could do something. What is empty, or Unspecified, doesn't matter.
type Query struct {
	Action, Profile, Purpose string
	Reveal                   Reveal
}

// Access is what a rule lets a caller do.
type Access struct {
	Caller, Rule string
	Line         int // of the rule in the file
	Actions      []string
	Profiles     []string
	Purposes     []string
	Reveal       []string // the forms, "FULL" alone if that is one
}

// Who returns each caller and rule that allow what is asked, narrowed to it, in the
// order of callers and of the file.
func (p *Policy) Who(q Query) (found []Access) {
	for _, r := range p.rules {
		actions := slices.DeleteFunc(slices.Clone(r.actions), func(action string) bool {
			kind := p.actions[action]
			return q.Action != "" && action != q.Action ||
				q.Profile != "" && (kind == PlainAction || !slices.Contains(r.profiles, q.Profile)) ||
				q.Purpose != "" && (kind != RevealAction || !slices.Contains(r.purposes, q.Purpose)) ||
				q.Reveal != Unspecified && (kind != RevealAction || !r.reveal.has(q.Reveal))
		})
		if len(actions) == 0 {
			continue
		}
		a := Access{Rule: r.name, Line: r.line, Actions: actions}
		a.Profiles = narrowed(r.profiles, q.Profile)
		if slices.ContainsFunc(actions, func(action string) bool { return p.actions[action] == RevealAction }) {
			a.Purposes, a.Reveal = narrowed(r.purposes, q.Purpose), r.reveal.names()
		}
		for _, caller := range r.callers {
			a.Caller = caller
			found = append(found, a)
		}
	}
	slices.SortStableFunc(found, func(a, b Access) int { return cmp.Compare(a.Caller, b.Caller) })
	return found
}

// narrowed returns a list, or the one thing of it that was asked about.
func narrowed(list []string, asked string) []string {
	if asked != "" {
		return []string{asked}
	}
	return list
}
