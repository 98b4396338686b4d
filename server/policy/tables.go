package policy

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"sync"
)

// tables are those of all callers. Those whom the same rules are about share one.
type tables struct {
	rules    []rule
	actions  map[string]ActionKind
	traits   map[string]ActionTraits
	named    map[string][]uint32  // the numbers of the rules that name each caller
	patterns map[pattern][]uint32 // and of those that have each pattern
	everyone []uint32             // and of those that are about everybody

	// exact has the callers that are named, in each of the namespaces. It never changes.
	exact map[inNamespace]*table

	// met has those that aren't named, as they come, and shared their tables. Both are
	// emptied when there is too much in them.
	mu          sync.RWMutex
	met, shared map[inNamespace]*table
	size        int // of what shared has
}

// inNamespace is a caller, or a set of rules by their numbers, in a namespace.
type inNamespace struct{ namespace, name string }

// maxMet is how many callers that aren't named are remembered.
const maxMet = 10_000

// compile makes tables for all callers that are named.
func compile(rules []rule, v *Vocabulary) (*tables, error) {
	t := &tables{
		rules: rules, actions: v.Actions, traits: v.Traits, named: make(map[string][]uint32), patterns: make(map[pattern][]uint32),
		exact: make(map[inNamespace]*table), met: make(map[inNamespace]*table), shared: make(map[inNamespace]*table),
	}
	for i := range rules {
		t.index(uint32(i), &rules[i].callers)
	}
	work, size, restricting := 0, 0, 0
	shared := make(map[inNamespace]*table)
	for caller, rules := range t.known() {
		about, n := rules, len(rules)
		if rules == nil {
			about, n = t.about(caller)
		}
		if work += n; work > maxAbout {
			return nil, errAbout
		}
		for _, namespace := range v.namespaces() {
			key := inNamespace{namespace, string(about)}
			made := shared[key]
			if made == nil {
				var err error
				if made, err = t.build(namespace, about); err != nil {
					return nil, err
				}
				if size += made.size; size > maxGrants {
					return nil, errGrants
				}
				if restricting += made.restricting; restricting > maxRestricting {
					return nil, errRestricting
				}
				shared[key] = made
			}
			if rules == nil {
				t.exact[inNamespace{namespace, caller}] = made
			}
		}
	}
	return t, nil
}

// known goes through all callers that are named, and after them through the patterns, each
// with the rules that have it, as about returns them: what these come to is found when
// the file is read.
func (t *tables) known() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for caller := range t.named {
			if !yield(caller, nil) {
				return
			}
		}
		for p, rules := range t.patterns {
			if !yield(p.prefix+p.rest, sorted(slices.Concat(rules, t.everyone))) {
				return
			}
		}
	}
}

// index adds the callers of a rule.
func (t *tables) index(number uint32, callers *callerSet) {
	if callers.everybody {
		t.everyone = append(t.everyone, number)
	}
	for _, caller := range callers.exact {
		t.named[caller] = append(t.named[caller], number)
	}
	for _, p := range callers.patterns {
		t.patterns[p] = append(t.patterns[p], number)
	}
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
	return t.meet(key)
}

// meet makes the table of a caller who isn't named. Rules of several patterns that come
// to too much together, for somebody whom all of them match, are found here only: then
// nothing is allowed.
func (t *tables) meet(caller inNamespace) *table {
	about, _ := t.about(caller.name)
	rules := inNamespace{strings.Clone(caller.namespace), string(about)}
	t.mu.RLock()
	made, ok := t.shared[rules]
	t.mu.RUnlock()
	if !ok {
		var err error
		if made, err = t.build(rules.namespace, about); err != nil {
			made = &table{tooMuch: true}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.met) >= maxMet || t.size+made.size > maxGrants {
		clear(t.met)
		clear(t.shared)
		t.size = 0
	}
	if _, ok := t.shared[rules]; !ok {
		t.shared[rules] = made
		t.size += made.size
	}
	t.met[inNamespace{rules.namespace, strings.Clone(caller.name)}] = made
	return made
}

// about returns the numbers of the rules that are about a caller in their order, 4 bytes
// each, and how much work that was.
func (t *tables) about(caller string) (numbers []byte, work int) {
	found := slices.Concat(t.named[caller], t.everyone)
	for p, rules := range t.patterns {
		if p.matches(caller) {
			found = append(found, rules...)
		}
	}
	return sorted(found), len(found) + len(t.patterns)
}

// sorted returns numbers in their order, each once, 4 bytes each.
func sorted(found []uint32) (numbers []byte) {
	slices.Sort(found)
	for _, number := range slices.Compact(found) {
		numbers = binary.BigEndian.AppendUint32(numbers, number)
	}
	return numbers
}

// build makes a table of rules.
func (t *tables) build(namespace string, numbers []byte) (*table, error) {
	made := &table{actions: make(map[string]string), targets: make(map[target]verdicts)}
	var restricting []*rule
	for ; len(numbers) > 0; numbers = numbers[4:] {
		r := &t.rules[binary.BigEndian.Uint32(numbers)]
		if r.effect != Allow {
			restricting = append(restricting, r)
			continue
		}
		made.size += r.size()
		made.add(r, namespace, t.actions, t.traits)
	}
	return made, made.finish(restricting, namespace)
}
