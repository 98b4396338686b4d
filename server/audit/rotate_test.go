package audit

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// smallSegments have about four events each, and are not packed.
var smallSegments = SegmentOptions{Size: 1200, Plain: true}

// openSmall opens the segments of a store with options, and what was logged.
func openSmall(t *testing.T, dir string, store tokenizer.Store, options SegmentOptions) (*Segments, *logBuffer) {
	t.Helper()
	var logged logBuffer
	s, err := OpenSegments(ctx, dir, store, options, logged.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, &logged
}

// names returns the names of the files in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// wantLog checks that a directory verifies and that what is read from it is the text.
func wantLog(t *testing.T, dir string, want []byte) {
	t.Helper()
	if _, err := VerifyDir(dir); err != nil {
		t.Fatal(err)
	}
	if got := readEntries(t, dir, 1); !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, want %d, of %v", len(got), len(want), names(t, dir))
	}
}

// readEntries reads a log from an event on.
func readEntries(t *testing.T, dir string, from uint64) []byte {
	t.Helper()
	r, err := OpenReader(dir, from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Check()
	var text []byte
	for {
		line, err := r.Next()
		if err == io.EOF {
			return text
		}
		if err != nil {
			t.Fatal(err)
		}
		text = appendLine(text, line.Log, line.Entry, line.Hash)
	}
}

// A log is cut at the same places whether it is written at once or event by event, and
// whenever it is opened anew.
func TestSegmentsRotateBySize(t *testing.T) {
	whole, bit := newMemoryStore(1, 50), newMemoryStore(1, 0)
	atOnce, slowly := t.TempDir(), t.TempDir()
	openSmall(t, atOnce, whole, smallSegments)
	for range 50 {
		bit.addEvents(1)
		s, _ := openSmall(t, slowly, bit, smallSegments)
		_ = s.Close()
		wantLog(t, slowly, bit.text())
	}
	wantLog(t, atOnce, whole.text())
	got := names(t, atOnce)
	if len(got) < 10 || strings.Join(got, " ") != strings.Join(names(t, slowly), " ") {
		t.Errorf("%v and %v", got, names(t, slowly))
	}
	for _, name := range got[:len(got)-1] {
		if info, err := os.Stat(filepath.Join(atOnce, name)); err != nil || info.Size() < 1200 || info.Size() > 1600 || info.Mode() != 0o600 {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), err)
		}
	}
}

func TestSegmentsRotateByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.pass(23 * time.Hour)
		f.commit(1)
		f.pass(2 * time.Hour)
		if n := len(names(t, f.dir)); n != 1 {
			t.Errorf("%d segments though nothing came", n)
		}
		f.commit(1)
		f.commit(1)
		if n := len(names(t, f.dir)); n != 2 {
			t.Errorf("%d segments, want 2", n)
		}
		wantLog(t, f.dir, f.store.text())
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// The age of a segment that is opened is that of its first event, and never negative.
func TestAgeOfASegmentThatIsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for age, want := range map[time.Duration]int{-100 * time.Hour: 1, 0: 1, 23 * time.Hour: 1, 25 * time.Hour: 2} {
			store, dir := newMemoryStore(1, 0), t.TempDir()
			store.add((&Event{Time: time.Now().Add(-age), Action: "tokenize"}).Body())
			s, _ := openSmall(t, dir, store, SegmentOptions{Plain: true})
			_ = s.Close()
			store.addEvents(1)
			openSmall(t, dir, store, SegmentOptions{Plain: true})
			if got := names(t, dir); len(got) != want {
				t.Errorf("age %v: %v", age, got)
			}
			wantLog(t, dir, store.text())
		}
	})
}

