package boltstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/storetest"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, harness(func(t *testing.T) (tokenizer.Store, func() tokenizer.Store) {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path)
		t.Cleanup(func() { closeChecked(t, s) })
		return s, func() tokenizer.Store {
			closeChecked(t, s)
			s = open(t, path)
			return s
		}
	}))
}

// TestContractOnCopies runs the contract on what a crash would leave: the files
// as they are while the store is open.
func TestContractOnCopies(t *testing.T) {
	storetest.Run(t, harness(func(t *testing.T) (tokenizer.Store, func() tokenizer.Store) {
		s := open(t, filepath.Join(t.TempDir(), "store.db"))
		t.Cleanup(func() { closeChecked(t, s) })
		return s, func() tokenizer.Store {
			s.file <- struct{}{} // between two transactions
			was := s
			s = openCopy(t, s)
			<-was.file
			return s
		}
	}))
}

// files returns the names of the files of a store.
func files(s *Store) []string {
	names, err := filepath.Glob(s.db.Path() + journalSuffix + "-*")
	if err != nil {
		panic(err)
	}
	return append(names, s.db.Path())
}

// copyFiles copies the files of a store as they are, and returns the name of the
// first.
func copyFiles(t *testing.T, s *Store) (path string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range files(s) {
		image, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(s.db.Path()))
}

// openCopy opens a copy of the files of a store as they are.
func openCopy(t *testing.T, s *Store) *Store {
	t.Helper()
	copied := open(t, copyFiles(t, s))
	t.Cleanup(func() { closeChecked(t, copied) })
	return copied
}

func harness(open func(*testing.T) (tokenizer.Store, func() tokenizer.Store)) storetest.Harness {
	return storetest.Harness{
		Open: open,
		Fail: func(s tokenizer.Store) { failNext(s.(*Store), diskFullError) },
		Damage: func(t *testing.T, s tokenizer.Store, id uint64) {
			edit(t, s.(*Store), recordsBucket, idKey(id), func(b []byte) []byte { return b[:len(b)-1] })
		},
		Files: func(s tokenizer.Store) []string { return files(s.(*Store)) },
	}
}

// follow has the file follow the journal now.
func follow(t *testing.T, s *Store) {
	t.Helper()
	if err := s.withFile(context.Background(), s.checkpointAll); err != nil {
		t.Fatal(err)
	}
}

// edit changes what is stored under a key, behind the back of the store.
func edit(t *testing.T, s *Store, bucket, key []byte, change func([]byte) []byte) {
	t.Helper()
	follow(t, s)
	err := s.change(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		return b.Put(key, change(bytes.Clone(b.Get(key))))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// closeChecked has bbolt check its file for consistency, then closes it.
func closeChecked(t *testing.T, s *Store) {
	t.Helper()
	s.file <- struct{}{} // bbolt can't check while somebody writes
	err := s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		return nil
	})
	<-s.file
	if err != nil && !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	if err := s.Close(); (err != nil) != (s.brokenBy() != nil) { // it says that the file hasn't everything
		t.Errorf("Close: %v", err)
	}
}

var diskFullError = &os.PathError{Op: "write", Path: "store.db", Err: syscall.ENOSPC}

// failNext makes the next frame of the store fail, after all of its units have been
// settled. The store must be idle.
func failNext(s *Store, err error) {
	whole := s.append
	s.append = func(...[]byte) (uint64, error) {
		s.append = whole
		return 0, err
	}
}

func event(tokenizer.Outcome) []byte { return []byte("event") }

func TestSecondOpenerIsRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	defer closeChecked(t, s)
	refused := make(chan error, 1)
	go func() {
		_, err := Open(path)
		refused <- err
	}()
	select {
	case err := <-refused:
		if !errors.Is(err, ErrLocked) {
			t.Fatalf("a second Open: %v, want ErrLocked", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a second Open hangs")
	}
}

func TestAFailedSyncStopsTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	ctx := context.Background()
	if _, err := s.Commit(ctx, tokenizer.Unit{Event: event}); err != nil {
		t.Fatal(err)
	}
	failNext(s, syscall.EIO)
	for i := range 3 { // the fault is injected once; the store stays shut
		if _, err := s.Commit(ctx, tokenizer.Unit{Event: event}); !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Fatalf("commit %d after a failed sync: %v", i, err)
		}
		if err := s.Check(ctx); !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Fatalf("Check after a failed sync: %v", err)
		}
	}
	closeChecked(t, s)
	s = open(t, path)
	defer closeChecked(t, s)
	if _, err := s.Commit(ctx, tokenizer.Unit{Event: event}); err != nil {
		t.Fatalf("Commit after a restart: %v", err)
	}
	if entries, err := s.Entries(ctx, 0, 10); err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v; want 2", len(entries), err)
	}
}

func TestCloseWritesWhatWasHandedIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	const n = 50
	results := make(chan error, n)
	for range n {
		go func() {
			_, err := s.Commit(context.Background(), tokenizer.Unit{Event: event})
			results <- err
		}()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for range n {
		if err := <-results; err == nil {
			acknowledged++
		} else if !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Errorf("Commit beside Close: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if err := s.Check(context.Background()); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("Check after Close: %v", err)
	}
	if _, err := s.Records(context.Background(), 1); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("Records after Close: %v", err)
	}
	s = open(t, path)
	defer closeChecked(t, s)
	if entries, err := s.Entries(context.Background(), 0, 2*n); err != nil || len(entries) != acknowledged {
		t.Errorf("%d entries, %v; %d commits were acknowledged", len(entries), err, acknowledged)
	}
}

// A store that is closed properly leaves no gap in the ids; one that crashes
// leaves one of a block at most.
func TestIDsAfterClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	first, err := s.ReserveIDs(context.Background(), 3)
	if err != nil {
		t.Fatal(err)
	}
	closeChecked(t, s)
	if id, err := s.ReserveIDs(context.Background(), 1); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("ReserveIDs after Close: %d, %v", id, err)
	}
	s = open(t, path)
	defer closeChecked(t, s)
	if id, err := s.ReserveIDs(context.Background(), 1); err != nil || id != first+3 {
		t.Errorf("the next id is %d, %v; want %d", id, err, first+3)
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	bolt := func(fn func(*bbolt.Tx) error) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(fn), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	store := func(change func(t *testing.T, path string)) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			s := open(t, path)
			for range 100 {
				if _, err := s.Commit(context.Background(), tokenizer.Unit{Event: func(tokenizer.Outcome) []byte { return make([]byte, 4096) }}); err != nil {
					t.Fatal(err)
				}
			}
			closeChecked(t, s)
			change(t, path)
		}
	}
	for _, row := range []struct {
		name    string
		make    func(*testing.T, string)
		wantErr error
	}{
		{"text", write([]byte("this is not a database, though it is quite long for one\n")), ErrFormat},
		{"zeros", write(make([]byte, 1<<16)), ErrFormat},
		{"another program's bbolt file", bolt(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("widgets"))
			return err
		}), ErrFormat},
		{"a later format", store(func(t *testing.T, path string) {
			bolt(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte{storeFormat + 1}) })(t, path)
		}), ErrFormat},
		{"no log id", store(func(t *testing.T, path string) {
			bolt(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(logIDKey) })(t, path)
		}), tokenizer.ErrDamaged},
		{"no records", store(func(t *testing.T, path string) {
			bolt(func(tx *bbolt.Tx) error { return tx.DeleteBucket(recordsBucket) })(t, path)
		}), tokenizer.ErrDamaged},
		{"no next id", store(func(t *testing.T, path string) {
			bolt(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(nextIDKey) })(t, path)
		}), tokenizer.ErrDamaged},
		{"cut short", store(func(t *testing.T, path string) {
			if err := os.Truncate(path, 1<<16); err != nil {
				t.Fatal(err)
			}
		}), tokenizer.ErrDamaged},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			row.make(t, path)
			s, err := Open(path)
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, row.wantErr) {
				t.Fatalf("Open: %v, want %v", err, row.wantErr)
			}
		})
	}
}

func TestTheFileIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	closeChecked(t, open(t, path))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}
