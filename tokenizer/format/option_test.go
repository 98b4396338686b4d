package format

import (
	"errors"
	"strings"
	"testing"
)

func TestNewTypeErrors(t *testing.T) {
	pattern := TypeOptions{Pattern: `\d{8}`}
	for _, c := range []struct {
		name    string
		options TypeOptions
		want    OptionError // Reason: how it begins
	}{
		{"", TypeOptions{}, OptionError{"type", `"" is none of bytes, card,`}},
		{"Card", TypeOptions{}, OptionError{"type", `"Card" is none of bytes, card,`}},
		{"passport", TypeOptions{}, OptionError{"pattern", "is required for the type passport"}},
		{"driver-licence", TypeOptions{}, OptionError{"pattern", "is required for the type driver-licence"}},
		{"passport", TypeOptions{Pattern: "[A"}, OptionError{"pattern", "can't be read: format: pattern: at offset 0"}},
		{"passport", TypeOptions{Pattern: "<odd>"}, OptionError{"pattern", "can't be read: format: pattern: at offset 0"}},
		{"passport", TypeOptions{Region: "US"}, OptionError{"region", "is not an option of the type passport"}},
		{"ssn", pattern, OptionError{"pattern", "is not an option of the type ssn"}},
		{"card", pattern, OptionError{"pattern", "is not an option of the type card"}},
		{"card", TypeOptions{CVV: true, Region: "US"}, OptionError{"region", "is not an option of the type card"}},
		{"card-number", TypeOptions{CVV: true}, OptionError{"cvv", "is not an option of the type card-number"}},
		{"phone", TypeOptions{Region: "us"}, OptionError{"region", "is no two-letter code"}},
		{"phone", TypeOptions{Region: "ZZ"}, OptionError{"region", "is no two-letter code"}},
		{"phone", TypeOptions{Region: "US CA"}, OptionError{"region", "is no two-letter code"}},
		{"text", TypeOptions{Region: "US"}, OptionError{"region", "is not an option of the type text"}},
	} {
		typ, err := NewType(c.name, c.options)
		var optionErr *OptionError
		if !errors.As(err, &optionErr) || optionErr.Option != c.want.Option || !strings.HasPrefix(optionErr.Reason, c.want.Reason) {
			t.Errorf("%s %+v: %v", c.name, c.options, err)
		} else if want := "format: " + c.want.Option + " " + c.want.Reason; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s %+v: %q", c.name, c.options, err)
		}
		if typ != (Type{}) {
			t.Errorf("%s %+v: a type beside an error", c.name, c.options)
		}
	}
}

func TestTypeFacts(t *testing.T) {
	for _, typ := range allTypes(t) {
		name := typ.Name()
		value, err := typ.Normalize(nil, typ.Example())
		if err != nil {
			t.Errorf("%s: the example %q is none: %v", name, typ.Example(), err)
		}
		least, most := typ.Digits()
		if digits := longestDigits(string(value)) == len(value); digits != (most > 0) {
			t.Errorf("%s: %d to %d digits, but the example is %q", name, least, most, value)
		}
		if most > 0 && (len(value) < least || len(value) > most) || least > most {
			t.Errorf("%s: %d to %d digits, but the example is %q", name, least, most, value)
		}
		if typ.Luhn() != (name == "card-number") || typ.Luhn() && !luhn(value) {
			t.Errorf("%s: Luhn is %v", name, typ.Luhn())
		}
		if typ.Binary() != (name == "bytes") {
			t.Errorf("%s: Binary is %v", name, typ.Binary())
		}
	}
	for _, c := range []struct {
		name string
		cvv  bool
		want bool
	}{{"card", false, false}, {"card", true, true}, {"card-verification", false, true}, {"card-number", false, false}} {
		if got := mustType(t, c.name, TypeOptions{CVV: c.cvv}).Ephemeral(); got != c.want {
			t.Errorf("%s with CVV %v: Ephemeral is %v", c.name, c.cvv, got)
		}
	}
}
