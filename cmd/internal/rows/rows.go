// Package rows reads and writes files of rows: CSV, JSON lines, or lines. It
// finds the fields that it is asked for and puts others in their place; all else
// of a row stays as it is, byte for byte. It holds one row at a time.
//
// No error of this package holds anything of a row.
package rows

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Format is what a file of rows is made of.
type Format string

// Formats.
const (
	// CSV is RFC 4180, with any delimiter of one byte, and lines that end with LF
	// or CRLF. A field is a column.
	CSV Format = "csv"

	// JSONLines has a JSON object on each line. A field is a member, or, with a
	// dot in its name, one of an object inside.
	JSONLines Format = "jsonl"

	// Lines has a value on each line, and one field, LineField.
	Lines Format = "lines"
)

// LineField is the name of the one field that a row of the format Lines has.
const LineField = "value"

// MaxRow is the longest row in bytes.
const MaxRow = 16 << 20

// ErrTooLong says that a row is longer than MaxRow.
var ErrTooLong = fmt.Errorf("is longer than %d MiB", MaxRow>>20)

// ErrField says that a file doesn't have a field that is asked for.
var ErrField = errors.New("no such field")

// FormatOf guesses the format from the name of a file; "" if there is no telling.
func FormatOf(path string) Format {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv", ".tsv":
		return CSV
	case ".jsonl", ".ndjson":
		return JSONLines
	case ".txt", ".lst":
		return Lines
	}
	return ""
}

// Options say what a file is like, and which fields are asked for.
type Options struct {
	Format Format
	Comma  byte // the delimiter of CSV; ',' if it is 0
	Header bool // the first row of CSV has the names of the columns

	// Fields are names of columns, or numbers of columns from 1; or names of
	// members, a.b for b inside of a.
	Fields []string

	// Optional lets a file lack fields: they are empty then. Has says which.
	Optional bool

	// Objects lets members be objects, whose JSON is the value.
	Objects bool

	// Rejected says that the file is one of rejected rows: what Row.Rejected has
	// put there is left out.
	Rejected bool
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	switch {
	case !slices.Contains([]Format{CSV, JSONLines, Lines}, o.Format):
		return fmt.Errorf("%q is no format: there are %s, %s and %s", o.Format, CSV, JSONLines, Lines)
	case o.Rejected && o.Format == Lines:
		return errors.New("rejected lines are kept as CSV, in the column " + LineField)
	case o.Comma == '"' || o.Comma == '\n' || o.Comma == '\r' || o.Comma >= 0x80:
		return errors.New("the delimiter can't be a quote, a line end, or outside of ASCII")
	}
	for i, f := range o.Fields {
		if o.Format == Lines && f != LineField {
			return fmt.Errorf("field %q: a line has no fields", f)
		}
		if f == "" || slices.Contains(o.Fields[:i], f) {
			return fmt.Errorf("field %q: is empty or there twice", f)
		}
	}
	return nil
}

// Position is a place between two rows of a file.
type Position struct {
	Offset int64 `json:"offset"` // of the first byte of the next row
	Line   int64 `json:"line"`   // at which it begins; the first is 1
	Width  int   `json:"width"`  // columns of CSV; 0 as long as that isn't known
}

// Row is a row of a file.
type Row struct {
	Line   int64    // where it begins
	After  Position // behind it
	Raw    []byte
	Fields []Field // one for each of Options.Fields

	// Problem is what is wrong with the row itself, "" if nothing is. Its fields
	// can't be relied on then.
	Problem string

	cells  int // of CSV
	format *layout
}

// Field is one of the fields that were asked for.
type Field struct {
	Value string
	span  span
}

// Empty says that there is nothing: no such member, a null, or an empty text.
func (f Field) Empty() bool { return f.Value == "" }

// Lacks says whether a row has no such field at all: a JSON object without the
// member. A null is there, and all fields of a blank line are.
func (r *Row) Lacks(field int) bool {
	return r.format.Format == JSONLines && r.Fields[field].span == span{} && len(bytes.TrimSpace(r.Raw)) > 0
}

// span is where in a row something stands.
type span struct{ start, end int }

// layout is what is known of a file.
type layout struct {
	Options
	columns []int // of CSV, for each field
	others  []string
	width   int   // of CSV, how many columns there are, without those of a refusal; 0 if that isn't known yet
	paths   *node // of JSON lines
}

// With returns the row with other texts in place of the first fields, a text for
// each, but for those that are empty. It ends with a line end.
func (r *Row) With(texts []string) []byte {
	type change struct {
		span
		text string
	}
	changes := make([]change, 0, len(texts))
	size := len(r.Raw) + 1
	for i, f := range r.Fields[:len(texts)] {
		if !f.Empty() {
			changes = append(changes, change{f.span, r.format.encode(texts[i])})
			size += len(changes[len(changes)-1].text)
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return a.start - b.start })
	out, at := make([]byte, 0, size), 0
	for _, c := range changes {
		out = append(append(out, r.Raw[at:c.start]...), c.text...)
		at = c.end
	}
	return terminated(append(out, r.Raw[at:]...))
}

// Fits says whether a text can stand in a file of the format: a line can't hold
// a line end.
func (f Format) Fits(text string) bool { return f != Lines || !strings.ContainsAny(text, "\r\n") }

// encode returns a text as it stands in the file.
func (l *layout) encode(text string) string {
	switch l.Format {
	case CSV:
		return quoteCell(text, l.Comma)
	case JSONLines:
		return quoteJSON(text)
	}
	return text
}

// terminated adds the line end that the last row of a file may lack.
func terminated(row []byte) []byte {
	if !bytes.HasSuffix(row, []byte("\n")) {
		row = append(row, '\n')
	}
	return row
}

// content returns a row without its line end.
func content(row []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(row, []byte("\n")), []byte("\r"))
}
