package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

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
	s, reopen := h.openWithKeys(t)
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
