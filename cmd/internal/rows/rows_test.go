package rows

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// readAll returns all rows of a text.
func readAll(t testing.TB, text string, o Options) (*Reader, []*Row) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), o)
	if err != nil {
		t.Fatal(err)
	}
	var all []*Row
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r, all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
}

// bracketed returns the file with each field f as <f>, and what is rejected.
func bracketed(t testing.TB, text string, o Options) (out, rejects string) {
	t.Helper()
	r, all := readAll(t, text, o)
	out, rejects = string(r.Header()), string(r.RejectsHeader())
	for _, row := range all {
		if row.Problem != "" {
			rejects += string(row.Rejected(Refusal{Code: "C", Reason: "R", Message: row.Problem}))
			continue
		}
		texts := make([]string, len(row.Fields))
		for i, f := range row.Fields {
			texts[i] = "<" + f.Value + ">"
		}
		out += string(row.With(texts))
	}
	return out, rejects
}

// wantBracketed fails the test unless bracketed returns what is wanted.
func wantBracketed(t *testing.T, text string, o Options, wantOut, wantRejects string) {
	t.Helper()
	out, rejects := bracketed(t, text, o)
	if out != wantOut {
		t.Errorf("out:\n%s\nwant:\n%s", out, wantOut)
	}
	if rejects != wantRejects {
		t.Errorf("rejects:\n%s\nwant:\n%s", rejects, wantRejects)
	}
}

const errorColumns = ",error_line,error_field,error_code,error_reason,error_message\n"

