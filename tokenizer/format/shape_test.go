package format

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func mustShape(t testing.TB, name string, typ Type, o ShapeOptions) *Shape {
	t.Helper()
	s, err := NewShape(name, typ, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustFrame(t testing.TB, s *Shape, value string) Frame {
	t.Helper()
	f, err := s.Frame([]byte(value))
	if err != nil {
		t.Fatalf("%s of %q: %v", s.Name(), value, err)
	}
	return f
}

// seeded returns random bytes that are the same in each run.
func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// shapeCase is a shape, a value, and the capacities of the value's frame and of
// the smallest.
type shapeCase struct {
	name       string
	shape, typ string
	typOptions TypeOptions
	options    ShapeOptions
	value      string
	capacity   string
	least      string
}

const (
	visa16 = "4111111111111111"
	visa13 = "4222222222222"
)

var shapeCases = []shapeCase{
	{"card", "digits", "card-number", TypeOptions{}, ShapeOptions{}, visa16, "9000000000000000", "900000000000"},
	{"card of 19", "digits", "card-number", TypeOptions{}, ShapeOptions{}, "6205500000000000004", "9000000000000000000", "900000000000"},
	{"card 0+4", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepLast: 4}, visa16, "900000000000", "90000000"},
	{"card 6+4", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 6, KeepLast: 4}, visa16, "900000", "90"},
	{"card 8+4", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 8, KeepLast: 4}, visa16, "9000", "0"},
	{"card 8+4, of 13", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 8, KeepLast: 4}, visa13, "9", "0"},
	{"card 8+4, passing", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 8, KeepLast: 4, Luhn: "always"}, visa16, "1000", "0"},
	{"card 8+4, any", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 8, KeepLast: 4, Luhn: "any"}, visa16, "10000", "0"},
	{"card 4+0, passing", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 4, Luhn: "always"}, visa16, "100000000000", "10000000"},
	{"card to 12 digits", "digits", "card-number", TypeOptions{}, ShapeOptions{KeepFirst: 4, KeepLast: 2, Length: 12}, visa16, "900000", "900000"},
	{"text to 10 digits", "digits", "text", TypeOptions{}, ShapeOptions{Length: 10}, "Grüße", "10000000000", "10000000000"},
	{"text to one digit", "digits", "text", TypeOptions{}, ShapeOptions{Length: 1, Luhn: "never"}, "a", "9", "9"},
	{"text to 64 digits", "digits", "text", TypeOptions{}, ShapeOptions{Length: 64}, "a", "1" + strings.Repeat("0", 64), "1" + strings.Repeat("0", 64)},
	{"ssn to digits", "digits", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 4}, "123456789", "100000", "100000"},
	{"passport to digits", "digits", "passport", TypeOptions{Pattern: "[0-9]{8}"}, ShapeOptions{KeepFirst: 4, KeepLast: 1}, "12345678", "1000", "1000"},
	{"ssn", "ssn", "ssn", TypeOptions{}, ShapeOptions{}, "123456789", "48995100", "48995100"},
	{"ssn +4", "ssn", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 4}, "123456789", "4900", "4900"},
	{"ssn +3", "ssn", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 3}, "123456789", "49000", "44100"},
	{"ssn +3, zeros", "ssn", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 3}, "123451000", "44100", "44100"},
	{"ssn +1, zero", "ssn", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 1}, "123451230", "4895100", "4895100"},
	{"itin", "ssn", "itin", TypeOptions{}, ShapeOptions{KeepLast: 2}, "900700000", "485100", "485100"},
	{"ein", "ssn", "ein", TypeOptions{}, ShapeOptions{}, "123456789", "9799020", "9799020"},
	{"ssn any +4", "ssn", "ssn", TypeOptions{}, ShapeOptions{KeepLast: 4, Area: "any"}, "123456789", "100000", "100000"},
	{"uuid", "uuid", "text", TypeOptions{}, ShapeOptions{}, "a", "5316911983139663491615228241121378304", "5316911983139663491615228241121378304"},
	{"email", "email", "email", TypeOptions{}, ShapeOptions{}, "someone@example.com", "5747921912739067305394176", "5747921912739067305394176"},
	{"email masked", "email", "email", TypeOptions{}, ShapeOptions{Domain: "mask"}, "someone@mail.example.com", "5747921912739067305394176", "5747921912739067305394176"},
	{"email fixed", "email", "email", TypeOptions{}, ShapeOptions{Domain: "tokens.example"}, `"a@b"@example.com`, "5747921912739067305394176", "5747921912739067305394176"},
	{"phone", "phone", "phone", TypeOptions{}, ShapeOptions{}, "+493012345678", "9000000000", "9000"},
	{"phone +1", "phone", "phone", TypeOptions{}, ShapeOptions{}, "+12025550123", "6400000000", "9000"},
	{"phone of four digits", "phone", "phone", TypeOptions{}, ShapeOptions{}, "+3521234", "9000", "9000"},
	{"template", "template", "text", TypeOptions{}, ShapeOptions{Pattern: "[A-Z]{2}-[0-9]{6}"}, "a", "676000000", "676000000"},
	{"template, own alphabet", "template", "ssn", TypeOptions{}, ShapeOptions{Pattern: "T<code>{3}", Alphabets: map[string]string{"code": "BCDF"}}, "123456789", "64", "64"},
	{"template, large", "template", "text", TypeOptions{}, ShapeOptions{Pattern: `\w{64}\w{3}`}, "a", "1230957890097797906348240246472990974368085537415255272388190278139474686302299484447054599436601050074879758467657105408", "1230957890097797906348240246472990974368085537415255272388190278139474686302299484447054599436601050074879758467657105408"},
}

