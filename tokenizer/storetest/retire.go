package storetest

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

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

func testNoTokenKey(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	addKeys(t, s, keyID(keystore.Data, 7))
	id := reserve(t, s, 2)
	bare := func(id uint64) tokenizer.Record {
		r := record(id)
		r.TokenVersion = 0
		return r
	}
	refused(t, s, keystore.ErrKeyVersion, tokenizer.Unit{Records: []tokenizer.Record{record(id), bare(id + 1)}})
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{bare(id), bare(id + 1)}})
	for range 2 {
		wantRecord(t, s, bare(id))
		wantCensus(t, s, map[keystore.KeyID][2]int{keyID(keystore.Data, 7): {2, 4}})
		s = reopen()
	}
	commit(t, s, tokenizer.Unit{Deletes: []tokenizer.Record{bare(id)}})
	wantCensus(t, s, map[keystore.KeyID][2]int{keyID(keystore.Data, 7): {1, 4}})
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
		wrapped(keystore.Data, 8), wrapped(keystore.Token, 4), wrapped(keystore.Audit, 1), wrapped(keystore.Audit, 2), wrapped(keystore.FPE, 1), wrapped(keystore.FPE, 2), wrapped(keystore.Index, 1), wrapped(keystore.Index, 5),
	}, Event: event("x")})
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("x")})
	for _, k := range []keystore.KeyID{data7, data8, keyID(keystore.Token, 3), keyID(keystore.Token, 4), keyID(keystore.Audit, 1), keyID(keystore.FPE, 1), keyID(keystore.Index, 5)} {
		if err := retire(k); !errors.Is(err, keystore.ErrKeyInUse) {
			t.Errorf("%v: %v, want ErrKeyInUse", k, err)
		}
	}
	if err := retire(keyID(keystore.Data, 1)); !errors.Is(err, keystore.ErrKeyVersion) {
		t.Errorf("a key that never was: %v", err)
	}
	for name, unit := range map[string]tokenizer.Unit{
		"with a key":    {Keys: []keystore.WrappedKey{wrapped(keystore.Subject, 1)}},
		"with a record": {Records: []tokenizer.Record{record(id + 1)}},
		"with a claim":  {Claims: []tokenizer.Claim{claim("k", "", "v")}},
		"with a delete": {Deletes: []tokenizer.Record{record(id)}},
	} {
		unit.Retire = keyID(keystore.Index, 1)
		malformed(t, s, name, unit)
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
			keyID(keystore.Audit, 1): {0, 0}, keyID(keystore.Audit, 2): {0, 0}, keyID(keystore.FPE, 1): {0, 0}, keyID(keystore.FPE, 2): {0, 0}, keyID(keystore.Index, 1): {-1, -1}, keyID(keystore.Index, 5): {0, 0},
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
