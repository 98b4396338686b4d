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
		Claims:  []tokenizer.Claim{claim("k", "", "v")},
		Keys:    []keystore.WrappedKey{key},
		Event:   event("made"),
	})
	log := s.LogID()
	for range 2 {
		wantRecord(t, s, record(id))
		wantRecord(t, s, record(id+1))
		wantClaim(t, s, "k", "v")
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
		Claims:  []tokenizer.Claim{claim("k", "", "v")},
		Keys:    []keystore.WrappedKey{{Namespace: "default", Class: keystore.Data, Version: 1, Created: time.Unix(1, 0).UTC(), Wrapped: []byte("w")}},
		Event:   event("second"),
	})
	if !errors.Is(err, tokenizer.ErrIDTaken) {
		t.Fatalf("Commit of a taken id: %v", err)
	}
	for range 2 {
		wantNoRecord(t, s, id+1)
		wantClaim(t, s, "k", "")
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
		Claims:  []tokenizer.Claim{claim("k", "", "v")},
		Event:   event("body"),
	})
	r, _ := s.Records(ctx, id)
	v, _ := s.Claimed(ctx, []byte("k"))
	e, _ := s.Entries(ctx, 0, 1)
	r[0].Record.Value[0], r[0].Record.Details[0], v[0][0], e[0].Body[0] = 'X', 'X', 'X', 'X'
	wantRecord(t, s, record(id))
	wantClaim(t, s, "k", "v")
	if e := readLog(t, s); string(e[0].Body) != "body" {
		t.Errorf("the entry is %q after a reader wrote to its copy", e[0].Body)
	}
}

func testNotFound(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for _, id := range []uint64{0, 1, reserve(t, s, 1), 1<<64 - 1} {
		wantNoRecord(t, s, id)
	}
	wantClaim(t, s, "k", "")
	if found, err := s.Scan(ctx, "default", "", 0, 10); err != nil || len(found.IDs) != 0 || found.Next != 0 {
		t.Errorf("Scan: %+v, %v", found, err)
	}
	if found, err := s.Claims(ctx, nil, nil, 10); err != nil || len(found) != 0 {
		t.Errorf("Claims: %+v, %v", found, err)
	}
	if is, err := s.Under(ctx, keyID(keystore.Index, 1)); err != nil || is {
		t.Errorf("Under: %v, %v", is, err)
	}
	wantProfiles(t, s, map[string]uint64{})
	if e := readLog(t, s); len(e) != 0 {
		t.Errorf("a new log has %d entries", len(e))
	}
}

// testForms stores records of either form, with and without what they may lack.
func testForms(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 8)
	bare := record(id + 2)
	bare.Value, bare.Details, bare.Expires = nil, nil, time.Time{}
	subject := record(id + 3)
	subject.Profile, subject.TokenVersion, subject.Subject = "", 0, 0
	records := []tokenizer.Record{record(id), legacy(id + 1), bare, subject}
	for state := tokenizer.Active; state <= tokenizer.Deleted; state++ {
		r := record(id + 4)
		r.ID += uint64(state)
		r.State = state
		if r.ID < id+8 {
			records = append(records, r)
		}
	}
	commit(t, s, tokenizer.Unit{Records: records})
	for range 2 {
		for _, r := range records {
			wantRecord(t, s, r)
		}
		s = reopen()
	}
	// One of the older form becomes one of the newer when it changes.
	renewed := changed(legacy(id+1), func(r *tokenizer.Record) {
		r.Legacy, r.State, r.Value = false, tokenizer.Revoked, []byte("sealed anew")
	})
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Updates: []tokenizer.Update{changed(renewed.New, func(*tokenizer.Record) {})}})
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{renewed}})
	wantRecord(t, reopen(), renewed.New)
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
