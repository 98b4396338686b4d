package format

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// What holds for any input to any type: a refusal is one of ours and tells
// nothing; a normal form is its own normal form; a mask is bounded and never shows
// the value; a value has no parts but those of its type.
func FuzzTypes(f *testing.F) {
	all := allTypes(f)
	for i, typ := range all {
		f.Add(uint8(i), typ.Example())
	}
	for _, raw := range []string{
		"", "(202) 555-0123", "+44 (0)20 7946 0958", "020 7946 0958", "8 495 123 45 67", "06 698 12345", "+6834002",
		"use\u0301r@bücher.example", `"a@b"@Example.com`, "gb29 nwbk 6016 1331 9268 19", "a-12 x", "AB 123 4567",
		`{"number":"4111111111111111","expiry":"12/30","name":"\u0022"}`, "110000000/0001 2345-6789", "1234", "\xff",
	} {
		for i := range all {
			f.Add(uint8(i), raw)
		}
	}
	f.Fuzz(func(t *testing.T, index uint8, raw string) {
		typ := all[int(index)%len(all)]
		value, err := typ.Normalize(nil, raw)
		if err != nil {
			checkRefusal(t, value, err)
			return
		}
		if again, err := typ.Normalize(nil, string(value)); err != nil || !bytes.Equal(again, value) {
			t.Fatalf("%s: %q normalizes to %q, and that to %q, %v", typ.Name(), raw, value, again, err)
		}
		if least, most := typ.Digits(); most > 0 && (longestDigits(string(value)) != len(value) || len(value) < least || len(value) > most) {
			t.Fatalf("%s: %q is not %d to %d digits", typ.Name(), value, least, most)
		}
		masked := typ.Mask(nil, value)
		shown := bytes.Contains(masked, value) && !bytes.Contains(value, []byte("*"))
		if len(masked) > len(value)+64 || !bytes.Contains(masked, []byte("**")) || shown {
			t.Fatalf("%s: mask %q of %q", typ.Name(), masked, value)
		}
		for p := range Part(len(partNames) + 1) {
			part, ok := typ.AppendPart(nil, value, p)
			switch {
			case ok && !slices.Contains(typ.Parts(), p), ok == (len(part) == 0):
				t.Fatalf("%s: %s of %q is %q, %v", typ.Name(), p, value, part, ok)
			case p == PartLast4 && ok && (len(part) != 4 || len(value) < minShown):
				t.Fatalf("%s: %s of %q is %q", typ.Name(), p, value, part)
			case ok && p != PartBrand && p != PartName && !strings.Contains(string(value), string(part)):
				t.Fatalf("%s: %s of %q is %q", typ.Name(), p, value, part)
			}
		}
	})
}
