package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Refusal is why a row is not in the output.
type Refusal struct {
	Field   string // which was refused; "" if it is the row itself
	Code    string
	Reason  string
	Message string
}

// refusalNames are the columns or members that a rejected row gets.
var refusalNames = [...]string{"error_line", "error_field", "error_code", "error_reason", "error_message"}

// refusedText is the member that has the text of a row that is no JSON object.
const refusedText = "error_text"

// MalformedRow is the reason of a Refusal of a row that doesn't parse: its Field
// is "".
const MalformedRow = "MALFORMED_ROW"

// errNotRepaired says that a rejected row didn't parse. What stands in which of
// its fields isn't known, so it can't be taken as it is.
var errNotRepaired = errors.New("didn't parse; whoever repairs it empties its error_reason")

// errRejected says that rows were rejected before, and may have passed as they are.
var errRejected = errors.New("is a file of rejected rows, and not taken for one: --from-rejects")

// malformed says whether a row was rejected since it doesn't parse.
func malformed(field, reason string) bool { return field == "" && reason == MalformedRow }

// RejectsHeader returns what a file of rejected rows begins with.
func (r *Reader) RejectsHeader() []byte {
	l := r.layout
	names := string(l.Comma) + strings.Join(refusalNames[:], string(l.Comma)) + "\n"
	switch {
	case l.Format == Lines:
		return []byte(LineField + names)
	case l.Format == CSV && l.Header:
		return append(bytes.Clone(content(r.header)), names...)
	}
	return nil
}

// Rejected returns the row as it stands in a file of rejected rows: itself, with
// five columns or members more. A row of the format Lines becomes one of CSV. Of
// a row that doesn't parse the whole text is in the first column, or in the
// member error_text.
func (r *Row) Rejected(why Refusal) []byte {
	texts := []string{strconv.FormatInt(r.Line, 10), why.Field, why.Code, why.Reason, why.Message}
	text := content(r.Raw)
	if r.format.Format == JSONLines {
		return r.rejectedObject(text, why, texts)
	}
	comma := r.format.Comma
	var out []byte
	cells := 1
	switch {
	case r.format.Format == CSV && r.cells > 0:
		out, cells = append(out, text...), r.cells
	default:
		out = append(out, quoteCell(string(text), comma)...)
	}
	if r.format.Format == CSV {
		for ; cells < r.format.width; cells++ {
			out = append(out, comma)
		}
	}
	for _, t := range texts {
		out = append(append(out, comma), quoteCell(t, comma)...)
	}
	return append(out, '\n')
}

// rejectedObject is Rejected for JSON lines.
func (r *Row) rejectedObject(text []byte, why Refusal, texts []string) []byte {
	var out []byte
	object := bytes.TrimSpace(text)
	if !bytes.HasPrefix(object, []byte("{")) || !json.Valid(object) {
		out = append(out, `{"`+refusedText+`":`+quoteJSON(string(text))...)
	} else {
		out = append(out, bytes.TrimRight(object[:len(object)-1], " \t")...)
	}
	for i, name := range refusalNames {
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
		t := quoteJSON(texts[i])
		if i == 0 {
			t = texts[i] // the line is a number
		}
		out = append(out, quoteJSON(name)+":"+t...)
	}
	return append(out, "}\n"...)
}
