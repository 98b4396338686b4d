package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"
	"testing/iotest"
)

// smallFrame is a frame of which all texts of its length can be tried.
type smallFrame struct {
	name  string
	frame Frame
	// text returns the n-th text of the length, or "".
	text func(n int) string
	// valid says whether it is a token.
	valid func(text string) bool
}

func smallFrames(t testing.TB) []smallFrame {
	t.Helper()
	digitsOf := func(n int) func(int) string {
		return func(i int) string {
			if text := fmt.Sprintf("%0*d", n, i); len(text) == n {
				return text
			}
			return ""
		}
	}
	kept := func(value string, middle int, front, back int) func(int) string {
		inner := digitsOf(middle)
		return func(i int) string {
			if text := inner(i); text != "" {
				return value[:front] + text + value[len(value)-back:]
			}
			return ""
		}
	}
	passes := func(text string) bool { return luhn([]byte(text)) }
	fails := func(text string) bool { return !passes(text) }
	all := func(string) bool { return true }
	card, text, ssn := mustLookup(t, "card-number"), mustLookup(t, "text"), mustLookup(t, "ssn")
	frame := func(name string, typ Type, o ShapeOptions, value string) Frame {
		return mustFrame(t, mustShape(t, name, typ, o), value)
	}
	return []smallFrame{
		{"4 digits", frame("digits", text, ShapeOptions{Length: 4}, "a"), digitsOf(4), all},
		{"4 digits, failing", frame("digits", text, ShapeOptions{Length: 4, Luhn: "never"}, "a"), digitsOf(4), fails},
		{"5 digits, passing", frame("digits", text, ShapeOptions{Length: 5, Luhn: "always"}, "a"), digitsOf(5), passes},
		{"8+4 of 16", frame("digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 4}, visa16), kept(visa16, 4, 8, 4), fails},
		{"8+3 of 16, passing", frame("digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 3, Luhn: "always"}, visa16), kept(visa16, 5, 8, 3), passes},
		{"8+4 of 13", frame("digits", card, ShapeOptions{KeepFirst: 8, KeepLast: 4}, visa13), kept(visa13, 1, 8, 4), fails},
		{"8+0 of 13", frame("digits", card, ShapeOptions{KeepFirst: 8}, visa13), kept(visa13, 5, 8, 0), fails},
		{"ssn +4", frame("ssn", ssn, ShapeOptions{KeepLast: 4}, "123456789"), kept("123456789", 5, 0, 4), func(text string) bool {
			return text[0] == '9' && text[3:5] >= "01" && text[3:5] <= "49"
		}},
		{"ssn +3, zeros", frame("ssn", ssn, ShapeOptions{KeepLast: 3}, "123451000"), kept("123451000", 6, 0, 3), func(text string) bool {
			return text[0] == '9' && text[3:5] >= "01" && text[3:5] <= "49" && text[5:] != "0000"
		}},
		{"template", frame("template", text, ShapeOptions{Pattern: "[1-3]0[05-9]{2}"}, "a"), digitsOf(4), func(text string) bool {
			return strings.Contains("123", text[:1]) && text[1] == '0' && !strings.ContainsAny(text[2:], "1234")
		}},
	}
}

// The tokens of a frame are counted, found by Match and gone through by Next.
func TestFrameBruteForce(t *testing.T) {
	for _, c := range smallFrames(t) {
		t.Run(c.name, func(t *testing.T) {
			tokens := make(map[string]bool)
			for i := 0; c.text(i) != ""; i++ {
				text := c.text(i)
				match := c.frame.Match([]byte(text))
				if match != c.valid(text) {
					t.Fatalf("match %q: %v", text, match)
				}
				if match {
					tokens[text] = true
				}
			}
			if got := c.frame.Capacity(); got.Cmp(big.NewInt(int64(len(tokens)))) != 0 {
				t.Fatalf("capacity %v of %d tokens", got, len(tokens))
			}
			first, err := c.frame.Draw(nil, seeded(3))
			if err != nil {
				t.Fatal(err)
			}
			token := bytes.Clone(first)
			for n := len(tokens); n > 0; n-- {
				if !c.frame.Next(token) || !tokens[string(token)] {
					t.Fatalf("%d before the end comes %q", n, token)
				}
				delete(tokens, string(token))
			}
			if !bytes.Equal(token, first) {
				t.Fatalf("the cycle ends at %q and began at %q", token, first)
			}
		})
	}
}

func TestNextOfNoToken(t *testing.T) {
	for _, c := range smallFrames(t) {
		for _, text := range []string{"", "x", "0000", visa16, "123456789", strings.Repeat("9", 300)} {
			token := []byte(text)
			if !c.frame.Match(token) && (c.frame.Next(token) || string(token) != text) {
				t.Errorf("%s: %q became %q", c.name, text, token)
			}
		}
	}
	if (Frame{}).Next(nil) {
		t.Error("the empty frame has a next token")
	}
}

// Each token is drawn as often as any other. With k tokens, χ² has a mean of k-1
// and a variance of 2(k-1); six times its root is beyond bad luck.
func TestDrawUniform(t *testing.T) {
	const perToken = 20
	for i, c := range smallFrames(t) {
		capacity := int(c.frame.Capacity().Int64())
		if capacity > 10_000 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			counts := make(map[string]int, capacity)
			random := seeded(byte(10 + i))
			var token []byte
			for range perToken * capacity {
				var err error
				if token, err = c.frame.Draw(token[:0], random); err != nil {
					t.Fatal(err)
				}
				counts[string(token)]++
			}
			chi := float64(capacity-len(counts)) * perToken
			for _, n := range counts {
				chi += float64((n-perToken)*(n-perToken)) / perToken
			}
			off := (chi - float64(capacity-1)) * (chi - float64(capacity-1)) / float64(2*(capacity-1))
			if off > 36 {
				t.Errorf("χ² is %.0f for %d tokens", chi, capacity)
			}
		})
	}
}

// Every choice for every slot is as likely as the others, also in frames that
// are too large for TestDrawUniform.
func TestDrawSlots(t *testing.T) {
	for _, count := range []int{1, 2, 7, 9, 10, 36, 95, 255, 256} {
		for n := range 256 {
			got, err := draw([]byte{byte(n)}, count, bytes.NewReader(nil))
			switch limit := 256 / count * count; {
			case n < limit && (err != nil || got != n%count):
				t.Errorf("%d of %d: %d, %v", n, count, got, err)
			case n >= limit && !errors.Is(err, io.EOF):
				t.Errorf("%d of %d: %d, and not drawn again", n, count, got)
			}
		}
	}
	for _, n := range []int{0, 9998, 9999, 59993, 59994, 65535} {
		got, err := draw([]byte{byte(n >> 8), byte(n), 0xFF}, 9999, bytes.NewReader(nil))
		if n < 6*9999 && (err != nil || got != n%9999) || n >= 6*9999 && err == nil {
			t.Errorf("%d of 9999: %d, %v", n, got, err)
		}
	}
}

func TestDrawError(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range smallFrames(t) {
		for n := range c.frame.free() {
			random := io.MultiReader(io.LimitReader(seeded(4), int64(n)), iotest.ErrReader(broken))
			if got, err := c.frame.Draw([]byte("before"), random); !errors.Is(err, broken) || string(got) != "before" {
				t.Errorf("%s, after %d bytes: %q, %v", c.name, n, got, err)
			}
		}
		// Bytes of 255 are never of use for a slot of ten.
		if _, err := c.frame.Draw(nil, io.LimitReader(ones{}, 1000)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", c.name, err)
		}
		// A reader may give less than it is asked for.
		if token, err := c.frame.Draw(nil, iotest.OneByteReader(seeded(4))); err != nil || !c.frame.Match(token) {
			t.Errorf("%s: %q, %v", c.name, token, err)
		}
	}
}

// ones is a reader of bytes of ones.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0xFF
	}
	return len(p), nil
}

