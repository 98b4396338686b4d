package rows

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// columnsOf returns the column of each field, from 0; -1 for one that isn't there
// and is optional. With a header it is by name, else by number: a file without one
// that is taken for one with it would lose its first row.
func columnsOf(fields, names []string, header, optional bool) ([]int, error) {
	columns := make([]int, len(fields))
	for i, field := range fields {
		columns[i] = -1
		for c, name := range names {
			if name != field {
				continue
			}
			if columns[i] >= 0 {
				return nil, fmt.Errorf("column %q is there twice", field)
			}
			columns[i] = c
		}
		if columns[i] >= 0 {
			continue
		}
		n, err := strconv.Atoi(field)
		isNumber := err == nil && n >= 1
		if isNumber && !header {
			columns[i] = n - 1
			continue
		}
		if !isNumber && optional {
			continue
		}
		// What the file has instead is not told: without a header that would be
		// values.
		if isNumber {
			return nil, fmt.Errorf("column %q: %w in the header; numbers are for files without one", field, ErrField)
		}
		return nil, fmt.Errorf("column %q: %w", field, ErrField)
	}
	for i, c := range columns {
		for k := range i {
			if c >= 0 && columns[k] == c {
				return nil, fmt.Errorf("%q and %q are the same column", fields[k], fields[i])
			}
		}
	}
	return columns, nil
}

// cellScanner cuts a record, which may have several lines, into cells. Its zero
// value is ready for a record.
type cellScanner struct {
	at, start int
	state     cellState
	bad       bool
	cells     []span
}

// cellState is where in a cell the scanner is.
type cellState int

const (
	cellBegin cellState = iota
	cellBare
	cellQuoted
	cellQuoteInside // a quote that ends the cell or is the first of two
)

// line goes on with what the record has grown by, a line. It says whether the
// record ends there, and returns its cells; none if it is not CSV.
func (s *cellScanner) line(raw []byte, comma byte) (cells []span, done bool) {
	end := len(content(raw))
	for ; s.at < end; s.at++ {
		c := raw[s.at]
		switch s.state {
		case cellBegin, cellBare:
			switch {
			case c == comma:
				s.cut(s.at)
			case c == '"' && s.state == cellBegin:
				s.state = cellQuoted
			case c == '"':
				s.bad, s.state = true, cellBare
			default:
				s.state = cellBare
			}
		case cellQuoted:
			if c == '"' {
				s.state = cellQuoteInside
			}
		case cellQuoteInside:
			switch c {
			case '"':
				s.state = cellQuoted
			case comma:
				s.cut(s.at)
			default:
				s.bad, s.state = true, cellBare
			}
		}
	}
	if s.state == cellQuoted {
		s.at = len(raw)
		return nil, false
	}
	s.cut(end)
	if s.bad {
		return nil, true
	}
	return s.cells, true
}

// cut ends a cell.
func (s *cellScanner) cut(end int) {
	s.cells = append(s.cells, span{s.start, end})
	s.start, s.state = end+1, cellBegin
}

// takeCells finds the fields of a record.
func (r *Row) takeCells(cells []span) {
	if cells == nil {
		r.Problem = "is not CSV: a quote is where none can be, or is not closed"
		return
	}
	r.cells = len(cells)
	if r.format.Rejected || !r.format.Header {
		cells = r.dropRefusal(cells)
	}
	if r.Problem != "" {
		return
	}
	if r.format.width == 0 {
		r.format.width = len(cells)
	}
	if len(cells) != r.format.width {
		r.Problem = fmt.Sprintf("has %d columns and not %d", len(cells), r.format.width)
		return
	}
	for i, c := range r.format.columns {
		if c < 0 {
			continue
		}
		if c >= len(cells) {
			r.Problem = fmt.Sprintf("has no column %d", c+1)
			return
		}
		r.Fields[i] = Field{unquoteCell(r.Raw[cells[c].start:cells[c].end]), cells[c]}
	}
}

// dropRefusal takes what Row.Rejected has added off a row, if that is asked for. It
// finds a problem if there is nothing to take off, or if the row must not be taken
// as it is.
func (r *Row) dropRefusal(cells []span) []span {
	kept := len(cells) - len(refusalNames)
	text := func(i int) string { return unquoteCell(r.Raw[cells[kept+i].start:cells[kept+i].end]) }
	isRefusal := false
	if kept > 0 {
		_, err := strconv.Atoi(text(0)) // error_line
		isRefusal = err == nil
	}
	switch {
	case !r.format.Rejected && isRefusal && malformed(text(1), text(3)):
		r.Problem = errRejected.Error()
		return cells
	case !r.format.Rejected:
		return cells
	case !isRefusal:
		r.Problem = "is not a rejected row: the last columns are not those of an error"
		return cells
	case malformed(text(1), text(3)):
		r.Problem = errNotRepaired.Error()
	}
	r.cells = kept
	r.Raw = terminated(r.Raw[:cells[kept-1].end])
	return cells[:kept]
}

// unquoteCell returns the text of a cell. Line ends inside stay as they are.
func unquoteCell(cell []byte) string {
	if len(cell) < 2 || cell[0] != '"' {
		return string(cell)
	}
	inner := cell[1 : len(cell)-1]
	if bytes.IndexByte(inner, '"') < 0 {
		return string(inner)
	}
	return strings.ReplaceAll(string(inner), `""`, `"`)
}

// quoteCell returns a text as a cell.
func quoteCell(text string, comma byte) string {
	if !strings.ContainsAny(text, "\"\r\n"+string(rune(comma))) && strings.TrimSpace(text) == text {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
}
