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
	rule     string             // the first
	purposes map[string]*levels // nil unless the action is a RevealAction
}

// levels is how much may be revealed for a purpose.
type levels struct {
	most  Reveal
	rules [Full + 1]string // the first rule that grants a level or more
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
			t = &table{make(map[string]actionGrant), make(map[target]grant)}
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
					g.purposes = make(map[string]*levels)
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
		l := g.purposes[purpose]
		if l == nil {
			l = new(levels)
			g.purposes[purpose] = l
		}
		l.most = max(l.most, r.reveal)
		for level := range l.rules[:r.reveal+1] {
			if l.rules[level] == "" {
				l.rules[level] = r.name
			}
		}
	}
}
