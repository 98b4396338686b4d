package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func testMany(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	const n = 3000
	id := reserve(t, s, n)
	var unit tokenizer.Unit
	for i := range uint64(n) {
		if i%3 != 0 {
			unit.Records = append(unit.Records, record(id+i))
			unit.Claims = append(unit.Claims, claim(fmt.Sprint("key ", i), "", fmt.Sprint(i)))
		}
	}
	commit(t, s, unit)
	s = reopen()
	var ids []uint64
	var keys [][]byte
	for i := range uint64(n) {
		i = i * 7 % n // in any order
		ids, keys = append(ids, id+i), append(keys, fmt.Append(nil, "key ", i))
	}
	ids, keys = append(ids, ids[1], 0, 1<<64-1), append(keys, keys[1], []byte("k"), []byte("\xff"))
	found, err := s.Records(ctx, ids...)
	if err != nil || len(found) != len(ids) {
		t.Fatalf("Records: %d, %v", len(found), err)
	}
	values, err := s.Claimed(ctx, keys...)
	if err != nil || len(values) != len(keys) {
		t.Fatalf("Claimed: %d, %v", len(values), err)
	}
	for i := range ids {
		at := ids[i] - id
		if at%3 == 0 || at >= n {
			if !errors.Is(found[i].Err, tokenizer.ErrNotFound) || values[i] != nil {
				t.Fatalf("%d: %+v, %q; there is none", ids[i], found[i], values[i])
			}
		} else if found[i].Err != nil || !found[i].Record.Equal(record(ids[i])) || string(values[i]) != fmt.Sprint(at) {
			t.Fatalf("%d: %+v, %q", ids[i], found[i], values[i])
		}
	}
	if found, err := s.Records(ctx); err != nil || len(found) != 0 {
		t.Errorf("Records(): %v, %v", found, err)
	}
	if values, err := s.Claimed(ctx); err != nil || len(values) != 0 {
		t.Errorf("Claimed(): %v, %v", values, err)
	}
}

// testDamaged damages one record of three. The others are none the worse.
func testDamaged(t *testing.T, h Harness) {
	if h.Damage == nil {
		t.Skip("the harness can't damage a record")
	}
	s, _ := h.openWithKeys(t)
	id := reserve(t, s, 4)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id), record(id + 1), record(id + 2)}})
	h.Damage(t, s, id+1)
	found, err := s.Records(ctx, id, id+1, id+2, id+3)
	if err != nil || len(found) != 4 {
		t.Fatalf("Records: %+v, %v", found, err)
	}
	for i, want := range []error{nil, tokenizer.ErrDamaged, nil, tokenizer.ErrNotFound} {
		if !errors.Is(found[i].Err, want) || (want == nil) != found[i].Record.Equal(record(id+uint64(i))) {
			t.Errorf("record %d: %+v, want %v", i, found[i], want)
		}
	}
	scanned, err := s.Scan(ctx, "default", "", 0, 10)
	if err != nil || len(scanned.IDs) < 2 || len(scanned.IDs) > 3 { // what is damaged may not look it from afar
		t.Errorf("Scan: %+v, %v", scanned, err)
	}
	outdated, err := s.Outdated(ctx, "default", 8, 0, 10)
	if err != nil || len(outdated.Records) != 2 || outdated.Unreadable != 1 {
		t.Errorf("Outdated: %+v, %v", outdated, err)
	}
	// It isn't what anybody can have read.
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Deletes: []tokenizer.Record{record(id + 1)}})
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Updates: []tokenizer.Update{changed(record(id+1), func(r *tokenizer.Record) { r.Uses++ })}})
	refused(t, s, tokenizer.ErrIDTaken, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}})
	wantProfiles(t, s, map[string]uint64{"card": 3}) // it is still there
}
