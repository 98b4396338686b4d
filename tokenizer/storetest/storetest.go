// Package storetest holds the contract that every tokenizer.Store passes.
//
// A backend's test is a Harness and a call of Run. The suite works through the
// interface alone and reopens the store where a promise is about what is
// durable.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Harness makes the stores under test.
type Harness struct {
	// Open opens a store on data of its own, empty, and returns it with a
	// function that opens the same data again. The second closes or abandons
	// what was open before, as a crash would, as far as the backend can.
	// Cleaning up is the harness's business (t.Cleanup).
	Open func(t *testing.T) (store tokenizer.Store, reopen func() tokenizer.Store)

	// Fail makes the next write of the store fail as a full disk would, once.
	Fail func(store tokenizer.Store)
}

// Run runs the contract.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"ids are handed out once":                   testIDs,
		"ids are bounded":                           testIDBounds,
		"a committed unit is there after reopening": testDurable,
		"a unit is written whole or not at all":     testAtomic,
		"a bad unit fails alone":                    testBadUnit,
		"an id is inserted once":                    testIDTaken,
		"a key version is added once":               testKeys,
		"the first claim holds the key":             testClaims,
		"claims within a unit are settled in order": testClaimsInUnit,
		"racing claims have one winner":             testClaimRace,
		"the log is chained without gaps":           testLog,
		"racing commits are chained":                testLogRace,
		"entries are read in pages":                 testLogPages,
		"the context bounds the wait":               testContext,
		"a failed write leaves nothing":             testFailedWrite,
		"what is read is the reader's own":          testAliasing,
		"missing things are not found":              testNotFound,
	} {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}

var ctx = context.Background()

// event returns an Event with a fixed body.
func event(body string) func(tokenizer.Outcome) []byte {
	return func(tokenizer.Outcome) []byte { return []byte(body) }
}

func reserve(t *testing.T, s tokenizer.Store, n int) uint64 {
	t.Helper()
	first, err := s.ReserveIDs(ctx, n)
	if err != nil {
		t.Fatalf("ReserveIDs(%d): %v", n, err)
	}
	return first
}

func commit(t *testing.T, s tokenizer.Store, unit tokenizer.Unit) tokenizer.Outcome {
	t.Helper()
	outcome, err := s.Commit(ctx, unit)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return outcome
}

// record returns a record with every field set.
func record(id uint64) tokenizer.Record {
	return tokenizer.Record{
		ID: id, Namespace: "default", Profile: "card",
		Created: time.Unix(1_700_000_000, 0).UTC(), KeyVersion: 7, TokenVersion: 3,
		Check: [4]byte{1, 2, 3, byte(id)},
		Value: fmt.Appendf(nil, "ciphertext %d", id), Metadata: []byte("labels"),
	}
}

func wantRecord(t *testing.T, s tokenizer.Store, want tokenizer.Record) {
	t.Helper()
	got, err := s.Record(ctx, want.ID)
	if err != nil {
		t.Fatalf("Record(%d): %v", want.ID, err)
	}
	if got.ID != want.ID || got.Namespace != want.Namespace || got.Profile != want.Profile ||
		!got.Created.Equal(want.Created) || got.KeyVersion != want.KeyVersion || got.TokenVersion != want.TokenVersion || got.Check != want.Check ||
		!bytes.Equal(got.Value, want.Value) || !bytes.Equal(got.Metadata, want.Metadata) {
		t.Fatalf("Record(%d) = %+v, want %+v", want.ID, got, want)
	}
}

func wantNoRecord(t *testing.T, s tokenizer.Store, id uint64) {
	t.Helper()
	if _, err := s.Record(ctx, id); !errors.Is(err, tokenizer.ErrNotFound) {
		t.Fatalf("Record(%d): error %v, want ErrNotFound", id, err)
	}
}

// readLog returns the whole log after checking that it is chained.
func readLog(t *testing.T, s tokenizer.Store) []tokenizer.Entry {
	t.Helper()
	entries, err := s.Entries(ctx, 0, 1<<20)
	if err != nil {
		t.Fatalf("Entries: %v", err)
	}
	head := tokenizer.Genesis(s.LogID())
	for i, e := range entries {
		if e.Sequence != uint64(i)+1 || e.Prev != head {
			t.Fatalf("entry %d has sequence %d, prev %s; want prev %s", i, e.Sequence, e.Prev, head)
		}
		head = e.Hash()
	}
	return entries
}

func testIDs(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	take := func(s tokenizer.Store, n int) {
		first, err := s.ReserveIDs(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || first == 0 {
			t.Errorf("ReserveIDs(%d) = %d, %v", n, first, err)
			return
		}
		for id := first; id < first+uint64(n); id++ {
			if seen[id] {
				t.Errorf("id %d handed out twice", id)
				return
			}
			seen[id] = true
		}
	}
	for range 3 {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 50 {
					take(s, 1+(i*j)%7)
				}
				take(s, tokenizer.MaxReserve/8)
			})
		}
		wg.Wait()
		s = reopen()
	}
}

