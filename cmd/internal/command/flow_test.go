package command

import (
	"bytes"
	"context"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// echo answers each question with what is asked, in < and >, once half of the
// window is asked; some twice, some not at all, if it is told so.
type echo struct {
	answers chan answer
	mangle  func(*answer)
}

func (e *echo) send(q *question) error {
	a := answer{correlation: strconv.FormatUint(q.id, 10), text: "<" + q.of.Fields[q.field].Value + ">"}
	if e.mangle != nil {
		e.mangle(&a)
	}
	e.answers <- a
	return nil
}

func (e *echo) end() error { close(e.answers); return nil }

func (e *echo) receive() (answer, error) {
	a, more := <-e.answers
	if !more {
		return answer{}, io.EOF
	}
	return a, nil
}

// many is a file of many rows, which is made as it is read.
type many struct {
	rows, length int
	rest         []byte
	watch        func()
}

func (m *many) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		if m.rows == 0 {
			return 0, io.EOF
		}
		if m.rows--; m.rows%1000 == 0 {
			m.watch()
		}
		m.rest = append(m.rest[:0], strings.Repeat("x", m.length)+"\n"...)
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// flowOf returns a flow of lines from a reader to a writer.
func flowOf(t *testing.T, in io.Reader, out io.Writer, open func() *echo) (*flow, *job) {
	t.Helper()
	j := &job{env: Env{Stdin: in, Stdout: out, Stderr: io.Discard}, command: "tokenize", in: "-", out: "-", output: true, maxRejects: -1,
		options: rows.Options{Format: rows.Lines, Comma: ',', Fields: []string{rows.LineField}}}
	src, err := openSource(j.env, "-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.begin(src); err != nil {
		t.Fatal(err)
	}
	return &flow{
		job: j, fields: j.options.Fields, inFlight: 4096,
		large:  func(*question) bool { return false },
		check:  func(*rowInFlight) *rows.Refusal { return nil },
		accept: func(int, string) *rows.Refusal { return nil },
		open:   func(context.Context) (asker, error) { return open(), nil },
	}, j
}

// TestMemory shows that memory depends on neither the number of rows nor, beyond
// the room that there is, on their length.
func TestMemory(t *testing.T) {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, row := range []struct{ rows, length int }{{300_000, 16}, {400, 1 << 20}} {
		most := uint64(0)
		watch := func() {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		in := &many{rows: row.rows, length: row.length, watch: func() {}}
		if row.length > 16 {
			in.watch = watch
		}
		every := 0
		in.watch = func() {
			if every++; every%20 == 0 || row.length > 16 {
				watch()
			}
		}
		var out counter
		f, j := flowOf(t, in, &out, func() *echo { return &echo{answers: make(chan answer, 2048)} })
		if err := f.run(t.Context(), &persistence{env: j.env}); err != nil {
			t.Fatal(err)
		}
		if err := j.end(nil); err != nil {
			t.Fatal(err)
		}
		if want := counter(row.rows * (row.length + 3)); out != want {
			t.Errorf("%d bytes, want %d", out, want)
		}
		if used := int64(most) - int64(before.HeapAlloc); used > 2*roomInFlight {
			t.Errorf("%d rows of %d bytes take %d MiB", row.rows, row.length, used>>20)
		}
	}
}

// TestOddAnswers shows that a server that answers oddly ends the command.
func TestOddAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		mangle func(*answer)
		want   string
	}{
		"what was not asked": {func(a *answer) { a.correlation = "7000" }, "the server answers what was not asked"},
		"no number":          {func(a *answer) { a.correlation = "one" }, "the server answers what was not asked"},
		"neither nor":        {func(a *answer) { a.refused = noAnswer }, "the server gives no answer"},
		"a defect":           {func(a *answer) { a.refused = &rpcstatus.Status{Code: int32(codes.Unimplemented), Message: "no"} }, "UNIMPLEMENTED: no"},
		"the second time": {func() func(*answer) {
			n := 0
			return func(a *answer) {
				if n++; n == 3 {
					a.correlation = strconv.FormatUint(uint64(n-2), 10)
				}
			}
		}(), "the server answers what was not asked"},
	} {
		var out bytes.Buffer
		f, j := flowOf(t, strings.NewReader("a\nb\nc\nd\n"), &out, func() *echo { return &echo{answers: make(chan answer, 8), mangle: row.mangle} })
		if err := f.run(t.Context(), &persistence{env: j.env, answered: true, limit: math.MaxInt64}); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRowsBar(t *testing.T) {
	var out bytes.Buffer
	b := newRowsBar(Env{Stderr: &out, Terminal: true}, "rows", 1000, 0, 0, false)
	b.at(50, 500, b.began.Add(10*time.Second), false)
	b.at(60, 600, b.began.Add(10*time.Second), false) // too soon
	b.at(100, 1000, b.began.Add(20*time.Second), true)
	b.end()
	want := "\r\x1b[K[############------------]  50%  50 rows  5/s  10s left\r\x1b[K[########################] 100%  100 rows  5/s\n"
	if out.String() != want {
		t.Errorf("drew %q, want %q", out.String(), want)
	}
	out.Reset()
	b = newRowsBar(Env{Stderr: &out, Terminal: true}, "tokens", 0, 100, 0, false)
	b.at(1100, 0, b.began.Add(10*time.Second), false)
	if want := "\r\x1b[K1,100 tokens  100/s"; out.String() != want {
		t.Errorf("drew %q, want %q", out.String(), want)
	}
	out.Reset()
	newRowsBar(Env{Stderr: &out, Terminal: true}, "rows", 1, 0, 0, true).at(1, 1, time.Now(), true)
	newRowsBar(Env{Stderr: &out}, "rows", 1, 0, 0, false).at(1, 1, time.Now(), true)
	if out.Len() > 0 {
		t.Errorf("drew %q", out.String())
	}
}
