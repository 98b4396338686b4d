package policy

import (
	"cmp"
	"slices"
)

// Query asks who could do something. What is empty, or Unspecified, doesn't matter. An
// action that gives values away without a purpose and a form, such as an export, answers
// whichever are asked about.
type Query struct {
	Action, Profile, Purpose string
	Reveal                   Reveal
}

// Access is what a rule lets a caller do.
type Access struct {
	Caller, Rule string // the caller may be a pattern
	Line         int    // of the rule in the file
	Actions      []string
	Profiles     []string
	Purposes     []string
	Reveal       []string // the forms, "FULL" alone if that is one, or if whole values are exported
	Conditions   []string // what else has to be so, in words
}

// Who returns each caller, pattern and rule that allow what is asked, narrowed to it, in
// the order of callers and of the file; members of groups by themselves. Left out is
// what another rule denies whatever the circumstances.
func (p *Policy) Who(q Query) (found []Access) {
	for i := range p.rules {
		r := &p.rules[i]
		if r.effect != Allow {
			continue
		}
		actions := slices.DeleteFunc(slices.Clone(r.actions), func(action string) bool { return !p.answers(r, action, q) })
		if len(actions) == 0 {
			continue
		}
		a := Access{Rule: r.name, Line: r.line, Actions: actions, Profiles: narrowed(r.profiles, q.Profile)}
		if slices.ContainsFunc(actions, func(action string) bool { return p.actions[action] == RevealAction }) {
			a.Purposes, a.Reveal = narrowed(r.purposes, q.Purpose), r.reveal.names()
		}
		if !r.reveal.has(Full) && slices.ContainsFunc(actions, p.exports) {
			a.Reveal = append(a.Reveal, p.exported(actions))
		}
		for _, caller := range r.callers.members() {
			a.Caller, a.Conditions = caller, r.conditionWords()
			if !slices.Equal(r.namespaces, []string{DefaultNamespace}) {
				a.Conditions = append(a.Conditions, "namespace "+r.words(NamespacePart))
			}
			if p.restrict(&a, r, q) {
				found = append(found, a)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Access) int { return cmp.Compare(a.Caller, b.Caller) })
	return found
}

// exports says whether an action gives whole values away though no form is asked for.
func (p *Policy) exports(action string) bool {
	return p.actions[action] != RevealAction && p.traits[action].Values
}

// answers says whether a rule that allows an action answers a query by that.
func (p *Policy) answers(r *rule, action string, q Query) bool {
	kind, exports := p.actions[action], p.exports(action)
	switch {
	case q.Action != "" && action != q.Action,
		q.Profile != "" && (kind == PlainAction || !slices.Contains(r.profiles, q.Profile)),
		q.Purpose != "" && !exports && (kind != RevealAction || !slices.Contains(r.purposes, q.Purpose)),
		q.Reveal != Unspecified && !exports && (kind != RevealAction || !r.reveal.has(q.Reveal)):
		return false
	}
	return true
}

// exported is what an access with such an action gives, in words.
func (p *Policy) exported(actions []string) string {
	if slices.ContainsFunc(actions, func(action string) bool { return p.actions[action] == RevealAction }) {
		return "FULL by " + actions[slices.IndexFunc(actions, p.exports)]
	}
	return Full.String()
}

// restrict adds to an access of a rule which rules deny or oblige some of it. It returns
// false if one denies all of it whatever the circumstances.
func (p *Policy) restrict(a *Access, by *rule, q Query) bool {
	form := q.Reveal
	if !slices.ContainsFunc(a.Actions, func(action string) bool { return !p.exports(action) }) {
		form = Full // which is what they give, whatever was asked about
	}
	for i := range p.rules {
		r := &p.rules[i]
		if r.effect == Allow || !r.callers.touches(a.Caller) || !overlap(r.namespaces, by.namespaces) || !p.aboutSome(r, a) {
			continue
		}
		takes := r.takes(form)
		if form != Unspecified && !takes && (r.effect == Deny || r.reason == nil && r.limits == nil && !r.notify && !r.conditional()) {
			continue
		}
		if takes && !r.conditional() && r.callers.has(a.Caller) && covers(r.namespaces, by.namespaces) && p.aboutAll(r, a.Actions, a.Profiles, a.Purposes) {
			return false
		}
		a.Conditions = append(a.Conditions, r.says(p.narrower(r, a)...))
	}
	return true
}

// takes says whether a rule that denies or obliges has a form not be revealed; if that
// is Unspecified, anything at all.
func (r *rule) takes(form Reveal) bool {
	if r.effect == Deny {
		return r.reveal == 0 || form != Unspecified && r.reveal.has(form)
	}
	return r.atMost != 0 && form != Unspecified && !r.atMost.has(form)
}

// aboutAll says whether a rule that denies or obliges is about each action on each of the
// profiles for each of the purposes, as far as they matter to the action.
func (p *Policy) aboutAll(r *rule, actions, profiles, purposes []string) bool {
	none := []string{""}
	return !slices.ContainsFunc(actions, func(action string) bool {
		profiles, purposes := profiles, purposes
		switch p.actions[action] {
		case PlainAction:
			profiles, purposes = none, none
		case ProfileAction:
			purposes = none
		}
		boundsOthers := r.reveal|r.atMost != 0 && p.actions[action] != RevealAction && !(p.exports(action) && r.takes(Full))
		return !inOrAny(r.actions, action) || boundsOthers || !covers(r.profiles, profiles) || !covers(r.purposes, purposes)
	})
}

// aboutSome says whether a rule that denies or obliges is about anything of an access.
func (p *Policy) aboutSome(r *rule, a *Access) bool {
	return slices.ContainsFunc(a.Actions, func(action string) bool {
		kind := p.actions[action]
		return inOrAny(r.actions, action) && (kind == RevealAction || r.reveal == 0 && !r.onlyBounds() || p.exports(action) && r.takes(Full)) &&
			(len(r.profiles) == 0 || kind != PlainAction && overlap(r.profiles, a.Profiles)) &&
			(len(r.purposes) == 0 || kind == RevealAction && overlap(r.purposes, a.Purposes))
	})
}

// overlap says whether a list of a rule that isn't about everything has anything of
// another.
func overlap(of, with []string) bool {
	return len(of) == 0 || slices.ContainsFunc(of, func(s string) bool { return slices.Contains(with, s) })
}

// covers says whether a list of a rule has all of another.
func covers(of, all []string) bool {
	return len(of) == 0 || !slices.ContainsFunc(all, func(s string) bool { return !slices.Contains(of, s) })
}

// members returns the identities and patterns of a set.
func (c *callerSet) members() []string {
	members := slices.Clone(c.exact)
	for _, p := range c.patterns {
		members = append(members, p.prefix+p.rest)
	}
	return members
}

// narrowed returns a list, or the one thing of it that was asked about.
func narrowed(list []string, asked string) []string {
	if asked != "" && len(list) > 0 {
		return []string{asked}
	}
	return list
}
