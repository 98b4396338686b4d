package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// node is a member that is asked for, or one that has such inside.
type node struct {
	field   int // in Options.Fields; -1 if it is not itself asked for
	members map[string]*node
}

// pathsOf makes a tree of the names of fields.
func pathsOf(fields []string) (*node, error) {
	root := &node{field: -1}
	for i, field := range fields {
		n := root
		for part := range strings.SplitSeq(field, ".") {
			if n.field >= 0 || part == "" {
				return nil, fmt.Errorf("field %q: part of it is empty, or a field itself", field)
			}
			if n.members == nil {
				n.members = make(map[string]*node)
			}
			if n.members[part] == nil {
				n.members[part] = &node{field: -1}
			}
			n = n.members[part]
		}
		if n.members != nil {
			return nil, fmt.Errorf("field %q: others are inside of it", field)
		}
		n.field = i
	}
	return root, nil
}

// errNotObject says that a row is something else than one JSON object.
var errNotObject = errors.New("is not one JSON object")

// takeMembers finds the fields of an object.
func (r *Row) takeMembers(text []byte) {
	object, err := withoutRefusal(text)
	switch {
	case r.format.Rejected && object != nil:
		r.Raw, text = append(object, '\n'), object
	case !r.format.Rejected && object != nil:
		err = errRejected
	case !r.format.Rejected:
		err = nil // as it should be
	}
	if err != nil {
		r.Problem = err.Error()
		return
	}
	if err := r.find(r.format.paths, text, 0); err != nil {
		r.Problem = err.Error()
	}
}

// withoutRefusal returns the object of a rejected row as it was before, with
// errNotRepaired as well; nil if it is none. Its errors hold nothing of the row.
func withoutRefusal(object []byte) ([]byte, error) {
	if !bytes.Contains(object, []byte(refusalNames[0])) {
		return nil, errNoRefusal // at little cost
	}
	decoder := json.NewDecoder(bytes.NewReader(object))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	kept, found := int64(0), 0 // of the members of a refusal, one after the other
	var texts [len(refusalNames)]string
	for decoder.More() {
		before := decoder.InputOffset()
		name, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return nil, errNotObject
		}
		switch {
		case name == refusalNames[0]:
			kept, found = before, 1
		case found < len(refusalNames) && name == refusalNames[found]:
			_ = json.Unmarshal(value, &texts[found])
			found++
		default:
			found = 0
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, errNotObject
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
	}
	if found != len(refusalNames) {
		return nil, errNoRefusal
	}
	object = append(bytes.Clone(object[:kept]), '}')
	if malformed(texts[1], texts[3]) {
		return object, errNotRepaired
	}
	return object, nil
}

// errNoRefusal says that an object is not that of a rejected row.
var errNoRefusal = errors.New("is not a rejected row: its last members are not " + strings.Join(refusalNames[:], ", "))

// find finds the fields in an object that begins at an offset of the row. Its
// errors hold nothing of the row.
func (r *Row) find(n *node, object []byte, offset int) error {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return errNotObject
	}
	seen := make(map[string]bool, len(n.members))
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return errNotObject
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return errNotObject
		}
		member := n.members[name.(string)]
		if member == nil {
			continue
		}
		// Only the last would be replaced, and the value would stay in the first.
		if seen[name.(string)] {
			return errors.New("has a field twice")
		}
		seen[name.(string)] = true
		end := int(decoder.InputOffset())
		at := span{offset + end - len(value), offset + end}
		if err := r.takeMember(member, value, at); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return errNotObject
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errNotObject
	}
	return nil
}

// takeMember takes a member that is asked for, or looks inside of it.
func (r *Row) takeMember(n *node, value json.RawMessage, at span) error {
	switch c := value[0]; {
	case c == 'n' && n.field >= 0: // null
		r.Fields[n.field] = Field{"", at}
	case c == 'n':
		return nil
	case n.field < 0 && c == '{':
		return r.find(n, value, at.start)
	case n.field < 0:
		return errors.New("a field has no others inside")
	case c == '"':
		var text string
		if !utf8.Valid(value) || json.Unmarshal(value, &text) != nil || mended(value, text) {
			return errors.New("a field is not valid Unicode")
		}
		r.Fields[n.field] = Field{text, at}
	case c == '-' || c >= '0' && c <= '9' || c == '{' && r.format.Objects:
		r.Fields[n.field] = Field{string(value), at}
	default:
		return errors.New("a field is neither a string nor a number")
	}
	return nil
}

// mended says whether encoding/json has put a replacement character where there
// was half of a surrogate pair.
func mended(value []byte, text string) bool {
	const replacement = "\ufffd"
	if !strings.Contains(text, replacement) {
		return false
	}
	return strings.Count(text, replacement) != bytes.Count(value, []byte(replacement))+bytes.Count(bytes.ToLower(value), []byte(`\ufffd`))
}

// quoteJSON returns a text as a JSON string.
func quoteJSON(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string can always be encoded
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
