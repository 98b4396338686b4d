package audit

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A crash may leave the segment cut off anywhere, with NULs behind or within.
func TestOpenMendsWhatACrashLeft(t *testing.T) {
	store := newMemoryStore(1, 8)
	whole := store.text()
	l := lines(whole)
	nuls := make([]byte, 5000)
	hole := bytes.Clone(whole)
	clear(hole[len(whole)/2 : len(whole)/2+150])
	rows := map[string]struct {
		text []byte
		kept int // bytes; the rest is cut
	}{
		"empty":                     {nil, 0},
		"whole":                     {whole, len(whole)},
		"NULs":                      {slicesJoin(whole, nuls), len(whole)},
		"only NULs":                 {nuls, 0},
		"half a line, then NULs":    {slicesJoin(l[0], l[1][:50], nuls), len(l[0])},
		"NULs, then half a line":    {slicesJoin(l[0], nuls, l[1][:50]), len(l[0])},
		"NULs, then the end of one": {slicesJoin(l[0], nuls, l[2][50:], l[3]), len(l[0])},
		"a hole across lines":       {hole, len(whole[:bytes.LastIndexByte(whole[:len(whole)/2], '\n')+1])},
		"NULs with line feeds":      {slicesJoin(l[0], []byte("\x00\n\x00\n"), l[1]), len(l[0])},
		"very many NULs":            {slicesJoin(l[0], make([]byte, maxLine+1000)), len(l[0])},
		"garbage":                   {slicesJoin(l[0], l[1], []byte("\x93\xff#garbage")), len(l[0]) + len(l[1])},
		"garbage with a line feed":  {slicesJoin(l[0], l[1], []byte("garbage\ngarbage\n")), len(l[0]) + len(l[1])},
		"only garbage":              {[]byte("garbage\n"), 0},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeSegment(t, dir, 1, row.text)
			_, logged := openDir(t, dir, store)
			wantText(t, dir, whole)
			cut := len(row.text) - row.kept
			if said := strings.Contains(logged.String(), "level=WARN"); said != (cut > 0) {
				t.Errorf("logged %s", logged)
			}
			if want := "bytes=" + decimal(cut) + " "; cut > 0 && !strings.Contains(logged.String(), want) {
				t.Errorf("logged %s, want %s", logged, want)
			}
		})
	}
	t.Run("cut anywhere", func(t *testing.T) {
		dir := t.TempDir()
		for n := len(whole) - len(l[7]) - 10; n < len(whole); n++ {
			writeSegment(t, dir, 1, whole[:n])
			s, _ := openDir(t, dir, store)
			_ = s.Close()
			wantText(t, dir, whole)
		}
	})
}

func slicesJoin(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }

// What a crash can't have left is not mended, but told.
func TestOpenRefuses(t *testing.T) {
	store, other := newMemoryStore(1, 8), newMemoryStore(2, 8)
	forked := newMemoryStore(1, 3)
	forked.add([]byte(`{"v":1,"forked":true}`))
	forked.addEvents(2)
	longer := newMemoryStore(1, 12)
	whole := store.text()
	l := lines(whole)
	for _, row := range []struct {
		name string
		text []byte
		is   error
		want string
	}{
		{"another store", other.text(), ErrMismatch, "they are of log 02000000000000000000000000000000, and the store's is " +
			"01000000000000000000000000000000: the directory belongs to another store; name another directory, or move the directory away"},
		{"ahead of the store", longer.text(), ErrMismatch, "they end with event 12, which the store doesn't have yet: " +
			"the store was restored from an older copy"},
		{"another history", forked.text(), ErrMismatch, "their event 6 is not the one of the store"},
		{"another history and half a line", append(forked.text(), "{"...), ErrMismatch, "their event 6 is not the one of the store"},
		{"a changed event", bytes.Replace(whole, []byte("OK"), []byte("KO"), 1), ErrBroken, "event 1 doesn't have the hash that its line says"},
		{"a changed last event", slicesJoin(whole[:len(whole)-6], []byte("x"), whole[len(whole)-5:]), ErrBroken, "event 8 doesn't have the hash"},
		{"a missing line", slicesJoin(l[0], l[2]), ErrBroken, "event 3 where 2 should be"},
		{"the beginning is missing", slicesJoin(l[1], l[2]), ErrBroken, "event 2 where 1 should be"},
		{"an empty line", slicesJoin(l[0], []byte("\n"), l[1]), ErrBroken, "is not a line, but a line follows it"},
		{"no line and too long", bytes.Repeat([]byte("x"), maxLine+10), ErrBroken, "what begins at byte 0 is too long to be a line"},
		{"a forged beginning", AppendLine(nil, store.id, tokenizer.Entry{Sequence: 1, Body: []byte("{}")}), ErrBroken,
			"event 1 is not chained to what is before it"},
		{"a forged line", slicesJoin(l[0], AppendLine(nil, store.id, tokenizer.Entry{Sequence: 2, Body: []byte("{}")})), ErrBroken,
			"event 2 is not chained to what is before it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			writeSegment(t, dir, 1, row.text)
			var logged logBuffer
			s, err := OpenSegments(ctx, dir, store, SegmentOptions{}, logged.logger())
			if s != nil || !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %s", err, row.want)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), dir) || !strings.HasSuffix(err.Error(), "it is rebuilt from the store")) {
				t.Errorf("error %v doesn't say where and what to do", err)
			}
			wantText(t, dir, row.text)
		})
	}
}

// Where the window begins must not matter.
func TestReadTailWithAnyWindow(t *testing.T) {
	store := newMemoryStore(1, 12)
	whole := store.text()
	seg := segment{segmentName(1), 1}
	last := store.entries[11]
	for _, torn := range []string{"", "{", "\x00\x00\x00", "{\x00\n\x00"} {
		text := append(bytes.Clone(whole), torn...)
		for window := int64(1); window <= int64(len(text)); window++ {
			got, err := readTail(bytes.NewReader(text), int64(len(text)), window, seg, store.id)
			if want := (mark{int64(len(whole)), 12, last.Hash()}); err != nil || got != want {
				t.Fatalf("window %d: %+v, %v, want %+v", window, got, err, want)
			}
		}
	}
}
