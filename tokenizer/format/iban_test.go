package format

import (
	"slices"
	"strings"
	"testing"
)

func TestIBAN(t *testing.T) {
	const iban = "GB29NWBK60161331926819"
	typ := mustLookup(t, "iban")
	for _, c := range []normalizeCase{
		{"electronic form", iban, iban, nil},
		{"print form", "GB29 NWBK 6016 1331 9268 19", iban, nil},
		{"spaces elsewhere", "G B29NWBK 60161331926819", iban, nil},
		{"small letters", "gb29nwbk60161331926819", iban, nil},
		{"shortest", "NO9386011117947", "NO9386011117947", nil},
		{"longest", "RU0204452560040702810412345678901", "RU0204452560040702810412345678901", nil},
		{"two spaces", "GB29  NWBK60161331926819", "", errIBANCharacter},
		{"leading space", " " + iban, "", errIBANCharacter},
		{"trailing space", iban + " ", "", errIBANCharacter},
		{"trailing newline", iban + "\n", "", errIBANCharacter},
		{"dashes", "GB29-NWBK-6016-1331-9268-19", "", errIBANCharacter},
		{"its name before it", "IBAN: " + iban, "", errIBANCharacter},
		{"Cyrillic letter", "GB29NW\u0412K60161331926819", "", errIBANCharacter},
		{"full-width", "ＧＢ２９", "", errIBANCharacter},
		{"a space", " ", "", errIBANCharacter},
		{"country alone", "GB", "", errIBANForm},
		{"three characters", "GB2", "", errIBANForm},
		{"a digit short", iban[:21], "", errIBANForm},
		{"a digit more", iban + "0", "", errIBANForm},
		{"35 characters", strings.Repeat("GB29N", 7), "", errIBANForm},
		{"letter for a digit", "GB29NWBK6016133192681A", "", errIBANForm},
		{"digit for a letter", "GB29NWB160161331926819", "", errIBANForm},
		{"letter for a check digit", "GBA9NWBK60161331926819", "", errIBANForm},
		{"United States", "US29NWBK60161331926819", "", errIBANCountry},
		{"digits for a country", "0029NWBK60161331926819", "", errIBANCountry},
		{"wrong check digits", "GB28NWBK60161331926819", "", errIBANCheck},
		{"two digits swapped", "GB29NWBK60161331926891", "", errIBANCheck},
		{"check digits too low", "DE00370400440532013000", "", errIBANCheck},
		{"check digits too high", "DE99370400440532013000", "", errIBANCheck},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

func TestIBANCountries(t *testing.T) {
	var names []string
	for _, c := range ibanCountries {
		names = append(names, c.country)
		length, run, last := 4, 0, byte(0)
		for i := range len(c.bban) {
			if k := c.bban[i]; kind(k) == '0' {
				run = run*10 + int(k-'0')
			} else {
				if run == 0 || k == last || !strings.ContainsRune("nac", rune(k)) {
					t.Errorf("%s: %q", c.country, c.bban)
				}
				length, run, last = length+run, 0, k
			}
		}
		if run != 0 || length < 15 || length > maxIBAN {
			t.Errorf("%s: %q is of %d characters", c.country, c.bban, length)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("countries are not in order, each once: %q", names)
	}
}

// ibanDecisions says what this package does with the values of iban.csv that are
// for each product to decide.
var ibanDecisions = func() decisions {
	d := decisions{}
	add := func(accept bool, why string, values ...string) {
		for _, v := range values {
			d[v] = struct {
				accept bool
				why    string
			}{accept, why}
		}
	}
	add(true, "the registry names the territory",
		"AX2112345600000785", "BL6820041010050500013M02606", "GF4120041010050500013M02606", "GP1120041010050500013M02606",
		"MF8420041010050500013M02606", "MQ5120041010050500013M02606", "NC8420041010050500013M02606",
		"PF5720041010050500013M02606", "PM3620041010050500013M02606", "RE4220041010050500013M02606",
		"TF2120041010050500013M02606", "WF9120041010050500013M02606", "YT3120041010050500013M02606")
	add(true, "the print form is how people have it before them",
		"GB29 NWBK 6016 1331 9268 19", "DE89 3704 0044 0532 0130 00", "MT84 MALT 0110 0001 2345 MTLC AST0 01S")
	add(true, "check digits within a country's account number are not looked at",
		"ES2121000418450200051331", "ES89 3183 1500 9500 0121 0562")
	add(true, "a letter's case says nothing, to the check digits neither",
		"FR1420041010050500013m02606", "MT84MALT011000012345mtlcast001s", "LI21088100002324013aa",
		"QA58DOHB00001234567890abcdefg", "RO49AAAA1b31007593840000")
	return d
}()

func TestIBANVectors(t *testing.T) { runVectors(t, "iban.csv", "iban", ibanDecisions, nil) }
