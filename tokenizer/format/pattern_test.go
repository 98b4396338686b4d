package format

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	alphabets := map[string]string{"crockford": "0123456789ABCDEFGHJKMNPQRSTVWXYZ", "odd": "97531", "x": "x"}
	for _, c := range []struct {
		pattern string
		want    []string
	}{
		{"A", []string{"A"}},
		{"[A-Z]{2}[0-9]", []string{upperAlphabet, upperAlphabet, digitAlphabet}},
		{`\d\u\l`, []string{digitAlphabet, upperAlphabet, lowerAlphabet}},
		{`\w`, []string{digitAlphabet + upperAlphabet + lowerAlphabet}},
		{`[ca\-b]`, []string{"-abc"}},
		{"[A-C0-2_]", []string{"012ABC_"}},
		{"[x]", []string{"x"}},
		{"[^]", nil},
		{`[\^]`, []string{"^"}},
		{"[ .]", []string{" ."}},
		{`\\\[\]\{\}\<\>\.`, []string{`\`, "[", "]", "{", "}", "<", ">", "."}},
		{`\-\_\ -_ `, []string{"-", "_", " ", "-", "_", " "}},
		{"<odd>{2}", []string{"13579", "13579"}},
		{"<x><crockford>", []string{"x", "0123456789ABCDEFGHJKMNPQRSTVWXYZ"}},
		{"a{1}b", []string{"a", "b"}},
		{"a{64}", slices.Repeat([]string{"a"}, 64)},
		{"a{64}b{64}", append(slices.Repeat([]string{"a"}, 64), slices.Repeat([]string{"b"}, 64)...)},
	} {
		p, err := ParsePattern(c.pattern, alphabets)
		var got []string
		for _, position := range p.Positions {
			got = append(got, position.Alphabet)
		}
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%q: %q, %v", c.pattern, got, err)
		}
	}
}

func TestParsePatternErrors(t *testing.T) {
	alphabets := map[string]string{"empty": "", "twice": "aba", "wide": "é", "control": "a\n"}
	for _, c := range []struct{ pattern, want string }{
		{"", "at offset 0: the pattern is empty"},
		{"a{64}b{64}c", "at offset 10: the pattern has more than 128 positions"},
		{"ab.", "at offset 2: '.' must have a backslash before it to stand for itself"},
		{"(a|b)", "at offset 0: '(' must have"},
		{"a+", "at offset 1: '+' must have"},
		{"^a", "at offset 0: '^' must have"},
		{"a]", "at offset 1: ']' must have"},
		{"a}", "at offset 1: '}' must have"},
		{"a>", "at offset 1: '>' must have"},
		{"aé", "at offset 1: a character is not printable ASCII"},
		{"a\n", "at offset 1: a character is not printable ASCII"},
		{`a\`, "at offset 1: a backslash has nothing behind it"},
		{`\s`, `at offset 0: \s has no meaning`},
		{`\1`, `at offset 0: \1 has no meaning`},
		{"\\\x7f", "at offset 0: a character is not printable ASCII"},
		{"{2}", "at offset 0: a repetition has nothing before it"},
		{"a{2}{3}", "at offset 4: a repetition is repeated"},
		{"a{0}", "at offset 1: a repetition must be {1} to {64}"},
		{"a{65}", "at offset 1: a repetition must be"},
		{"a{9999999999999999999999}", "at offset 1: a repetition must be"},
		{"a{01}", "at offset 1: a repetition must be"},
		{"a{}", "at offset 1: a repetition must be"},
		{"a{1,2}", "at offset 1: a repetition must be"},
		{"a{2", "at offset 1: a repetition must be"},
		{"[", "at offset 0: a class has no end"},
		{"x[ab", "at offset 1: a class has no end"},
		{"[]", "at offset 1: a class is empty"},
		{"[^a]", "at offset 1: a class can't be negated"},
		{"[aba]", "at offset 3: a class has a character twice"},
		{"[a-fc]", "at offset 4: a class has a character twice"},
		{"[z-a]", "at offset 1: a range must go up"},
		{"[a-a]", "at offset 1: a range must go up"},
		{"[A-z]", "at offset 1: a range must go up"},
		{"[ -~]", "at offset 1: a range must go up"},
		{"[-a]", "at offset 1: '-' in a class must have a backslash"},
		{"[a-]", "at offset 3: ']' in a class must have a backslash"},
		{"[a-", "at offset 2: '-' in a class must have a backslash"},
		{"[[]", "at offset 1: '[' in a class must have a backslash"},
		{`[\d]`, `at offset 1: \d has no meaning`},
		{"[é]", "at offset 1: a character is not printable ASCII"},
		{"<a", "at offset 0: the name of an alphabet has no end"},
		{"<none>", `at offset 0: there is no alphabet "none"`},
		{"<empty>", `at offset 0: the alphabet "empty" is empty`},
		{"<twice>", `at offset 0: the alphabet "twice" has a character twice`},
		{"<wide>", `at offset 0: the alphabet "wide" has a character that is not printable ASCII`},
		{"<control>", `at offset 0: the alphabet "control" has a character that is not`},
	} {
		p, err := ParsePattern(c.pattern, alphabets)
		if err == nil || !strings.Contains(err.Error(), c.want) || p.Positions != nil {
			t.Errorf("%q: %v, error %v, want %q", c.pattern, p, err, c.want)
		}
	}
}

func TestPatternMatch(t *testing.T) {
	p, err := ParsePattern(`[A-Z]{2}-\d`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{
		"AB-1": true, "": false, "AB-": false, "AB-12": false, "aB-1": false, "AB_1": false, "AB-x": false, "ÄB-1": false,
	} {
		if p.Match(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// Whatever parses is a pattern as the fields of Pattern promise.
func FuzzParsePattern(f *testing.F) {
	for _, pattern := range []string{"", "A", `[A-Z]{2}\d{7}`, `\[a\\b]`, "<x>{3}", "[a-c_0]", "a{64}", "[a-", `\`, "a{1}{2}"} {
		f.Add(pattern, "abc")
	}
	f.Fuzz(func(t *testing.T, pattern, alphabet string) {
		p, err := ParsePattern(pattern, map[string]string{"x": alphabet})
		if err != nil {
			return
		}
		if n := len(p.Positions); n < 1 || n > maxPositions {
			t.Fatalf("%d positions", n)
		}
		var first []byte
		for _, position := range p.Positions {
			for i := range len(position.Alphabet) {
				if c := position.Alphabet[i]; !printable(c) || i > 0 && c <= position.Alphabet[i-1] {
					t.Fatalf("alphabet %q", position.Alphabet)
				}
			}
			first = append(first, position.Alphabet[0])
		}
		if !p.Match(string(first)) {
			t.Fatalf("%q doesn't match %q", pattern, first)
		}
	})
}
