package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Error is something that is wrong with a policy file, at its place in it. It
// prints as "FILE:LINE:COLUMN: message". Lines and columns are counted from 1,
// columns in characters.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

// Error returns the place and the message.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// mostProblems is how many errors are reported of one file.
const mostProblems = 100

// problems gathers what is wrong with a file.
type problems struct {
	file string
	list []*Error
	more int // left out

	listed map[string]bool // lists of names that have been told
}

// at adds what is wrong at a place.
func (p *problems) at(line, column int, format string, args ...any) {
	if p.full() {
		p.more++
		return
	}
	p.list = append(p.list, &Error{p.file, max(line, 1), max(column, 1), fmt.Sprintf(format, args...)})
}

// node adds what is wrong with a node.
func (p *problems) node(n *yaml.Node, format string, args ...any) {
	p.at(n.Line, n.Column, format, args...)
}

// full says whether what else is wrong is only counted.
func (p *problems) full() bool { return len(p.list) == mostProblems }

func (p *problems) none() bool { return len(p.list) == 0 }

// err joins the problems, one a line in the order of the file, or returns nil
// if there are none.
func (p *problems) err() error {
	slices.SortStableFunc(p.list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var all []error
	for _, e := range p.list {
		all = append(all, e)
	}
	if p.more > 0 {
		all = append(all, fmt.Errorf("%s: %d more", p.file, p.more))
	}
	return errors.Join(all...)
}

// quote quotes what the file says for a message, and cuts what is too long for
// one.
func quote(s string) string {
	const longest = 80
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + "…"
	}
	return strconv.Quote(s)
}
