package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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
	plain.Metadata = nil
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
	claim := tokenizer.Claim{Key: []byte("k"), Value: []byte("v"), Record: 0}
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 4)}, Claims: []tokenizer.Claim{claim}, Event: event("x")})
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 5)}, Claims: []tokenizer.Claim{claim}, Event: event("x")})
	want = map[keystore.KeyID][2]int{data7: {4, 7}, token3: {4, 0}}
	wantCensus(t, s, want)

	// An update that seals nothing anew is no use of the key.
	same := tokenizer.Update{Old: record(id + 1), New: record(id + 1)}
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{same}, Event: event("x")})
	wantCensus(t, s, want)

	// Records move from key to key; an update that comes too late is left out.
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 8)}, Event: event("x")})
	moved := record(id)
	moved.KeyVersion, moved.Value = 8, []byte("sealed anew")
	update := tokenizer.Update{Old: record(id), New: moved}
	if o := commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{update}, Event: event("x")}); !slices.Equal(o.Stale, []bool{false}) {
		t.Fatalf("Stale = %v", o.Stale)
	}
	var told []bool
	o := commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{update}, Event: func(o tokenizer.Outcome) []byte { told = o.Stale; return []byte("x") }})
	if !slices.Equal(o.Stale, []bool{true}) || !slices.Equal(told, o.Stale) {
		t.Fatalf("Stale = %v, the event was told %v", o.Stale, told)
	}
	wantRecord(t, s, moved)
	want = map[keystore.KeyID][2]int{data7: {3, 7}, data8: {1, 2}, token3: {4, 0}}
	for range 2 {
		wantCensus(t, s, want)
		s = reopen()
	}
	counts, err := s.Census(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		want := uint64(0)
		if c.ID == data8 {
			want = 2
		}
		if c.Moved != want {
			t.Errorf("%d ciphertexts moved to %v, want %d", c.Moved, c.ID, want)
		}
	}
	if counts, err := s.Census(ctx, "other"); err != nil || len(counts) != 0 {
		t.Fatalf("another namespace: %v, %v", counts, err)
	}
}

func testUpdates(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("x")})
	change := func(f func(*tokenizer.Update)) []tokenizer.Update {
		u := tokenizer.Update{Old: record(id), New: record(id)}
		f(&u)
		return []tokenizer.Update{u}
	}
	for name, updates := range map[string][]tokenizer.Update{
		"another id":      change(func(u *tokenizer.Update) { u.New.ID++ }),
		"another profile": change(func(u *tokenizer.Update) { u.New.Profile = "ssn" }),
		"another check":   change(func(u *tokenizer.Update) { u.New.Check[0]++ }),
		"another time":    change(func(u *tokenizer.Update) { u.New.Created = u.New.Created.Add(time.Hour) }),
		"another token":   change(func(u *tokenizer.Update) { u.New.TokenVersion++ }),
		"no such key":     change(func(u *tokenizer.Update) { u.New.KeyVersion = 99 }),
		"twice":           append(change(func(*tokenizer.Update) {}), change(func(*tokenizer.Update) {})...),
		"no stored form":  change(func(u *tokenizer.Update) { u.New.Value = make([]byte, 1<<20) }),
	} {
		if _, err := s.Commit(ctx, tokenizer.Unit{Updates: updates, Event: event("x")}); err == nil || errors.Is(err, tokenizer.ErrUnavailable) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	wantRecord(t, s, record(id))
	missing := tokenizer.Update{Old: record(id + 1), New: record(id + 1)}
	if o := commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{missing}, Event: event("x")}); !slices.Equal(o.Stale, []bool{true}) {
		t.Errorf("an update of no record: Stale = %v", o.Stale)
	}
	wantNoRecord(t, s, id+1)
}

func testKeyMustExist(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	id := reserve(t, s, 3)
	for name, change := range map[string]func(*tokenizer.Record){
		"data key":  func(r *tokenizer.Record) { r.KeyVersion = 8 },
		"token key": func(r *tokenizer.Record) { r.TokenVersion = 4 },
		"namespace": func(r *tokenizer.Record) { r.Namespace = "other" },
	} {
		r := record(id)
		change(&r)
		_, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1), r}, Event: event("x")})
		if !errors.Is(err, keystore.ErrKeyVersion) {
			t.Errorf("%s: error %v, want ErrKeyVersion", name, err)
		}
		wantNoRecord(t, s, id+1)
	}
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id), record(id + 1)}, Event: event("x")})
}

