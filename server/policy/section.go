package policy

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// section is a mapping of the file, with the values of its keys. What is wrong
// with it is added to problems with label in front.
type section struct {
	*problems
	label string
	node  *yaml.Node
	keys  map[string]field
}

// field is a key of a section and its value.
type field struct{ key, value *yaml.Node }

// item is a string of the file and where it stands.
type item struct {
	text string
	node *yaml.Node
}

// readSection reads a mapping that may have certain keys. It returns false if
// the node is no mapping.
func readSection(n *yaml.Node, p *problems, label string, allowed map[string]bool) (section, bool) {
	s := section{p, label, n, nil}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		s.wrong(n, "must be a mapping, not %s", kindOf(n))
		return s, false
	}
	s.keys = make(map[string]field, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isText(key) {
			s.wrong(key, "a key must be a string, not %s", kindOf(key))
			continue
		}
		if !allowed[key.Value] {
			s.wrong(key, "unknown key %s%s", quote(key.Value), known(p, key.Value, allowed))
			continue
		}
		if first, ok := s.keys[key.Value]; ok {
			s.wrong(key, "key %q appears twice; it is at line %d too", key.Value, first.key.Line)
			continue
		}
		s.keys[key.Value] = field{key, value}
	}
	return s, true
}

// wrong adds what is wrong at a node of the section.
func (s section) wrong(n *yaml.Node, format string, args ...any) {
	if s.full() {
		s.more++
		return
	}
	message := fmt.Sprintf(format, args...)
	if s.label != "" {
		message = s.label + ": " + message
	}
	s.problems.node(n, "%s", message)
}

// text returns the string under a key. It adds an error and returns false if
// there is none.
func (s section) text(key string) (item, bool) {
	f, ok := s.keys[key]
	if !ok {
		s.wrong(s.node, "%q is missing", key)
		return item{}, false
	}
	if !isText(f.value) {
		s.wrong(f.value, "%q must be a string, not %s", key, kindOf(f.value))
		return item{}, false
	}
	return item{f.value.Value, f.value}, true
}

// texts returns the strings of the list under a key, which must be different
// ones, at least one. Those that are wrong are left out and added to the
// errors; a key that is missing is the caller's business.
func (s section) texts(key string) []item {
	f, ok := s.keys[key]
	if !ok {
		return nil
	}
	if f.value.Kind != yaml.SequenceNode || f.value.ShortTag() != "!!seq" {
		s.wrong(f.value, "%q must be a list of strings, as in [one, two], not %s", key, kindOf(f.value))
		return nil
	}
	if len(f.value.Content) == 0 {
		s.wrong(f.value, "%q is empty", key)
	}
	var items []item
	seen := make(map[string]bool)
	for _, n := range f.value.Content {
		switch {
		case !isText(n):
			s.wrong(n, "%q must be a list of strings; this is %s", key, kindOf(n))
		case seen[n.Value]:
			s.wrong(n, "%q names %s twice", key, quote(n.Value))
		default:
			seen[n.Value] = true
			items = append(items, item{n.Value, n})
		}
	}
	return items
}

// textOrTexts returns the strings under a key that has one, or a list of them
// as texts reads it.
func (s section) textOrTexts(key string) []item {
	f, ok := s.keys[key]
	switch {
	case !ok:
		return nil
	case isText(f.value):
		return []item{{f.value.Value, f.value}}
	case f.value.Kind != yaml.SequenceNode || f.value.ShortTag() != "!!seq":
		s.wrong(f.value, "%q must be a string or a list of strings, not %s", key, kindOf(f.value))
		return nil
	}
	return s.texts(key)
}

// isText says whether a node is a string. What YAML takes for something else
// has to be quoted.
func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" }

// kindOf names what a node is.
func kindOf(n *yaml.Node) string {
	switch tag := n.ShortTag(); tag {
	case "!!map":
		return "a mapping"
	case "!!seq":
		return "a list"
	case "!!str":
		return "a string"
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "a number (quote it if it is meant as a string)"
	case "!!bool":
		return "true or false (quote it if it is meant as a string)"
	case "!!timestamp":
		return "a date (quote it if it is meant as a string)"
	default:
		return "of the type " + quote(tag)
	}
}
