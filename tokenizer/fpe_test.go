package tokenizer

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// fpeBlock is AES-256 under the key of testdata/fpe.txt.
func fpeBlock(t testing.TB) cipher.Block {
	t.Helper()
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// mustFPE returns the fpe of a profile, also of one that newFPE refuses since
// it is not fit for the shortest of its values.
func mustFPE(t testing.TB, profile string, typ format.Type, shape string, o format.ShapeOptions) fpe {
	t.Helper()
	s, err := format.NewShape(shape, typ, o)
	if err != nil {
		t.Fatal(err)
	}
	return fpe{tweakPrefix(profile), typ, s}
}

func mustFormat(t testing.TB, name string, o format.TypeOptions) format.Type {
	t.Helper()
	typ, err := format.NewType(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestFPEGolden(t *testing.T) {
	file, err := os.Open("testdata/fpe.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		row := strings.Fields(lines.Text())
		if row[0] == "#" {
			continue
		}
		rows++
		typeOptions, o, profile := format.TypeOptions{}, format.ShapeOptions{}, row[2]
		switch row[0] {
		case "digits":
			o.KeepFirst, _ = strconv.Atoi(row[3])
			o.KeepLast, _ = strconv.Atoi(row[4])
			o.Luhn = row[5]
		case "template":
			typeOptions.Pattern, o.Pattern, profile = row[2], row[2], row[3]
		}
		f := mustFPE(t, profile, mustFormat(t, row[1], typeOptions), row[0], o)
		value, token := row[len(row)-2], row[len(row)-1]
		if got, err := f.encipher(nil, fpeBlock(t), []byte(value)); err != nil || string(got) != token {
			t.Errorf("%s: token %s, %v", lines.Text(), got, err)
		}
		if got, err := f.decipher(nil, fpeBlock(t), token); err != nil || string(got) != value {
			t.Errorf("%s: value %s, %v", lines.Text(), got, err)
		}
	}
	if rows != 19 {
		t.Errorf("%d rows", rows)
	}
}

// passes says whether digits pass the Luhn check.
func passes(digits string) bool {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return sum%10 == 0
}

// randomCard returns a number of n digits that passes the Luhn check. Of twelve
// digits only those of Maestro are cards.
func randomCard(random *rand.Rand, n int) string {
	digits := make([]byte, n)
	for i := range digits {
		digits[i] = '0' + byte(random.IntN(10))
	}
	if n == 12 {
		copy(digits, "6759")
	}
	for !passes(string(digits)) {
		digits[n-1] = '0' + (digits[n-1]-'0'+1)%10
	}
	return string(digits)
}

// Cards of all lengths, with all that can be kept of them, go there and back, and
// pass the Luhn check as they should.
func TestFPECards(t *testing.T) {
	block, random := fpeBlock(t), rand.New(rand.NewPCG(1, 2))
	typ := mustFormat(t, "card-number", format.TypeOptions{})
	for _, luhn := range []string{"never", "always", "any"} {
		for _, first := range []int{0, 4, 6, 8} {
			for last := range 5 {
				f := mustFPE(t, "card", typ, "digits", format.ShapeOptions{KeepFirst: first, KeepLast: last, Luhn: luhn})
				for n := 12; n <= 19; n++ {
					free := n - first - last
					if luhn != "any" {
						free--
					}
					name := fmt.Sprintf("%s %d+%d of %d", luhn, first, last, n)
					checkCard(t, name, f, block, randomCard(random, n), first, last, luhn, free >= 6)
				}
			}
		}
	}
}

func checkCard(t *testing.T, name string, f fpe, block cipher.Block, value string, first, last int, luhn string, enough bool) {
	t.Helper()
	token, err := f.encipher([]byte("before"), block, []byte(value))
	if !enough {
		var inputErr *InputError
		if !errors.Is(err, ErrInvalidValue) || !errors.As(err, &inputErr) || string(token) != "before" {
			t.Errorf("%s: %s, %v", name, token, err)
		}
		if _, err := f.decipher(nil, block, value); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("%s: deciphered: %v", name, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	made := strings.TrimPrefix(string(token), "before")
	switch {
	case len(made) != len(value), made[:first] != value[:first], made[len(made)-last:] != value[len(value)-last:]:
		t.Errorf("%s: %s has the token %s", name, value, made)
	case luhn != "any" && passes(made) != (luhn == "always"):
		t.Errorf("%s: token %s passes the Luhn check: %v", name, made, passes(made))
	}
	if got, err := f.decipher([]byte("before"), block, made); err != nil || string(got) != "before"+value {
		t.Errorf("%s: %s became %s, %v", name, value, got, err)
	}
}

// FF1 in a frame is a permutation: no two values have one token, and every token
// that a value has leads back to it.
func TestFPEPermutation(t *testing.T) {
	block := fpeBlock(t)
	card := mustFormat(t, "card-number", format.TypeOptions{})
	text := mustFormat(t, "text", format.TypeOptions{})
	for _, c := range []struct {
		name  string
		f     fpe
		value string
		size  int
	}{
		{"card 8+4", mustFPE(t, "card", card, "digits", format.ShapeOptions{KeepFirst: 8, KeepLast: 4}), "4111111111111111", 1000},
		{"card 8+4, any", mustFPE(t, "card", card, "digits", format.ShapeOptions{KeepFirst: 8, KeepLast: 4, Luhn: "any"}), "4111111111111111", 10000},
		{"mixed", mustFPE(t, "p", text, "template", format.ShapeOptions{Pattern: "[ABC]-[0-9]{2}[A-E]"}), "A-00A", 1500},
		{"mixed, a power of two", mustFPE(t, "p", text, "template", format.ShapeOptions{Pattern: "[AB][A-H][A-P]{2}"}), "AAAA", 4096},
		{"uniform", mustFPE(t, "p", text, "template", format.ShapeOptions{Pattern: "[AB]X[CD]{9}"}), "AXCCCCCCCCC", 1024},
	} {
		frame, err := c.f.shape.Frame([]byte(c.value))
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		value := []byte(c.value)
		for range c.size {
			numerals, ok := frame.Values().AppendNumerals(nil, value)
			if !ok {
				t.Fatalf("%s: no numerals of %s", c.name, value)
			}
			if err := c.f.crypt(frame, block, len(value), numerals, false); err != nil {
				t.Fatal(err)
			}
			token := frame.AppendToken(nil, numerals)
			if seen[string(token)] || !frame.Match(token) {
				t.Fatalf("%s: %s has the token %s", c.name, value, token)
			}
			seen[string(token)] = true
			if err := c.f.crypt(frame, block, len(value), numerals, true); err != nil {
				t.Fatal(err)
			}
			if got := frame.Values().AppendToken(nil, numerals); !bytes.Equal(got, value) {
				t.Fatalf("%s: %s became %s", c.name, value, got)
			}
			frame.Values().Next(value)
		}
		if string(value) != c.value {
			t.Errorf("%s: has more than %d values", c.name, c.size)
		}
	}
}

// A token that no value has is refused.
func TestFPEInvalidToken(t *testing.T) {
	block := fpeBlock(t)
	card := mustFPE(t, "card", mustFormat(t, "card-number", format.TypeOptions{}), "digits", format.ShapeOptions{KeepLast: 4})
	const token, free = "4445437901121111", 11 // of testdata/fpe.txt
	for d := byte('0'); d <= '9'; d++ {
		other := token[:free] + string(d) + token[free+1:]
		if _, err := card.decipher(nil, block, other); (err == nil) != (other == token) || err != nil && !errors.Is(err, ErrInvalidToken) {
			t.Errorf("%s: %v", other, err)
		}
	}
	for _, token := range []string{
		"", "0", "4111111111111111", token[1:] + "x", "x" + token[1:], token + "\n", token + "0000000", " " + token,
		"４４４５", strings.Repeat("4", 128), strings.Repeat("4", 129), strings.Repeat("4", 1<<20),
	} {
		if got, err := card.decipher([]byte("before"), block, token); !errors.Is(err, ErrInvalidToken) || string(got) != "before" {
			t.Errorf("%.20q: %s, %v", token, got, err)
		}
	}
	// Of the texts of nine digits some stand for what is no SSN.
	typ := mustFormat(t, "ssn", format.TypeOptions{})
	ssn := mustFPE(t, "ssn", typ, "digits", format.ShapeOptions{})
	refused := 0
	for i := range 200 {
		token := fmt.Sprintf("%09d", i*4_999_999)
		value, err := ssn.decipher(nil, block, token)
		if err != nil {
			refused++
			if !errors.Is(err, ErrInvalidToken) {
				t.Fatal(err)
			}
			continue
		}
		if _, err := typ.Normalize(nil, string(value)); err != nil {
			t.Errorf("%s is the token of %s: %v", token, value, err)
		}
		if again, err := ssn.encipher(nil, block, value); err != nil || string(again) != token {
			t.Errorf("%s is the token of %s, and its token is %s, %v", token, value, again, err)
		}
	}
	if refused == 0 || refused == 200 {
		t.Errorf("%d of 200 refused", refused)
	}
}

// zeroBlock makes FF1 the identity: all its rounds add nothing.
type zeroBlock struct{}

func (zeroBlock) BlockSize() int        { return aes.BlockSize }
func (zeroBlock) Encrypt(dst, _ []byte) { clear(dst[:aes.BlockSize]) }
func (zeroBlock) Decrypt(_, _ []byte)   { panic("not for FF1") }

func TestFPEOwnToken(t *testing.T) {
	const visa = "4111111111111111"
	typ := mustFormat(t, "card-number", format.TypeOptions{})
	for _, luhn := range []string{"always", "any"} {
		f := mustFPE(t, "card", typ, "digits", format.ShapeOptions{Luhn: luhn})
		var inputErr *InputError
		if got, err := f.encipher(nil, zeroBlock{}, []byte(visa)); len(got) != 0 || !errors.As(err, &inputErr) || inputErr != errFPESelf {
			t.Errorf("%s: %s, %v", luhn, got, err)
		}
		if got, err := f.decipher(nil, zeroBlock{}, visa); len(got) != 0 || !errors.Is(err, ErrInvalidToken) {
			t.Errorf("%s: %s, %v", luhn, got, err)
		}
	}
	f := mustFPE(t, "card", typ, "digits", format.ShapeOptions{})
	if got, err := f.encipher(nil, zeroBlock{}, []byte(visa)); err != nil || string(got) != "4111111111111112" {
		t.Errorf("never: %s, %v", got, err)
	}
}

func TestNewFPE(t *testing.T) {
	card := mustFormat(t, "card-number", format.TypeOptions{})
	for _, c := range []struct {
		o      format.ShapeOptions
		option string
	}{
		{format.ShapeOptions{}, ""},
		{format.ShapeOptions{KeepLast: 4}, ""},
		{format.ShapeOptions{KeepFirst: 6, KeepLast: 4}, "keep_first"},
		{format.ShapeOptions{Length: 16}, "length"},
	} {
		s, err := format.NewShape("digits", card, c.o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newFPE("card", card, s)
		var optionErr *format.OptionError
		if (err == nil) != (c.option == "") || err != nil && (!errors.As(err, &optionErr) || optionErr.Option != c.option) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
	// A value that isn't of the template is refused, whatever its type says.
	f := mustFPE(t, "p", mustFormat(t, "text", format.TypeOptions{}), "template", format.ShapeOptions{Pattern: "[A-Z]{8}"})
	if _, err := f.encipher(nil, fpeBlock(t), []byte("abcdefgh")); err != error(errFPEForm) {
		t.Error(err)
	}
}

// Whatever a caller sends as a token is refused or is the token of its value.
func FuzzFPE(f *testing.F) {
	passport := format.TypeOptions{Pattern: "[A-Z]{2}[0-9]{7}"}
	all := []fpe{
		mustFPE(f, "card", mustFormat(f, "card-number", format.TypeOptions{}), "digits", format.ShapeOptions{KeepLast: 4}),
		mustFPE(f, "ssn", mustFormat(f, "ssn", format.TypeOptions{}), "digits", format.ShapeOptions{}),
		mustFPE(f, "passport", mustFormat(f, "passport", passport), "template", format.ShapeOptions{Pattern: passport.Pattern}),
	}
	for _, token := range []string{"", "4445437901121111", "918770914", "OJ1739025", "４"} {
		f.Add(token)
	}
	block := fpeBlock(f)
	f.Fuzz(func(t *testing.T, token string) {
		for i, f := range all {
			value, err := f.decipher(nil, block, token)
			if err != nil {
				if !errors.Is(err, ErrInvalidToken) {
					t.Fatal(err)
				}
				continue
			}
			if again, err := f.encipher(nil, block, value); err != nil || string(again) != token {
				t.Fatalf("%d: %q is the token of %s, whose token is %s, %v", i, token, value, again, err)
			}
		}
	})
}

func BenchmarkFPE(b *testing.B) {
	block := fpeBlock(b)
	f := mustFPE(b, "card", mustFormat(b, "card-number", format.TypeOptions{}), "digits", format.ShapeOptions{KeepLast: 4})
	mixed := mustFPE(b, "p", mustFormat(b, "passport", format.TypeOptions{Pattern: "[A-Z]{2}[0-9]{7}"}), "template",
		format.ShapeOptions{Pattern: "[A-Z]{2}[0-9]{7}"})
	for _, c := range []struct {
		name  string
		f     fpe
		value string
	}{{"card", f, "4111111111111111"}, {"passport", mixed, "AB1234567"}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf [64]byte
			for b.Loop() {
				if _, err := c.f.encipher(buf[:0], block, []byte(c.value)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
