package format

import (
	"strings"
	"testing"
)

func TestEmail(t *testing.T) {
	typ := mustLookup(t, "email")
	asItIs := func(name, raw string) normalizeCase { return normalizeCase{name, raw, raw, nil} }
	long := strings.Repeat("a", 63)
	for _, c := range []normalizeCase{
		asItIs("plain", "someone@example.com"),
		asItIs("plus", "some.one+tag@example.com"),
		asItIs("signs", "!#$%&'*+-/=?^_`{|}~@example.com"),
		asItIs("one character each", "a@b.cd"),
		asItIs("dash in the top-level domain", "a@example.co-uk"),
		asItIs("A-label", "a@xn--bcher-kva.example"),
		asItIs("quoted", `"some one"@example.com`),
		asItIs("quoted @", `"a@b"@example.com`),
		asItIs("quoted escapes", `"\"\\\ "@example.com`),
		asItIs("letters beyond ASCII", "usér@example.com"),
		asItIs("decomposed", "use\u0301r@example.com"),
		asItIs("Cyrillic a", "аdmin@example.com"),
		asItIs("local part of 64", long+"a@example.com"),
		asItIs("254 bytes", "a@"+strings.Repeat(strings.Repeat("b", 49)+".", 5)+"cd"),
		{"case", "Some.One@EXAMPLE.Com", "Some.One@example.com", nil},
		{"IDN", "a@bücher.example", "a@xn--bcher-kva.example", nil},
		{"IDN in capitals", "a@BÜCHER.Example", "a@xn--bcher-kva.example", nil},
		{"IDN, decomposed", "a@bu\u0308cher.example", "", errEmailDomain},
		{"sharp s", "a@straße.example", "a@xn--strae-oqa.example", nil},
		{"middle dot", "a@paral·lel.cat", "a@xn--parallel-koa.cat", nil},
		{"no @", "example.com", "", errEmailForm},
		{"two @", "a@b@example.com", "", errEmailLocal},
		{"nothing before the @", "@example.com", "", errEmailLocal},
		{"leading dot", ".a@example.com", "", errEmailLocal},
		{"trailing dot", "a.@example.com", "", errEmailLocal},
		{"two dots", "a..b@example.com", "", errEmailLocal},
		{"leading space", " a@example.com", "", errEmailLocal},
		{"header injection", "a\r\nBcc: b@example.com", "", errEmailLocal},
		{"display name", "Some One <a@example.com>", "", errEmailLocal},
		{"empty quotes", `""@example.com`, "", errEmailLocal},
		{"a quote", `"@example.com`, "", errEmailLocal},
		{"open quotes", `"a\"@example.com`, "", errEmailLocal},
		{"quotes within", `a"b"@example.com`, "", errEmailLocal},
		{"control character in quotes", "\"a\tb\"@example.com", "", errEmailLocal},
		{"right-to-left override", "a\u202eb@example.com", "", errEmailLocal},
		{"no-break space", "a\u00a0b@example.com", "", errEmailLocal},
		{"full-width letters in quotes", "\"ａ\"@example.com", "", errEmailLocal},
		{"full-width letters", "ａ@example.com", "", errEmailLocal},
		{"comment", "a(b)@example.com", "", errEmailLocal},
		{"nothing behind the @", "a@", "", errEmailDomain},
		{"host name", "a@localhost", "", errEmailDomain},
		{"dot at the end", "a@example.com.", "", errEmailDomain},
		{"address", "a@192.0.2.1", "", errEmailDomain},
		{"address literal", "a@[192.0.2.1]", "", errEmailDomain},
		{"underscore", "a@my_host.example.com", "", errEmailDomain},
		{"dash first", "a@-example.com", "", errEmailDomain},
		{"dash last", "a@example-.com", "", errEmailDomain},
		{"top-level domain of a letter", "a@example.c", "", errEmailDomain},
		{"trailing newline", "a@example.com\n", "", errEmailDomain},
		{"full-width domain", "a@ｅxample.com", "", errEmailDomain},
		{"ideographic full stop", "a@example。com", "", errEmailDomain},
		{"sign", "a@example.com©", "", errEmailDomain},
		{"label of 64", "a@" + long + "a.com", "", errEmailDomain},
		{"local part of 65", long + "aa@example.com", "", errEmailLength},
		{"255 bytes", "a@" + strings.Repeat(strings.Repeat("b", 49)+".", 5) + "cde", "", errEmailLength},
		{"too long as A-labels", long + "@" + strings.Repeat("ü.", 25) + "com", "", errEmailLength},
		{"1 MiB", strings.Repeat("a", 1<<20) + "@example.com", "", errEmailLength},
		{"broken UTF-8", "a\xff@example.com", "", errEmailUTF8},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

// emailDecisions says what this package does with the values of email.csv that
// are for each product to decide.
var emailDecisions = decisions{
	"test@io":                              {false, "no mail is sent to a lone top-level domain"},
	"user@localhost":                       {false, "a host name is nobody's address elsewhere"},
	"test@iana.123":                        {false, "there is no such top-level domain"},
	"test@255.255.255.255":                 {false, "likewise"},
	`"test"@iana.org`:                      {true, "is an address, and kept as it is written"},
	`""@iana.org`:                          {false, "names nobody"},
	`"\a"@iana.org`:                        {true, "is an address, and kept as it is written"},
	`"\""@iana.org`:                        {true, "likewise"},
	`"\\"@iana.org`:                        {true, "likewise"},
	"foo@bar.com.":                         {false, "RFC 5321 has no dot at the end"},
	"foo@bar.co.uk.":                       {false, "likewise"},
	"email@[123.123.123.123]":              {false, "is of a machine, not a person"},
	"Some Name <foo@bar.com>":              {false, "is a header's content, of which an address is part"},
	"foobar@my_sarisari_store.typepad.com": {false, "is no host name, so that mail can't be relied on"},
	"user@bücher.example":                  {true, "is kept in its A-label form"},
	"us\u00e9r@example.com":                {true, "RFC 6531"},
	"use\u0301r@example.com":               {true, "is kept as it is written, as another address than the composed one"},
	" user@example.com":                    {false, "what stands around an address is for the caller to remove"},
	"user@example.com\n":                   {false, "likewise"},
	"\u0430dmin@example.com":               {true, "is an address; which script its owner has isn't known"},
}

func TestEmailVectors(t *testing.T) { runVectors(t, "email.csv", "email", emailDecisions, nil) }
