package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// maxRegex is how long a regular expression may be, in bytes, and maxStates to how many
// states, about, it may come. To match takes as many steps for each byte at most.
const (
	maxRegex  = 256
	maxStates = 1000
)

// compileRegex compiles what all of a text has to match, and says about how many states
// it has.
func compileRegex(text string) (*regexp.Regexp, int, error) {
	n, err := regexStates(text)
	if err != nil {
		return nil, n, err
	}
	compiled, err := regexp.Compile(`\A(?:` + text + `)\z`)
	return compiled, n, err
}

// regexStates returns about how many states a regular expression has, without making
// them. Too many are an error.
func regexStates(text string) (int, error) {
	if len(text) > maxRegex {
		return 0, fmt.Errorf("it has more than %d bytes", maxRegex)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0, err
	}
	n := statesOf(parsed)
	if n > maxStates {
		return n, fmt.Errorf("it comes to more than %d states when all repetitions are written out", maxStates)
	}
	return n, nil
}

// statesOf returns a bound of what an expression compiles to; repetitions are what
// makes a short one large.
func statesOf(re *syntax.Regexp) int {
	n := 1
	for _, sub := range re.Sub {
		n += statesOf(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCharClass:
		n += len(re.Rune) / 16 // such as \pL has hundreds of ranges
	case syntax.OpRepeat:
		n *= max(re.Min+1, re.Max)
	}
	return min(n, 1<<20) // so that nothing overflows
}