func testIDBounds(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for _, n := range []int{0, -1, tokenizer.MaxReserve + 1} {
		if _, err := s.ReserveIDs(ctx, n); err == nil {
			t.Errorf("ReserveIDs(%d) is accepted", n)
		}
	}
	reserve(t, s, tokenizer.MaxReserve)
}

func testDurable(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
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
		if err != nil || len(keys) != 1 || keys[0].Version != 1 || string(keys[0].Wrapped) != "wrapped" {
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
	s, reopen := h.Open(t)
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
		if keys, err := s.WrappedKeys(ctx, "default"); err != nil || len(keys) != 0 {
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

func testBadUnit(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	bad := map[string]tokenizer.Unit{
		"no event":     {},
		"empty event":  {Event: event("")},
		"event panics": {Event: func(tokenizer.Outcome) []byte { panic("no") }},
		"empty claim":  {Event: event("x"), Claims: []tokenizer.Claim{{Value: []byte("v"), Record: tokenizer.NoRecord}}},
		"long claim": {Event: event("x"), Claims: []tokenizer.Claim{
			{Key: make([]byte, tokenizer.MaxClaim+1), Value: []byte("v"), Record: tokenizer.NoRecord}}},
		"claim of no record": {Event: event("x"), Claims: []tokenizer.Claim{{Key: []byte("k"), Value: []byte("v"), Record: 0}}},
		"id 0":               {Event: event("x"), Records: []tokenizer.Record{record(0)}},
		"huge record": {Event: event("x"), Records: []tokenizer.Record{
			{ID: reserve(t, s, 1), Value: make([]byte, 1<<20)}}},
	}
	var wg sync.WaitGroup
	for name, unit := range bad {
		wg.Go(func() {
			if _, err := s.Commit(ctx, unit); err == nil || errors.Is(err, tokenizer.ErrUnavailable) {
				t.Errorf("%s: error %v", name, err)
			}
		})
		for range 4 {
			wg.Go(func() {
				if _, err := s.Commit(ctx, tokenizer.Unit{Event: event("good")}); err != nil {
					t.Errorf("a good unit beside %q: %v", name, err)
				}
			})
		}
	}
	wg.Wait()
	if e := readLog(t, s); len(e) != 4*len(bad) {
		t.Errorf("log has %d entries, want %d", len(e), 4*len(bad))
	}
}

func testIDTaken(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	id := reserve(t, s, 1)
	var won sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := record(id)
			r.Value = []byte{byte(i)}
			_, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{r}, Event: event("x")})
			if err == nil {
				won.Store(i, true)
			} else if !errors.Is(err, tokenizer.ErrIDTaken) {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	wg.Wait()
	got, err := s.Record(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	won.Range(func(i, _ any) bool {
		n++
		if got.Value[0] != byte(i.(int)) {
			t.Errorf("the record is %d's, but %d was told that it won", got.Value[0], i)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d inserts of one id were acknowledged", n)
	}
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

func testClaims(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	id := reserve(t, s, 3)
	claim := func(value string, r int) tokenizer.Claim {
		return tokenizer.Claim{Key: []byte("key"), Value: []byte(value), Record: r}
	}
	var told tokenizer.Outcome
	outcome := commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Claims: []tokenizer.Claim{claim("first", 0)}, Event: event("1")})
	if len(outcome.Held) != 1 || outcome.Held[0] != nil {
		t.Fatalf("the first claim lost to %q", outcome.Held)
	}
	s = reopen()
	outcome = commit(t, s, tokenizer.Unit{
		Records: []tokenizer.Record{record(id + 1), record(id + 2)},
		Claims:  []tokenizer.Claim{claim("second", 0)},
		Event:   func(o tokenizer.Outcome) []byte { told = o; return []byte("2") },
	})
	if len(outcome.Held) != 1 || string(outcome.Held[0]) != "first" {
		t.Fatalf("the second claim was told %q, want first", outcome.Held)
	}
	if told.Sequence != outcome.Sequence || len(told.Held) != 1 || string(told.Held[0]) != "first" {
		t.Fatalf("the event was told %+v, the caller %+v", told, outcome)
	}
	wantNoRecord(t, s, id+1)       // its claim lost
	wantRecord(t, s, record(id+2)) // it has no claim
	if len(readLog(t, s)) != 2 {
		t.Fatal("a unit whose claim lost has its event all the same")
	}
}

func testClaimsInUnit(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	id := reserve(t, s, 2)
	outcome := commit(t, s, tokenizer.Unit{
		Records: []tokenizer.Record{record(id), record(id + 1)},
		Claims: []tokenizer.Claim{
			{Key: []byte("k"), Value: []byte("one"), Record: 0},
			{Key: []byte("k"), Value: []byte("two"), Record: 1},
			{Key: []byte("other"), Value: []byte("three"), Record: tokenizer.NoRecord},
		},
		Event: event("x"),
	})
	if len(outcome.Held) != 3 || outcome.Held[0] != nil || string(outcome.Held[1]) != "one" || outcome.Held[2] != nil {
		t.Fatalf("Held = %q", outcome.Held)
	}
	wantRecord(t, s, record(id))
	wantNoRecord(t, s, id+1)
}

func testClaimRace(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	const clients, keys = 16, 20
	ids := make([][keys]uint64, clients)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for k := range keys {
				id, err := s.ReserveIDs(ctx, 1)
				if err != nil {
					t.Error(err)
					return
				}
				name := fmt.Appendf(nil, "%d", id)
				o, err := s.Commit(ctx, tokenizer.Unit{
					Records: []tokenizer.Record{record(id)},
					Claims:  []tokenizer.Claim{{Key: []byte{byte(k)}, Value: name, Record: 0}},
					Event:   event("x"),
				})
				if err != nil {
					t.Error(err)
					return
				}
				if o.Held[0] == nil {
					ids[c][k] = id
				} else if _, err := fmt.Sscan(string(o.Held[0]), &ids[c][k]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		for c := range clients {
			if ids[c][k] != ids[0][k] {
				t.Fatalf("key %d: one client was told %d, another %d", k, ids[0][k], ids[c][k])
			}
		}
		wantRecord(t, s, record(ids[0][k]))
	}
}

func testLog(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	for i := range 3 {
		for j := range 3 {
			o := commit(t, s, tokenizer.Unit{Event: event(fmt.Sprint(i, j))})
			if want := uint64(3*i + j + 1); o.Sequence != want {
				t.Fatalf("sequence %d, want %d", o.Sequence, want)
			}
		}
		s = reopen()
	}
	entries := readLog(t, s)
	if len(entries) != 9 || string(entries[4].Body) != "1 1" {
		t.Fatalf("log = %v", entries)
	}
}

func testLogRace(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const clients, each = 16, 25
	sequences := make(chan uint64, clients*each)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				var told uint64
				o, err := s.Commit(ctx, tokenizer.Unit{Event: func(o tokenizer.Outcome) []byte {
					told = o.Sequence
					return fmt.Appendf(nil, "%d.%d", c, i)
				}})
				if err != nil || o.Sequence != told {
					t.Errorf("Commit = %+v, %v; the event was told %d", o, err, told)
				}
				sequences <- o.Sequence
			}
		})
	}
	wg.Wait()
	close(sequences)
	var all []uint64
	for n := range sequences {
		all = append(all, n)
	}
	slices.Sort(all)
	for i, n := range all {
		if n != uint64(i)+1 {
			t.Fatalf("sequence numbers have a gap or a double at %d: %d", i+1, n)
		}
	}
	if e := readLog(t, reopen()); len(e) != clients*each {
		t.Fatalf("log has %d entries, want %d", len(e), clients*each)
	}
}

func testLogPages(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for range 7 {
		commit(t, s, tokenizer.Unit{Event: event("x")})
	}
	var after uint64
	for _, want := range []int{3, 3, 1, 0} {
		page, err := s.Entries(ctx, after, 3)
		if err != nil || len(page) != want {
			t.Fatalf("Entries(%d, 3) has %d entries, %v; want %d", after, len(page), err, want)
		}
		if want > 0 {
			after = page[want-1].Sequence
		}
	}
	if page, err := s.Entries(ctx, 100, 3); err != nil || len(page) != 0 {
		t.Fatalf("Entries beyond the end: %d, %v", len(page), err)
	}
}

func testContext(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Commit(ended, tokenizer.Unit{Event: event("x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := s.Record(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Record: %v", err)
	}
	if _, err := s.ReserveIDs(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ReserveIDs: %v", err)
	}
	if e := readLog(t, s); len(e) != 0 {
		t.Errorf("a unit whose context had ended is in the log")
	}
}

func testFailedWrite(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Event: event("before")})
	h.Fail(s)
	_, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}, Event: event("lost")})
	if !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Fatalf("Commit on a full disk: %v", err)
	}
	wantNoRecord(t, s, id+1)
	wantRecord(t, s, record(id))
	if err := s.Check(ctx); err != nil {
		t.Fatalf("Check once there is room again: %v", err)
	}
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}, Event: event("after")})
	s = reopen()
	wantRecord(t, s, record(id+1))
	if e := readLog(t, s); len(e) != 2 || string(e[1].Body) != "after" {
		t.Fatalf("log = %v", e)
	}
}

func testAliasing(t *testing.T, h Harness) {
	s, _ := h.Open(t)
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
