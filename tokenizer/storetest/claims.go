package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func testClaims(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
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
	s, _ := h.openWithKeys(t)
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
	s, _ := h.openWithKeys(t)
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
