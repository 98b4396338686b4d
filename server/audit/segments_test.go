package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// openStore opens a store on disk, which is closed when the test ends.
func openStore(t *testing.T) *boltstore.Store {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// openDir opens segments and returns what was logged, too.
func openDir(t *testing.T, dir string, store tokenizer.Store) (*Segments, *logBuffer) {
	t.Helper()
	var logged logBuffer
	s, err := OpenSegments(ctx, dir, store, SegmentOptions{}, logged.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, &logged
}

// commitEvents commits n events to a store, without segments.
func commitEvents(t *testing.T, store tokenizer.Store, n int) {
	t.Helper()
	for i := range n {
		unit := tokenizer.Unit{Event: func(tokenizer.Outcome) []byte { return event(i).Body() }}
		if _, err := store.Commit(ctx, unit); err != nil {
			t.Fatal(err)
		}
	}
}

// storeText returns what the segments of a store should hold.
func storeText(t *testing.T, store tokenizer.Store) []byte {
	t.Helper()
	entries, err := store.Entries(ctx, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, e := range entries {
		b = AppendLine(b, store.LogID(), e)
	}
	return b
}

// wantText checks what the one segment of a directory holds.
func wantText(t *testing.T, dir string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the segment has %d bytes:\n%s\nwant %d:\n%s", len(got), got, len(want), want)
	}
}

func writeSegment(t *testing.T, dir string, first uint64, text []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(first)), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRunFollowsTheStore(t *testing.T) {
	store, dir := openStore(t), filepath.Join(t.TempDir(), "a", "audit")
	s, _ := openDir(t, dir, store)
	log := NewLog(store, s)
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	const committers, each = 8, 50
	finished := make(chan error)
	for range committers {
		go func() {
			var err error
			for i := range each {
				_, failed := log.Commit(context.WithoutCancel(ctx), tokenizer.Unit{}, event(i))
				err = errors.Join(err, failed)
			}
			finished <- err
		}()
	}
	for range committers {
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Check(), s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	wantText(t, dir, storeText(t, store))
	sum, err := VerifyDir(dir)
	if err != nil || sum.Events != committers*each || sum.Log != store.LogID() {
		t.Errorf("%+v, %v", sum, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, segmentName(1)): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestOpenCompletesFromTheStore(t *testing.T) {
	store, dir := openStore(t), t.TempDir()
	openDir(t, dir, store)
	wantText(t, dir, nil)
	total := 0
	for _, n := range []int{1, 5, 700, 0} {
		commitEvents(t, store, n)
		total += n
		s, logged := openDir(t, dir, store)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantText(t, dir, storeText(t, store))
		if said := strings.Contains(logged.String(), "completed from the store"); said != (n > 0) {
			t.Errorf("logged %s", logged)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir, store)
	wantText(t, dir, storeText(t, store))
	if sum, err := VerifyDir(dir); err != nil || sum.Events != uint64(total) {
		t.Errorf("%+v, %v", sum, err)
	}
}

// The log goes on in the last segment, whatever it begins with.
func TestOpenGoesOnInTheLastSegment(t *testing.T) {
	store := newMemoryStore(1, 8)
	l := lines(store.text())
	for name, second := range map[string][]byte{"empty": nil, "unfinished": l[4][:9], "begun": l[4]} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeSegment(t, dir, 1, slicesJoin(l[:4]...))
			writeSegment(t, dir, 5, second)
			openDir(t, dir, store)
			wantText(t, dir, slicesJoin(l[:4]...))
			if sum, err := VerifyDir(dir); err != nil || sum.Events != 8 {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
	dir := t.TempDir()
	writeSegment(t, dir, 10, nil)
	if _, err := OpenSegments(ctx, dir, store, SegmentOptions{}, new(logBuffer).logger()); !errors.Is(err, ErrMismatch) {
		t.Errorf("error %v, want ErrMismatch", err)
	}
}

func TestOpenNeedsADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSegments(ctx, path, newMemoryStore(1, 0), SegmentOptions{}, new(logBuffer).logger()); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// Entries are read a bounded number at a time, and fewer if they are large.
func TestEntriesAreReadInBatches(t *testing.T) {
	store := newMemoryStore(1, 2000)
	s, _ := openDir(t, t.TempDir(), store)
	if store.asked != maxEntries+1 {
		t.Errorf("%d entries were read at once, want %d", store.asked, maxEntries+1)
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	for range 40 {
		store.add(slicesJoin([]byte(`{"v":"`), large, []byte(`"}`)))
	}
	if err := s.pass(ctx); err != nil || s.written.last != 2040 {
		t.Fatalf("%d written, %v", s.written.last, err)
	}
	if s.limit > 8 {
		t.Errorf("%d entries of 1 MiB are read at once", s.limit)
	}
}

// BenchmarkRebuild writes a directory anew; an operation is one event.
func BenchmarkRebuild(b *testing.B) {
	store := newMemoryStore(1, 0)
	for range 10_000 {
		store.add(goldenEvents[1].Body())
	}
	written := 0
	for b.Loop() {
		if written++; written%len(store.entries) != 1 {
			continue
		}
		s, err := OpenSegments(ctx, b.TempDir(), store, SegmentOptions{}, new(logBuffer).logger())
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
	}
}