func (c *shapeCase) make(t testing.TB) *Shape {
	t.Helper()
	return mustShape(t, c.shape, mustType(t, c.typ, c.typOptions), c.options)
}

func TestShapes(t *testing.T) {
	for _, c := range shapeCases {
		t.Run(c.name, func(t *testing.T) {
			s := c.make(t)
			if s.Name() != c.shape {
				t.Errorf("name %q", s.Name())
			}
			if got := s.Capacity().String(); got != c.least {
				t.Errorf("least capacity %s, want %s", got, c.least)
			}
			f := mustFrame(t, s, c.value)
			if got := f.Capacity().String(); got != c.capacity {
				t.Errorf("capacity %s, want %s", got, c.capacity)
			}
			if s.Like("") || s.Like(strings.Repeat("1", 1000)) {
				t.Error("likes anything")
			}
			random := seeded(1)
			for range 300 {
				token, err := f.Draw([]byte("before"), random)
				if err != nil || !strings.HasPrefix(string(token), "before") {
					t.Fatalf("%q, %v", token, err)
				}
				c.check(t, s, f, string(token[len("before"):]))
			}
		})
	}
}

// check checks a token.
func (c *shapeCase) check(t *testing.T, s *Shape, f Frame, token string) {
	t.Helper()
	if !f.Match([]byte(token)) || !s.Like(token) {
		t.Fatalf("token %q: match %v, like %v", token, f.Match([]byte(token)), s.Like(token))
	}
	if f.Match([]byte(token+"0")) || f.Match([]byte(token[1:])) {
		t.Fatalf("more or less than token %q matches", token)
	}
	o := &c.options
	switch c.shape {
	case "digits":
		if want := o.Luhn == "always"; !allDigits([]byte(token)) || o.Luhn != "any" && (o.Luhn != "" || c.typ == "card-number") && luhn([]byte(token)) != want {
			t.Fatalf("token %s: luhn %v", token, !want)
		}
		if want := max(o.Length, 0); len(token) != want && (want != 0 || len(token) != len(c.value)) {
			t.Fatalf("token %s is of the wrong length", token)
		}
		if !strings.HasPrefix(token, c.value[:o.KeepFirst]) || !strings.HasSuffix(token, c.value[len(c.value)-o.KeepLast:]) {
			t.Fatalf("token %s keeps too little of %s", token, c.value)
		}
	case "ssn":
		if len(token) != 9 || !strings.HasSuffix(token, c.value[9-o.KeepLast:]) {
			t.Fatalf("token %s", token)
		}
		for _, name := range []string{"ssn", "itin", "ein"} {
			_, err := mustLookup(t, name).Normalize(nil, token)
			if err == nil && o.Area != "any" && (name != "ein" || c.typ == "ein") {
				t.Fatalf("token %s is an %s", token, name)
			}
		}
	case "phone", "email":
		if normal, err := s.typ.Normalize(nil, token); err != nil || string(normal) != token {
			t.Fatalf("token %s normalizes to %q, %v", token, normal, err)
		}
		if c.shape == "phone" && (len(token) != len(c.value) || token[:2] != c.value[:2]) {
			t.Fatalf("token %s for %s", token, c.value)
		}
	case "uuid":
		if token[14] != '4' || strings.IndexByte("89ab", token[19]) < 0 || token != strings.ToLower(token) || len(token) != 36 {
			t.Fatalf("token %s", token)
		}
	}
}