func TestRows(t *testing.T) {
	table := Options{Format: CSV, Header: true, Fields: []string{"b", "d"}}
	for name, row := range map[string]struct {
		o                 Options
		in, want, rejects string
	}{
		"a table": {table,
			"a,b,c,d\n1,2,3,4\n5,6,7,8\n", "a,b,c,d\n1,<2>,3,<4>\n5,<6>,7,<8>\n", "a,b,c,d" + errorColumns},
		"what isn't asked for stays as it is": {table,
			"\ufeff\"a\",b,c,d\r\n\"x \"\"y\"\"\", 2 ,,4\r\n\r\n'1',\"2\",\"\",\"4\"",
			"\ufeff\"a\",b,c,d\r\n\"x \"\"y\"\"\",< 2 >,,<4>\r\n\r\n'1',<2>,\"\",<4>\n", "\ufeff\"a\",b,c,d" + errorColumns},
		"what is put in is quoted": {table,
			"a,b,c,d\n1,\"2,\"\"2\",3,\"4\n4\"\n", "a,b,c,d\n1,\"<2,\"\"2>\",3,\"<4\n4>\"\n", "a,b,c,d" + errorColumns},
		"empty fields stay empty": {table,
			"a,b,c,d\n1,,3,\"\"\n", "a,b,c,d\n1,,3,\"\"\n", "a,b,c,d" + errorColumns},
		"rows that are too short, too long, or no CSV": {table,
			"a,b,c,d\n1,2\n1,2,3,4,5\n1,x\"y\",3,4\n1,\"2\"x,3,4\n1,2,3,4\n1,\"2",
			"a,b,c,d\n1,<2>,3,<4>\n",
			"a,b,c,d" + errorColumns +
				"1,2,,,2,,C,R,has 2 columns and not 4\n1,2,3,4,5,3,,C,R,has 5 columns and not 4\n" +
				"\"1,x\"\"y\"\",3,4\",,,,4,,C,R,\"is not CSV: a quote is where none can be, or is not closed\"\n" +
				"\"1,\"\"2\"\"x,3,4\",,,,5,,C,R,\"is not CSV: a quote is where none can be, or is not closed\"\n" +
				"\"1,\"\"2\",,,,7,,C,R,\"is not CSV: a quote is where none can be, or is not closed\"\n"},
		"no header, and another delimiter": {Options{Format: CSV, Comma: ';', Fields: []string{"2"}},
			"1;2,5;3\n4;5;6\n7;\n", "1;<2,5>;3\n4;<5>;6\n", "7;;;3;;C;R;has 2 columns and not 3\n"},
		"numbers beside names": {Options{Format: CSV, Header: true, Fields: []string{"2", "1"}},
			"b,1,2\nx,y,z\n", "b,1,2\nx,<y>,<z>\n", "b,1,2" + errorColumns},
		"objects": {Options{Format: JSONLines, Fields: []string{"card", "who.ssn"}},
			`{"z": 1.50, "card" : "4111" , "who":{"n":[1, 2],"ssn":123},"a":null}` + "\r\n\n" + `{"card":null,"who":null}` + "\n" + ` {"c\u0061rd":"a\"\u00e9\n"}`,
			`{"z": 1.50, "card" : "<4111>" , "who":{"n":[1, 2],"ssn":"<123>"},"a":null}` + "\r\n\n" + `{"card":null,"who":null}` + "\n" + ` {"c\u0061rd":"<a\"é\n>"}` + "\n", ""},
		"what is no object": {Options{Format: JSONLines, Fields: []string{"a", "b.c"}},
			"[1]\n{\"a\":1\n{} {}\n{ }\n{\"a\":true}\n{\"a\":\"1\",\"a\":\"2\"} \n{\"b\":1}\n{\"a\":\"\\ud800\"}\n{\"a\":\"\\ufffd\"}\n",
			"{ }\n{\"a\":\"<\ufffd>\"}\n",
			`{"error_text":"[1]","error_line":1,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not one JSON object"}` + "\n" +
				`{"error_text":"{\"a\":1","error_line":2,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not one JSON object"}` + "\n" +
				`{"error_text":"{} {}","error_line":3,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not one JSON object"}` + "\n" +
				`{"a":true,"error_line":5,"error_field":"","error_code":"C","error_reason":"R","error_message":"a field is neither a string nor a number"}` + "\n" +
				`{"a":"1","a":"2","error_line":6,"error_field":"","error_code":"C","error_reason":"R","error_message":"has a field twice"}` + "\n" +
				`{"b":1,"error_line":7,"error_field":"","error_code":"C","error_reason":"R","error_message":"a field has no others inside"}` + "\n" +
				`{"a":"\ud800","error_line":8,"error_field":"","error_code":"C","error_reason":"R","error_message":"a field is not valid Unicode"}` + "\n"},
		"lines": {Options{Format: Lines, Fields: []string{LineField}},
			"a\n\nb, \"c\" \r\n\xff\nd", "<a>\n\n<b, \"c\" >\r\n<d>\n",
			LineField + errorColumns + "\xff,4,,C,R,a field is not valid UTF-8\n"},
	} {
		t.Run(name, func(t *testing.T) {
			wantBracketed(t, row.in, row.o, row.want, row.rejects)
		})
	}
}

