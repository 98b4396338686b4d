package audit

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func TestVerifyGolden(t *testing.T) {
	sum, err := Verify("log", bytes.NewReader(golden(t)))
	if err != nil {
		t.Fatal(err)
	}
	if sum.Log != goldenLog || sum.First != 1 || sum.Last != 3 || sum.Events != 3 || sum.Head.String() != goldenHead {
		t.Errorf("%+v", sum)
	}
}

func TestVerifyEmpty(t *testing.T) {
	if sum, err := Verify("log", strings.NewReader("")); err != nil || sum != (Summary{}) {
		t.Errorf("%+v, %v", sum, err)
	}
}

// lines splits a log into lines with their line feeds.
func lines(log []byte) [][]byte { return slices.Collect(bytes.Lines(log)) }

func TestVerifySays(t *testing.T) {
	l := lines(newMemoryStore(1, 4).text())
	other := lines(newMemoryStore(2, 4).text())
	forged := tokenizer.Entry{Sequence: 2, Prev: tokenizer.Hash{1}, Body: []byte("{}")}
	for _, row := range []struct {
		name  string
		lines [][]byte
		whole uint64 // lines before the error
		want  string
		is    error
	}{
		{"no first line", l[1:], 0, "log:1: audit: the log is broken: event 2 where 1 should be", ErrBroken},
		{"a line is missing", [][]byte{l[0], l[2]}, 1, "log:2: audit: the log is broken: event 3 where 2 should be", ErrBroken},
		{"a line twice", [][]byte{l[0], l[1], l[1]}, 2, "log:3: audit: the log is broken: event 2 where 3 should be", ErrBroken},
		{"another log", other[:1], 1, "", nil},
		{"a line of another log", [][]byte{l[0], other[1]}, 1, "log:2: audit: the log is broken: event 2 is of log " +
			"02000000000000000000000000000000, not 01000000000000000000000000000000", ErrBroken},
		{"a forged line", [][]byte{l[0], AppendLine(nil, tokenizer.LogID{1}, forged)}, 1,
			"log:2: audit: the log is broken: event 2 is not chained to what is before it", ErrBroken},
		{"a forged beginning", [][]byte{bytes.Replace(l[0], []byte("01"), []byte("02"), 1)}, 0,
			"log:1: audit: the log is broken: event 1 is not chained to what is before it", ErrBroken},
		{"a changed event", [][]byte{l[0], bytes.Replace(l[1], []byte("OK"), []byte("KO"), 1)}, 1,
			"log:2: audit: the log is broken: event 2 doesn't have the hash that its line says", ErrBroken},
		{"an empty line", [][]byte{l[0], []byte("\n"), l[1]}, 1, "log:2: audit: the log is broken: not a line of an audit log", ErrBroken},
		{"half a line", [][]byte{l[0], l[1][:20]}, 1, "log:2: audit: the last line is unfinished", ErrTorn},
		{"half a line before another", [][]byte{l[0], l[1][:20], l[1]}, 1, "log:2: audit: the log is broken: not a line of an audit log", ErrBroken},
		{"NULs at the end", [][]byte{l[0], make([]byte, 1000)}, 1, "log:2: audit: the last line is unfinished", ErrTorn},
		{"no end of line", [][]byte{l[0], bytes.Repeat([]byte("x"), maxLine+1)}, 1,
			"log:2: audit: the log is broken: a line of more than 16777216 bytes", ErrBroken},
	} {
		t.Run(row.name, func(t *testing.T) {
			sum, err := Verify("log", bytes.NewReader(bytes.Join(row.lines, nil)))
			if row.want == "" && err != nil || row.want != "" && (err == nil || err.Error() != row.want) || !errors.Is(err, row.is) {
				t.Errorf("error %v, want %s", err, row.want)
			}
			if sum.Events != row.whole || sum.Last != row.whole {
				t.Errorf("%+v, want %d events", sum, row.whole)
			}
		})
	}
}

// Lines longer than the reader's buffer are read whole.
func TestVerifyLongLines(t *testing.T) {
	s := newMemoryStore(1, 1)
	s.add((&Event{Reason: strings.Repeat("x", 1<<20)}).Body())
	s.addEvents(1)
	sum, err := Verify("log", iotest.OneByteReader(bytes.NewReader(s.text())))
	if err != nil || sum.Events != 3 {
		t.Fatalf("%+v, %v", sum, err)
	}
}