// While the file can't be synced, no other is begun.
func TestRotationWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.work.Lock()
		f.options.Size = 1200
		f.work.Unlock()
		f.commit(1)
		f.disk.mu.Lock()
		f.disk.noSync = 3
		f.disk.mu.Unlock()
		f.commit(20)
		if n := len(names(t, f.dir)); n != 1 {
			t.Errorf("%d segments", n)
		}
		f.pass(lastRetry)
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		wantLog(t, f.dir, f.store.text())
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestReaderBeginsAnywhere(t *testing.T) {
	store, dir := newMemoryStore(1, 60), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	l := lines(store.text())
	for _, packed := range []bool{false, true} {
		if packed {
			if err := s.packAll(ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
		for from := range uint64(62) {
			want := slicesJoin(l[min(max(from, 1)-1, 60):]...)
			if got := readEntries(t, dir, from); !bytes.Equal(got, want) {
				t.Fatalf("packed %v, from %d: %d bytes, want %d", packed, from, len(got), len(want))
			}
		}
	}
	large := t.TempDir()
	for range 8000 {
		store.add((&Event{Action: "tokenize", StatedReason: strings.Repeat("x", 200)}).Body())
	}
	s, _ = openSmall(t, large, store, SegmentOptions{Size: 3 << 20, Plain: true})
	l = lines(store.text())
	for _, packed := range []bool{false, true} {
		if packed {
			if err := s.packAll(ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, from := range []uint64{1, 1000, 2500, 2501, 4000, 7000, 8059, 8060} {
			if got := readEntries(t, large, from); !bytes.Equal(got, slicesJoin(l[from-1:]...)) {
				t.Errorf("packed %v, from %d: %d bytes", packed, from, len(got))
			}
		}
	}
	if got := names(t, large); !strings.HasSuffix(got[0], ".jsonl.zst") {
		t.Errorf("%v", got)
	}
}

// A Reader goes on where more was written, in this segment or another.
func TestReaderGoesOn(t *testing.T) {
	store, dir := newMemoryStore(1, 1), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	r, err := OpenReader(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := uint64(1)
	for range 30 {
		for {
			line, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil || line.Sequence != next {
				t.Fatalf("event %d, want %d, %v", line.Sequence, next, err)
			}
			next++
		}
		store.addEvents(3)
		if err := s.pass(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.packAll(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	if next != 1+29*3+1 {
		t.Errorf("read up to event %d", next-1)
	}
}

// What is missing is told at the start, with its numbers, and by whoever reads.
func TestMissingSegmentsAreTold(t *testing.T) {
	store, dir := newMemoryStore(1, 40), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(segments[3].path(dir)); err != nil {
		t.Fatal(err)
	}
	_, logged := openSmall(t, dir, store, smallSegments)
	want := "first=" + decimal(int(segments[3].first)) + " last=" + decimal(int(segments[4].first)-1)
	if !strings.Contains(logged.String(), "level=ERROR") || !strings.Contains(logged.String(), want) {
		t.Errorf("logged %s, want %s", logged, want)
	}
	if _, err := VerifyDir(dir); err == nil || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("error %v", err)
	}
	r, err := OpenReader(dir, 1)
	for err == nil {
		_, err = r.Next()
	}
	if !strings.Contains(err.Error(), "events are missing") {
		t.Errorf("error %v", err)
	}
}

// If the segment that is written is deleted, the log goes on behind the one before, packed
// or not.
func TestTheLastSegmentMayBeDeleted(t *testing.T) {
	for _, packed := range []bool{false, true} {
		store, dir := newMemoryStore(1, 40), t.TempDir()
		s, _ := openSmall(t, dir, store, smallSegments)
		if packed {
			if err := s.packAll(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(s.segment.path(dir)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		openSmall(t, dir, store, smallSegments)
		wantLog(t, dir, store.text())
	}
}

// Read reads what was packed too.
func TestReadOfPackedSegments(t *testing.T) {
	store, dir := newMemoryStore(1, 30), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	if err := s.packAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	for body, err := range Read(dir, time.Time{}, time.Time{}) {
		if err != nil || !bytes.Equal(body, store.entries[n].Body) {
			t.Fatalf("event %d: %s, %v", n+1, body, err)
		}
		n++
	}
	if n != 30 {
		t.Errorf("%d events", n)
	}
}
