package policy

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"
)

// group is a list of callers that has a name.
type group struct {
	key     *yaml.Node
	callers []string
	used    bool
}

var groupForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// readGroups reads the groups of the file, if it has any.
func readGroups(s section) map[string]*group {
	groups := make(map[string]*group)
	f, ok := s.keys["groups"]
	if !ok {
		return groups
	}
	if f.value.Kind != yaml.MappingNode || f.value.ShortTag() != "!!map" {
		s.wrong(f.value, `"groups" must be a mapping of names to lists of callers, not %s`, kindOf(f.value))
		return groups
	}
	names := make(map[string]bool)
	for i := 0; i+1 < len(f.value.Content); i += 2 {
		names[f.value.Content[i].Value] = true
	}
	list, _ := readSection(f.value, s.problems, "groups", names)
	for name, member := range list.keys {
		if !groupForm.MatchString(name) {
			list.wrong(member.key, "group %s: a name is of the form [a-z][a-z0-9-]{0,62}", quote(name))
			continue
		}
		g := &group{key: member.key}
		for _, caller := range list.texts(name) {
			if err := validateCallers(caller.text); err != nil {
				list.wrong(caller.node, "group %q: caller %s: %v", name, quote(caller.text), err)
				continue
			}
			g.callers = append(g.callers, caller.text)
		}
		groups[name] = g
	}
	return groups
}

// noteUnused notes the groups that no rule names.
func noteUnused(groups map[string]*group, notes *problems) {
	for _, name := range slices.SortedFunc(maps.Keys(groups), func(a, b string) int { return cmp.Compare(groups[a].key.Line, groups[b].key.Line) }) {
		if g := groups[name]; !g.used {
			notes.node(g.key, "%s", fmt.Sprintf("group %q: no rule names it", name))
		}
	}
}
