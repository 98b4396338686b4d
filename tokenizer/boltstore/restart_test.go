package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore/journal"
)

func commitEvent(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: event}); err != nil {
		t.Fatal(err)
	}
}

func segmentsOf(t *testing.T, path string) []string {
	t.Helper()
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, n := range names {
		if strings.HasPrefix(n.Name(), filepath.Base(path)+journalSuffix) {
			found = append(found, filepath.Join(filepath.Dir(path), n.Name()))
		}
	}
	return found
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A start that fails over the journal leaves the file as it was: once the journal is
// mended, or taken away where the file has everything, the store starts.
func TestAStartThatFailsOverTheJournalCanBeMended(t *testing.T) {
	other := filepath.Join(t.TempDir(), "store.db")
	closeChecked(t, open(t, other))
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commitEvent(t, s)
	closeChecked(t, s)
	for _, name := range segmentsOf(t, path) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	foreign := path + journalSuffix + "-00000001"
	copyFile(t, segmentsOf(t, other)[0], foreign)
	for range 2 {
		if _, err := Open(path); !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), "another store") {
			t.Fatalf("with the journal of another store: %v", err)
		}
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	// And one that can't make its first segment.
	blocked := path + journalSuffix + "-00000001.new"
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Fatal("a segment is made where a directory is in its way")
	}
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	defer closeChecked(t, s)
	if entries, err := s.Entries(t.Context(), 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v; want 1", len(entries), err)
	}
}

// A store that was not closed isn't opened without its journal, whatever else lies
// there, and is found wherever it lies.
func TestTheJournalOfAnOpenStoreIsNeeded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[prod]*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	s := open(t, path)
	defer closeChecked(t, s)
	follow(t, s)
	commitEvent(t, s)
	copied := filepath.Join(t.TempDir(), "[copy]", "store.db")
	if err := os.Mkdir(filepath.Dir(copied), 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, copied)
	for _, name := range segmentsOf(t, path) {
		copyFile(t, name, filepath.Join(filepath.Dir(copied), filepath.Base(name)+".bak"))
	}
	if _, err := Open(copied); !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), "the journal is missing") {
		t.Fatalf("with the segments renamed: %v", err)
	}
	for _, name := range segmentsOf(t, copied) {
		if err := os.Rename(name, strings.TrimSuffix(name, ".bak")); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, copied)
	defer closeChecked(t, c)
	if entries, err := c.Entries(t.Context(), 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v; want 1", len(entries), err)
	}
}

// An older copy of a store that was closed isn't led on by a later journal: that would
// undo the restore.
func TestALaterJournalIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commitEvent(t, s)
	closeChecked(t, s)
	older := path + ".older"
	copyFile(t, path, older)
	s = open(t, path)
	commitEvent(t, s)
	closeChecked(t, s)
	copyFile(t, older, path)
	for range 2 {
		if _, err := Open(path); !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), "older copy") {
			t.Fatalf("with a later journal: %v", err)
		}
	}
	for _, name := range segmentsOf(t, path) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, path)
	defer closeChecked(t, s)
	if entries, err := s.Entries(t.Context(), 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v; want 1", len(entries), err)
	}
}

// Two stores that went on from one, each by itself: the journal of the one is refused
// beside the file of the other, and that changes nothing.
func TestTheJournalOfAnotherHistoryIsRefused(t *testing.T) {
	base := filepath.Join(t.TempDir(), "store.db")
	s := open(t, base)
	commitEvent(t, s)
	closeChecked(t, s)
	var paths [2]string
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "store.db")
		copyFile(t, base, paths[i])
		for _, name := range segmentsOf(t, base) {
			copyFile(t, name, filepath.Join(filepath.Dir(paths[i]), filepath.Base(name)))
		}
		s := open(t, paths[i])
		commit := func() {
			t.Helper()
			own := func(tokenizer.Outcome) []byte { return fmt.Append(nil, "event of ", i) }
			if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: own}); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 + 3*i {
			commit()
		}
		follow(t, s)
		commit()
		paths[i] = copyFiles(t, s) // as after a crash
		closeChecked(t, s)
	}
	mixed := filepath.Join(t.TempDir(), "store.db")
	put := func(from string) {
		for _, name := range segmentsOf(t, mixed) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range segmentsOf(t, from) {
			copyFile(t, name, filepath.Join(filepath.Dir(mixed), filepath.Base(name)))
		}
	}
	copyFile(t, paths[0], mixed)
	put(paths[1])
	for range 2 {
		if _, err := Open(mixed); !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), "another history") {
			t.Fatalf("with the journal of another history: %v", err)
		}
	}
	put(paths[0])
	s = open(t, mixed)
	defer closeChecked(t, s)
	if entries, err := s.Entries(t.Context(), 0, 10); err != nil || len(entries) != 4 {
		t.Errorf("%d entries, %v; want 4", len(entries), err)
	}
}

