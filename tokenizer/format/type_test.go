package format

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// documentPattern is the pattern of the types that need one, as mustLookup makes
// them.
const documentPattern = `\u{2}\d{7}`

// mustLookup returns a type with no options but those that it needs.
func mustLookup(t testing.TB, name string) Type {
	t.Helper()
	if name == "passport" || name == "driver-licence" {
		return mustType(t, name, TypeOptions{Pattern: documentPattern})
	}
	typ, ok := Lookup(name)
	if !ok {
		t.Fatalf("no type %q", name)
	}
	return typ
}

func mustType(t testing.TB, name string, o TypeOptions) Type {
	t.Helper()
	typ, err := NewType(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

// allTypes returns each type, in each of its kinds.
func allTypes(t testing.TB) []Type {
	t.Helper()
	var all []Type
	for _, name := range Names() {
		all = append(all, mustLookup(t, name))
	}
	return append(all,
		mustType(t, "card", TypeOptions{CVV: true}),
		mustType(t, "phone", TypeOptions{Region: "US"}),
		mustType(t, "phone", TypeOptions{Region: "GB"}),
		mustType(t, "phone", TypeOptions{Region: "IT"}),
		mustType(t, "phone", TypeOptions{Region: "RU"}),
		mustType(t, "passport", TypeOptions{Pattern: `[0-9]{4}`}),
		mustType(t, "passport", TypeOptions{Pattern: `[A-Za-z]-\d{2} x`}),
	)
}

// normalizeCase is a row of the tables below: want is the normal form, or
// wantErr the reason why there is none.
type normalizeCase struct {
	name    string
	raw     string
	want    string
	wantErr *ValueError
}

// run checks that the value is taken or refused as the row says, and that dst
// is handled as Normalize promises.
func (c normalizeCase) run(t *testing.T, typ Type) {
	t.Helper()
	spare := bytes.Repeat([]byte{'#'}, 256)
	dst := append(spare[:0:len(spare)], "before"...)
	got, err := typ.Normalize(dst, c.raw)
	if c.wantErr != nil {
		var valueErr *ValueError
		if !errors.Is(err, ErrValue) || !errors.As(err, &valueErr) || valueErr != c.wantErr {
			t.Fatalf("error %v, want %v", err, c.wantErr)
		}
		if string(got) != "before" {
			t.Fatalf("dst is now %q", got)
		}
		if rest := spare[len("before"):]; !bytes.Equal(rest, bytes.Repeat([]byte{'#'}, len(rest))) {
			t.Fatal("a refused value has left traces beyond dst")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "before"+c.want {
		t.Fatalf("got %q, want %q", got, "before"+c.want)
	}
}

func TestNames(t *testing.T) {
	names := Names()
	want := []string{
		"bytes", "card", "card-number", "card-verification", "date-of-birth", "driver-licence", "ein", "email", "iban",
		"itin", "passport", "phone", "ssn", "text", "us-bank-account",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("got %q, want %q", names, want)
	}
	if !slices.IsSorted(names) {
		t.Fatal("not sorted")
	}
	for _, name := range names {
		if got := mustLookup(t, name).Name(); got != name {
			t.Errorf("Lookup(%q).Name() = %q", name, got)
		}
		first, ok := Lookup(name)
		if needs := name == "passport" || name == "driver-licence"; ok == needs {
			t.Errorf("Lookup(%q) = %v", name, ok)
		}
		if second, _ := Lookup(name); first != second {
			t.Errorf("Lookup(%q) gives two types", name)
		}
	}
	names[0] = "changed"
	if Names()[0] != "bytes" {
		t.Error("Names gives away its own memory")
	}
}

func TestLookupUnknown(t *testing.T) {
	for _, name := range []string{"", "cards", "Card-Number", "card-number ", "cardnumber"} {
		if _, ok := Lookup(name); ok {
			t.Errorf("there is a type %q", name)
		}
	}
}

func TestEmpty(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			normalizeCase{wantErr: errEmpty}.run(t, mustLookup(t, name))
		})
	}
}

// A long value is refused in the time that a short one takes: to look at all of
// 16 MiB a thousand times takes ten seconds and more, not to do so far less than
// a thousandth of one.
func TestLongValues(t *testing.T) {
	const size = 16 << 20
	for _, unit := range []string{" ", "-", "4", "4 ", "x", "\x00", "٤"} {
		raw := strings.Repeat(unit, size/len(unit))
		for _, typ := range allTypes(t) {
			start := time.Now()
			for range 1000 {
				if _, err := typ.Normalize(nil, raw); !errors.Is(err, ErrValue) {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: %v to refuse 16 MiB of %q a thousand times", typ.Name(), took, unit)
			}
		}
	}
}

// reasons are all there are.
var reasons = []*ValueError{
	errEmpty,
	errAccountForm, errRoutingPrefix, errRoutingCheck, errAccountNumber, errAccountLength, errAccountNothing,
	errBytesLength,
	errCardJSON, errCardKey, errCardNoCVV, errCardMissing, errCardExpiry, errCardName, errCardCVV,
	errCardCharacter, errCardSeparator, errCardLength, errCardLuhn,
	errCVV,
	errDateForm, errDateDay, errDateRange,
	errDocumentForm,
	errEINForm, errEINPrefix,
	errEmailLength, errEmailUTF8, errEmailForm, errEmailLocal, errEmailDomain,
	errIBANCharacter, errIBANCountry, errIBANForm, errIBANCheck,
	errITINArea, errITINGroup,
	errPhoneCharacter, errPhonePlus, errPhoneCode, errPhoneLength, errPhoneNumber,
	errSSNForm, errSSNArea, errSSNGroup, errSSNSerial, errSSNPublic,
	errTextLength, errTextUTF8,
}

func TestReasons(t *testing.T) {
	for _, e := range reasons {
		if !errors.Is(e, ErrValue) || errors.Is(e, ErrToken) {
			t.Errorf("%q is of the wrong kind", e.Reason)
		}
		if got := e.Error(); got != "format: value "+e.Reason {
			t.Errorf("Error() = %q", got)
		}
		if n := longestDigits(e.Error()); n > 2 {
			t.Errorf("%q has %d digits in a row", e.Reason, n)
		}
	}
}

// longestDigits returns the length of the longest run of digits.
func longestDigits(s string) (longest int) {
	run := 0
	for i := range len(s) {
		if run++; s[i] < '0' || s[i] > '9' {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

// fuzzDigits checks what holds for any input to a type of digits whose mask
// shows the last four.
func fuzzDigits(t *testing.T, typ Type, raw string) {
	value, err := typ.Normalize(nil, raw)
	if err != nil {
		checkRefusal(t, value, err)
		for i := range max(len(raw)-2, 0) {
			if part := raw[i : i+3]; longestDigits(part) == 3 && strings.Contains(err.Error(), part) {
				t.Fatalf("error %q holds a part of %q", err, raw)
			}
		}
		return
	}
	if longestDigits(string(value)) != len(value) {
		t.Fatalf("normal form %q of %q is not of digits alone", value, raw)
	}
	if again, err := typ.Normalize(nil, string(value)); err != nil || !bytes.Equal(again, value) {
		t.Fatalf("%q normalizes to %q, and that to %q, %v", raw, value, again, err)
	}
	hidden := len(value) - 4
	if want := strings.Repeat("*", hidden) + string(value[hidden:]); string(typ.Mask(nil, value)) != want {
		t.Fatalf("mask %q of %q", typ.Mask(nil, value), value)
	}
}

// checkRefusal checks the results of a refusal with a nil dst.
func checkRefusal(t *testing.T, value []byte, err error) {
	var valueErr *ValueError
	if !errors.Is(err, ErrValue) || !errors.As(err, &valueErr) || !slices.Contains(reasons, valueErr) {
		t.Fatalf("error %v is none of ours", err)
	}
	if value != nil {
		t.Fatalf("a value with error %v", err)
	}
}

func TestMask(t *testing.T) {
	for _, c := range []struct{ typ, value, want string }{
		{"card-number", "4111111111111111", "************1111"},
		{"card-number", "4222222222222", "*********2222"},
		{"card-number", "8171999900000000021", "***************0021"},
		{"bytes", "\x00\xff", "********"},
		{"card", `{"number":"4111111111111111","expiry":"2030-12"}`, `{"number":"************1111","expiry":"**/**"}`},
		{"card", `{"number":"378282246310005","expiry":"2030-12","name":"A \"B\" C","cvv":"1234"}`, `{"number":"***********0005","expiry":"**/**","name":"********","cvv":"***"}`},
		{"card-verification", "123", "***"},
		{"card-verification", "1234", "***"},
		{"date-of-birth", "1970-01-01", "****-**-**"},
		{"driver-licence", "AB1234567", "*****4567"},
		{"ein", "123456789", "*****6789"},
		{"email", "someone@example.com", "s***@example.com"},
		{"email", "öre4@example.com", "ö***@example.com"},
		{"email", "bob@example.com", "***@example.com"},
		{"email", `"some one"@example.com`, "***@example.com"},
		{"email", `"a@b"@example.com`, "***@example.com"},
		{"iban", "GB29NWBK60161331926819", "GB****************6819"},
		{"iban", "NO9386011117947", "NO*********7947"},
		{"itin", "900700000", "*****0000"},
		{"passport", "AB12345", "*******"},
		{"passport", "AB123456", "****3456"},
		{"phone", "+12025550123", "+1******0123"},
		{"phone", "+442079460958", "+44******0958"},
		{"phone", "+6834002", "+683****"},
		{"ssn", "536904399", "*****4399"},
		{"us-bank-account", "110000000/000123456789", "*********/********6789"},
		{"us-bank-account", "110000000/1234567", "*********/*******"},
		{"text", "a", "********"},
		{"text", "a long text", "********"},
		// These are no normal forms; a mask shows none of them all the same.
		{"card-number", "1234", "****"},
		{"ssn", "1", "*"},
		{"ssn", "", ""},
		{"card", "4111111111111111", "********"},
		{"card", `{"expiry":"2030-12"}`, "********"},
		{"email", "someone", "********"},
		{"email", "someone@", "********"},
		{"iban", "N", "*"},
		{"phone", "", ""},
		{"phone", "0", "*"},
		{"phone", "+0123", "*****"},
		{"us-bank-account", "1234", "*********/****"},
	} {
		if got := mustLookup(t, c.typ).Mask([]byte("before "), []byte(c.value)); string(got) != "before "+c.want {
			t.Errorf("%s: mask of %q is %q, want %q", c.typ, c.value, got, c.want)
		}
	}
}