// A file of rejected rows is read as if it were what the rows were in; what
// didn't parse has to be repaired first.
func TestRejectedRows(t *testing.T) {
	for name, row := range map[string]struct {
		o                 Options
		in, want, rejects string
	}{
		"CSV": {Options{Format: CSV, Header: true, Fields: []string{"b", "d"}, Rejected: true},
			"a,b,c,d" + errorColumns + "1,2,3,\"4\n4\",7,b,C,R,\"why, so\"\n\n" +
				"5,6,,,2,,C,MALFORMED_ROW,has 2 columns and not 4\n" +
				"5,6,7,8,2,,,,\n" +
				"1,2,3,4,5,3,,C,MALFORMED_ROW,has 5 columns and not 4\n" +
				"\"1,\"\"2\",,,,7,,C,MALFORMED_ROW,\"is not CSV\"\n",
			"a,b,c,d\n1,<2>,3,\"<4\n4>\"\n\n5,<6>,7,<8>\n",
			"a,b,c,d" + errorColumns +
				"5,6,,,5,,C,R,didn't parse; whoever repairs it empties its error_reason\n" +
				"1,2,3,4,5,7,,C,R,didn't parse; whoever repairs it empties its error_reason\n" +
				"\"1,\"\"2\",,,,8,,C,R,didn't parse; whoever repairs it empties its error_reason\n"},
		"no header": {Options{Format: CSV, Fields: []string{"1"}, Rejected: true},
			"1,2,7,1,C,R,why\n", "<1>,2\n", ""},
		"lines": {Options{Format: CSV, Header: true, Fields: []string{LineField}, Rejected: true},
			LineField + errorColumns + "1,7,value,C,R,why\n\"a \"\"b\",7,value,C,R,why\n", LineField + "\n<1>\n\"<a \"\"b>\"\n", LineField + errorColumns},
		"objects": {Options{Format: JSONLines, Fields: []string{"a"}, Rejected: true},
			`{"z":1,"a":"2","error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why"}` + "\n" +
				`{ "error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why" }` + "\n" +
				`{"error_text":"[1]","error_line":1,"error_field":"","error_code":"C","error_reason":"MALFORMED_ROW","error_message":"why"}` + "\n" +
				`{"a":1,"a":2,"error_line":1,"error_field":"","error_code":"C","error_reason":"MALFORMED_ROW","error_message":"why"}` + "\n" +
				`{"a":2,"error_line":1,"error_field":"","error_code":"","error_reason":"","error_message":""}` + "\n" +
				`{"a":"2"}` + "\n" +
				`{"error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why","a":3}` + "\n",
			`{"z":1,"a":"<2>"}` + "\n{ }\n" + `{"a":"<2>"}` + "\n",
			`{"error_text":"[1]","error_line":3,"error_field":"","error_code":"C","error_reason":"R","error_message":"didn't parse; whoever repairs it empties its error_reason"}` + "\n" +
				`{"a":1,"a":2,"error_line":4,"error_field":"","error_code":"C","error_reason":"R","error_message":"didn't parse; whoever repairs it empties its error_reason"}` + "\n" +
				`{"a":"2","error_line":6,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not a rejected row: its last members are not error_line, error_field, error_code, error_reason, error_message"}` + "\n" +
				`{"error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why","a":3,"error_line":7,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not a rejected row: its last members are not error_line, error_field, error_code, error_reason, error_message"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			wantBracketed(t, row.in, row.o, row.want, row.rejects)
		})
	}
}

// Rows that were rejected don't pass as they are.
func TestRejectedRowsThatAreNotTakenForSuch(t *testing.T) {
	for name, row := range map[string]struct {
		o                 Options
		in, want, rejects string
	}{
		"no header": {Options{Format: CSV, Fields: []string{"1"}},
			"1,2,7,1,C,R,why\n1,,7,,C,MALFORMED_ROW,why\n", "<1>,2,7,1,C,R,why\n",
			"1,,7,,C,MALFORMED_ROW,why,2,,C,R,\"is a file of rejected rows, and not taken for one: --from-rejects\"\n"},
		"objects": {Options{Format: JSONLines, Fields: []string{"a"}},
			`{"a":"2","error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why"}` + "\n" + `{"a":"error_line"}`,
			`{"a":"<error_line>"}` + "\n",
			`{"a":"2","error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why","error_line":1,"error_field":"","error_code":"C","error_reason":"R","error_message":"is a file of rejected rows, and not taken for one: --from-rejects"}` + "\n"},
		"more behind one": {Options{Format: JSONLines, Fields: []string{"a"}, Rejected: true},
			`{"a":"2","error_line":5,"error_field":"a","error_code":"C","error_reason":"R","error_message":"why"}{"a":3}` + "\n", "",
			`{"error_text":"{\"a\":\"2\",\"error_line\":5,\"error_field\":\"a\",\"error_code\":\"C\",\"error_reason\":\"R\",\"error_message\":\"why\"}{\"a\":3}","error_line":1,"error_field":"","error_code":"C","error_reason":"R","error_message":"is not one JSON object"}` + "\n"},
		"any file": {Options{Format: CSV, Fields: []string{"1"}, Rejected: true},
			"4111,a,b,c,d,e\n", "", "4111,a,b,c,d,e,1,,C,R,is not a rejected row: the last columns are not those of an error\n"},
		"a wider one first": {Options{Format: CSV, Fields: []string{"1"}, Rejected: true},
			"1,2,3,1,,C,MALFORMED_ROW,has 3 columns and not 2\n4,5,2,1,C,R,why\n", "<4>,5\n",
			"1,2,3,1,,C,R,didn't parse; whoever repairs it empties its error_reason\n"},
	} {
		t.Run(name, func(t *testing.T) {
			wantBracketed(t, row.in, row.o, row.want, row.rejects)
		})
	}
}

// Only a member that isn't there is lacking.
func TestLacks(t *testing.T) {
	_, all := readAll(t, "{\"b\":{\"c\":1}}\n{\"a\":null,\"b\":{\"c\":\"\"}}\n{\"b\":null}\n\n", Options{Format: JSONLines, Fields: []string{"a", "b.c"}})
	for i, want := range [][2]bool{{true, false}, {false, false}, {true, true}, {false, false}} {
		if got := [2]bool{all[i].Lacks(0), all[i].Lacks(1)}; got != want {
			t.Errorf("row %d: %v, want %v", i, got, want)
		}
	}
	_, all = readAll(t, "a,b\n,\n\n", Options{Format: CSV, Header: true, Fields: []string{"a"}})
	if all[0].Lacks(0) || all[1].Lacks(0) {
		t.Error("a row of CSV lacks a column")
	}
}

func TestOptions(t *testing.T) {
	for name, row := range map[string]struct {
		o    Options
		in   string
		want string
	}{
		"no format":              {Options{Format: "xml"}, "", `"xml" is no format`},
		"rejects that are none":  {Options{Format: CSV, Header: true, Fields: []string{"a"}, Rejected: true}, "a,b\n", "not a file of rejected rows"},
		"rejects of lines":       {Options{Format: Lines, Fields: []string{LineField}, Rejected: true}, "", "CSV"},
		"a quote as a delimiter": {Options{Format: CSV, Comma: '"'}, "", "delimiter"},
		"a field of a line":      {Options{Format: Lines, Fields: []string{"a"}}, "", "no fields"},
		"a field twice":          {Options{Format: CSV, Fields: []string{"1", "1"}}, "", "twice"},
		"a member inside of one": {Options{Format: JSONLines, Fields: []string{"a", "a.b"}}, "", "a.b"},
		"a member around one":    {Options{Format: JSONLines, Fields: []string{"a.b", "a"}}, "", "inside"},
		"no such column":         {Options{Format: CSV, Header: true, Fields: []string{"c"}}, "a,b\n", ErrField.Error()},
		"no such number":         {Options{Format: CSV, Header: true, Fields: []string{"3"}}, "a,b\n", ErrField.Error()},
		"no header to name":      {Options{Format: CSV, Fields: []string{"a"}}, "a,b\n", ErrField.Error()},
		"a number with a header": {Options{Format: CSV, Header: true, Fields: []string{"1"}}, "4111,b\n", "numbers are for files without one"},
		"a number twice":         {Options{Format: CSV, Fields: []string{"1", "01"}}, "a,b\n", "same column"},
		"lines that end with CR": {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "a,b\r1,2\r3,4\r", "line end inside"},
		"a quote that swallows":  {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "a,\"b\n1,2\n3,4\"\n", "line end inside"},
		"rejects as they are":    {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "a" + errorColumns, "--from-rejects"},
		"a column twice":         {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "a,a\n", "twice"},
		"an empty table":         {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "", "no header"},
		"a header that is none":  {Options{Format: CSV, Header: true, Fields: []string{"a"}}, "a,b\"\n", "not CSV"},
	} {
		if _, err := NewReader(strings.NewReader(row.in), row.o); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

// endless is a row that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("x"), len(p))), nil }

func TestTooLong(t *testing.T) {
	for format, head := range map[Format]string{CSV: "\"", JSONLines: "", Lines: ""} {
		fields := []string{"1"}
		if format == Lines {
			fields[0] = LineField
		}
		r, err := NewReader(io.MultiReader(strings.NewReader(head), endless{}), Options{Format: format, Fields: fields})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestSeekTo(t *testing.T) {
	const text = "a,b\n1,2\n\"3\n\",4\n5,6\n"
	o := Options{Format: CSV, Header: true, Fields: []string{"b"}}
	_, all := readAll(t, text, o)
	for i, row := range all {
		r, err := NewReader(strings.NewReader(text), o)
		if err != nil {
			t.Fatal(err)
		}
		r.SeekTo(strings.NewReader(text[row.After.Offset:]), row.After)
		if row, err := r.Next(); i == len(all)-1 {
			if !errors.Is(err, io.EOF) {
				t.Errorf("a row after the last: %v", err)
			}
		} else if err != nil || !reflect.DeepEqual(row.Raw, all[i+1].Raw) || row.Line != all[i+1].Line || row.After != all[i+1].After {
			t.Errorf("after row %d: %v, %v", i, row, err)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]Format{"a.csv": CSV, "b.TSV": CSV, "c.d.jsonl": JSONLines, "e.ndjson": JSONLines, "f.txt": Lines, "-": "", "csv": ""} {
		if got := FormatOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// FuzzCSV compares with encoding/csv, which reads what is written, too.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\nc,d\n", "\"a\"\"\",\"b\nc\"\r\n,\n", "a\"b,c\n", "\"a\"b\n", "\"a", "\r\n\r", "a,b\n\nc\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\r") && !strings.Contains(text, "\n") || strings.HasPrefix(text, "\ufeff") || !isText(text) {
			t.Skip()
		}
		_, all := readAll(t, text, Options{Format: CSV, Fields: []string{"1"}})
		theirs := csv.NewReader(strings.NewReader(text))
		theirs.FieldsPerRecord = -1
		whole := ""
		for _, row := range all {
			whole += string(row.Raw)
			if row.Problem != "" || len(bytes.TrimSpace(row.Raw)) == 0 {
				return // which of the two goes on where isn't the same
			}
			record, err := theirs.Read()
			if err != nil {
				t.Fatalf("%q: encoding/csv says %v", row.Raw, err)
			}
			if len(record) != row.cells || record[0] != strings.ReplaceAll(row.Fields[0].Value, "\r\n", "\n") {
				t.Fatalf("%q: %q in %d cells, encoding/csv has %q", row.Raw, row.Fields[0].Value, row.cells, record)
			}
			again, err := csv.NewReader(bytes.NewReader(row.With([]string{"x\"," + row.Fields[0].Value}))).Read()
			if err != nil || len(again) != len(record) || record[0] != "" && again[0] != "x\","+record[0] {
				t.Fatalf("%q is written as %q, %v", row.Raw, again, err)
			}
		}
		if whole != text {
			t.Fatalf("rows are %q of %q", whole, text)
		}
	})
}

// isText says whether a text is such that encoding/csv takes no liberties with it.
func isText(text string) bool {
	return !strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r")
}

// FuzzJSON writes objects that have to be what they were, but for the field.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, ` {"x" : [1,{"a":2}], "a" :-1e5 , "n":{"b" : "\u00e9"}}`, `{"a":null}`, `{"a":1`, `{"a":"","b":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\n") || strings.HasPrefix(text, "\ufeff") {
			t.Skip()
		}
		_, all := readAll(t, text, Options{Format: JSONLines, Fields: []string{"a", "n.b"}})
		if len(all) == 0 || len(strings.TrimSpace(text)) == 0 {
			return
		}
		row := all[0]
		var before map[string]any
		valid := json.Unmarshal([]byte(text), &before) == nil && before != nil
		if !json.Valid(row.Rejected(Refusal{Field: "a", Message: "\"\n"})) {
			t.Fatalf("%q is rejected as %q", text, row.Rejected(Refusal{}))
		}
		if row.Problem != "" {
			return
		}
		if !valid {
			t.Fatalf("%q is taken", text)
		}
		var after map[string]any
		if err := json.Unmarshal(row.With([]string{"new", "new"}), &after); err != nil {
			t.Fatalf("%q is written as %q", text, row.With([]string{"new", "new"}))
		}
		if !row.Fields[0].Empty() {
			if after["a"] != "new" {
				t.Fatalf("%q is written as %q", text, row.With([]string{"new", "new"}))
			}
			before["a"] = "new"
		}
		if !row.Fields[1].Empty() {
			before["n"].(map[string]any)["b"] = "new"
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%q is written as %q", text, row.With([]string{"new", "new"}))
		}
	})
}
