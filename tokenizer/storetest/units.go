package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func testDurable(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 2)
	key := keystore.WrappedKey{Namespace: "default", Class: keystore.Data, Version: 1, Created: time.Unix(1_700_000_000, 0).UTC(), Wrapped: []byte("wrapped")}
	commit(t, s, tokenizer.Unit{
		Records: []tokenizer.Record{record(id + 1), record(id)},
		Claims:  []tokenizer.Claim{{Key: []byte("k"), Value: []byte("v"), Record: tokenizer.NoRecord}},
		Keys:    []keystore.WrappedKey{key},
		Event:   event("made"),
	})
	log := s.LogID()
	for range 2 {
		wantRecord(t, s, record(id))
		wantRecord(t, s, record(id+1))
		if v, err := s.Claimed(ctx, []byte("k")); err != nil || string(v) != "v" {
			t.Fatalf("Claimed = %q, %v", v, err)
		}
		keys, err := s.WrappedKeys(ctx, "default")
		if err != nil || len(keys) != 3 || !slices.ContainsFunc(keys, func(k keystore.WrappedKey) bool { return k.ID() == key.ID() && string(k.Wrapped) == "wrapped" }) {
			t.Fatalf("WrappedKeys = %v, %v", keys, err)
		}
		if e := readLog(t, s); len(e) != 1 || string(e[0].Body) != "made" {
			t.Fatalf("log = %v", e)
		}
		if s.LogID() != log || log == (tokenizer.LogID{}) {
			t.Fatalf("log id %s, want %s", s.LogID(), log)
		}
		if err := s.Check(ctx); err != nil {
			t.Fatalf("Check: %v", err)
		}
		s = reopen()
	}
}

func testAtomic(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("first")})
	_, err := s.Commit(ctx, tokenizer.Unit{
		Records: []tokenizer.Record{record(id + 1), record(id)},
		Claims:  []tokenizer.Claim{{Key: []byte("k"), Value: []byte("v"), Record: 0}},
		Keys:    []keystore.WrappedKey{{Namespace: "default", Class: keystore.Data, Version: 1, Created: time.Unix(1, 0).UTC(), Wrapped: []byte("w")}},
		Event:   event("second"),
	})
	if !errors.Is(err, tokenizer.ErrIDTaken) {
		t.Fatalf("Commit of a taken id: %v", err)
	}
	for range 2 {
		wantNoRecord(t, s, id+1)
		if _, err := s.Claimed(ctx, []byte("k")); !errors.Is(err, tokenizer.ErrNotFound) {
			t.Fatalf("the claim of a failed unit: %v", err)
		}
		if keys, err := s.WrappedKeys(ctx, "default"); err != nil || len(keys) != 2 {
			t.Fatalf("the keys of a failed unit: %v, %v", keys, err)
		}
		if e := readLog(t, s); len(e) != 1 {
			t.Fatalf("log has %d entries, want 1", len(e))
		}
		s = reopen()
	}
	// The id of the failed unit's other record is free to be used.
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}, Event: event("third")})
}

func testKeys(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	key := func(namespace string, class keystore.Class, version uint32) keystore.WrappedKey {
		return keystore.WrappedKey{Namespace: namespace, Class: class, Version: version, Created: time.Unix(1, 0).UTC(), Wrapped: []byte(namespace)}
	}
	add := func(keys ...keystore.WrappedKey) error {
		_, err := s.Commit(ctx, tokenizer.Unit{Keys: keys, Event: event("keys")})
		return err
	}
	if err := add(key("a", keystore.Data, 1), key("a", keystore.Token, 1), key("ab", keystore.Data, 1), key("b", keystore.Data, 1)); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]keystore.WrappedKey{
		"taken":             {key("a", keystore.Data, 1)},
		"one of two taken":  {key("a", keystore.Data, 2), key("a", keystore.Token, 1)},
		"twice in the unit": {key("a", keystore.Data, 2), key("a", keystore.Data, 2)},
	} {
		if err := add(keys...); !errors.Is(err, keystore.ErrKeyExists) {
			t.Errorf("%s: error %v, want ErrKeyExists", name, err)
		}
	}
	if err := add(key("a", keystore.Data, 2)); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	for namespace, want := range map[string]int{"a": 3, "ab": 1, "b": 1, "": 0, "c": 0} {
		keys, err := s.WrappedKeys(ctx, namespace)
		if err != nil || len(keys) != want {
			t.Errorf("WrappedKeys(%q): %d keys, %v; want %d", namespace, len(keys), err, want)
		}
		for _, k := range keys {
			if k.Namespace != namespace || string(k.Wrapped) != namespace {
				t.Errorf("WrappedKeys(%q) has a key of %q", namespace, k.Namespace)
			}
		}
	}
}

func testAliasing(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	id := reserve(t, s, 1)
	commit(t, s, tokenizer.Unit{
		Records: []tokenizer.Record{record(id)},
		Claims:  []tokenizer.Claim{{Key: []byte("k"), Value: []byte("v"), Record: tokenizer.NoRecord}},
		Event:   event("body"),
	})
	r, _ := s.Record(ctx, id)
	v, _ := s.Claimed(ctx, []byte("k"))
	e, _ := s.Entries(ctx, 0, 1)
	r.Value[0], r.Metadata[0], v[0], e[0].Body[0] = 'X', 'X', 'X', 'X'
	wantRecord(t, s, record(id))
	if v, _ := s.Claimed(ctx, []byte("k")); string(v) != "v" {
		t.Errorf("Claimed = %q after a reader wrote to its copy", v)
	}
	if e := readLog(t, s); string(e[0].Body) != "body" {
		t.Errorf("the entry is %q after a reader wrote to its copy", e[0].Body)
	}
}

func testNotFound(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for _, id := range []uint64{0, 1, reserve(t, s, 1), 1<<64 - 1} {
		wantNoRecord(t, s, id)
	}
	if _, err := s.Claimed(ctx, []byte("k")); !errors.Is(err, tokenizer.ErrNotFound) {
		t.Errorf("Claimed: %v", err)
	}
	if e := readLog(t, s); len(e) != 0 {
		t.Errorf("a new log has %d entries", len(e))
	}
}
