package boltstore

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// downgrade makes a store one of an earlier format: without what that lacked.
func downgrade(t *testing.T, path string, format byte, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if err := errors.Join(meta.Delete(appliedKey), meta.Delete(openKey)); err != nil {
			return err
		}
		if format < 5 {
			if err := errors.Join(tx.DeleteBucket(bucketNames[budgetsID]), tx.DeleteBucket(bucketNames[statesID])); err != nil {
				return err
			}
		}
		if format < 3 {
			if err := tx.DeleteBucket(profilesBucket); err != nil {
				return err
			}
		}
		if format == 1 {
			if err := tx.DeleteBucket(censusBucket); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(metaBucket).Put(formatKey, []byte{format}), change(tx))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	journals, err := filepath.Glob(path + journalSuffix + "-*")
	for _, name := range journals {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// oldStore is a store with what earlier formats may have: legacy records under
// two keys, some under a key that is lost.
func oldStore(t *testing.T, path string) (records []tokenizer.Record) {
	t.Helper()
	ctx, s := context.Background(), open(t, path)
	id, err := s.ReserveIDs(ctx, 30)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(30) {
		r := tokenizer.Record{ID: id + i, Namespace: "default", Profile: "card", Created: time.Unix(1, 0).UTC(), KeyVersion: 1, TokenVersion: 1, Value: []byte("sealed"), Legacy: true}
		if i%3 == 0 {
			r.Profile, r.KeyVersion, r.Details = "ssn", 2, []byte("sealed")
		}
		records = append(records, r)
	}
	for _, unit := range []tokenizer.Unit{
		{Keys: []keystore.WrappedKey{key(keystore.Data, 1), key(keystore.Data, 2), key(keystore.Token, 1), key(keystore.Index, 1)}},
		{Records: records},
	} {
		unit.Event = event
		if _, err := s.Commit(ctx, unit); err != nil {
			t.Fatal(err)
		}
	}
	closeChecked(t, s)
	return records
}

func TestUpgrade(t *testing.T) {
	ctx, same := context.Background(), func(*bbolt.Tx) error { return nil }
	for _, format := range []byte{1, 2, 3, 4} {
		path := filepath.Join(t.TempDir(), "store.db")
		records := oldStore(t, path)
		s := open(t, path)
		census, err := s.Census(ctx, "default")
		if err != nil || s.Upgraded() {
			t.Fatalf("%v, upgraded: %v", err, s.Upgraded())
		}
		closeChecked(t, s)
		downgrade(t, path, format, same)
		for _, upgraded := range []bool{true, false} {
			s := open(t, path)
			if s.Upgraded() != upgraded {
				t.Errorf("format %d: upgraded: %v", format, s.Upgraded())
			}
			if got, err := s.Census(ctx, "default"); err != nil || !slices.Equal(got, census) {
				t.Errorf("format %d: census %v, %v; want %v", format, got, err, census)
			}
			if got, err := s.Profiles(ctx, "default"); err != nil || !maps.Equal(got, map[string]uint64{"card": 20, "ssn": 10}) {
				t.Errorf("format %d: profiles %v, %v", format, got, err)
			}
			found, err := s.Records(ctx, records[3].ID)
			if err != nil || !found[0].Record.Equal(records[3]) {
				t.Errorf("format %d: %+v, %v", format, found, err)
			}
			closeChecked(t, s)
		}
		s = open(t, path)
		if _, err := s.Commit(ctx, tokenizer.Unit{Deletes: records, Event: event}); err != nil {
			t.Errorf("format %d: %v", format, err)
		}
		if _, err := s.Commit(ctx, drawing(5)); err != nil {
			t.Errorf("format %d: %v", format, err)
		}
		closeChecked(t, s)
		s = open(t, path)
		wantDrawn(t, s, 1)
		if got, err := s.Profiles(ctx, "default"); err != nil || len(got) != 0 {
			t.Errorf("format %d: profiles of nothing: %v, %v", format, got, err)
		}
		closeChecked(t, s)
	}
}

// drawing draws 1 on a budget, and has a state say so.
func drawing(limit uint64) tokenizer.Unit {
	return tokenizer.Unit{
		Spends: []tokenizer.Spend{{Budget: tokenizer.Budget{ID: [16]byte{1}, Expires: time.Unix(1, 0)}, Limit: limit, Amount: 1}},
		States: []tokenizer.StateChange{{Key: "drawn", New: []byte("yes")}},
		Event:  event,
	}
}

func wantDrawn(t *testing.T, s *Store, want uint64) {
	t.Helper()
	spent, err := s.Spent(t.Context(), drawing(1).Spends[0].Budget)
	state, err2 := s.State(t.Context(), "drawn")
	if err != nil || err2 != nil || spent[0] != want || string(state) != "yes" {
		t.Errorf("spent %d, %v, state %q, %v; want %d", spent, err, state, err2, want)
	}
}

// A store of format 4 that was killed has a journal, which is not lost.
func TestUpgradeWithAJournal(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	follow(t, s)
	s.file <- struct{}{} // what comes now is in the journal alone
	for range 3 {
		commitEvent(t, s)
	}
	path := copyFiles(t, s)
	<-s.file
	closeChecked(t, s)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket(bucketNames[budgetsID]), tx.DeleteBucket(bucketNames[statesID]), tx.Bucket(metaBucket).Put(formatKey, []byte{4}))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	defer func() { closeChecked(t, s) }()
	if !s.Upgraded() || s.Recovered().Frames < 3 {
		t.Errorf("upgraded: %v, recovered %+v", s.Upgraded(), s.Recovered())
	}
	if entries, err := s.Entries(t.Context(), 0, 10); err != nil || len(entries) != 3 {
		t.Errorf("%d entries, %v; want 3", len(entries), err)
	}
	if _, err := s.Commit(t.Context(), drawing(5)); err != nil {
		t.Fatal(err)
	}
	wantDrawn(t, s, 1)
}

// What is in the journal alone when the process is killed is counted from there.
func TestBudgetsAreReplayed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	follow(t, s)
	s.file <- struct{}{}
	unit := drawing(5)
	for range 3 {
		if _, err := s.Commit(t.Context(), unit); err != nil {
			t.Error(err)
		}
		unit.States = nil
	}
	killed := openCopy(t, s)
	<-s.file
	if killed.Recovered().Frames < 3 {
		t.Errorf("recovered %+v", killed.Recovered())
	}
	wantDrawn(t, killed, 3)
	unit.Spends[0].Amount = 3
	if _, err := killed.Commit(t.Context(), unit); !errors.Is(err, tokenizer.ErrBudgetSpent) {
		t.Errorf("Commit: %v", err)
	}
}

