package boltstore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// TestScrubStopsAnywhere takes the file as it is before each write of Scrub, and
// after a half of it: what is left when the process, or the machine, stops there.
func TestScrubStopsAnywhere(t *testing.T) {
	s, left := used(t)
	defer closeChecked(t, s)
	writes := 0
	check := func() {
		copied := openCopy(t, s)
		closeChecked(t, copied)
		copied = openCopy(t, s)
		wantRecords(t, copied, left)
		if err := copied.Scrub(context.Background()); err != nil || hasSecret(t, copied) {
			t.Errorf("write %d: scrubbed again: %v, secret: %v", writes, err, hasSecret(t, copied))
		}
	}
	f := hook(s)
	f.write = func(b []byte, offset int64) error {
		writes++
		check()
		if _, err := f.storeFile.WriteAt(b[:len(b)/2], offset); err != nil {
			return err
		}
		check()
		return nil
	}
	if err := s.Scrub(context.Background()); err != nil || hasSecret(t, s) {
		t.Errorf("Scrub: %v, secret: %v", err, hasSecret(t, s))
	}
	if writes < 2 {
		t.Errorf("%d writes", writes)
	}
	check()
	wantRecords(t, s, left)
}

// What can't be overwritten for sure is not said to have been. After an error
// that leaves open what is on the disk, the store stays shut.
func TestScrubFails(t *testing.T) {
	ctx := context.Background()
	for _, row := range []struct {
		name        string
		write, sync error
		shut        bool
	}{
		{"write", &os.PathError{Op: "write", Err: syscall.EIO}, nil, true},
		{"disk full", diskFullError, nil, false},
		{"sync", nil, syscall.EIO, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, left := used(t)
			f := hook(s)
			f.write = func([]byte, int64) error { return row.write }
			f.sync = func() error { return row.sync }
			if err := s.Scrub(ctx); !errors.Is(err, tokenizer.ErrUnavailable) {
				t.Errorf("Scrub: %v", err)
			}
			f.write, f.sync = nil, nil
			_, err := s.Commit(ctx, tokenizer.Unit{Event: event})
			if shut := errors.Is(err, tokenizer.ErrUnavailable); shut != row.shut {
				t.Errorf("Commit: %v", err)
			}
			if shut := errors.Is(s.Scrub(ctx), tokenizer.ErrUnavailable); shut != row.shut {
				t.Errorf("Scrub again: shut is %v", shut)
			}
			path := s.db.Path()
			closeChecked(t, s)
			s = open(t, path)
			defer closeChecked(t, s)
			wantRecords(t, s, left)
		})
	}
}

// If the transaction after Scrub tears its meta page, the one that Scrub went by
// counts, whose pages Scrub has left alone.
func TestScrubThenATornMetaPage(t *testing.T) {
	s, left := used(t)
	defer closeChecked(t, s)
	if err := s.Scrub(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(context.Background(), tokenizer.Unit{Deletes: left, Event: event}); err != nil {
		t.Fatal(err)
	}
	follow(t, s)
	content, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	pageSize := s.db.Info().PageSize
	const txid = 64 // where it is in a meta page
	torn := content[:pageSize]
	if older := content[pageSize : 2*pageSize]; binary.LittleEndian.Uint64(older[txid:]) > binary.LittleEndian.Uint64(torn[txid:]) {
		torn = older
	}
	torn[txid+4]++
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	err = before.View(func(tx *bbolt.Tx) error {
		for _, r := range left {
			if got, err := tokenizer.ParseRecord(r.ID, tx.Bucket(recordsBucket).Get(idKey(r.ID))); err != nil || !got.Equal(r) {
				return fmt.Errorf("record %d: %+v, %w", r.ID, got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestKilledWhileScrubbing kills processes that commit and scrub, and looks at
// what they leave.
func TestKilledWhileScrubbing(t *testing.T) {
	ctx, path := context.Background(), os.Getenv("BOLTSTORE_TEST_KILLED")
	if path != "" {
		commitAndScrub(t, path)
	}
	s, _ := filled(t)
	path = s.db.Path()
	closeChecked(t, s)
	for round := range 6 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledWhileScrubbing$")
		child.Env = append(os.Environ(), "BOLTSTORE_TEST_KILLED="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// It says of each record that it is there, and goes on until it is killed.
		scanner, last := bufio.NewScanner(out), ""
		for n := 0; n < 40+30*round && scanner.Scan(); n++ {
			last = scanner.Text()
		}
		_ = child.Process.Kill()
		for scanner.Scan() {
			last = scanner.Text()
		}
		_ = child.Wait()
		acknowledged, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			t.Fatalf("the process said %q", last)
		}
		s := open(t, path)
		var ids []uint64
		for after, more := uint64(0), true; more; more = after != 0 {
			found, err := s.Scan(ctx, "default", "", after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			ids, after = append(ids, found.IDs...), found.Next
		}
		if profiles, err := s.Profiles(ctx, "default"); err != nil || profiles["card"] != uint64(len(ids)) {
			t.Fatalf("profiles %v, %v; there are %d records", profiles, err, len(ids))
		}
		records, err := s.Records(ctx, append(ids, acknowledged)...)
		if err != nil {
			t.Fatal(err)
		}
		unit := tokenizer.Unit{Event: event}
		for _, r := range records {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if bytes.Contains(r.Record.Value, []byte(secret[:20])) { // it was killed before it shredded this
				unit.Deletes = append(unit.Deletes, r.Record)
			}
		}
		if _, err := s.Commit(ctx, unit); err != nil {
			t.Fatal(err)
		}
		if err := s.Scrub(ctx); err != nil || hasSecret(t, s) {
			t.Errorf("Scrub: %v, secret: %v", err, hasSecret(t, s))
		}
		closeChecked(t, s)
	}
}

// commitAndScrub does both until the process is killed.
func commitAndScrub(t *testing.T, path string) {
	ctx, s := context.Background(), open(t, path)
	go func() {
		for {
			if err := s.Scrub(ctx); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := 0; ; i++ {
		id, err := s.ReserveIDs(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		r := tokenizer.Record{ID: id, Namespace: "default", Profile: "card", KeyVersion: 1, TokenVersion: 1, Created: time.Unix(1, 0).UTC()}
		r.Value = bytes.Repeat(fmt.Appendf(nil, secret, i), 40)
		shredded := r
		shredded.State, shredded.Value = tokenizer.Expired, nil
		for _, unit := range []tokenizer.Unit{
			{Records: []tokenizer.Record{r}}, {Updates: []tokenizer.Update{{Old: r, New: shredded}}},
		} {
			unit.Event = event
			if _, err := s.Commit(ctx, unit); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Println(id)
	}
}
