package format

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCard(t *testing.T) {
	const least = `{"number":"4111111111111111","expiry":"2030-12"}`
	number := func(rest string) string { return `{"number":"4111 1111 1111 1111"` + rest + `}` }
	typ := mustLookup(t, "card")
	for _, c := range []normalizeCase{
		{"as it is kept", least, least, nil},
		{"MM/YY", number(`,"expiry":"12/30"`), least, nil},
		{"MM/YYYY", number(`,"expiry":"12/2030"`), least, nil},
		{"expired", number(`,"expiry":"01/2000"`), `{"number":"4111111111111111","expiry":"2000-01"}`, nil},
		{"other order", `{"expiry":"12/30","number":"4111111111111111"}`, least, nil},
		{"white space", " {\n\t\"number\" : \"4111111111111111\" ,\r\n\"expiry\":\"12/30\"}\n", least, nil},
		{"escapes", `{"n\u0075mber":"\u0034111111111111111","expiry":"12\/30"}`, least, nil},
		{"name", number(`,"expiry":"12/30","name":"A. B. Ødegård"`),
			`{"number":"4111111111111111","expiry":"2030-12","name":"A. B. Ødegård"}`, nil},
		{"name to escape", number(`,"expiry":"12/30","name":"\u0022\\\u00d8\ud83d\ude00"`),
			`{"number":"4111111111111111","expiry":"2030-12","name":"\"\\Ø😀"}`, nil},
		{"name of 128 bytes", number(`,"expiry":"12/30","name":"` + strings.Repeat(`\\`, 128) + `"`),
			`{"number":"4111111111111111","expiry":"2030-12","name":"` + strings.Repeat(`\\`, 128) + `"}`, nil},
		{"no JSON", "4111111111111111", "", errCardJSON},
		{"an array", `["4111111111111111"]`, "", errCardJSON},
		{"a number", `{"number":4111111111111111,"expiry":"12/30"}`, "", errCardJSON},
		{"null", number(`,"expiry":"12/30","name":null`), "", errCardJSON},
		{"cut short", least[:len(least)-1], "", errCardJSON},
		{"two objects", least + least, "", errCardJSON},
		{"a comma too many", number(`,"expiry":"12/30",`), "", errCardJSON},
		{"a comma first", `{,"number":"4111111111111111"}`, "", errCardJSON},
		{"no comma", number(` "expiry":"12/30"`), "", errCardJSON},
		{"no colon", `{"number" "4111111111111111"}`, "", errCardJSON},
		{"open string", `{"number":"4111`, "", errCardJSON},
		{"open escape", `{"number":"4111\`, "", errCardJSON},
		{"unknown escape", `{"number":"\x34"}`, "", errCardJSON},
		{"short escape", `{"number":"\u003"}`, "", errCardJSON},
		{"escape cut short", `{"number":"\u00`, "", errCardJSON},
		{"half a surrogate", number(`,"expiry":"12/30","name":"\ud83d"`), "", errCardJSON},
		{"wrong surrogates", number(`,"expiry":"12/30","name":"\ude00\ud83d"`), "", errCardJSON},
		{"line break in a string", "{\"number\":\"4111\n\"}", "", errCardJSON},
		{"single quotes", `{'number':'4111111111111111'}`, "", errCardJSON},
		{"byte order mark", "\ufeff" + least, "", errCardJSON},
		{"1 KiB", least + strings.Repeat(" ", maxCardJSON-len(least)), least, nil},
		{"more than 1 KiB", least + strings.Repeat(" ", maxCardJSON-len(least)+1), "", errCardJSON},
		{"unknown key", number(`,"expiry":"12/30","zip":"1"`), "", errCardKey},
		{"key in capitals", `{"Number":"4111111111111111","expiry":"12/30"}`, "", errCardKey},
		{"key twice", number(`,"expiry":"12/30","number":"4111111111111111"`), "", errCardKey},
		{"empty key twice", number(`,"expiry":"12/30","name":"","name":"A"`), "", errCardKey},
		{"cvv", number(`,"expiry":"12/30","cvv":"123"`), "", errCardNoCVV},
		{"nothing", `{}`, "", errCardMissing},
		{"no expiry", number(""), "", errCardMissing},
		{"no number", `{"expiry":"12/30"}`, "", errCardMissing},
		{"empty number", `{"number":"","expiry":"12/30"}`, "", errCardSeparator},
		{"wrong number", `{"number":"4111111111111112","expiry":"12/30"}`, "", errCardLuhn},
		{"long number", `{"number":"` + strings.Repeat("4", 500) + `","expiry":"12/30"}`, "", errCardLength},
		{"month 13", number(`,"expiry":"13/30"`), "", errCardExpiry},
		{"month 0", number(`,"expiry":"2030-00"`), "", errCardExpiry},
		{"last century", number(`,"expiry":"12/1999"`), "", errCardExpiry},
		{"next century", number(`,"expiry":"2100-01"`), "", errCardExpiry},
		{"no slash", number(`,"expiry":"1230"`), "", errCardExpiry},
		{"one digit of a month", number(`,"expiry":"1/30"`), "", errCardExpiry},
		{"a day", number(`,"expiry":"2030-12-31"`), "", errCardExpiry},
		{"letters", number(`,"expiry":"MM/YY"`), "", errCardExpiry},
		{"empty name", number(`,"expiry":"12/30","name":""`), "", errCardName},
		{"blank name", number(`,"expiry":"12/30","name":"  "`), "", errCardName},
		{"name of 129 bytes", number(`,"expiry":"12/30","name":"` + strings.Repeat("a", 129) + `"`), "", errCardName},
		{"line break in a name", number(`,"expiry":"12/30","name":"A\nB"`), "", errCardName},
		{"broken name", number(`,"expiry":"12/30","name":"` + "\xff" + `"`), "", errCardName},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

func TestCardWithCVV(t *testing.T) {
	const card = `{"number":"4111111111111111","expiry":"2030-12"`
	typ := mustType(t, "card", TypeOptions{CVV: true})
	for _, c := range []normalizeCase{
		{"none", card + `}`, card + `}`, nil},
		{"3 digits", card + `,"cvv":"123"}`, card + `,"cvv":"123"}`, nil},
		{"4 digits and a name", card + `,"cvv":"1234","name":"A B"}`, card + `,"name":"A B","cvv":"1234"}`, nil},
		{"2 digits", card + `,"cvv":"12"}`, "", errCardCVV},
		{"5 digits", card + `,"cvv":"12345"}`, "", errCardCVV},
		{"letters", card + `,"cvv":"abc"}`, "", errCardCVV},
		{"empty", card + `,"cvv":""}`, "", errCardCVV},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

func TestCVV(t *testing.T) {
	typ := mustLookup(t, "card-verification")
	for _, c := range []normalizeCase{
		{"3 digits", "012", "012", nil},
		{"4 digits", "0123", "0123", nil},
		{"2 digits", "01", "", errCVV},
		{"5 digits", "01234", "", errCVV},
		{"letter", "01O", "", errCVV},
		{"trailing space", "012 ", "", errCVV},
		{"full-width", "１", "", errCVV},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

// What is taken, package encoding/json reads as well, and a normal form as the
// same members.
func FuzzCard(f *testing.F) {
	for _, raw := range []string{
		`{"number":"4111111111111111","expiry":"2030-12"}`,
		`{"expiry":"12/30","number":"4111 1111 1111 1111","name":"A \"B\"\u0043\ud83d\ude00","cvv":"123"}`,
		`{"number":"\u0034111111111111111","expiry":"01/2031","name":"\\"}`, `{}`, `{"`, `[]`,
	} {
		f.Add(raw)
	}
	typ := mustType(f, "card", TypeOptions{CVV: true})
	f.Fuzz(func(t *testing.T, raw string) {
		value, err := typ.Normalize(nil, raw)
		if err != nil {
			checkRefusal(t, value, err)
			return
		}
		var given, kept map[string]string
		if err := json.Unmarshal([]byte(raw), &given); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if err := json.Unmarshal(value, &kept); err != nil || len(kept) != len(given) {
			t.Fatalf("%q: %v", value, err)
		}
		for _, key := range []string{"name", "cvv"} {
			if given[key] != kept[key] {
				t.Fatalf("%s %q became %q", key, given[key], kept[key])
			}
		}
		for p, key := range map[Part]string{PartNumber: "number", PartExpiry: "expiry", PartName: "name", PartCVV: "cvv"} {
			want, has := kept[key]
			if part, ok := typ.AppendPart(nil, value, p); ok != has || string(part) != want {
				t.Fatalf("%s of %q is %q, %v", p, value, part, ok)
			}
		}
		if masked := typ.Mask(nil, value); !json.Valid(masked) {
			t.Fatalf("mask %q of %q", masked, value)
		}
	})
}