func TestUpgradeRefuses(t *testing.T) {
	for _, row := range []struct {
		name    string
		format  byte
		change  func(*bbolt.Tx) error
		wantErr error
	}{
		{"format 0", 0, func(*bbolt.Tx) error { return nil }, ErrFormat},
		{"claims in format 1", 1, func(tx *bbolt.Tx) error { return tx.Bucket(claimsBucket).Put([]byte("k"), []byte("v")) }, tokenizer.ErrDamaged},
		{"claims in format 2", 2, func(tx *bbolt.Tx) error { return tx.Bucket(claimsBucket).Put([]byte("k"), []byte("v")) }, tokenizer.ErrDamaged},
		{"no census in format 2", 2, func(tx *bbolt.Tx) error { return tx.DeleteBucket(censusBucket) }, tokenizer.ErrDamaged},
		{"no claims", 2, func(tx *bbolt.Tx) error { return tx.DeleteBucket(claimsBucket) }, tokenizer.ErrDamaged},
		{"no keys", 1, func(tx *bbolt.Tx) error { return tx.DeleteBucket(keysBucket) }, tokenizer.ErrDamaged},
		{"a record without an id", 2, func(tx *bbolt.Tx) error { return tx.Bucket(recordsBucket).Put([]byte("k"), []byte("v")) }, tokenizer.ErrDamaged},
	} {
		path := filepath.Join(t.TempDir(), "store.db")
		oldStore(t, path)
		downgrade(t, path, row.format, row.change)
		for range 2 { // what it refuses it leaves as it is
			if s, err := Open(path); !errors.Is(err, row.wantErr) {
				t.Errorf("%s: %v, want %v", row.name, err, row.wantErr)
				if err == nil {
					_ = s.Close()
				}
			}
		}
	}
}
