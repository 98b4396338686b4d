package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// hookedFile runs a hook before each write and sync, which may fail them.
type hookedFile struct {
	storeFile
	write func(b []byte, offset int64) error
	sync  func() error
}

func (f *hookedFile) WriteAt(b []byte, offset int64) (int, error) {
	if f.write != nil {
		if err := f.write(b, offset); err != nil {
			return 0, err
		}
	}
	return f.storeFile.WriteAt(b, offset)
}

func (f *hookedFile) Sync() error {
	if f.sync != nil {
		if err := f.sync(); err != nil {
			return err
		}
	}
	return f.storeFile.Sync()
}

// hook puts hooks into the way of Scrub. The store must be idle.
func hook(s *Store) *hookedFile {
	f := &hookedFile{storeFile: s.bolt}
	s.bolt = f
	return f
}

const secret = "<what is to be overwritten %06d>"

// used is a store whose file has free pages with secrets, and the records that
// are left.
func used(t *testing.T) (s *Store, left []tokenizer.Record) {
	t.Helper()
	ctx := context.Background()
	s, first := filled(t)
	id, err := s.ReserveIDs(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	var whole []tokenizer.Record
	for i := range uint64(100) {
		r := first
		r.ID, r.Value = id+i, bytes.Repeat(fmt.Appendf(nil, secret, i), 40)
		if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{r}, Event: event}); err != nil {
			t.Fatal(err)
		}
		if whole = append(whole, r); i%10 == 9 {
			follow(t, s)
		}
	}
	for i, r := range whole {
		if i%10 == 9 {
			follow(t, s)
		}
		shredded := r
		shredded.State, shredded.Value = tokenizer.Expired, nil
		if _, err := s.Commit(ctx, tokenizer.Unit{Updates: []tokenizer.Update{{Old: r, New: shredded}}, Event: event}); err != nil {
			t.Fatal(err)
		}
		left = append(left, shredded)
	}
	follow(t, s)
	if !hasSecret(t, s) {
		t.Fatal("there is nothing to overwrite")
	}
	return s, left
}

func hasSecret(t *testing.T, s *Store) bool {
	t.Helper()
	for _, name := range files(s) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(secret[:20])) {
			return true
		}
	}
	return false
}

func wantRecords(t *testing.T, s *Store, want []tokenizer.Record) {
	t.Helper()
	for _, r := range want {
		found, err := s.Records(context.Background(), r.ID)
		if err != nil || found[0].Err != nil || !found[0].Record.Equal(r) {
			t.Fatalf("record %d: %+v, %v", r.ID, found, err)
		}
	}
}

// What is zeros already may not be on the disk yet, if who wrote it was killed.
func TestScrubSyncsInAnyCase(t *testing.T) {
	ctx := context.Background()
	s, _ := used(t)
	defer closeChecked(t, s)
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	writes, synced := 0, false
	f := hook(s)
	f.write = func([]byte, int64) error { writes++; return nil }
	f.sync = func() error { synced = true; return nil }
	if err := s.Scrub(ctx); err != nil || writes != 0 || !synced {
		t.Errorf("Scrub: %v; %d writes, synced: %v", err, writes, synced)
	}
}

