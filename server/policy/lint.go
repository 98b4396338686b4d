package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Flaw is what kind of thing Lint has to say about a rule.
type Flaw string

// Flaws.
const (
	// Shadowed: earlier rules allow all that the rule does, so it never decides.
	Shadowed Flaw = "shadowed"

	// Vain: what the rule allows can't succeed; see Notes.
	Vain Flaw = "vain"

	// Broad: the rule shows every profile in FULL, and there are several; or it lets
	// more than MaxFullCallers callers see one in FULL.
	Broad Flaw = "broad"
)

// MaxFullCallers is how many callers a rule can let see values in FULL without being
// called broad.
const MaxFullCallers = 10

// Finding is what Lint has to say about a rule.
type Finding struct {
	Flaw    Flaw
	Rule    string // "" of a Vain one
	Line    int
	Message string // whole, with the place, as errors of the file are
}

// Lint returns what is questionable about the rules though the file is good, in the
// order of the file.
func (p *Policy) Lint() (findings []Finding) {
	say := func(flaw Flaw, r rule, format string, args ...any) {
		message := fmt.Sprintf("rule %q is %s: %s", r.name, flaw, fmt.Sprintf(format, args...))
		findings = append(findings, Finding{flaw, r.name, r.line, (&Error{p.file, r.line, r.column, message}).Error()})
	}
	before := make(map[string]*table) // what the rules so far allow each caller
	for _, r := range p.rules {
		if by := p.shadowing(r, before); len(by) > 0 {
			say(Shadowed, r, "all that it allows is allowed by %s before it", strings.Join(by, ", "))
		}
		for _, caller := range r.callers {
			if before[caller] == nil {
				before[caller] = newTable()
			}
			before[caller].add(r, p.actions)
		}
		if !r.reveal.has(Full) {
			continue
		}
		if n := len(p.profiles); n > 1 && len(r.profiles) == n {
			say(Broad, r, "it shows every profile in FULL")
		}
		if n := len(r.callers); n > MaxFullCallers {
			say(Broad, r, "it lets %d callers see values in FULL", n)
		}
	}
	for _, note := range p.notes.list {
		findings = append(findings, Finding{Flaw: Vain, Line: note.Line, Message: note.Error()})
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return findings
}

// shadowing returns the rules that together allow all that a rule does, none if they
// don't.
func (p *Policy) shadowing(r rule, before map[string]*table) (by []string) {
	found := make(map[string]bool)
	for _, caller := range r.callers {
		t := before[caller]
		if t == nil || !t.covers(r, p.actions, found) {
			return nil
		}
	}
	for _, rule := range p.rules {
		if found[rule.name] {
			by = append(by, rule.name)
		}
	}
	return by
}

// covers says whether a table allows its caller all that a rule does, and adds the
// names of the rules by which.
func (t *table) covers(r rule, actions map[string]ActionKind, by map[string]bool) bool {
	for _, action := range r.actions {
		first, ok := t.actions[action]
		if !ok {
			return false
		}
		if actions[action] == PlainAction {
			by[first.rule] = true
			continue
		}
		for _, profile := range r.profiles {
			g, ok := t.grants[target{action, profile}]
			if !ok {
				return false
			}
			if actions[action] == ProfileAction {
				by[g.rule] = true
				continue
			}
			for _, purpose := range r.purposes {
				reveal := g.purposes[purpose]
				if reveal == nil || r.reveal&^reveal.granted != 0 {
					return false
				}
				for _, e := range reveal.rules {
					if e.granted&r.reveal != 0 {
						by[e.name] = true
					}
				}
			}
		}
	}
	return true
}