func testRetire(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	retire := func(id keystore.KeyID) error {
		_, err := s.Commit(ctx, tokenizer.Unit{Retire: id, Event: event("x")})
		return err
	}
	data7, data8 := keyID(keystore.Data, 7), keyID(keystore.Data, 8)
	if err := retire(data7); !errors.Is(err, keystore.ErrKeyInUse) {
		t.Errorf("the active key: %v", err)
	}
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{
		wrapped(keystore.Data, 8), wrapped(keystore.Token, 4), wrapped(keystore.Audit, 1), wrapped(keystore.Audit, 2), wrapped(keystore.Index, 1), wrapped(keystore.Index, 5),
	}, Event: event("x")})
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("x")})
	for _, k := range []keystore.KeyID{data7, data8, keyID(keystore.Token, 3), keyID(keystore.Token, 4), keyID(keystore.Audit, 1), keyID(keystore.Index, 5)} {
		if err := retire(k); !errors.Is(err, keystore.ErrKeyInUse) {
			t.Errorf("%v: %v, want ErrKeyInUse", k, err)
		}
	}
	if err := retire(keyID(keystore.Data, 1)); !errors.Is(err, keystore.ErrKeyVersion) {
		t.Errorf("a key that never was: %v", err)
	}
	for name, unit := range map[string]tokenizer.Unit{
		"a key":    {Keys: []keystore.WrappedKey{wrapped(keystore.Subject, 1)}},
		"a record": {Records: []tokenizer.Record{record(id + 1)}},
		"a claim":  {Claims: []tokenizer.Claim{{Key: []byte("k"), Value: []byte("v"), Record: tokenizer.NoRecord}}},
	} {
		unit.Retire, unit.Event = keyID(keystore.Index, 1), event("x")
		if _, err := s.Commit(ctx, unit); err == nil || errors.Is(err, tokenizer.ErrUnavailable) {
			t.Errorf("together with %s: %v", name, err)
		}
	}
	if err := retire(keyID(keystore.Index, 1)); err != nil {
		t.Errorf("an old index key: %v", err)
	}
	moved := record(id)
	moved.KeyVersion, moved.Value = 8, []byte("sealed anew")
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{{Old: record(id), New: moved}}, Event: event("x")})
	for k, want := range map[keystore.KeyID]bool{
		data7: false, data8: true, keyID(keystore.Token, 3): true, keyID(keystore.Token, 4): false, keyID(keystore.Index, 1): false,
		{Namespace: "other", Class: keystore.Data, Version: 8}: false,
	} {
		if under, err := s.Under(ctx, k); err != nil || under != want {
			t.Errorf("Under(%v) = %v, %v; want %v", k, under, err, want)
		}
	}
	if err := retire(data7); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantRecord(t, s, moved)
		keys, err := s.WrappedKeys(ctx, "default")
		if err != nil || slices.ContainsFunc(keys, func(k keystore.WrappedKey) bool { return k.ID() == data7 }) {
			t.Fatalf("keys %v, %v", keys, err)
		}
		// Neither it nor its number comes back.
		if err := retire(data7); !errors.Is(err, keystore.ErrKeyVersion) {
			t.Errorf("retired again: %v", err)
		}
		if _, err := s.Commit(ctx, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 7)}, Event: event("x")}); !errors.Is(err, keystore.ErrKeyExists) {
			t.Errorf("its number used again: %v", err)
		}
		if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}, Event: event("x")}); !errors.Is(err, keystore.ErrKeyVersion) {
			t.Errorf("a record under it: %v", err)
		}
		wantCensus(t, s, map[keystore.KeyID][2]int{
			data7: {-1, -1}, data8: {1, 2}, keyID(keystore.Token, 3): {1, 0}, keyID(keystore.Token, 4): {0, 0},
			keyID(keystore.Audit, 1): {0, 0}, keyID(keystore.Audit, 2): {0, 0}, keyID(keystore.Index, 1): {-1, -1}, keyID(keystore.Index, 5): {0, 0},
		})
		s = reopen()
	}
}

