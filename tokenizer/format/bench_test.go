package format

import (
	"strings"
	"testing"
)

// hotPath is a call to measure.
type hotPath struct {
	name string
	run  func()
}

// hotPaths are what every call of the service goes through. Given a buffer,
// none of them may allocate.
func hotPaths(tb testing.TB) []hotPath {
	buf := make([]byte, 0, MaxText)
	block := [16]byte{0xC0, 0xA7, 15: 0x01}
	token := string(AppendOpaque(nil, "card", 1, &block))
	wrongToken := token[:len(token)-1] + "-"
	normalize := func(name, raw string) func() {
		typ := mustLookup(tb, name)
		return func() { _, _ = typ.Normalize(buf, raw) }
	}
	mask := func(name, value string) func() {
		typ, content := mustLookup(tb, name), []byte(value)
		return func() { typ.Mask(buf, content) }
	}
	part := func(name, value string, p Part) func() {
		typ, content := mustLookup(tb, name), []byte(value)
		return func() { _, _ = typ.AppendPart(buf, content, p) }
	}
	return []hotPath{
		{"AppendOpaque", func() { AppendOpaque(buf, "card", 1, &block) }},
		{"ParseOpaque", func() { _, _, _, _ = ParseOpaque(token) }},
		{"ParseOpaque/refused", func() { _, _, _, _ = ParseOpaque(wrongToken) }},
		{"Normalize/card-number", normalize("card-number", "4111 1111 1111 1111")},
		{"Normalize/card-number/Luhn", normalize("card-number", "4111 1111 1111 1112")},
		{"Normalize/ssn", normalize("ssn", "536-90-4399")},
		{"Normalize/ssn/refused", normalize("ssn", "078-05-1120")},
		{"Normalize/text", normalize("text", "a note of some length")},
		{"Normalize/text/64KiB", normalize("text", strings.Repeat("a", MaxText))},
		{"Mask/card-number", mask("card-number", "4111111111111111")},
		{"Mask/ssn", mask("ssn", "536904399")},
		{"Mask/text", mask("text", "a note of some length")},
		{"Normalize/bytes", normalize("bytes", "\x00\xff")},
		{"Normalize/card", normalize("card", `{"number":"4111 1111 1111 1111","expiry":"12/30","name":"A \u0042"}`)},
		{"Normalize/card/Luhn", normalize("card", `{"number":"4111 1111 1111 1112","expiry":"12/30"}`)},
		{"Normalize/card-verification", normalize("card-verification", "123")},
		{"Normalize/date-of-birth", normalize("date-of-birth", "1970-01-01")},
		{"Normalize/driver-licence", normalize("driver-licence", "ab 123-4567")},
		{"Normalize/ein", normalize("ein", "12-3456789")},
		{"Normalize/email", normalize("email", "Some.One+tag@Example.com")},
		{"Normalize/email/refused", normalize("email", "Some.One+tag@localhost")},
		{"Normalize/iban", normalize("iban", "GB29 NWBK 6016 1331 9268 19")},
		{"Normalize/itin", normalize("itin", "900-70-0000")},
		{"Normalize/phone", normalize("phone", "+44 (0)20 7946 0958")},
		{"Normalize/us-bank-account", normalize("us-bank-account", "110000000/0001 2345 6789")},
		{"Mask/card", mask("card", `{"number":"4111111111111111","expiry":"2030-12","name":"A","cvv":"123"}`)},
		{"Mask/email", mask("email", "someone@example.com")},
		{"Mask/iban", mask("iban", "GB29NWBK60161331926819")},
		{"Mask/phone", mask("phone", "+442079460958")},
		{"Mask/us-bank-account", mask("us-bank-account", "110000000/000123456789")},
		{"AppendPart/card", part("card", `{"number":"4111111111111111","expiry":"2030-12","name":"A"}`, PartName)},
		{"AppendPart/card-number", part("card-number", "4111111111111111", PartBrand)},
		{"AppendPart/phone", part("phone", "+442079460958", PartCountry)},
		{"BrandOf", func() { BrandOf([]byte("6771798021000008")) }},
	}
}

func TestAllocations(t *testing.T) {
	for _, path := range hotPaths(t) {
		if n := testing.AllocsPerRun(100, path.run); n != 0 {
			t.Errorf("%s: %v allocations", path.name, n)
		}
	}
}

// A token can be written to, and read from, memory of the caller's stack.
func TestStackBuffer(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		var buf [MaxOpaqueLen]byte
		var block [16]byte
		if len(AppendOpaque(buf[:0], "card", 1, &block)) == 0 {
			t.Error("no token")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func Benchmark(b *testing.B) {
	for _, path := range hotPaths(b) {
		b.Run(path.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				path.run()
			}
		})
	}
}
