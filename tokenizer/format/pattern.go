package format

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds of a pattern.
const (
	maxPositions = 128
	maxRepeat    = 64
)

// Pattern is a text of a fixed length, position by position. It is got by
// ParsePattern and must not be changed.
type Pattern struct {
	// Positions are 1 to 128.
	Positions []Position
}

// Position is one character of a Pattern.
type Position struct {
	// Alphabet holds the characters that are allowed here: printable ASCII,
	// ascending, each once. A single one is a literal.
	Alphabet string
}

// Alphabets that patterns have a short name for.
const (
	digitAlphabet = "0123456789"
	upperAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lowerAlphabet = "abcdefghijklmnopqrstuvwxyz"
)

// ParsePattern reads a pattern, which is a sequence of
//
//	A            a character that stands for itself
//	\-           a character that stands for itself, whatever else it means
//	[A-Z0-9_]    one character out of a few, with ranges of digits or letters
//	\d \u \l \w  one digit, upper-case letter, lower-case letter, letter or digit
//	<name>       one character of the alphabet that alphabets has by that name
//
// each of which {n} may follow: n times, from 1 to 64. All characters are
// printable ASCII, spaces included. What has a meaning in regular expressions
// and none here (. * + ? | ^ $ and parentheses) must be escaped to stand for
// itself, so that nobody takes a pattern for what it isn't.
//
// An alphabet is 1 or more characters, each once, in any order. The error names
// the place as an offset in bytes; patterns are configuration and no secret.
func ParsePattern(pattern string, alphabets map[string]string) (Pattern, error) {
	p := patternParser{text: pattern, alphabets: alphabets}
	var positions []Position
	for p.at < len(p.text) {
		start := p.at
		alphabet, err := p.item()
		if err != nil {
			return Pattern{}, err
		}
		n, err := p.repeat()
		if err != nil {
			return Pattern{}, err
		}
		if len(positions)+n > maxPositions {
			p.at = start
			return Pattern{}, p.errorf("the pattern has more than %d positions", maxPositions)
		}
		for range n {
			positions = append(positions, Position{alphabet})
		}
	}
	if len(positions) == 0 {
		return Pattern{}, p.errorf("the pattern is empty")
	}
	return Pattern{positions}, nil
}

// Match says whether s has each position's character in its place, and nothing
// else.
func (p Pattern) Match(s string) bool {
	if len(s) != len(p.Positions) {
		return false
	}
	for i := range len(s) {
		if strings.IndexByte(p.Positions[i].Alphabet, s[i]) < 0 {
			return false
		}
	}
	return true
}

// patternParser reads a pattern from left to right.
type patternParser struct {
	text      string
	at        int
	alphabets map[string]string
}

func (p *patternParser) errorf(format string, args ...any) error {
	return fmt.Errorf("format: pattern: at offset %d: %s", p.at, fmt.Sprintf(format, args...))
}

// item reads all of an item but its repetition. It returns its alphabet.
func (p *patternParser) item() (string, error) {
	switch c := p.text[p.at]; {
	case c == '[':
		return p.class()
	case c == '<':
		return p.named()
	case c == '\\':
		if p.at+1 < len(p.text) {
			alphabet := ""
			switch p.text[p.at+1] {
			case 'd':
				alphabet = digitAlphabet
			case 'u':
				alphabet = upperAlphabet
			case 'l':
				alphabet = lowerAlphabet
			case 'w':
				alphabet = digitAlphabet + upperAlphabet + lowerAlphabet
			}
			if alphabet != "" {
				p.at += 2
				return alphabet, nil
			}
		}
		c, err := p.escaped()
		return string(rune(c)), err
	case c == '{':
		return "", p.errorf("a repetition has nothing before it to repeat")
	case strings.IndexByte("]}>.*+?|^$()", c) >= 0:
		return "", p.errorf("%q must have a backslash before it to stand for itself", c)
	case !printable(c):
		return "", p.errorf("a character is not printable ASCII")
	default:
		p.at++
		return string(rune(c)), nil
	}
}

