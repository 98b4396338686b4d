package format

import (
	"slices"
	"testing"
)

func TestPartNames(t *testing.T) {
	for i, want := range []string{
		"LAST4", "BIN", "BRAND", "NUMBER", "EXPIRY", "NAME", "CVV", "DOMAIN", "COUNTRY", "YEAR", "ROUTING",
	} {
		p := Part(i + 1)
		if got := p.String(); got != want {
			t.Errorf("part %d is %q, want %q", p, got, want)
		}
		if got, ok := ParsePart(want); got != p || !ok {
			t.Errorf("ParsePart(%q) = %d, %v", want, got, ok)
		}
	}
	if PartRouting != 11 || Part(0).String() != "UNKNOWN" || Part(12).String() != "UNKNOWN" {
		t.Error("there are other parts")
	}
	for _, name := range []string{"", "last4", "LAST4 ", "UNKNOWN", "FULL"} {
		if p, ok := ParsePart(name); ok || p != 0 {
			t.Errorf("ParsePart(%q) = %d", name, p)
		}
	}
}

func TestAppendPart(t *testing.T) {
	const card = `{"number":"378282246310005","expiry":"2030-12","name":"A \"B\" C","cvv":"1234"}`
	const bareCard = `{"number":"4111111111111111","expiry":"2030-12"}`
	for _, c := range []struct {
		typ, value string
		part       Part
		want       string
		ok         bool
	}{
		{"card-number", "4111111111111111", PartLast4, "1111", true},
		{"card-number", "4111111111111111", PartBIN, "41111111", true},
		{"card-number", "6205500000000000004", PartBIN, "62055000", true},
		{"card-number", "378282246310005", PartBIN, "378282", true},
		{"card-number", "4222222222222", PartBIN, "422222", true},
		{"card-number", "4111111111111111", PartBrand, "visa", true},
		{"card-number", "4111111111111111", PartNumber, "", false},
		{"card", card, PartLast4, "0005", true},
		{"card", card, PartBIN, "378282", true},
		{"card", card, PartBrand, "american-express", true},
		{"card", card, PartNumber, "378282246310005", true},
		{"card", card, PartExpiry, "2030-12", true},
		{"card", card, PartName, `A "B" C`, true},
		{"card", card, PartCVV, "1234", true},
		{"card", bareCard, PartName, "", false},
		{"card", bareCard, PartCVV, "", false},
		{"card", bareCard, PartYear, "", false},
		{"card-verification", "123", PartCVV, "", false},
		{"ssn", "536904399", PartLast4, "4399", true},
		{"itin", "900700001", PartLast4, "0001", true},
		{"ein", "123456789", PartLast4, "6789", true},
		{"iban", "GB29NWBK60161331926819", PartCountry, "GB", true},
		{"iban", "GB29NWBK60161331926819", PartLast4, "6819", true},
		{"us-bank-account", "110000000/000123456789", PartRouting, "110000000", true},
		{"us-bank-account", "110000000/000123456789", PartLast4, "6789", true},
		{"us-bank-account", "110000000/1234567", PartLast4, "", false},
		{"email", "some@one@example.com", PartDomain, "example.com", true},
		{"phone", "+442079460958", PartCountry, "+44", true},
		{"phone", "+442079460958", PartLast4, "0958", true},
		{"phone", "+6834002", PartLast4, "", false},
		{"date-of-birth", "1970-01-01", PartYear, "1970", true},
		{"passport", "AB1234567", PartLast4, "4567", true},
		{"passport", "AB12345", PartLast4, "", false},
		{"driver-licence", "AB1234567", PartLast4, "4567", true},
		{"text", "a long text", PartLast4, "", false},
		{"bytes", "a long text", PartLast4, "", false},
		{"text", "a long text", 0, "", false},
		{"text", "a long text", 255, "", false},
	} {
		typ := mustLookup(t, c.typ)
		if c.typ == "card" {
			typ = mustType(t, "card", TypeOptions{CVV: true})
		}
		got, ok := typ.AppendPart([]byte("before "), []byte(c.value), c.part)
		if string(got) != "before "+c.want || ok != c.ok {
			t.Errorf("%s: %s of %q is %q, %v", c.typ, c.part, c.value, got, ok)
		}
	}
}

func TestParts(t *testing.T) {
	for _, typ := range allTypes(t) {
		parts := typ.Parts()
		if !slices.IsSorted(parts) || len(slices.Compact(slices.Clone(parts))) != len(parts) {
			t.Errorf("%s: %v", typ.Name(), parts)
		}
		if has := slices.Contains(parts, PartCVV); has && !typ.Ephemeral() {
			t.Errorf("%s has a cvv and may be durable", typ.Name())
		}
		if len(parts) > 0 {
			parts[0] = 0
			if typ.Parts()[0] == 0 {
				t.Error("Parts gives away the type's own memory")
			}
		}
	}
}
