package format

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	typ := mustLookup(t, "text")
	asItIs := func(name, raw string) normalizeCase { return normalizeCase{name, raw, raw, nil} }
	for _, c := range []normalizeCase{
		asItIs("one byte", "a"),
		asItIs("a space", " "),
		asItIs("white space around", "\t a \r\n"),
		asItIs("NUL", "\x00"),
		asItIs("composed", "\u00e9"),
		asItIs("decomposed", "e\u0301"),
		asItIs("byte order mark", "\ufeffa"),
		asItIs("replacement character", "\ufffd"),
		asItIs("last code point", "\U0010ffff"),
		asItIs("64 KiB", strings.Repeat("a", MaxText)),
		asItIs("64 KiB of two bytes each", strings.Repeat("é", MaxText/2)),
		{"one byte more", strings.Repeat("a", MaxText+1), "", errTextLength},
		{"65 KiB", strings.Repeat("a", 65<<10), "", errTextLength},
		{"64 Ki characters of two bytes", strings.Repeat("é", MaxText), "", errTextLength},
		{"broken byte", "a\xff", "", errTextUTF8},
		{"cut short", "caf\xc3", "", errTextUTF8},
		{"overlong NUL", "\xc0\x80", "", errTextUTF8},
		{"surrogate", "\xed\xa0\x80", "", errTextUTF8},
		{"beyond Unicode", "\xf4\x90\x80\x80", "", errTextUTF8},
		{"Latin-1", "caf\xe9", "", errTextUTF8},
		{"too long and broken", strings.Repeat("\xff", MaxText+1), "", errTextLength},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

func FuzzText(f *testing.F) {
	for _, raw := range []string{"", "a", "é", "e\u0301", "\xff", "\xed\xa0\x80"} {
		f.Add(raw)
	}
	typ := mustLookup(f, "text")
	f.Fuzz(func(t *testing.T, raw string) {
		value, err := typ.Normalize(nil, raw)
		if valid := raw != "" && len(raw) <= MaxText && utf8.ValidString(raw); valid != (err == nil) {
			t.Fatalf("%q: %v", raw, err)
		}
		if err != nil {
			checkRefusal(t, value, err)
			return
		}
		if string(value) != raw {
			t.Fatalf("%q became %q", raw, value)
		}
		if masked := string(typ.Mask(nil, value)); masked != "********" {
			t.Fatalf("mask %q", masked)
		}
	})
}
