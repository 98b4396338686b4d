package format

import (
	"errors"
	"strings"
	"testing"
)

func TestShapeOptions(t *testing.T) {
	upper := map[string]string{"upper": "ABC"}
	for _, c := range []struct {
		name, shape, typ string
		o                ShapeOptions
		option, reason   string
	}{
		{"no such shape", "opaque", "ssn", ShapeOptions{}, "format", `"opaque" is none of digits, email, phone, ssn, template, uuid`},
		{"keep_first of email", "email", "email", ShapeOptions{KeepFirst: 4}, "keep_first", "means nothing for the format email"},
		{"keep_first of ssn", "ssn", "ssn", ShapeOptions{KeepFirst: 4}, "keep_first", "means nothing"},
		{"keep_last of uuid", "uuid", "ssn", ShapeOptions{KeepLast: 4}, "keep_last", "means nothing"},
		{"luhn of ssn", "ssn", "ssn", ShapeOptions{Luhn: "any"}, "luhn", "means nothing"},
		{"length of template", "template", "ssn", ShapeOptions{Length: 4, Pattern: "[0-9]{4}"}, "length", "means nothing"},
		{"pattern of digits", "digits", "ssn", ShapeOptions{Pattern: "[0-9]{4}"}, "pattern", "means nothing"},
		{"alphabets of phone", "phone", "phone", ShapeOptions{Alphabets: upper}, "alphabets", "means nothing"},
		{"email_domain of uuid", "uuid", "email", ShapeOptions{Domain: "keep"}, "email_domain", "means nothing"},
		{"area of digits", "digits", "ssn", ShapeOptions{Area: "any"}, "area", "means nothing"},
		{"keep_first 5", "digits", "ssn", ShapeOptions{KeepFirst: 5}, "keep_first", "must be 0, 4, 6 or 8"},
		{"keep_last 5", "digits", "ssn", ShapeOptions{KeepLast: 5}, "keep_last", "must be 0 to 4"},
		{"keep_last -1", "ssn", "ssn", ShapeOptions{KeepLast: -1}, "keep_last", "must be 0 to 4"},
		{"length -1", "digits", "ssn", ShapeOptions{Length: -1}, "length", "must be 1 to 64"},
		{"length 65", "digits", "ssn", ShapeOptions{Length: 65}, "length", "must be 1 to 64"},
		{"luhn sometimes", "digits", "ssn", ShapeOptions{Luhn: "sometimes"}, "luhn", `"sometimes" is none of never, always, any`},
		{"area some", "ssn", "ssn", ShapeOptions{Area: "some"}, "area", `"some" is none of never-issued, any`},
		{"digits of a text", "digits", "text", ShapeOptions{}, "length", "must be given, as values of the type text are not all digits"},
		{"first digits of a text", "digits", "text", ShapeOptions{Length: 10, KeepFirst: 4}, "keep_first", "needs values that are all digits, which those of the type text are not"},
		{"last digits of a text", "digits", "text", ShapeOptions{Length: 10, KeepLast: 4}, "keep_last", "needs values that are all digits"},
		{"all kept", "digits", "card-verification", ShapeOptions{KeepLast: 4}, "keep_last", "leaves a token no choice"},
		{"more than all kept", "digits", "card-verification", ShapeOptions{KeepFirst: 4, KeepLast: 3}, "keep_first", "keeps more than values of the type card-verification have"},
		{"all of the length kept", "digits", "card-number", ShapeOptions{KeepFirst: 8, KeepLast: 4, Length: 12}, "length", "leaves a token no choice"},
		{"more than the length kept", "digits", "card-number", ShapeOptions{KeepFirst: 8, KeepLast: 4, Length: 6}, "length", "leaves a token no choice"},
		{"one left, to pass", "digits", "card-number", ShapeOptions{KeepFirst: 8, KeepLast: 4, Length: 13, Luhn: "always"}, "length", "leaves a token no choice"},
		{"email of a phone", "email", "phone", ShapeOptions{}, "format", "email doesn't fit the type phone"},
		{"phone of a text", "phone", "text", ShapeOptions{}, "format", "phone doesn't fit the type text"},
		{"ssn of a card", "ssn", "card-number", ShapeOptions{}, "format", "ssn doesn't fit the type card-number"},
		{"no pattern", "template", "ssn", ShapeOptions{}, "pattern", "is required"},
		{"bad pattern", "template", "ssn", ShapeOptions{Pattern: "[A-Z"}, "pattern", "at offset 0: a class has no end"},
		{"no such alphabet", "template", "ssn", ShapeOptions{Pattern: "<lower>"}, "pattern", `there is no alphabet "lower"`},
		{"unused alphabet", "template", "ssn", ShapeOptions{Pattern: "[A-Z]{4}", Alphabets: upper}, "alphabets", `has "upper", which the pattern doesn't use`},
		{"constant", "template", "ssn", ShapeOptions{Pattern: "TOKEN"}, "pattern", "leaves a token no choice"},
		{"like an opaque token", "template", "ssn", ShapeOptions{Pattern: "cc_[a-z]{40}"}, "pattern", "allows tokens that begin with cc_"},
		{"maybe like an opaque token", "template", "ssn", ShapeOptions{Pattern: `[a-f]{2}[A-Z_]`}, "pattern", "allows tokens that begin with cc_"},
		{"domain without a dot", "email", "email", ShapeOptions{Domain: "drop"}, "email_domain", "must be keep, mask or a domain name in small letters"},
		{"domain in capitals", "email", "email", ShapeOptions{Domain: "Tokens.example"}, "email_domain", "must be"},
		{"IP address", "email", "email", ShapeOptions{Domain: "127.0.0.1"}, "email_domain", "must be"},
		{"domain with a space", "email", "email", ShapeOptions{Domain: "a b.example"}, "email_domain", "must be"},
		{"long domain", "email", "email", ShapeOptions{Domain: strings.Repeat("a.", 116) + "example"}, "email_domain", "must be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewShape(c.shape, mustLookup(t, c.typ), c.o)
			var optionErr *OptionError
			if s != nil || !errors.As(err, &optionErr) {
				t.Fatalf("%v, %v", s, err)
			}
			if optionErr.Option != c.option || !strings.Contains(optionErr.Reason, c.reason) {
				t.Errorf("%s %s", optionErr.Option, optionErr.Reason)
			}
		})
	}
}

// What a shape is made of may change afterwards.
func TestShapeOptionsAreCopied(t *testing.T) {
	alphabets := map[string]string{"code": "BCDF"}
	s := mustShape(t, "template", mustLookup(t, "ssn"), ShapeOptions{Pattern: "<code>{4}", Alphabets: alphabets})
	clear(alphabets)
	if !s.Like("BCDF") {
		t.Error("a shape changes with its options")
	}
}
