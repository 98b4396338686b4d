package format

import (
	"fmt"
	"slices"
	"strings"
)

// maxDigits is the most digits that a token of digits may have.
const maxDigits = 64

// checkOptions checks each option by itself, and that it means something for
// the shape.
func (s *Shape) checkOptions() error {
	o := &s.options
	for _, option := range [...]struct {
		key   string
		given bool
	}{
		{"keep_first", o.KeepFirst != 0},
		{"keep_last", o.KeepLast != 0},
		{"luhn", o.Luhn != ""},
		{"length", o.Length != 0},
		{"pattern", o.Pattern != ""},
		{"alphabets", len(o.Alphabets) != 0},
		{"email_domain", o.Domain != ""},
		{"area", o.Area != ""},
	} {
		if option.given && !slices.Contains(s.kind.options, option.key) {
			return &OptionError{option.key, "means nothing for the format " + s.Name()}
		}
	}
	switch {
	case !slices.Contains([]int{0, 4, 6, 8}, o.KeepFirst):
		return &OptionError{"keep_first", "must be 0, 4, 6 or 8"}
	case o.KeepLast < 0 || o.KeepLast > 4:
		return &OptionError{"keep_last", "must be 0 to 4"}
	case o.Length < 0 || o.Length > maxDigits:
		return &OptionError{"length", fmt.Sprintf("must be 1 to %d, or 0 for that of the value", maxDigits)}
	}
	if err := oneOf("luhn", &o.Luhn, "", luhnNever, luhnAlways, luhnAny); err != nil {
		return err
	}
	return oneOf("area", &o.Area, areaNeverIssued, areaNeverIssued, areaAny)
}

// oneOf checks that an option is one of a few words, and replaces an empty one.
func oneOf(key string, option *string, byDefault string, words ...string) error {
	if *option == "" {
		*option = byDefault
		return nil
	}
	if !slices.Contains(words, *option) {
		return &OptionError{key, fmt.Sprintf("%q is none of %s", *option, strings.Join(words, ", "))}
	}
	return nil
}

// misfit is the error for a shape that doesn't fit its type.
func (s *Shape) misfit(why string) error {
	return &OptionError{"format", fmt.Sprintf("%s doesn't fit the type %s: %s", s.Name(), s.typ.Name(), why)}
}
