package boltstore

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// Snapshots are used again until the file changes, and none is left to look at what it
// was before.
func TestSnapshots(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "file"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(value string) func() error {
		return func() error {
			return db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists(metaBucket)
				if err != nil {
					return err
				}
				for i := range uint64(2000) { // so that bbolt maps more of the file, which it can't while it is looked at
					if err := b.Put(binary.BigEndian.AppendUint64([]byte(value), i), bytes.Repeat([]byte{1}, 100)); err != nil {
						return err
					}
				}
				return b.Put([]byte("key"), []byte(value))
			})
		}
	}
	files := snapshots{db: db}
	take := func() *snapshot {
		t.Helper()
		s, err := files.take()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	wantValue := func(s *snapshot, want string) {
		t.Helper()
		if got := find(s.cursor(metaID), []byte("key")); string(got) != want {
			t.Errorf("a snapshot has %q; want %q", got, want)
		}
	}
	if err := files.change(put("first")); err != nil {
		t.Fatal(err)
	}
	first, second := take(), take()
	if first == second {
		t.Fatal("two have one snapshot")
	}
	wantValue(first, "first")
	files.give(first)
	again := take()
	if again != first {
		t.Error("a snapshot isn't used again")
	}
	wantValue(again, "first")
	files.give(again)

	// One that is in use while the file changes goes on, and is not for others then.
	// bbolt waits for it where it has to map more.
	wantValue(second, "first")
	files.give(second)
	if n := db.Stats().OpenTxN; n != 2 {
		t.Errorf("%d transactions are open; want 2", n)
	}
	err = files.change(func() error {
		if n := db.Stats().OpenTxN; n != 0 {
			t.Errorf("%d transactions are open while the file changes", n)
		}
		during := take()
		wantValue(during, "first")
		files.give(during)
		late := take()
		defer files.give(late)
		if late == during {
			t.Error("a snapshot of a file that is about to change is used again")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := take()
	err = files.change(func() error {
		files.give(begun)
		return put("second")()
	})
	if err != nil {
		t.Fatal(err)
	}
	after := take()
	if after == begun {
		t.Error("a snapshot outlives the file that it is of")
	}
	wantValue(after, "second")
	files.give(after)
	files.suspend()
	if err := db.Close(); err != nil { // waits for whoever reads
		t.Fatal(err)
	}
	if _, err := files.take(); err == nil {
		t.Error("a snapshot of a file that is closed")
	}
}
