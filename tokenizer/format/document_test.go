package format

import (
	"strings"
	"testing"
)

func TestDocument(t *testing.T) {
	for pattern, cases := range map[string][]normalizeCase{
		`[A-Z]{2}\d{7}`: {
			{"as it is kept", "AB1234567", "AB1234567", nil},
			{"small letters", "ab1234567", "AB1234567", nil},
			{"separators", "AB 123-4567", "AB1234567", nil},
			{"two spaces", "AB  1234567", "", errDocumentForm},
			{"leading space", " AB1234567", "", errDocumentForm},
			{"trailing dash", "AB1234567-", "", errDocumentForm},
			{"trailing newline", "AB1234567\n", "", errDocumentForm},
			{"a digit short", "AB123456", "", errDocumentForm},
			{"a digit more", "AB12345678", "", errDocumentForm},
			{"letter for a digit", "AB123456O", "", errDocumentForm},
			{"full-width", "ＡＢ１２３４５６７", "", errDocumentForm},
			{"1 MiB", "AB1234567" + strings.Repeat("1", 1<<20), "", errDocumentForm},
		},
		`\u-\d{4} \d`: {
			{"separators of its own", "A-1234 5", "A-1234 5", nil},
			{"small letter", "a-1234 5", "A-1234 5", nil},
			{"none", "A12345", "", errDocumentForm},
			{"other", "A 1234-5", "", errDocumentForm},
		},
		`\u\l\d{6}`: {
			{"cases", "Ab123456", "Ab123456", nil},
			{"small letters alone", "ab123456", "", errDocumentForm},
			{"capitals alone", "AB123456", "", errDocumentForm},
		},
	} {
		for _, name := range []string{"passport", "driver-licence"} {
			typ := mustType(t, name, TypeOptions{Pattern: pattern})
			for _, c := range cases {
				t.Run(name+" "+pattern+" "+c.name, func(t *testing.T) { c.run(t, typ) })
			}
		}
	}
}

func TestDocumentDigits(t *testing.T) {
	for pattern, want := range map[string]int{`\d{9}`: 9, `1[2-7]\d`: 3, `\u\d{8}`: 0, `\d{4} \d{4}`: 0} {
		if least, most := mustType(t, "passport", TypeOptions{Pattern: pattern}).Digits(); least != want || most != want {
			t.Errorf("%q: %d to %d, want %d", pattern, least, most, want)
		}
	}
}
