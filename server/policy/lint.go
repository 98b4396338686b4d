package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Flaw is what kind of thing Lint has to say about a rule.
type Flaw string

// Flaws.
const (
	// Shadowed: earlier rules allow all that the rule does, so it never decides.
	Shadowed Flaw = "shadowed"

	// Unreachable: a rule denies all that the rule allows; or it denies, or puts duties
	// on, what no rule allows.
	Unreachable Flaw = "unreachable"

	// Over: the time in which the rule is in force is over.
	Over Flaw = "over"

	// Constant: the expression of the rule is the same for every request.
	Constant Flaw = "constant"

	// Unapprovable: nobody, or not everybody who is meant to, can ask for what the rule
	// demands, or grant it.
	Unapprovable Flaw = "unapprovable"

	// Vain: what the rule allows can't succeed, or no rule names a group; see Notes.
	Vain Flaw = "vain"

	// Broad: the rule shows or exports every profile in FULL, and there are several; or
	// it lets more than MaxFullCallers callers, or all of a trust domain or a host name's
	// domain, see one in FULL.
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

// Lint returns what is questionable about the rules at a time though the file is good,
// in the order of the file.
func (p *Policy) Lint(now time.Time) (findings []Finding) {
	for i := range p.rules {
		r := &p.rules[i]
		say := func(flaw Flaw, format string, args ...any) {
			message := fmt.Sprintf("rule %q is %s: %s", r.name, flaw, fmt.Sprintf(format, args...))
			findings = append(findings, Finding{flaw, r.name, r.line, (&Error{p.file, r.line, r.column, message}).Error()})
		}
		if !r.until.IsZero() && !now.Before(r.until) {
			say(Over, "it was in force before %s", r.until.Format(time.RFC3339))
		}
		if r.when != nil && r.when.constant {
			say(Constant, "its \"when\" speaks of nothing that a request could be asked about")
		}
		if r.approval != nil {
			p.lintApproval(r, say)
		}
		if r.effect != Allow {
			if !p.matters(r) {
				say(Unreachable, "no rule allows anything that it is about")
			}
			continue
		}
		if by := p.deniedBy(r); by != "" {
			say(Unreachable, "all that it allows is denied by %s", by)
		}
		if by := p.shadowing(i); len(by) > 0 {
			say(Shadowed, "all that it allows is allowed by %s before it", strings.Join(by, ", "))
		}
		if !r.reveal.has(Full) && !slices.ContainsFunc(r.actions, p.exports) {
			continue
		}
		if n := len(p.profiles); n > 1 && len(r.profiles) == n {
			say(Broad, "it shows every profile in FULL")
		}
		if n := len(r.callers.members()); n > MaxFullCallers {
			say(Broad, "it lets %d callers see values in FULL", n)
		}
		for _, pattern := range r.callers.patterns {
			if strings.Trim(pattern.rest, "*"+pattern.separator) == "" {
				say(Broad, "it lets everybody whom %s%s matches see values in FULL", pattern.prefix, pattern.rest)
			}
		}
	}
	for _, note := range p.notes.list {
		findings = append(findings, Finding{Flaw: Vain, Line: note.Line, Message: note.Error()})
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return findings
}

// lintApproval says what keeps people from asking for what a rule demands, or from
// granting it. Of patterns it says nothing.
func (p *Policy) lintApproval(r *rule, say func(Flaw, string, ...any)) {
	approvers, callers := r.approval.approvers, r.callers
	if len(approvers.patterns)+len(callers.patterns) == 0 && len(callers.exact) == 1 && slices.Equal(approvers.exact, callers.exact) {
		say(Unapprovable, "its only caller is its only approver, and nobody grants anything to themselves")
	}
	for _, approver := range approvers.exact {
		if _, ok := p.May(approver, DefaultNamespace, "decide-approval"); !ok {
			say(Unapprovable, "no rule allows its approver %s decide-approval", approver)
		}
	}
	for _, caller := range callers.exact {
		if _, ok := p.May(caller, DefaultNamespace, "request-approval"); !ok {
			say(Unapprovable, "no rule allows its caller %s request-approval", caller)
		}
	}
}

// matters says whether any rule allows anything that one which denies or obliges is
// about.
func (p *Policy) matters(r *rule) bool {
	return slices.ContainsFunc(p.rules, func(other rule) bool {
		return other.effect == Allow && overlap(r.namespaces, other.namespaces) && overlap(r.actions, other.actions) &&
			overlap(r.profiles, other.profiles) && overlap(r.purposes, other.purposes) &&
			slices.ContainsFunc(other.callers.members(), r.callers.touches)
	})
}

// touches says whether a set may have an identity, or something that a pattern matches.
// It says so too often rather than too seldom.
func (c *callerSet) touches(member string) bool {
	if c.has(member) {
		return true
	}
	p, ok := asPattern(member)
	return ok && (len(c.patterns) > 0 || slices.ContainsFunc(c.exact, p.matches))
}

// deniedBy returns the rule that denies all that one allows, whatever the
// circumstances; "" if there is none.
func (p *Policy) deniedBy(r *rule) string {
	for i := range p.rules {
		d := &p.rules[i]
		if d.effect == Deny && d.reveal == 0 && !d.conditional() && covers(d.namespaces, r.namespaces) && p.aboutAll(d, r.actions, r.profiles, r.purposes) &&
			!slices.ContainsFunc(r.callers.members(), func(caller string) bool { return !d.callers.has(caller) }) {
			return d.name
		}
	}
	return ""
}

// shadowing returns the rules that together allow all that the index-th does, none if
// they don't.
func (p *Policy) shadowing(index int) (by []string) {
	r := &p.rules[index]
	found := make(map[string]bool)
	for _, caller := range r.callers.members() {
		var earlier []*rule
		for i := range p.rules[:index] {
			e := &p.rules[i]
			if e.effect == Allow && !e.conditional() && (e.consent == consentIgnore || e.consent == r.consent) &&
				e.callers.has(caller) && covers(e.namespaces, r.namespaces) {
				earlier = append(earlier, e)
			}
		}
		if !p.covered(r, earlier, found) {
			return nil
		}
	}
	for _, rule := range p.rules[:index] {
		if found[rule.name] {
			by = append(by, rule.name)
		}
	}
	return by
}

// covered says whether earlier rules allow all that a rule does, and adds the names of
// those by which.
func (p *Policy) covered(r *rule, earlier []*rule, by map[string]bool) bool {
	for _, action := range r.actions {
		kind := p.actions[action]
		for _, profile := range orNone(r.profiles, kind != PlainAction) {
			for _, purpose := range orNone(r.purposes, kind == RevealAction) {
				left, allowed := r.reveal, false
				for _, e := range earlier {
					if !slices.Contains(e.actions, action) || profile != "" && !slices.Contains(e.profiles, profile) || purpose != "" && !slices.Contains(e.purposes, purpose) {
						continue
					}
					if kind != RevealAction && !allowed || left&e.reveal != 0 {
						by[e.name] = true
					}
					left, allowed = left&^e.reveal, true
				}
				if !allowed || kind == RevealAction && left != 0 {
					return false
				}
			}
		}
	}
	return true
}

// orNone returns a list, or one with nothing in it if the list doesn't matter.
func orNone(list []string, matters bool) []string {
	if matters {
		return list
	}
	return []string{""}
}
