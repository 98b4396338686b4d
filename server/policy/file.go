package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"

	"go.yaml.in/yaml/v4"
)

// fileKeys are the keys of a policy file.
var fileKeys = map[string]bool{"version": true, "groups": true, "rules": true}

// Parse reads a policy file. The name is only for errors. Actions and profiles
// that the vocabulary doesn't have are errors, and so are every purpose that a
// profile of its rule doesn't allow and every part that it doesn't have.
//
// The file is UTF-8 and has at most 1 MiB. Reading is strict: unknown and
// duplicate keys, values of another type, a second document, anchors and
// aliases are errors. All errors that are found are returned, one a line in
// the order of the file, each an *Error (use errors.As, or the Unwrap method
// of what errors.Join returns), but no more than 100.
func Parse(file string, data []byte, v Vocabulary) (*Policy, error) {
	v.Actions, v.Traits, v.Profiles = maps.Clone(v.Actions), maps.Clone(v.Traits), maps.Clone(v.Profiles)
	p, notes := &problems{file: file}, &problems{file: file}
	root, ok := readDocument(data, p)
	if !ok {
		return nil, p.err()
	}
	groups, rules := readFile(root, p, notes, v)
	if !p.none() {
		return nil, p.err()
	}
	tables, err := compile(rules, &v)
	if err != nil {
		p.node(root, "%v", err)
		return nil, p.err()
	}
	byName := make(map[string]*rule, len(rules))
	for i := range rules {
		byName[rules[i].name] = &rules[i]
	}
	sum := sha256.Sum256(data)
	return &Policy{
		hash: hex.EncodeToString(sum[:]), tables: tables,
		file: file, text: data, groups: groups, rules: rules, byName: byName, actions: v.Actions, traits: v.Traits, profiles: v.Profiles, notes: *notes,
	}, nil
}

// readFile reads the keys of the file, the groups and all rules.
func readFile(root *yaml.Node, p, notes *problems, v Vocabulary) (map[string]*group, []rule) {
	s, ok := readSection(root, p, "", fileKeys)
	if !ok || !readVersion(s) {
		return nil, nil
	}
	groups := readGroups(s)
	f, ok := s.keys["rules"]
	if !ok {
		s.wrong(root, `"rules" is missing; a policy that denies everything has "rules: []"`)
		return nil, nil
	}
	if f.value.Kind != yaml.SequenceNode || f.value.ShortTag() != "!!seq" {
		s.wrong(f.value, `"rules" must be a list, not %s`, kindOf(f.value))
		return nil, nil
	}
	rr := ruleReader{
		problems: p, notes: notes, vocabulary: v, groups: groups, allPurposes: v.purposes(), members: v.classes(),
		lines: make(map[string]int), compiled: make(map[string]*condition), total: new(totals),
	}
	var rules []rule
	for i, n := range f.value.Content {
		rules = append(rules, rr.read(n, i))
		if err := rr.total.check(); err != nil {
			s.wrong(root, "%v", err)
			return nil, nil
		}
	}
	noteUnused(groups, notes)
	return groups, rules
}

// readVersion checks the version. What a file of another version means is
// unknown, so nothing else is said about it.
func readVersion(s section) bool {
	f, ok := s.keys["version"]
	if !ok {
		s.wrong(s.node, `"version" is missing; this is version 1`)
		return true
	}
	if f.value.Kind != yaml.ScalarNode || f.value.ShortTag() != "!!int" || f.value.Value != "1" {
		s.wrong(f.value, `"version" must be 1, the only version there is`)
		return false
	}
	return true
}
