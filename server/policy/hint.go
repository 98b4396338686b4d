package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	dotted     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?`)
)

// words are operators of other languages.
var words = regexp.MustCompile(`\b(and|or|not)\b`)

// operators are what CEL has in their place.
var operators = map[string]string{"and": "&&", "or": "||", "not": "!"}

// hint says more than CEL does of a name in an expression that there isn't: the name as
// a whole, and what may have been meant; and of operators of other languages. Other
// messages it leaves as they are.
func hint(text string, line, column int, message string) string {
	if strings.HasPrefix(message, "Syntax error") {
		if word := words.FindString(text); word != "" {
			return fmt.Sprintf("%s; for %q write %s", message, word, operators[word])
		}
		return message
	}
	found := undeclared.FindStringSubmatch(message)
	if found == nil {
		return message
	}
	name := found[1]
	if lines := strings.Split(text, "\n"); line >= 1 && line <= len(lines) {
		if rest := []rune(lines[line-1]); column >= 0 && column < len(rest) {
			if whole := dotted.FindString(string(rest[column:])); strings.HasPrefix(whole, name) {
				name = whole
			}
		}
	}
	names := slices.Sorted(maps.Keys(variables))
	if near := mostAlike(name, names); near != "" {
		return fmt.Sprintf("unknown %s; did you mean %q?", quote(name), near)
	}
	of, _, _ := strings.Cut(name, ".")
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, of+".") && !strings.HasSuffix(n, "."+of) })
	if len(names) > 0 {
		return fmt.Sprintf("unknown %s (known: %s)", quote(name), strings.Join(names, ", "))
	}
	return fmt.Sprintf("unknown %s; an expression speaks of caller, request, token and time", quote(name))
}
