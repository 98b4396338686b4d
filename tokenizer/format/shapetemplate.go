package format

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// prepareTemplate makes a slot of each position of the pattern.
func prepareTemplate(s *Shape) error {
	o := &s.options
	if o.Pattern == "" {
		return &OptionError{"pattern", "is required for the format template"}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Alphabets)) {
		if !strings.Contains(o.Pattern, "<"+name+">") {
			return &OptionError{"alphabets", fmt.Sprintf("has %q, which the pattern doesn't use", name)}
		}
	}
	pattern, err := ParsePattern(o.Pattern, o.Alphabets)
	if err != nil {
		return &OptionError{"pattern", strings.TrimPrefix(err.Error(), "format: pattern: ")}
	}
	for _, position := range pattern.Positions {
		s.slots = append(s.slots, character(position.Alphabet))
	}
	if f := (Frame{slots: s.slots}); !f.choice() {
		return &OptionError{"pattern", "leaves a token no choice"}
	}
	if s.begins(opaquePrefix) {
		return &OptionError{"pattern", "allows tokens that begin with " + opaquePrefix + ", as opaque tokens do"}
	}
	return nil
}

// begins says whether a token may begin with a text.
func (s *Shape) begins(text string) bool {
	for i := range len(text) {
		if i == len(s.slots) || strings.IndexByte(s.slots[i].alphabet, text[i]) < 0 {
			return false
		}
	}
	return true
}

// prepareUUID makes slots for a UUID of version 4 and the variant 10 (RFC 9562,
// section 5.4) in lower case: 122 bits are free.
func prepareUUID(s *Shape) error {
	const hex = digitAlphabet + "abcdef"
	for _, c := range "xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx" {
		switch c {
		case 'x':
			s.slots = append(s.slots, character(hex))
		case 'V':
			s.slots = append(s.slots, character("89ab"))
		default:
			s.slots = append(s.slots, character(string(c)))
		}
	}
	return nil
}

// frameWhole keeps nothing.
func frameWhole(s *Shape, _ []byte) (Frame, error) { return Frame{slots: s.slots}, nil }
