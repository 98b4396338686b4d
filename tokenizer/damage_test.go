package tokenizer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// damaged closes the store, changes what is in a bucket of its file, and opens
// all anew. change is called with each key and value, and returns the value that
// is to be there.
func (k kit) damaged(t testing.TB, bucket string, change func(key, value []byte) []byte, declared ...tokenizer.Profile) kit {
	t.Helper()
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(k.dir, storeFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		changed := make(map[string][]byte)
		err := tx.Bucket([]byte(bucket)).ForEach(func(key, value []byte) error {
			if now := change(key, value); !bytes.Equal(now, value) {
				changed[string(key)] = now
			}
			return nil
		})
		for key, value := range changed {
			err = errors.Join(err, tx.Bucket([]byte(bucket)).Put([]byte(key), value))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return openKit(t, k.dir, declared)
}

// flipLast damages a record: what is sealed in it doesn't open any more.
func flipLast(value []byte) []byte {
	value = bytes.Clone(value)
	value[len(value)-1] ^= 1
	return value
}

// ofKind changes claims of a kind.
func ofKind(kind byte, change func(key, value []byte) []byte) func(key, value []byte) []byte {
	return func(key, value []byte) []byte {
		if key[0] == kind {
			return change(key, value)
		}
		return value
	}
}

func idBytes(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// once makes a change the first time only.
func once(change func([]byte) []byte) func(_, value []byte) []byte {
	done := false
	return func(_, value []byte) []byte {
		if done {
			return value
		}
		done = true
		return change(value)
	}
}

// unparsable is no stored form of a claim.
func unparsable([]byte) []byte { return []byte{0xff, 0xff} }

var seen = tokenizer.Profile{Name: "seen", Type: "text", Mode: tokenizer.Convergent, Lookup: true}

// A record that is damaged costs an export no other.
func TestExportStepsOverDamage(t *testing.T) {
	k := withProfiles(t, seen)
	for n := range 10 {
		if _, err := k.make(t, request("seen", text(n))); err != nil {
			t.Fatal(err)
		}
	}
	third := k.records(t, "seen")[2].ID
	k = k.damaged(t, "records", func(key, value []byte) []byte {
		if bytes.Equal(key, idBytes(third)) {
			return flipLast(value)
		}
		return value
	}, seen)
	tokens, damaged := 0, 0
	for page := ""; ; {
		p, err := k.Export(t.Context(), namespace, "seen", page, 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		tokens, damaged = tokens+len(p.Tokens), damaged+p.Damaged
		if page = p.Next; page == "" {
			break
		}
	}
	if tokens != 9 || damaged != 1 {
		t.Errorf("%d tokens, and %d damaged; want 9 and 1", tokens, damaged)
	}
}

// A damaged entry of the index costs the value that it is of, and no other of its
// batch.
func TestDamagedEntryInABatch(t *testing.T) {
	k := withProfiles(t, seen)
	requests := []tokenizer.TokenizeRequest{request("seen", "a"), request("seen", "b"), request("seen", "c")}
	first := k.makeAll(t, requests)
	k = k.damaged(t, "claims", ofKind('c', once(unparsable)), seen)
	failed := 0
	for i, r := range k.makeAll(t, append(requests, request("seen", "new"))) {
		switch {
		case errors.Is(r.Err, tokenizer.ErrDamaged):
			failed++
		case r.Err != nil, i < 3 && r.Token != first[i].Token:
			t.Errorf("%d: %+v", i, r)
		}
	}
	if failed != 1 {
		t.Errorf("%d fail, want 1", failed)
	}
}

// What the sweeper can't deal with holds up nothing else, and is tried again.
func TestSweepStepsOverDamage(t *testing.T) {
	short := tokenizer.Profile{Name: "short", Type: "text", TTL: time.Minute}
	k := withProfiles(t, short)
	for n := range 12 {
		if _, err := k.make(t, request("short", text(n))); err != nil {
			t.Fatal(err)
		}
	}
	entryOf, record := idBytes(k.records(t, "short")[0].ID), idBytes(k.records(t, "short")[1].ID)
	flip := func(key, value []byte) []byte {
		if bytes.Equal(key, record) {
			return flipLast(value)
		}
		return value
	}
	k = k.damaged(t, "records", flip, short)
	k = k.damaged(t, "claims", ofKind('x', func(key, value []byte) []byte {
		if bytes.HasSuffix(key, entryOf) {
			return unparsable(value)
		}
		return value
	}), short)
	now := k.clock()
	now.pass(2 * time.Minute)
	if s := k.sweep(t); s.Failed != 2 || s.Shredded != 10 {
		t.Fatalf("swept %+v, want 10 shredded and 2 failed", s)
	}
	if s := k.sweep(t); s.Failed != 1 || s.Shredded != 0 {
		t.Fatalf("swept again at once: %+v, want the entry that doesn't parse", s)
	}
	k = k.damaged(t, "records", flip, short) // which mends it
	now = k.clock()
	now.pass(2*time.Minute + time.Hour)
	if s := k.sweep(t); s.Failed != 1 || s.Shredded != 1 {
		t.Errorf("swept once the record is well again: %+v, want 1 shredded", s)
	}
}

// A record, or an idempotency key, that is due twice is dealt with once.
func TestDueTwice(t *testing.T) {
	short := tokenizer.Profile{Name: "short", Type: "text", TTL: time.Minute, Idempotency: time.Minute}
	k := withProfiles(t, short)
	now := k.clock()
	req := request("short", "a")
	req.IdempotencyKey = "key"
	made, err := k.make(t, req)
	if err != nil {
		t.Fatal(err)
	}
	// A new expiry has an entry of its own, and the old one may still be there.
	id := k.last(t).ID
	r := k.last(t)
	due := tokenizer.DueKey(namespace, r.Expires.Add(-time.Second), 'r', idBytes(id))
	if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Claims: []tokenizer.Claim{{Key: due, New: []byte{1}}}, Event: event}); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the key is forgotten, and used anew
		now.pass(2 * time.Minute)
		if again, err := k.make(t, req); err != nil || again.Token == made.Token {
			t.Fatalf("%+v, %v", again, err)
		}
	}
	now.pass(2 * time.Minute)
	if s := k.sweep(t); s.Shredded != 4 || s.Failed != 0 {
		t.Errorf("swept %+v, want 4 shredded", s)
	}
	if left, err := k.store.Claims(t.Context(), []byte("i"), nil, 10); err != nil || len(left) != 0 {
		t.Errorf("%d idempotency keys are left, %v", len(left), err)
	}
}

// Entries of the index that are damaged stay where they are, those that lead
// nowhere go, and the others move.
func TestReindexStepsOverDamage(t *testing.T) {
	k := withProfiles(t, seen)
	for n := range 9 {
		if _, err := k.make(t, request("seen", text(n))); err != nil {
			t.Fatal(err)
		}
	}
	gone := k.records(t, "seen")[4]
	if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Deletes: []tokenizer.Record{gone}, Event: event}); err != nil {
		t.Fatal(err)
	}
	k.rotate(t, keystore.Index)
	k = k.damaged(t, "claims", ofKind('c', once(unparsable)), seen)
	moved, failed := k.reindexAll(t)
	if moved != 17 || failed != 1 { // of 9 by value, and 9 for look-ups
		t.Errorf("%d moved and %d failed, want 17 and 1", moved, failed)
	}
	if moved, failed := k.reindexAll(t); moved != 0 || failed != 1 {
		t.Errorf("the second time %d moved and %d failed", moved, failed)
	}
	keys, err := k.keys.Keys(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	under := uint64(0)
	for _, key := range keys {
		if key.Class == keystore.Index && key.Active {
			under = key.Count.Records
		}
	}
	if under < 15 || under > 16 { // the dangling two are gone, and one is damaged
		t.Errorf("%d entries are under the active key", under)
	}
}