// A transaction that failed may have written behind the pages that the file
// speaks of, copies of what others had stored included.
func TestScrubBehindTheLastPage(t *testing.T) {
	s, left := used(t)
	defer closeChecked(t, s)
	if err := s.Scrub(context.Background()); err != nil {
		t.Fatal(err)
	}
	var end int64
	if err := s.db.View(func(tx *bbolt.Tx) error { end = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	info, err := s.bolt.Stat()
	if err != nil || info.Size() <= end {
		t.Fatalf("the file has %d bytes, of which %d are in pages; %v", info.Size(), end, err)
	}
	for _, offset := range []int64{end, end + 12345, info.Size() - 30} {
		if _, err := s.bolt.WriteAt(fmt.Appendf(nil, secret, 1)[:30], min(offset, info.Size()-30)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Scrub(context.Background()); err != nil || hasSecret(t, s) {
		t.Errorf("Scrub: %v, secret: %v", err, hasSecret(t, s))
	}
	if after, err := s.bolt.Stat(); err != nil || after.Size() != info.Size() {
		t.Errorf("the file has %d bytes, %d before; %v", after.Size(), info.Size(), err)
	}
	wantRecords(t, s, left)
}

// Who began to read before the latest transaction sees what it saw to the end:
// Scrub waits. Who begins later doesn't wait for Scrub.
func TestScrubWaitsForReaders(t *testing.T) {
	ctx := context.Background()
	s, left := used(t)
	defer closeChecked(t, s)
	record := left[0]
	reading, goOn, read := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		read <- s.read(ctx, func(v *view) error {
			stored := v.bucket(recordsID).get(idKey(record.ID))
			close(reading)
			<-goOn
			if got, err := tokenizer.ParseRecord(record.ID, stored); err != nil || !got.Equal(record) {
				return fmt.Errorf("record %+v, %w", got, err)
			}
			return nil
		})
	}()
	<-reading
	if _, err := s.Commit(ctx, tokenizer.Unit{Deletes: []tokenizer.Record{record}, Event: event}); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{}, 1000)
	hook(s).write = func([]byte, int64) error { written <- struct{}{}; return nil }
	scrubbed := make(chan error, 1)
	go func() { scrubbed <- s.Scrub(ctx) }()
	for len(scrubbed) == 0 && s.readers.TryRLock() { // until Scrub waits for the reader
		s.readers.RUnlock()
	}
	if len(written) > 0 {
		t.Error("Scrub has written while an earlier reader reads")
	}
	close(goOn)
	if err := <-read; err != nil {
		t.Error(err)
	}
	if err := <-scrubbed; err != nil || len(written) == 0 {
		t.Errorf("Scrub: %v, %d writes", err, len(written))
	}
}

// Commits don't wait for all of it: they come between its steps, and so does the
// end of who called it.
func TestScrubStepByStep(t *testing.T) {
	s, left := used(t)
	defer closeChecked(t, s)
	large := left[0]
	large.ID, large.State = left[len(left)-1].ID+1, tokenizer.Active
	large.Value = bytes.Repeat([]byte("<large>"), 100_000)
	for range 20 { // some 14 MB, more than three steps write
		if _, err := s.Commit(context.Background(), tokenizer.Unit{Records: []tokenizer.Record{large}, Event: event}); err != nil {
			t.Fatal(err)
		}
		large.ID++
	}
	follow(t, s)
	for large.ID--; large.ID > left[len(left)-1].ID; large.ID-- {
		if _, err := s.Commit(context.Background(), tokenizer.Unit{Deletes: []tokenizer.Record{large}, Event: event}); err != nil {
			t.Fatal(err)
		}
	}
	f := hook(s)
	syncs, commits := 0, make(chan error, 100)
	f.sync = func() error {
		syncs++
		go func() {
			_, err := s.Commit(context.Background(), tokenizer.Unit{Event: event})
			commits <- err
		}()
		return nil
	}
	if err := s.Scrub(context.Background()); err != nil {
		t.Fatal(err)
	}
	if syncs < 3 {
		t.Errorf("%d steps", syncs)
	}
	for range syncs {
		if err := <-commits; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.sync = func() error { cancel(); return nil }
	if _, err := s.Commit(context.Background(), tokenizer.Unit{Event: event}); err != nil {
		t.Fatal(err)
	}
	if err := s.Scrub(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Scrub whose caller is gone: %v", err)
	}
	wantRecords(t, s, left)
}

func TestScrubAfterClose(t *testing.T) {
	s, _ := used(t)
	closeChecked(t, s)
	if err := s.Scrub(context.Background()); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("Scrub: %v", err)
	}
}

// What others commit while it is scrubbed keeps nothing of what was there before: it
// goes elsewhere in the journal.
func TestScrubBesideCommits(t *testing.T) {
	ctx := context.Background()
	s, left := used(t)
	defer closeChecked(t, s)
	if _, err := s.Commit(ctx, tokenizer.Unit{Event: event}); err != nil { // the file lacks it
		t.Fatal(err)
	}
	whole, meanwhile := s.update, 0
	s.file <- struct{}{}
	s.update = func(fn func(*bbolt.Tx) error) error {
		err := whole(fn)
		if meanwhile++; err == nil { // after the file has followed, and before the journal is scrubbed
			_, err = s.Commit(ctx, tokenizer.Unit{Event: event})
		}
		return err
	}
	<-s.file
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	if meanwhile == 0 {
		t.Fatal("nobody has committed anything")
	}
	if hasSecret(t, s) {
		t.Error("what was shredded is still there")
	}
	s.file <- struct{}{}
	s.update = whole
	<-s.file
	wantRecords(t, s, left)
}
