package rows

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Reader reads rows, one after the other.
type Reader struct {
	in     *bufio.Reader
	layout *layout
	header []byte // as it stands in the file, with a byte order mark
	offset int64
	line   int64 // that begins at offset
}

// byteOrderMark is what some programs put in front of UTF-8.
var byteOrderMark = []byte("\ufeff")

// NewReader returns a Reader, and reads the header if there is one. The file
// begins at its beginning; SeekTo goes on in the middle.
//
// Errors: what Options.Validate says, ErrField, ErrTooLong, that of the file.
func NewReader(in io.Reader, o Options) (*Reader, error) {
	if o.Comma == 0 {
		o.Comma = ','
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10), layout: &layout{Options: o}, line: 1}
	if mark, _ := r.in.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		_, _ = r.in.Discard(len(mark))
		r.header, r.offset = append(r.header, mark...), int64(len(mark))
	}
	if o.Format == JSONLines {
		paths, err := pathsOf(o.Fields)
		if err != nil {
			return nil, err
		}
		r.layout.paths = paths
	}
	if o.Format != CSV {
		return r, nil
	}
	var names []string
	if o.Header {
		raw, cells, err := r.record()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("has no header: it is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("the header: %w", err)
		}
		if cells == nil {
			return nil, errors.New("the header is not CSV")
		}
		for _, c := range cells {
			names = append(names, unquoteCell(raw[c.start:c.end]))
		}
		if slices.ContainsFunc(names, func(name string) bool { return strings.ContainsAny(name, "\r\n") }) {
			// It would swallow rows, which would pass as they are.
			return nil, errors.New("the header has a line end inside: a quote is not closed, or lines end with CR alone")
		}
		r.layout.width = len(names)
		kept := len(names) - len(refusalNames)
		rejected := kept > 0 && slices.Equal(names[kept:], refusalNames[:])
		switch {
		case o.Rejected && !rejected:
			return nil, errors.New("is not a file of rejected rows: the last columns are not " + strings.Join(refusalNames[:], ", "))
		case o.Rejected:
			raw, names = raw[:cells[kept-1].end], names[:kept]
			r.layout.width = kept
		case rejected:
			return nil, errRejected
		}
		r.header = append(r.header, raw...)
	}
	var err error
	r.layout.columns, err = columnsOf(o.Fields, names, o.Header, o.Optional)
	for c, name := range names {
		if !slices.Contains(r.layout.columns, c) {
			r.layout.others = append(r.layout.others, name)
		}
	}
	return r, err
}

// Has says whether there is a column for a field. Of JSON lines only the rows can
// tell.
func (r *Reader) Has(field int) bool {
	return r.layout.Format != CSV || r.layout.columns[field] >= 0
}

// Others returns the names of the columns that no field is in.
func (r *Reader) Others() []string { return r.layout.others }

// Header returns what stands before the first row, as it is.
func (r *Reader) Header() []byte {
	if r.layout.width > 0 && r.layout.Header {
		return terminated(bytes.Clone(r.header))
	}
	return r.header
}

// Position returns where the next row begins.
func (r *Reader) Position() Position { return Position{r.offset, r.line, r.layout.width} }

// SeekTo goes on at a position, where in is already.
func (r *Reader) SeekTo(in io.Reader, p Position) {
	r.in.Reset(in)
	r.offset, r.line, r.layout.width = p.Offset, p.Line, p.Width
}

// Next returns the next row. Blank lines are rows without fields.
//
// Errors: io.EOF, ErrTooLong, that of the file; the last two name the line.
func (r *Reader) Next() (*Row, error) {
	row := &Row{Line: r.line, format: r.layout, Fields: make([]Field, len(r.layout.Fields))}
	var cells []span
	var err error
	if r.layout.Format == CSV {
		row.Raw, cells, err = r.record()
	} else {
		row.Raw, err = r.physical(nil)
	}
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("line %d: %w", row.Line, err)
		}
		return nil, err
	}
	text := content(row.Raw)
	switch {
	case len(bytes.TrimSpace(text)) == 0 && r.layout.Format != Lines && len(cells) <= 1:
		row.cells = r.layout.width // a blank line
	case r.layout.Format == CSV:
		row.takeCells(cells)
	case r.layout.Format == JSONLines:
		row.takeMembers(text)
	case len(row.Fields) > 0:
		row.Fields[0] = Field{string(text), span{0, len(text)}}
	}
	for _, f := range row.Fields {
		if row.Problem == "" && !utf8.ValidString(f.Value) {
			row.Problem = "a field is not valid UTF-8"
		}
	}
	row.After = r.Position()
	return row, nil
}

// physical appends a line, with its end, to what there is of a row.
func (r *Reader) physical(row []byte) ([]byte, error) {
	for {
		part, err := r.in.ReadSlice('\n')
		row = append(row, part...)
		r.offset += int64(len(part))
		switch {
		case len(row) > MaxRow:
			return nil, ErrTooLong
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(row) > 0:
			r.line++
			return row, nil
		case err != nil:
			return nil, err
		default:
			r.line++
			return row, nil
		}
	}
}

// record returns a record of CSV and its cells; none if it is not CSV.
func (r *Reader) record() (raw []byte, cells []span, err error) {
	var scan cellScanner
	for {
		before := len(raw)
		if raw, err = r.physical(raw); err != nil {
			return nil, nil, err
		}
		if len(raw) == before { // the end of the file, inside of quotes
			return raw, nil, nil
		}
		if cells, done := scan.line(raw, r.layout.Comma); done {
			return raw, cells, nil
		}
	}
}
