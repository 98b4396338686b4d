package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func testBadUnit(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	bad := map[string]tokenizer.Unit{
		"no event":                    {},
		"empty event":                 {Event: event("")},
		"event panics":                {Event: func(tokenizer.Outcome) []byte { panic("no") }},
		"claim without a key":         {Event: event("x"), Claims: []tokenizer.Claim{{New: []byte("v")}}},
		"claim of an empty key":       {Event: event("x"), Claims: []tokenizer.Claim{{Key: []byte{}, New: []byte("v")}}},
		"claim of an empty value":     {Event: event("x"), Claims: []tokenizer.Claim{{Key: []byte("k"), New: []byte{}}}},
		"claim of an empty old value": {Event: event("x"), Claims: []tokenizer.Claim{{Key: []byte("k"), Old: []byte{}, New: []byte("v")}}},
		"long key":                    {Event: event("x"), Claims: []tokenizer.Claim{{Key: make([]byte, tokenizer.MaxClaim+1), New: []byte("v")}}},
		"long value":                  {Event: event("x"), Claims: []tokenizer.Claim{{Key: []byte("k"), New: make([]byte, tokenizer.MaxClaim+1)}}},
		"id 0":                        {Event: event("x"), Records: []tokenizer.Record{record(0)}},
		"huge record": {Event: event("x"), Records: []tokenizer.Record{
			{ID: reserve(t, s, 1), Value: make([]byte, 2<<20)}}},
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
	s, _ := h.openWithKeys(t)
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
	found, err := s.Records(ctx, id)
	if err != nil || found[0].Err != nil {
		t.Fatal(found, err)
	}
	got, n := found[0].Record, 0
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

func testContext(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Commit(ended, tokenizer.Unit{Event: event("x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	for name, read := range map[string]func() error{
		"ReserveIDs":  func() error { _, err := s.ReserveIDs(ended, 1); return err },
		"Records":     func() error { _, err := s.Records(ended, 1); return err },
		"Claimed":     func() error { _, err := s.Claimed(ended, []byte("k")); return err },
		"Claims":      func() error { _, err := s.Claims(ended, nil, nil, 1); return err },
		"Spent":       func() error { _, err := s.Spent(ended, budget('a', 0)); return err },
		"Counted":     func() error { _, err := s.Counted(ended, budget('a', 0), members(1)...); return err },
		"State":       func() error { _, err := s.State(ended, "k"); return err },
		"ListStates":  func() error { _, err := s.ListStates(ended, "", "", 1); return err },
		"Scan":        func() error { _, err := s.Scan(ended, "default", "", 0, 1); return err },
		"Profiles":    func() error { _, err := s.Profiles(ended, "default"); return err },
		"Outdated":    func() error { _, err := s.Outdated(ended, "default", 1, 0, 1); return err },
		"Under":       func() error { _, err := s.Under(ended, keyID(keystore.Data, 1)); return err },
		"WrappedKeys": func() error { _, err := s.WrappedKeys(ended, "default"); return err },
		"Census":      func() error { _, err := s.Census(ended, "default"); return err },
		"Entries":     func() error { _, err := s.Entries(ended, 0, 1); return err },
		"Scrub":       func() error { return s.Scrub(ended) },
	} {
		if err := read(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if e := readLog(t, s); len(e) != 0 {
		t.Errorf("a unit whose context had ended is in the log")
	}
}

func testFailedWrite(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 4)
	commit(t, s, tokenizer.Unit{
		Records: []tokenizer.Record{record(id), record(id + 2), record(id + 3)},
		Claims:  []tokenizer.Claim{claim("k", "", "v")},
		States:  []tokenizer.StateChange{state("k", "", "v")},
		Spends:  []tokenizer.Spend{draw(budget('a', 10), 5, 2), count(budget('b', 0), 5, 0)},
		Event:   event("before"),
	})
	unit := tokenizer.Unit{
		Records: []tokenizer.Record{record(id + 1)},
		Updates: []tokenizer.Update{changed(record(id+2), func(r *tokenizer.Record) { r.Uses++ })},
		Deletes: []tokenizer.Record{record(id + 3)},
		Claims:  []tokenizer.Claim{claim("k", "v", ""), claim("l", "", "v")},
		States:  []tokenizer.StateChange{state("k", "v", "w")},
		Spends:  []tokenizer.Spend{draw(budget('a', 10), 5, 2), count(budget('c', 10), 5, 0)},
		Event:   event("lost"),

		ExpireBudgets: windowEnd(10),
	}
	wantBudgets := func(s tokenizer.Store, drawn, gone, members uint64) {
		t.Helper()
		wantSpent(t, s, budget('a', 10), drawn)
		wantSpent(t, s, budget('b', 0), gone)
		wantCounted(t, s, budget('b', 0), gone > 0)
		wantSpent(t, s, budget('c', 10), members)
		wantCounted(t, s, budget('c', 10), members > 0)
	}
	h.Fail(s)
	if _, err := s.Commit(ctx, unit); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Fatalf("Commit on a full disk: %v", err)
	}
	wantNoRecord(t, s, id+1)
	for _, n := range []uint64{0, 2, 3} {
		wantRecord(t, s, record(id+n))
	}
	wantClaim(t, s, "k", "v")
	wantClaim(t, s, "l", "")
	wantState(t, s, "k", "v")
	wantBudgets(s, 2, 1, 0)
	wantProfiles(t, s, map[string]uint64{"card": 3})
	if err := s.Check(ctx); err != nil {
		t.Fatalf("Check once there is room again: %v", err)
	}
	unit.Event = event("after")
	commit(t, s, unit)
	s = reopen()
	wantRecord(t, s, record(id+1))
	wantRecord(t, s, unit.Updates[0].New)
	wantNoRecord(t, s, id+3)
	wantClaim(t, s, "k", "")
	wantClaim(t, s, "l", "v")
	wantState(t, s, "k", "w")
	wantBudgets(s, 4, 0, 1)
	wantProfiles(t, s, map[string]uint64{"card": 3})
	if e := readLog(t, s); len(e) != 2 || string(e[1].Body) != "after" {
		t.Fatalf("log = %v", e)
	}
}