func TestEmailDomains(t *testing.T) {
	for _, c := range []struct{ domain, value, want string }{
		{"", "someone@example.com", "example.com"},
		{"keep", "someone@mail.example.com", "mail.example.com"},
		{"mask", "someone@mail.example.com", "com.invalid"},
		{"mask", "someone@example.invalid", "invalid.invalid"},
		{"mask", "someone@xn--bcher-kva.example", "example.invalid"},
		{"tokens.example", "someone@example.com", "tokens.example"},
	} {
		s := mustShape(t, "email", mustLookup(t, "email"), ShapeOptions{Domain: c.domain})
		token, err := mustFrame(t, s, c.value).Draw(nil, seeded(2))
		if err != nil || string(token[tokenLocal:]) != "@"+c.want || !s.Like(string(token)) {
			t.Errorf("%q: token %s of %s, %v", c.domain, token, c.value, err)
		}
	}
}

func TestLike(t *testing.T) {
	card, email := mustLookup(t, "card-number"), mustLookup(t, "email")
	const local = "abcdefgh12345678"
	for _, c := range []struct {
		shape string
		typ   Type
		o     ShapeOptions
		token string
		want  bool
	}{
		{"digits", card, ShapeOptions{}, "4111111111111112", true},
		{"digits", card, ShapeOptions{}, visa16, false},
		{"digits", card, ShapeOptions{Luhn: "always"}, visa16, true},
		{"digits", card, ShapeOptions{Luhn: "always"}, "4111111111111112", false},
		{"digits", card, ShapeOptions{Luhn: "any"}, visa16, true},
		{"digits", card, ShapeOptions{}, "41111111112", false},
		{"digits", card, ShapeOptions{}, "41111111111111111112", false},
		{"digits", card, ShapeOptions{KeepFirst: 6, KeepLast: 4}, "411111x111111112", false},
		{"digits", card, ShapeOptions{KeepFirst: 6, KeepLast: 4}, "41111x1111111112", false},
		{"digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 4, Luhn: "always"}, visa13, false},
		{"email", email, ShapeOptions{}, local + "@example.com", true},
		{"email", email, ShapeOptions{}, local + "@example", false},
		{"email", email, ShapeOptions{}, local + "@Example.com", false},
		{"email", email, ShapeOptions{}, local + "x@example.com", false},
		{"email", email, ShapeOptions{}, "1" + local[1:] + "@example.com", false},
		{"email", email, ShapeOptions{}, local + "@", false},
		{"email", email, ShapeOptions{Domain: "mask"}, local + "@com.invalid", true},
		{"email", email, ShapeOptions{Domain: "mask"}, local + "@example.com.invalid", false},
		{"email", email, ShapeOptions{Domain: "mask"}, local + "@example.com", false},
		{"email", email, ShapeOptions{Domain: "tokens.example"}, local + "@tokens.example", true},
		{"email", email, ShapeOptions{Domain: "tokens.example"}, local + "@a.tokens.example", false},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+12125550123", true},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+11125550123", false},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+1212555012", false},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+493012345678", true},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+490012345678", false},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+9991234567", false},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "493012345678", false},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{}, "900010001", true},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{}, "900010000", false},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{}, "900500001", false},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{}, "899010001", false},
		{"ssn", mustLookup(t, "ein"), ShapeOptions{}, "900010001", false},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{Area: "any"}, "000000000", true},
		{"template", card, ShapeOptions{Pattern: "[A-Z]{2}-[0-9]{2}"}, "AZ-09", true},
		{"template", card, ShapeOptions{Pattern: "[A-Z]{2}-[0-9]{2}"}, "AZ-0a", false},
		{"template", card, ShapeOptions{Pattern: "[A-Z]{2}-[0-9]{2}"}, "AZ_09", false},
		{"uuid", card, ShapeOptions{}, "00000000-0000-4000-8000-000000000000", true},
		{"uuid", card, ShapeOptions{}, "00000000-0000-4000-7000-000000000000", false},
		{"uuid", card, ShapeOptions{}, "00000000-0000-1000-8000-000000000000", false},
		{"uuid", card, ShapeOptions{}, "A0000000-0000-4000-8000-000000000000", false},
	} {
		if got := mustShape(t, c.shape, c.typ, c.o).Like(c.token); got != c.want {
			t.Errorf("%s %+v: like %q: %v", c.shape, c.o, c.token, got)
		}
	}
}

