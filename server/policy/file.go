package policy

import (
	"crypto/sha256"
	"encoding/hex"

	"go.yaml.in/yaml/v4"
)

// fileKeys are the keys of a policy file.
var fileKeys = map[string]bool{"version": true, "rules": true}

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
	p, notes := &problems{file: file}, &problems{file: file}
	root, ok := readDocument(data, p)
	if !ok {
		return nil, p.err()
	}
	rules := readFile(root, p, notes, v)
	if !p.none() {
		return nil, p.err()
	}
	callers, ok := compile(rules, v.Actions)
	if !ok {
		p.node(root, "the rules make more than %d combinations of callers, actions, profiles and purposes", maxGrants)
		return nil, p.err()
	}
	sum := sha256.Sum256(data)
	return &Policy{
		hash: hex.EncodeToString(sum[:]), callers: callers,
		file: file, rules: rules, actions: v.Actions, profiles: v.Profiles, notes: *notes,
	}, nil
}

// readFile reads the keys of the file and all rules.
func readFile(root *yaml.Node, p, notes *problems, v Vocabulary) []rule {
	s, ok := readSection(root, p, "", fileKeys)
	if !ok || !readVersion(s) {
		return nil
	}
	f, ok := s.keys["rules"]
	if !ok {
		s.wrong(root, `"rules" is missing; a policy that denies everything has "rules: []"`)
		return nil
	}
	if f.value.Kind != yaml.SequenceNode || f.value.ShortTag() != "!!seq" {
		s.wrong(f.value, `"rules" must be a list, not %s`, kindOf(f.value))
		return nil
	}
	rr := ruleReader{p, notes, v, make(map[string]int)}
	var rules []rule
	for i, n := range f.value.Content {
		rules = append(rules, rr.read(n, i))
	}
	return rules
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
