package format

import (
	"errors"
	"strings"
	"testing"
)

func TestShapeFPE(t *testing.T) {
	card, ssn, text := mustLookup(t, "card-number"), mustLookup(t, "ssn"), mustLookup(t, "text")
	passport := mustType(t, "passport", TypeOptions{Pattern: "[A-Z]{2}[0-9]{7}"})
	number := mustType(t, "passport", TypeOptions{Pattern: "[1-9][0-9]{8}"})
	const nist = ", fewer than the 1000000 that NIST SP 800-38G Rev 1 demands of FF1"
	for _, c := range []struct {
		name           string
		shape          string
		typ            Type
		o              ShapeOptions
		option, reason string // "" if it is fit
	}{
		{"card", "digits", card, ShapeOptions{}, "", ""},
		{"card 0+4", "digits", card, ShapeOptions{KeepLast: 4}, "", ""},
		{"card 4+0, passing", "digits", card, ShapeOptions{KeepFirst: 4, Luhn: "always"}, "", ""},
		{"card 6+0, any", "digits", card, ShapeOptions{KeepFirst: 6, Luhn: "any"}, "", ""},
		{"card 6+4", "digits", card, ShapeOptions{KeepFirst: 6, KeepLast: 4}, "keep_first", "leaves 100 values of 13 digits and 100000 of 16 digits" + nist},
		{"card 4+3", "digits", card, ShapeOptions{KeepFirst: 4, KeepLast: 3}, "keep_first", "leaves 100000 values of 13 digits and 100000000 of 16 digits" + nist},
		{"card 8+4", "digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 4}, "keep_first", "leaves 1 values of 13 digits and 1000 of 16 digits" + nist},
		{"card to 16 digits", "digits", card, ShapeOptions{Length: 16}, "length", "must be left out in mode fpe"},
		{"ssn", "digits", ssn, ShapeOptions{}, "", ""},
		{"ssn +3", "digits", ssn, ShapeOptions{KeepLast: 3}, "", ""},
		{"ssn +4", "digits", ssn, ShapeOptions{KeepLast: 4}, "keep_last", "leaves 100000 values" + nist},
		{"ssn, failing", "digits", ssn, ShapeOptions{Luhn: "never"}, "luhn", "must be any in mode fpe for the type ssn"},
		{"card-verification", "digits", mustLookup(t, "card-verification"), ShapeOptions{}, "format", "leaves 1000 values of 3 digits" + nist},
		{"text", "digits", text, ShapeOptions{Length: 16}, "length", "must be left out in mode fpe"},
		{"ssn of its own", "ssn", ssn, ShapeOptions{}, "format", "ssn can't be that of mode fpe"},
		{"uuid", "uuid", text, ShapeOptions{}, "format", "uuid can't be that of mode fpe"},
		{"email", "email", mustLookup(t, "email"), ShapeOptions{}, "format", "email can't be that of mode fpe"},
		{"phone", "phone", mustLookup(t, "phone"), ShapeOptions{}, "format", "phone can't be that of mode fpe"},
		{"template of a text", "template", text, ShapeOptions{Pattern: "[A-Z]{9}"}, "pattern", "is not that of the type text"},
		{"template of digits", "template", ssn, ShapeOptions{Pattern: "[0-9]{9}"}, "", ""},
		{"template of fewer digits", "template", ssn, ShapeOptions{Pattern: "[0-9]{8}"}, "pattern", "is not that of the type ssn"},
		{"template of other digits", "template", ssn, ShapeOptions{Pattern: "[0-8]{9}"}, "pattern", "is not that of the type ssn"},
		{"template of some cards", "template", card, ShapeOptions{Pattern: "[0-9]{16}"}, "pattern", "is not that of the type card-number"},
		{"template of a passport", "template", passport, ShapeOptions{Pattern: "[A-Z]{2}[0-9]{7}"}, "", ""},
		{"template of more than a passport", "template", passport, ShapeOptions{Pattern: "[A-Z]{2}[0-9A-F]{7}"}, "", ""},
		{"template of less than a passport", "template", passport, ShapeOptions{Pattern: "[A-Y][A-Z][0-9]{7}"}, "pattern", "is not that of the type passport"},
		{"template of a number", "template", number, ShapeOptions{Pattern: "[1-9][0-9]{8}"}, "", ""},
		{"template of a short number", "template", mustType(t, "passport", TypeOptions{Pattern: "A[0-9]{5}"}), ShapeOptions{Pattern: "A[0-9]{5}"}, "pattern", "leaves 100000 values" + nist},
		{"digits of a number", "digits", number, ShapeOptions{}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mustShape(t, c.shape, c.typ, c.o).FPE()
			if c.option == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var optionErr *OptionError
			if !errors.As(err, &optionErr) || optionErr.Option != c.option || !strings.Contains(optionErr.Reason, c.reason) {
				t.Errorf("error %v, want %s: %s", err, c.option, c.reason)
			}
		})
	}
}

// What FPE says of the shortest value, FPEFrame says of each.
func TestFPEFrame(t *testing.T) {
	s := mustShape(t, "digits", mustLookup(t, "card-number"), ShapeOptions{KeepFirst: 4, KeepLast: 4})
	for _, c := range []struct {
		value  string
		domain string
		err    error
	}{
		{"8171999900000000021", "10000000000", nil},
		{visa16, "10000000", nil},
		{"378282246310005", "1000000", nil},
		{"30569309025904", "100000", errShapeFew},
		{visa13, "10000", errShapeFew},
	} {
		f, err := s.FPEFrame([]byte(c.value))
		if err != c.err {
			t.Errorf("%s: %v", c.value, err)
		}
		if err == nil && f.Domain().String() != c.domain {
			t.Errorf("%s: domain %v", c.value, f.Domain())
		}
	}
}

// Numerals and tokens are one for one.
func TestNumerals(t *testing.T) {
	for _, c := range shapeCases {
		f := mustFrame(t, c.make(t), c.value)
		random := seeded(7)
		var radices [maxPositions]uint16
		n := len(f.AppendRadices(radices[:0]))
		for range 100 {
			drawn, err := f.Draw(nil, random)
			if err != nil {
				t.Fatal(err)
			}
			before := []uint16{99}
			numerals, ok := f.AppendNumerals(before, drawn)
			if determined := f.luhn == luhnWrong; !ok && determined {
				if len(numerals) != 1 {
					t.Fatalf("%s: %v", c.name, numerals)
				}
				continue
			}
			if !ok || len(numerals) != n+1 {
				t.Fatalf("%s: %q has %d numerals, %v", c.name, drawn, len(numerals), ok)
			}
			for i, numeral := range numerals[1:] {
				if numeral >= radices[i] {
					t.Fatalf("%s: %q has a numeral %d of radix %d", c.name, drawn, numeral, radices[i])
				}
			}
			if again := f.AppendToken([]byte("before"), numerals[1:]); string(again) != "before"+string(drawn) {
				t.Fatalf("%s: %q became %q", c.name, drawn, again)
			}
		}
	}
}