// Examples are what they have always been: they stand in what check-config
// prints.
func TestShapeExample(t *testing.T) {
	card := mustLookup(t, "card-number")
	for _, c := range []struct {
		shape string
		typ   Type
		o     ShapeOptions
		want  string
	}{
		{"digits", card, ShapeOptions{KeepLast: 4}, "3178293238151111"},
		{"digits", card, ShapeOptions{KeepFirst: 6, KeepLast: 4, Luhn: "always"}, "4111113178251111"},
		{"digits", mustLookup(t, "text"), ShapeOptions{Length: 1}, "3"},
		{"email", mustLookup(t, "email"), ShapeOptions{Domain: "mask"}, "fbbw8n1u7q1y32xf@com.invalid"},
		{"phone", mustLookup(t, "phone"), ShapeOptions{}, "+17176293238"},
		{"ssn", mustLookup(t, "ssn"), ShapeOptions{}, "917195179"},
		{"template", card, ShapeOptions{Pattern: "[A-Z]{2}-[0-9]{6}"}, "FJ-829323"},
		{"uuid", card, ShapeOptions{}, "5ff48b96-252f-47f4-a8bb-b23227b9b7b8"},
	} {
		s := mustShape(t, c.shape, c.typ, c.o)
		got := s.Example()
		value, err := c.typ.Normalize(nil, c.typ.Example())
		if err != nil || c.want != "" && got != c.want || got == string(value) || !s.Like(got) || s.Example() != got {
			t.Errorf("%s: %q, want %q", c.shape, got, c.want)
		}
	}
	s := mustShape(t, "digits", mustLookup(t, "card-verification"), ShapeOptions{KeepLast: 3})
	if got := s.Example(); got != "" {
		t.Errorf("example %q of a value without tokens", got)
	}
}

func TestShapeNames(t *testing.T) {
	names := ShapeNames()
	if !slices.IsSorted(names) || len(names) != 6 {
		t.Errorf("%q", names)
	}
}

func TestFrameErrors(t *testing.T) {
	card, email := mustLookup(t, "card-number"), mustLookup(t, "email")
	for _, c := range []struct {
		name  string
		s     *Shape
		value string
		want  *ValueError
	}{
		{"a digit that must be", mustShape(t, "digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 4, Luhn: "always"}), visa13, errShapeCapacity},
		{"no card", mustShape(t, "digits", card, ShapeOptions{}), "4111", errShapeForm},
		{"letters", mustShape(t, "digits", card, ShapeOptions{KeepFirst: 6}), "41111a1111111111", errShapeForm},
		{"all kept", mustShape(t, "digits", mustLookup(t, "card-verification"), ShapeOptions{KeepLast: 3}), "123", errShapeCapacity},
		{"more than all kept", mustShape(t, "digits", mustType(t, "card-verification", TypeOptions{}), ShapeOptions{KeepFirst: 4, Length: 8}), "123", errShapeShort},
		{"eight digits", mustShape(t, "ssn", mustLookup(t, "ssn"), ShapeOptions{}), "12345678", errShapeForm},
		{"no domain", mustShape(t, "email", email, ShapeOptions{}), "someone", errShapeForm},
		{"long domain", mustShape(t, "email", email, ShapeOptions{}), "a@" + strings.Repeat("a.", 120) + "example", errShapeDomain},
		{"no code", mustShape(t, "phone", mustLookup(t, "phone"), ShapeOptions{}), "+999123456", errShapeForm},
		{"code alone", mustShape(t, "phone", mustLookup(t, "phone"), ShapeOptions{}), "+49", errShapeForm},
		{"no plus sign", mustShape(t, "phone", mustLookup(t, "phone"), ShapeOptions{}), "493012345678", errShapeForm},
	} {
		if _, err := c.s.Frame([]byte(c.value)); err != error(c.want) || !errors.Is(err, ErrValue) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, e := range []*ValueError{errShapeForm, errShapeShort, errShapeCapacity, errShapeDomain, errShapeFew} {
		if longestDigits(e.Error()) > 2 {
			t.Errorf("%q has digits in a row", e.Reason)
		}
	}
}