// escaped reads a backslash and the character behind it, which is no letter or
// digit: these mean something else behind a backslash, or may do one day.
func (p *patternParser) escaped() (byte, error) {
	if p.at+1 == len(p.text) {
		return 0, p.errorf("a backslash has nothing behind it")
	}
	c := p.text[p.at+1]
	if !printable(c) {
		return 0, p.errorf("a character is not printable ASCII")
	}
	if kind(c) != 0 {
		return 0, p.errorf(`\%c has no meaning`, c)
	}
	p.at += 2
	return c, nil
}

// class reads characters and ranges in brackets.
func (p *patternParser) class() (string, error) {
	start := p.at
	p.at++
	var in [128]bool
	if strings.HasPrefix(p.text[p.at:], "^") {
		return "", p.errorf("a class can't be negated")
	}
	for {
		if p.at == len(p.text) {
			p.at = start
			return "", p.errorf("a class has no end")
		}
		if p.text[p.at] == ']' {
			break
		}
		at := p.at
		first, err := p.classCharacter()
		if err != nil {
			return "", err
		}
		last := first
		if rest := p.text[p.at:]; len(rest) > 1 && rest[0] == '-' {
			p.at++
			if last, err = p.classCharacter(); err != nil {
				return "", err
			}
			if kind(first) == 0 || kind(first) != kind(last) || first >= last {
				p.at = at
				return "", p.errorf("a range must go up from digit to digit or from letter to letter of one case")
			}
		}
		for c := first; c <= last; c++ {
			if in[c] {
				p.at = at
				return "", p.errorf("a class has a character twice")
			}
			in[c] = true
		}
	}
	var alphabet []byte
	for c := range byte(len(in)) {
		if in[c] {
			alphabet = append(alphabet, c)
		}
	}
	if len(alphabet) == 0 {
		return "", p.errorf("a class is empty")
	}
	p.at++
	return string(alphabet), nil
}

// classCharacter reads one character of a class.
func (p *patternParser) classCharacter() (byte, error) {
	switch c := p.text[p.at]; {
	case c == '\\':
		return p.escaped()
	case c == '-' || c == '[' || c == ']':
		return 0, p.errorf("%q in a class must have a backslash before it", c)
	case !printable(c):
		return 0, p.errorf("a character is not printable ASCII")
	default:
		p.at++
		return c, nil
	}
}

// named reads the name of an alphabet in angle brackets.
func (p *patternParser) named() (string, error) {
	name, _, ok := strings.Cut(p.text[p.at+1:], ">")
	if !ok {
		return "", p.errorf("the name of an alphabet has no end")
	}
	alphabet, ok := p.alphabets[name]
	if !ok {
		return "", p.errorf("there is no alphabet %q", name)
	}
	sorted := []byte(alphabet)
	slices.Sort(sorted)
	for i, c := range sorted {
		if !printable(c) {
			return "", p.errorf("the alphabet %q has a character that is not printable ASCII", name)
		}
		if i > 0 && c == sorted[i-1] {
			return "", p.errorf("the alphabet %q has a character twice", name)
		}
	}
	if len(sorted) == 0 {
		return "", p.errorf("the alphabet %q is empty", name)
	}
	p.at += len(name) + 2
	return string(sorted), nil
}

// repeat reads the repetition that may follow an item.
func (p *patternParser) repeat() (int, error) {
	if p.at == len(p.text) || p.text[p.at] != '{' {
		return 1, nil
	}
	digits, _, ok := strings.Cut(p.text[p.at+1:], "}")
	n := 0
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' || n > maxRepeat || n == 0 && c == '0' {
			n = maxRepeat + 1
			break
		}
		n = n*10 + int(c-'0')
	}
	if !ok || n < 1 || n > maxRepeat {
		return 0, p.errorf("a repetition must be {1} to {%d}", maxRepeat)
	}
	p.at += len(digits) + 2
	if p.at < len(p.text) && p.text[p.at] == '{' {
		return 0, p.errorf("a repetition is repeated")
	}
	return n, nil
}

// printable says whether a byte is a printable ASCII character.
func printable(c byte) bool { return ' ' <= c && c <= '~' }

// kind tells digits, upper-case and lower-case letters from each other and from
// the rest, which is 0.
func kind(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return '0'
	case 'A' <= c && c <= 'Z':
		return 'A'
	case 'a' <= c && c <= 'z':
		return 'a'
	}
	return 0
}