func TestVerifyPassesErrorsOn(t *testing.T) {
	fault := errors.New("disk fault")
	r := io.MultiReader(bytes.NewReader(newMemoryStore(1, 2).text()), iotest.ErrReader(fault))
	if sum, err := Verify("log", r); !errors.Is(err, fault) || sum.Events != 2 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// Whatever is done to a log is found, but for whole lines cut off at its end.
func TestVerifyFindsEveryChange(t *testing.T) {
	whole := newMemoryStore(1, 6).text()
	l := lines(whole)
	check := func(what string, changed ...[]byte) {
		t.Helper()
		log := bytes.Join(changed, nil)
		sum, err := Verify("log", bytes.NewReader(log))
		if err == nil {
			t.Fatalf("%s isn't found", what)
		}
		if before := bytes.Join(l[:sum.Events], nil); !bytes.HasPrefix(log, before) {
			t.Fatalf("%s: %d events before %v are not those of the log", what, sum.Events, err)
		}
	}
	for i := range whole {
		for _, flip := range []byte{1, 0x20, 0x80, whole[i], whole[i] ^ '\n'} {
			changed := bytes.Clone(whole)
			if changed[i] ^= flip; changed[i] != whole[i] {
				check("a changed byte", changed)
			}
		}
		check("a missing byte", whole[:i], whole[i+1:])
		check("a byte twice", whole[:i+1], whole[i:])
		if i > 0 && whole[i-1] != '\n' {
			check("a cut", whole[:i])
		}
	}
	for i := range l {
		if i < len(l)-1 {
			check("a missing line", bytes.Join(slices.Delete(slices.Clone(l), i, i+1), nil))
		}
		for j := range l {
			check("a line put in", bytes.Join(slices.Insert(slices.Clone(l), j, l[i]), nil))
			if i != j {
				swapped := slices.Clone(l)
				swapped[i], swapped[j] = l[j], l[i]
				check("lines swapped", swapped...)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		from := rng.IntN(len(whole) - 1)
		to := min(from+1+rng.IntN(40), len(whole))
		changed := bytes.Clone(whole)
		for i := from; i < to; i++ {
			changed[i] = byte(rng.IntN(256))
		}
		if !bytes.Equal(changed, whole) {
			check("a changed piece", changed)
		}
	}
}

func TestVerifyDir(t *testing.T) {
	l := lines(newMemoryStore(1, 6).text())
	first, second := segmentName(1), segmentName(4)
	for _, row := range []struct {
		name  string
		files map[string][][]byte
		whole uint64
		want  string
	}{
		{"none", nil, 0, ""},
		{"one", map[string][][]byte{first: l}, 6, ""},
		{"two", map[string][][]byte{first: l[:3], second: l[3:]}, 6, ""},
		{"an empty one at the end", map[string][][]byte{first: l[:3], second: nil}, 3, ""},
		{"other files", map[string][][]byte{first: l, "notes.txt": {[]byte("x")}, "audit-1.jsonl": {[]byte("x")},
			"audit-00000000000000000000.jsonl": {[]byte("x")}, first + ".bak": {[]byte("x")}}, 6, ""},
		{"the first is missing", map[string][][]byte{second: l[3:]}, 0,
			"audit: the log is broken: " + second + ": begins with event 4, not 1: events 1 to 3 are missing"},
		{"the name is not that of the first event", map[string][][]byte{first: l[:3], segmentName(5): l[3:]}, 3,
			"audit: the log is broken: " + segmentName(5) + ": begins with event 5, not 4: events 4 to 4 are missing"},
		{"the second doesn't go on", map[string][][]byte{first: l[:3], second: l[4:]}, 3,
			second + ":1: audit: the log is broken: event 5 where 4 should be"},
		{"the last is unfinished", map[string][][]byte{first: l[:3], second: {l[3], l[4][:9]}}, 4,
			second + ":2: audit: the last line is unfinished"},
		{"the first is unfinished", map[string][][]byte{first: {l[0], l[1], l[2], l[3][:9]}, second: l[3:]}, 3,
			"audit: the log is broken: " + first + ": the last line is unfinished, though another segment follows"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range row.files {
				if err := os.WriteFile(filepath.Join(dir, name), bytes.Join(content, nil), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			sum, err := VerifyDir(dir)
			if row.want == "" && err != nil || row.want != "" && (err == nil || err.Error() != row.want) {
				t.Errorf("error %v, want %s", err, row.want)
			}
			if sum.Events != row.whole {
				t.Errorf("%+v, want %d events", sum, row.whole)
			}
		})
	}
	if _, err := VerifyDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}
