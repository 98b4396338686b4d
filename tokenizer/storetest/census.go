package storetest

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// keysBody is the event of the keys that record's records are under.
const keysBody = "keys of the suite"

// openWithKeys is Open of a store that has the keys of record's records.
func (h Harness) openWithKeys(t *testing.T) (tokenizer.Store, func() tokenizer.Store) {
	t.Helper()
	s, reopen := h.Open(t)
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 7), wrapped(keystore.Token, 3)}, Event: event(keysBody)})
	return s, reopen
}

func keyID(class keystore.Class, version uint32) keystore.KeyID {
	return keystore.KeyID{Namespace: "default", Class: class, Version: version}
}

func wrapped(class keystore.Class, version uint32) keystore.WrappedKey {
	return keystore.WrappedKey{
		Namespace: "default", Class: class, Version: version,
		Created: time.Unix(1_700_000_000, 0).UTC(), Wrapped: fmt.Appendf(nil, "wrapped %v %d", class, version),
	}
}

// wantCensus compares the census with what it should be: records and sealed by
// key, and gone where both are -1.
func wantCensus(t *testing.T, s tokenizer.Store, want map[keystore.KeyID][2]int) {
	t.Helper()
	counts, err := s.Census(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[keystore.KeyID][2]int)
	for _, c := range counts {
		got[c.ID] = [2]int{int(c.Records), int(c.Sealed)}
		if c.Gone {
			got[c.ID] = [2]int{-1, -1}
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("census %v, want %v", got, want)
	}
}

func testCensus(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	data7, data8, token3 := keyID(keystore.Data, 7), keyID(keystore.Data, 8), keyID(keystore.Token, 3)
	wantCensus(t, s, map[keystore.KeyID][2]int{data7: {0, 0}, token3: {0, 0}})
	id := reserve(t, s, 8)
	plain := record(id + 2)
	plain.Details = nil
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id), record(id + 1), plain}, Event: event("x")})
	want := map[keystore.KeyID][2]int{data7: {3, 5}, token3: {3, 0}}
	wantCensus(t, s, want)

	// What isn't written isn't counted.
	h.Fail(s)
	if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id + 3)}, Event: event("x")}); err == nil {
		t.Fatal("a write that should have failed")
	}
	if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id + 3), record(id)}, Event: event("x")}); !errors.Is(err, tokenizer.ErrIDTaken) {
		t.Fatal(err)
	}
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Records: []tokenizer.Record{record(id + 4)}, Claims: []tokenizer.Claim{claim("k", "v", "")}})
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 4)}})
	want = map[keystore.KeyID][2]int{data7: {4, 7}, token3: {4, 0}}
	wantCensus(t, s, want)

	// An update that seals nothing anew is no use of the key.
	same := tokenizer.Update{Old: record(id + 1), New: record(id + 1)}
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{same}, Event: event("x")})
	wantCensus(t, s, want)

	// Records move from key to key.
	addKeys(t, s, data8)
	moved := changed(record(id), func(r *tokenizer.Record) { r.KeyVersion, r.Value = 8, []byte("sealed anew") })
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{moved}})
	wantRecord(t, s, moved.New)
	want = map[keystore.KeyID][2]int{data7: {3, 7}, data8: {1, 2}, token3: {4, 0}}
	for range 2 {
		wantCensus(t, s, want)
		s = reopen()
	}
	wantMoved(t, s, map[keystore.KeyID]uint64{data8: 2})

	// What was sealed stays counted when the record goes.
	commit(t, s, tokenizer.Unit{Deletes: []tokenizer.Record{moved.New, record(id + 1)}})
	wantCensus(t, s, map[keystore.KeyID][2]int{data7: {2, 7}, data8: {0, 2}, token3: {2, 0}})
	if counts, err := s.Census(ctx, "other"); err != nil || len(counts) != 0 {
		t.Fatalf("another namespace: %v, %v", counts, err)
	}
}

// wantMoved compares how many ciphertexts came to each key with records that had
// been under another.
func wantMoved(t *testing.T, s tokenizer.Store, want map[keystore.KeyID]uint64) {
	t.Helper()
	counts, err := s.Census(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Moved != want[c.ID] {
			t.Errorf("%d ciphertexts moved to %v, want %d", c.Moved, c.ID, want[c.ID])
		}
	}
}

// testSealedAnew changes a record in ways that use its key more or less.
func testSealedAnew(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	data7, data8, token3 := keyID(keystore.Data, 7), keyID(keystore.Data, 8), keyID(keystore.Token, 3)
	addKeys(t, s, data8)
	now := record(reserve(t, s, 1))
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{now}})
	sealed, moved := map[keystore.KeyID]int{data7: 2}, map[keystore.KeyID]uint64{}
	for _, row := range []struct {
		name   string
		change func(*tokenizer.Record)
		uses   int // of the key that it is under then
		moves  uint64
	}{
		{"nothing", func(*tokenizer.Record) {}, 0, 0},
		{"header alone", func(r *tokenizer.Record) { r.Uses++ }, 0, 0},
		{"both", func(r *tokenizer.Record) { r.Uses++; r.Value, r.Details = []byte("v2"), []byte("d2") }, 2, 0},
		{"details", func(r *tokenizer.Record) { r.Details = []byte("d3") }, 1, 0},
		{"to another key", func(r *tokenizer.Record) { r.KeyVersion = 8; r.Value, r.Details = []byte("v4"), []byte("d4") }, 2, 2},
		{"under that", func(r *tokenizer.Record) { r.Value, r.Details = []byte("v5"), []byte("d5") }, 2, 0},
		{"shredded", func(r *tokenizer.Record) { r.State, r.Value, r.Details = tokenizer.Expired, nil, []byte("d6") }, 1, 0},
		{"with a token", func(r *tokenizer.Record) { r.Token = []byte("t1") }, 1, 0},
		{"with another", func(r *tokenizer.Record) { r.Token, r.Details = []byte("t2"), []byte("d7") }, 2, 0},
		{"the token alone", func(r *tokenizer.Record) { r.Details = nil }, 0, 0},
		{"empty", func(r *tokenizer.Record) { r.State, r.Token = tokenizer.Deleted, nil }, 0, 0},
		{"and back", func(r *tokenizer.Record) { r.KeyVersion = 7 }, 0, 0},
	} {
		u := changed(now, row.change)
		commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{u}})
		now = u.New
		wantRecord(t, s, now)
		sealed[now.DataKey()] += row.uses
		moved[now.DataKey()] += row.moves
		want := map[keystore.KeyID][2]int{data7: {0, sealed[data7]}, data8: {0, sealed[data8]}, token3: {1, 0}}
		want[now.DataKey()] = [2]int{1, sealed[now.DataKey()]}
		t.Log(row.name)
		wantCensus(t, s, want)
		wantMoved(t, s, moved)
	}
}