// testRetireRace commits records under a key while it is being retired. Those
// that are acknowledged must keep their key.
func testRetireRace(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 8)}, Event: event("x")})
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for range 8 {
		wg.Go(func() {
			for range 20 {
				id, err := s.ReserveIDs(ctx, 1)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("x")})
				if err != nil && !errors.Is(err, keystore.ErrKeyVersion) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					stored++
					mu.Unlock()
				}
			}
		})
	}
	var retired bool
	wg.Go(func() {
		_, err := s.Commit(ctx, tokenizer.Unit{Retire: keyID(keystore.Data, 7), Event: event("x")})
		if retired = err == nil; err != nil && !errors.Is(err, keystore.ErrKeyInUse) {
			t.Error(err)
		}
	})
	wg.Wait()
	if retired && stored > 0 {
		t.Errorf("a key was retired that has %d records", stored)
	}
	if !retired && stored != 160 {
		t.Errorf("%d of 160 records stored though the key is there", stored)
	}
}

func testRewrap(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	old := wrapped(keystore.Data, 7)
	renewed := old
	renewed.Wrapped = []byte("wrapped anew")
	change := keystore.Rewrapping{Old: old, New: renewed}
	other := keystore.Rewrapping{Old: wrapped(keystore.Token, 3), New: wrapped(keystore.Token, 3)}
	other.Old.Wrapped = []byte("never was")
	if _, err := s.Commit(ctx, tokenizer.Unit{Rewraps: []keystore.Rewrapping{change, other}, Event: event("x")}); !errors.Is(err, keystore.ErrKeyChanged) {
		t.Fatalf("error %v, want ErrKeyChanged", err)
	}
	commit(t, s, tokenizer.Unit{Rewraps: []keystore.Rewrapping{change}, Event: event("x")})
	if _, err := s.Commit(ctx, tokenizer.Unit{Rewraps: []keystore.Rewrapping{change}, Event: event("x")}); !errors.Is(err, keystore.ErrKeyChanged) {
		t.Fatalf("done again: %v", err)
	}
	named := change
	named.Old, named.New.Version = renewed, 9
	if _, err := s.Commit(ctx, tokenizer.Unit{Rewraps: []keystore.Rewrapping{named}, Event: event("x")}); err == nil {
		t.Fatal("a rewrap that renames a key")
	}
	for range 2 {
		keys, err := s.WrappedKeys(ctx, "default")
		if err != nil || len(keys) != 2 || !slices.ContainsFunc(keys, func(k keystore.WrappedKey) bool { return string(k.Wrapped) == "wrapped anew" }) {
			t.Fatalf("keys %v, %v", keys, err)
		}
		wantCensus(t, s, map[keystore.KeyID][2]int{keyID(keystore.Data, 7): {0, 0}, keyID(keystore.Token, 3): {0, 0}})
		s = reopen()
	}
}

func testOutdated(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 8)}, Event: event("x")})
	const n = 10_000
	first := reserve(t, s, n)
	var unit tokenizer.Unit
	var want []uint64
	for i := range uint64(n) {
		r := record(first + i)
		if i%1000 != 7 && i > 20 {
			r.KeyVersion = 8
		} else {
			want = append(want, r.ID)
		}
		unit.Records = append(unit.Records, r)
	}
	unit.Event = event("x")
	commit(t, s, unit)
	scan := func(namespace string, version uint32) (ids []uint64) {
		for after, steps := uint64(0), 0; ; steps++ {
			found, err := s.Outdated(ctx, namespace, version, after, 5)
			if err != nil || len(found.Records) > 5 || found.Unreadable != 0 || steps > n {
				t.Fatalf("%+v, %v, step %d", found, err, steps)
			}
			for _, r := range found.Records {
				wantRecord(t, s, r)
				ids = append(ids, r.ID)
			}
			if found.Next == 0 {
				return ids
			}
			if found.Next <= after {
				t.Fatalf("from %d on to %d", after, found.Next)
			}
			after = found.Next
		}
	}
	if got := scan("default", 8); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if got := scan("other", 8); len(got) != 0 {
		t.Errorf("another namespace has %v", got)
	}
}
