package format

import (
	"bytes"
	"fmt"
	"slices"
)

// prepareDigits makes slots for the longest value. Those of a shorter one are
// the first of them.
func prepareDigits(s *Shape) error {
	o := &s.options
	_, most := s.typ.Digits()
	if most == 0 {
		why := "needs values that are all digits, which those of the type " + s.typ.Name() + " are not"
		switch {
		case o.KeepFirst != 0:
			return &OptionError{"keep_first", why}
		case o.KeepLast != 0:
			return &OptionError{"keep_last", why}
		case o.Length == 0:
			return &OptionError{"length", "must be given, as values of the type " + s.typ.Name() + " are not all digits"}
		}
	}
	size := o.Length
	if size == 0 {
		size = most
	}
	if size > maxDigits {
		return &OptionError{"length", fmt.Sprintf("must be given, as values of the type %s may have more than %d digits", s.typ.Name(), maxDigits)}
	}
	if o.Luhn == "" {
		o.Luhn = luhnAny
		if s.typ.Luhn() {
			o.Luhn = luhnNever
		}
	}
	s.luhn = map[string]luhnRule{luhnAny: luhnFree, luhnNever: luhnWrong, luhnAlways: luhnRight}[o.Luhn]

	key := "keep_last"
	if o.KeepFirst > o.KeepLast {
		key = "keep_first"
	}
	kept := o.KeepFirst + o.KeepLast
	if kept > most {
		return &OptionError{key, fmt.Sprintf("keeps more than values of the type %s have", s.typ.Name())}
	}
	s.slots = slices.Repeat([]slot{character(digitAlphabet)}, max(size-kept, 0))
	if f := (Frame{slots: s.slots, luhn: s.luhn}); !f.choice() {
		if o.Length != 0 {
			key = "length"
		}
		return &OptionError{key, "leaves a token no choice beside what is kept of its value"}
	}
	return nil
}

// frameDigits keeps the first and the last digits. Under a luhn rule the last
// free digit depends on all the rest.
func frameDigits(s *Shape, text []byte) (Frame, error) {
	o := &s.options
	size := o.Length
	if size == 0 {
		size = len(text)
		if least, most := s.typ.Digits(); size < least || size > most {
			return Frame{}, errShapeForm
		}
	}
	if o.KeepFirst+o.KeepLast > min(size, len(text)) {
		return Frame{}, errShapeShort
	}
	f := Frame{
		head:  text[:o.KeepFirst],
		tail:  text[len(text)-o.KeepLast:],
		slots: s.slots[:size-o.KeepFirst-o.KeepLast],
		luhn:  s.luhn,
	}
	if !allDigits(f.head) || !allDigits(f.tail) {
		return Frame{}, errShapeForm
	}
	return f, nil
}

// smallestDigits is the frame of the shortest value.
func smallestDigits(s *Shape) (Frame, bool) {
	least, _ := s.typ.Digits()
	f, err := frameDigits(s, bytes.Repeat([]byte{'0'}, least))
	return f, err == nil
}
