package storetest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func testUpdates(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}})
	change := func(f func(*tokenizer.Record)) tokenizer.Unit {
		return tokenizer.Unit{Updates: []tokenizer.Update{changed(record(id), f)}}
	}
	twice := change(func(r *tokenizer.Record) { r.Uses++ })
	twice.Updates = append(twice.Updates, twice.Updates[0])
	for name, unit := range map[string]tokenizer.Unit{
		"another id":        change(func(r *tokenizer.Record) { r.ID++ }),
		"another namespace": change(func(r *tokenizer.Record) { r.Namespace = "other" }),
		"another profile":   change(func(r *tokenizer.Record) { r.Profile = "ssn" }),
		"another check":     change(func(r *tokenizer.Record) { r.Check[0]++ }),
		"another time":      change(func(r *tokenizer.Record) { r.Created = r.Created.Add(time.Hour) }),
		"another token":     change(func(r *tokenizer.Record) { r.TokenVersion++ }),
		"twice":             twice,
		"too large":         change(func(r *tokenizer.Record) { r.Value = make([]byte, 2<<20) }),
		"no stored form":    change(func(r *tokenizer.Record) { r.Legacy = true }),
	} {
		malformed(t, s, name, unit)
	}
	refused(t, s, keystore.ErrKeyVersion, change(func(r *tokenizer.Record) { r.KeyVersion = 99 }))
	wantRecord(t, s, record(id))
	for name, f := range map[string]func(*tokenizer.Record){
		"state":       func(r *tokenizer.Record) { r.State = tokenizer.Active },
		"expiry":      func(r *tokenizer.Record) { r.Expires = time.Time{} },
		"subject":     func(r *tokenizer.Record) { r.Subject = 0 },
		"uses":        func(r *tokenizer.Record) { r.MaxUses, r.Uses = 9, 9 },
		"ciphertexts": func(r *tokenizer.Record) { r.Value, r.Details = nil, []byte("other") },
	} {
		u := changed(record(id), f)
		if o := commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{u}}); !slices.Equal(o.Stale, []bool{false}) {
			t.Errorf("%s: Stale = %v", name, o.Stale)
		}
		wantRecord(t, s, u.New)
		commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{{Old: u.New, New: u.Old}}})
	}
}

// testStale has updates that come too late: a unit that rests on one is refused,
// and one that is optional is left out.
func testStale(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 4)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id), record(id + 1)}})
	first := changed(record(id), func(r *tokenizer.Record) { r.Uses = 3 })
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{first}})
	second := changed(record(id), func(r *tokenizer.Record) { r.Uses = 4 })
	fine := changed(record(id+1), func(r *tokenizer.Record) { r.Uses = 5 })
	missing := changed(record(id+2), func(r *tokenizer.Record) { r.Uses = 6 })
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Updates: []tokenizer.Update{fine, second}})
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{
		Updates: []tokenizer.Update{fine, missing}, Claims: []tokenizer.Claim{claim("k", "", "v")}})
	wantClaim(t, s, "k", "")
	second.Optional, missing.Optional = true, true
	var told []bool
	o := commit(t, s, tokenizer.Unit{
		Updates: []tokenizer.Update{second, fine, missing}, Records: []tokenizer.Record{record(id + 3)},
		Event: func(o tokenizer.Outcome) []byte { told = o.Stale; return []byte("x") },
	})
	if !slices.Equal(o.Stale, []bool{true, false, true}) || !slices.Equal(told, o.Stale) {
		t.Fatalf("Stale = %v, the event was told %v", o.Stale, told)
	}
	for range 2 {
		wantRecord(t, s, first.New)
		wantRecord(t, s, fine.New)
		wantNoRecord(t, s, id+2)
		wantRecord(t, s, record(id+3))
		wantCensus(t, s, map[keystore.KeyID][2]int{keyID(keystore.Data, 7): {3, 6}, keyID(keystore.Token, 3): {3, 0}})
		s = reopen()
	}
	if o := commit(t, s, tokenizer.Unit{}); o.Stale != nil {
		t.Errorf("without updates, Stale = %v", o.Stale)
	}
}

func testDeletes(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 5)
	bare := record(id + 2)
	bare.TokenVersion, bare.Profile = 0, ""
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id), record(id + 1), bare, legacy(id + 3)}})
	other := record(id)
	other.Value = []byte("another")
	for _, r := range []tokenizer.Record{other, legacy(id), record(id + 4), record(0)} {
		refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{
			Deletes: []tokenizer.Record{record(id + 1), r}, Claims: []tokenizer.Claim{claim("k", "", "v")}})
	}
	wantClaim(t, s, "k", "")
	one, same := []tokenizer.Record{record(id)}, changed(record(id), func(*tokenizer.Record) {})
	malformed(t, s, "deleted twice", tokenizer.Unit{Deletes: append(one[:1:1], record(id))})
	malformed(t, s, "deleted and updated", tokenizer.Unit{Deletes: one, Updates: []tokenizer.Update{same}})
	refused(t, s, tokenizer.ErrIDTaken, tokenizer.Unit{Deletes: one, Records: one})
	data, token := keyID(keystore.Data, 7), keyID(keystore.Token, 3)
	wantCensus(t, s, map[keystore.KeyID][2]int{data: {4, 8}, token: {3, 0}})
	commit(t, s, tokenizer.Unit{
		Deletes: []tokenizer.Record{bare, record(id)}, Records: []tokenizer.Record{record(id + 4)},
		Claims: []tokenizer.Claim{claim("k", "", "v")},
	})
	for range 2 {
		wantNoRecord(t, s, id)
		wantNoRecord(t, s, id+2)
		wantRecord(t, s, record(id+1))
		wantRecord(t, s, record(id+4))
		wantClaim(t, s, "k", "v")
		wantCensus(t, s, map[keystore.KeyID][2]int{data: {3, 10}, token: {3, 0}})
		wantProfiles(t, s, map[string]uint64{"card": 3})
		refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Deletes: one})
		s = reopen()
	}
	commit(t, s, tokenizer.Unit{Deletes: []tokenizer.Record{legacy(id + 3), record(id + 1), record(id + 4)}})
	wantCensus(t, s, map[keystore.KeyID][2]int{data: {0, 10}, token: {0, 0}})
	wantProfiles(t, s, map[string]uint64{})
}

// testChangeRace has several change or delete one record at once.
func testChangeRace(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	for round := range 10 {
		old := record(reserve(t, s, 1))
		commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{old}})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []tokenizer.Unit
		for i := range 8 {
			wg.Go(func() {
				unit := tokenizer.Unit{Deletes: []tokenizer.Record{old}}
				if i%4 != round%4 {
					unit = tokenizer.Unit{Updates: []tokenizer.Update{changed(old, func(r *tokenizer.Record) { r.Value = []byte{byte(i)} })}}
				}
				unit.Event = event("x")
				_, err := s.Commit(ctx, unit)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, unit)
				} else if !errors.Is(err, tokenizer.ErrConflict) {
					t.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d have won", len(won))
		}
		if won[0].Deletes != nil {
			wantNoRecord(t, s, old.ID)
		} else {
			wantRecord(t, s, won[0].Updates[0].New)
		}
	}
}