// A segment that can't be made, for whatever reason, is no reason to give up.
func TestASegmentThatCannotBeMadeIsTriedAgain(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	whole := s.append
	s.append = func(...[]byte) (uint64, error) {
		return 0, fmt.Errorf("%w: %w", journal.ErrFull, syscall.EMFILE)
	}
	if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: event}); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Fatal(err)
	}
	s.append = whole
	commitEvent(t, s)
}

// While nothing can be written Check says so each time, and a journal that is broken
// stays so though it was want of room that broke it.
func TestCheckFindsOutWhetherAWriteWorks(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	whole := s.append
	s.append = func(...[]byte) (uint64, error) { return 0, journal.ErrFull }
	for range 3 {
		if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: event}); !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Fatal(err)
		}
		for range 3 {
			if err := s.Check(t.Context()); !errors.Is(err, tokenizer.ErrUnavailable) {
				t.Fatalf("Check while nothing can be written: %v", err)
			}
		}
	}
	s.append = whole
	if err := s.Check(t.Context()); err != nil {
		t.Fatalf("Check with room again: %v", err)
	}
	s.append = func(...[]byte) (uint64, error) {
		return 0, fmt.Errorf("%w: %w", journal.ErrBroken, diskFullError)
	}
	if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: event}); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Fatal(err)
	}
	s.append = whole
	if err := s.Check(t.Context()); !errors.Is(err, journal.ErrBroken) {
		t.Errorf("Check of a journal that is broken: %v", err)
	}
	closeChecked(t, s)
}

// A stop after which the file hasn't everything says so.
func TestCloseTellsWhatTheFileLacks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	follow(t, s)
	s.file <- struct{}{}
	s.update = func(func(*bbolt.Tx) error) error { return diskFullError }
	<-s.file
	commitEvent(t, s)
	if err := s.Close(); !errors.Is(err, tokenizer.ErrUnavailable) || !strings.Contains(err.Error(), "journal") {
		t.Errorf("Close: %v", err)
	}
	s = open(t, path) // the journal has it
	defer closeChecked(t, s)
	if entries, err := s.Entries(t.Context(), 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v; want 1", len(entries), err)
	}
}

// What is committed while a write to the file fails gets there too, without another
// commit.
func TestTheFileCatchesUpAfterAFailure(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	follow(t, s)
	whole, failing := s.update, make(chan struct{})
	s.file <- struct{}{}
	fails := true
	s.update = func(fn func(*bbolt.Tx) error) error {
		if fails {
			fails = false
			close(failing)
			time.Sleep(100 * time.Millisecond) // meanwhile there is another commit
			return diskFullError
		}
		return whole(fn)
	}
	<-s.file
	commitEvent(t, s)
	<-failing
	commitEvent(t, s)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.state.RLock()
		left := s.active.size > 0 || s.frozen != nil
		s.state.RUnlock()
		if !left {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the file hasn't what was committed while a write failed")
		}
	}
}

// Who has the store scrubbed is let go, whatever hangs.
func TestScrubLetsGo(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	commitEvent(t, s)
	whole, held, release := s.update, make(chan struct{}), make(chan struct{})
	s.file <- struct{}{}
	s.update = func(fn func(*bbolt.Tx) error) error {
		select {
		case <-held:
		default:
			close(held)
		}
		<-release
		return whole(fn)
	}
	<-s.file
	ctx, cancel := context.WithCancel(t.Context())
	scrubbed := make(chan error, 1)
	go func() { scrubbed <- s.Scrub(ctx) }()
	<-held
	cancel()
	select {
	case err := <-scrubbed:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Scrub: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Scrub isn't let go")
	}
	close(release)
	closeChecked(t, s)
}