func TestShapeAllocations(t *testing.T) {
	random := seeded(5)
	for _, c := range shapeCases {
		s, value := c.make(t), []byte(c.value)
		buf := make([]byte, 0, maxShapeLen)
		token, err := mustFrame(t, s, c.value).Draw(nil, random)
		if err != nil {
			t.Fatal(err)
		}
		for name, run := range map[string]func(){
			"Frame": func() { _, _ = s.Frame(value) },
			"Draw": func() {
				f, _ := s.Frame(value)
				_, _ = f.Draw(buf, random)
			},
			"Next": func() {
				f, _ := s.Frame(value)
				f.Next(token)
			},
		} {
			if n := testing.AllocsPerRun(100, run); n != 0 {
				t.Errorf("%s: %s: %v allocations", c.name, name, n)
			}
		}
	}
}

func TestLuhnDigit(t *testing.T) {
	for _, card := range testCards {
		text := []byte(card.number)
		for i, c := range text {
			text[i] = 'x'
			if got := luhnDigit(text, i); got != int(c-'0') {
				t.Errorf("%s: %d at %d", card.number, got, i)
			}
			text[i] = c
		}
	}
}

// Nothing that a caller sends as a token or a value makes a shape panic, and
// what matches is liked.
func FuzzShape(f *testing.F) {
	shapes := make([]*Shape, len(shapeCases))
	for i, c := range shapeCases {
		shapes[i] = c.make(f)
		token, err := mustFrame(f, shapes[i], c.value).Draw(nil, seeded(6))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.value, string(token))
	}
	f.Add("", "")
	f.Add("@", "@")
	f.Add("+", "+1")
	f.Fuzz(func(t *testing.T, value, token string) {
		for i, s := range shapes {
			like := s.Like(token)
			normal, err := s.typ.Normalize(nil, value)
			if err != nil {
				normal = []byte(value) // no value: anything but a panic is right
			}
			frame, frameErr := s.Frame(normal)
			if frameErr != nil {
				if !errors.Is(frameErr, ErrValue) {
					t.Fatal(frameErr)
				}
				continue
			}
			text := []byte(token)
			match := frame.Match(text)
			if err == nil && match && !like {
				t.Fatalf("%s: %q is a token of %q and not liked", shapeCases[i].name, token, value)
			}
			if frame.Next(text) != match || match && !frame.Match(text) || !match && string(text) != token {
				t.Fatalf("%s: %q of %q is followed by %q", shapeCases[i].name, token, value, text)
			}
			_, _ = s.FPEFrame(normal)
		}
	})
}
