package policy

import "encoding/binary"

// maxGrants bounds what the rules of a file may expand to: the number of
// combinations of caller, action, profile and purpose, where callers that the
// same rules name count once.
const maxGrants = 1 << 18

// table is what the rules allow a caller. Callers that the same rules name
// share one.
type table struct {
	actions map[string]actionGrant
	grants  map[target]grant // none for a PlainAction
}

// actionGrant is the first rule about an action.
type actionGrant struct {
	rule string
	kind ActionKind
}

type target struct{ action, profile string }

// grant is what is allowed on a target.
type grant struct {
	rule     string                  // the first
	purposes map[string]*revealGrant // nil unless the action is a RevealAction
}

// revealGrant is what may be revealed for a purpose. It keeps only the rules
// that grant a form which none before them does, in the order of the file, and
// so never more of them than there are forms.
type revealGrant struct {
	granted forms // by all of them together
	rules   []revealRule
}

type revealRule struct {
	name    string
	granted forms
}

// compile turns rules into a table for each caller, unless they expand to more
// than maxGrants.
func compile(rules []rule, actions map[string]ActionKind) (callers map[string]*table, ok bool) {
	named := make(map[string][]byte) // caller → the numbers of the rules that name it
	for i, r := range rules {
		for _, caller := range r.callers {
			named[caller] = binary.BigEndian.AppendUint32(named[caller], uint32(i))
		}
	}
	callers = make(map[string]*table, len(named))
	shared := make(map[string]*table)
	size := 0
	for caller, numbers := range named {
		t := shared[string(numbers)]
		if t == nil {
			t = newTable()
			shared[string(numbers)] = t
			for ; len(numbers) > 0; numbers = numbers[4:] {
				r := rules[binary.BigEndian.Uint32(numbers)]
				if size += r.size(); size > maxGrants {
					return nil, false
				}
				t.add(r, actions)
			}
		}
		callers[caller] = t
	}
	return callers, true
}

// size returns how many combinations the rule makes, for each of its callers,
// or a few more.
func (r rule) size() int {
	return len(r.actions) * max(len(r.profiles), 1) * max(len(r.purposes), 1)
}

func newTable() *table { return &table{make(map[string]actionGrant), make(map[target]grant)} }

// add adds what a rule allows to what the rules before it do.
func (t *table) add(r rule, actions map[string]ActionKind) {
	for _, action := range r.actions {
		kind := actions[action]
		if _, ok := t.actions[action]; !ok {
			t.actions[action] = actionGrant{r.name, kind}
		}
		if kind == PlainAction {
			continue
		}
		for _, profile := range r.profiles {
			g, ok := t.grants[target{action, profile}]
			if !ok {
				g.rule = r.name
				if kind == RevealAction {
					g.purposes = make(map[string]*revealGrant)
				}
				t.grants[target{action, profile}] = g
			}
			if kind == RevealAction {
				g.add(r)
			}
		}
	}
}

// add adds the purposes of a rule.
func (g grant) add(r rule) {
	for _, purpose := range r.purposes {
		reveal := g.purposes[purpose]
		if reveal == nil {
			reveal = new(revealGrant)
			g.purposes[purpose] = reveal
		}
		if r.reveal&^reveal.granted != 0 {
			reveal.granted |= r.reveal
			reveal.rules = append(reveal.rules, revealRule{r.name, r.reveal})
		}
	}
}

// decide decides which form is given to a request for one, and by which rule.
func (g *revealGrant) decide(asked Reveal) Decision {
	if asked == Unspecified {
		var ok bool
		if asked, ok = g.granted.choice(); !ok {
			return Decision{Reason: RevealAmbiguous}
		}
	}
	for _, r := range g.rules {
		if r.granted.has(asked) {
			return Decision{Allowed: true, Rule: r.name, Reveal: asked}
		}
	}
	return Decision{Reason: RevealNotAllowed}
}
