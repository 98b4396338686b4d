package boltstore

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// settled is a unit, and what becomes of it.
type settled struct {
	unit tokenizer.Unit
	want error
}

// commitTogether commits units in their order in one frame.
func (h *held) commitTogether(t *testing.T, units []settled) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := h.Commit(context.Background(), tokenizer.Unit{Event: event}); err != nil {
			t.Error(err)
		}
	})
	<-h.begun
	for i, row := range units {
		wg.Go(func() {
			row.unit.Event = event
			if _, err := h.Commit(context.Background(), row.unit); !errors.Is(err, row.want) {
				t.Errorf("unit %d: %v, want %v", i, err, row.want)
			}
		})
		h.waitFor(i + 1)
	}
	close(h.letGo)
	wg.Wait()
	if h.frames != 2 {
		t.Fatalf("%d frames", h.frames)
	}
}

func key(class keystore.Class, version uint32) keystore.WrappedKey {
	return keystore.WrappedKey{Namespace: "default", Class: class, Version: version, Created: time.Unix(1, 0).UTC(), Wrapped: []byte("wrapped")}
}

// under is a unit with a claim under an index key; "" stands for nothing.
func under(version uint32, name, before, after string) tokenizer.Unit {
	c := tokenizer.Claim{Key: []byte(name), Under: key(keystore.Index, version).ID()}
	if before != "" {
		c.Old = []byte(before)
	}
	if after != "" {
		c.New = []byte(after)
	}
	return tokenizer.Unit{Claims: []tokenizer.Claim{c}}
}

// Units of one frame see what those before have done.
func TestUnitsSeeEachOther(t *testing.T) {
	ctx, h := context.Background(), openHeld(t)
	id, err := h.ReserveIDs(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	first := tokenizer.Record{ID: id, Namespace: "default", Profile: "card", Created: time.Unix(1, 0).UTC(), KeyVersion: 1, TokenVersion: 1, Value: []byte("sealed")}
	second := first
	second.Uses = 1
	other := first
	other.ID++
	records := func(r ...tokenizer.Record) tokenizer.Unit { return tokenizer.Unit{Records: r} }
	update := tokenizer.Unit{Updates: []tokenizer.Update{{Old: first, New: second}}}
	remove := func(r tokenizer.Record) tokenizer.Unit { return tokenizer.Unit{Deletes: []tokenizer.Record{r}} }
	conflict, version, taken := tokenizer.ErrConflict, keystore.ErrKeyVersion, tokenizer.ErrIDTaken
	units := []settled{
		{records(first), version}, // its keys come next
		{tokenizer.Unit{Keys: []keystore.WrappedKey{key(keystore.Data, 1), key(keystore.Token, 1), key(keystore.Index, 1)}}, nil},
		{under(1, "a", "", "v"), nil},
		{under(1, "a", "", "w"), conflict},
		{under(1, "b", "", "v"), nil},
		{under(1, "c", "", "v"), nil},
		{under(1, "c", "v", ""), nil},
		{under(1, "c", "v", ""), conflict},
		{tokenizer.Unit{Keys: []keystore.WrappedKey{key(keystore.Index, 2)}}, nil},
		{under(1, "d", "", "v"), version},
		{under(2, "d", "", "v"), nil},
		{under(2, "a", "v", "w"), nil},
		{tokenizer.Unit{Retire: key(keystore.Index, 1).ID()}, keystore.ErrKeyInUse},
		{under(2, "b", "v", ""), nil},
		{tokenizer.Unit{Retire: key(keystore.Index, 1).ID()}, nil},
		{records(first, other), nil},
		{records(first), taken},
		{update, nil},
		{update, conflict},
		{remove(first), conflict},
		{remove(second), nil},
		{remove(second), conflict},
		{remove(other), nil},
	}
	h.commitTogether(t, units)
	values, err := h.Claimed(ctx, []byte("a"), []byte("b"), []byte("c"), []byte("d"))
	if err != nil || string(values[0]) != "w" || values[1] != nil || values[2] != nil || string(values[3]) != "v" {
		t.Errorf("claims %q, %v", values, err)
	}
	if profiles, err := h.Profiles(ctx, "default"); err != nil || len(profiles) != 0 {
		t.Errorf("profiles %v, %v", profiles, err)
	}
	counts, err := h.Census(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		want := keystore.KeyCount{ID: c.ID}
		switch c.ID {
		case first.DataKey():
			want.Sealed = 2
		case key(keystore.Index, 1).ID():
			want.Gone = true
		case key(keystore.Index, 2).ID():
			want.Records = 2
		}
		if c != want {
			t.Errorf("census %+v, want %+v", c, want)
		}
	}
}

// Ids of units that bring many records are taken once too, within a frame; those of a
// unit that failed are free again.
func TestManyInsertsInAFrame(t *testing.T) {
	ctx, h := context.Background(), openHeld(t)
	const n = 3 * manyInserts
	id, err := h.ReserveIDs(ctx, 4*n)
	if err != nil {
		t.Fatal(err)
	}
	keys := tokenizer.Unit{Keys: []keystore.WrappedKey{key(keystore.Data, 1), key(keystore.Token, 1)}}
	from := func(first uint64, count int) (unit tokenizer.Unit) {
		for i := range uint64(count) {
			unit.Records = append(unit.Records, tokenizer.Record{
				ID: first + i, Namespace: "default", Profile: "card", Created: time.Unix(1, 0).UTC(), KeyVersion: 1, TokenVersion: 1, Value: []byte("sealed"),
			})
		}
		return unit
	}
	failing := from(id+n, n)
	failing.Claims = []tokenizer.Claim{{Key: []byte("nothing"), Old: []byte("v"), New: []byte("w")}}
	overlapping := from(id+2*n-5, n) // fails in its middle
	backwards := from(id+3*n, n)
	for i := range n / 2 {
		backwards.Records[i], backwards.Records[n-1-i] = backwards.Records[n-1-i], backwards.Records[i]
	}
	updated := from(id, 1).Records[0]
	updated.Uses = 1
	taken := tokenizer.ErrIDTaken
	h.commitTogether(t, []settled{
		{keys, nil},
		{from(id, n), nil},
		{failing, tokenizer.ErrConflict},
		{from(id+n, n), nil}, // which are those of the one that failed
		{from(id+n-1, manyInserts), taken},
		{overlapping, taken},
		{from(id+2*n, 3), nil},
		{from(id+2*n+1, 1), taken},
		{from(id+2*n+1, manyInserts), taken},
		{from(id+2*n+3, n-3), nil},
		{backwards, nil},
		{from(id+4*n-1, 1), taken},
		{tokenizer.Unit{Updates: []tokenizer.Update{{Old: from(id, 1).Records[0], New: updated}}}, nil},
	})
	scanned, err := h.Scan(ctx, "default", "card", 0, 10*n)
	if err != nil || len(scanned.IDs) != 4*n {
		t.Errorf("%d records, %v; want %d", len(scanned.IDs), err, 4*n)
	}
	if profiles, err := h.Profiles(ctx, "default"); err != nil || profiles["card"] != 4*n {
		t.Errorf("profiles %v, %v", profiles, err)
	}
}

// Units of one frame draw on what those before have left, and removing what has expired
// comes behind them all.
func TestSpendsSeeEachOther(t *testing.T) {
	ctx, h := context.Background(), openHeld(t)
	a := tokenizer.Budget{ID: [16]byte{'a'}, Expires: time.Unix(100, 0)}
	old := tokenizer.Budget{ID: [16]byte{'o'}, Expires: time.Unix(50, 0)}
	draw := func(b tokenizer.Budget, amount uint64) tokenizer.Unit {
		return tokenizer.Unit{Spends: []tokenizer.Spend{{Budget: b, Limit: 5, Amount: amount}}}
	}
	count := func(b tokenizer.Budget, members ...[16]byte) tokenizer.Unit {
		return tokenizer.Unit{Spends: []tokenizer.Spend{{Budget: b, Limit: 5, Members: members}}}
	}
	state := func(before, after string) tokenizer.Unit {
		c := tokenizer.StateChange{Key: "k", New: []byte(after)}
		if before != "" {
			c.Old = []byte(before)
		}
		return tokenizer.Unit{States: []tokenizer.StateChange{c}}
	}
	if _, err := h.ReserveIDs(ctx, 1); err != nil {
		t.Fatal(err)
	}
	twice := draw(a, 1)
	twice.Claims = []tokenizer.Claim{{Key: []byte("k"), Old: []byte("none"), New: []byte("v")}}
	spent, conflict := tokenizer.ErrBudgetSpent, tokenizer.ErrConflict
	h.commitTogether(t, []settled{
		{draw(a, 3), nil},
		{draw(a, 3), spent},
		{twice, conflict}, // draws nothing
		{count(a, [16]byte{1}), nil},
		{count(a, [16]byte{1}, [16]byte{2}, [16]byte{3}), spent},
		{count(a, [16]byte{1}), nil},
		{tokenizer.Unit{ExpireBudgets: time.Unix(60, 0)}, nil},
		{draw(old, 5), nil}, // too late: it stays until the next frame
		{draw(old, 1), spent},
		{draw(a, 1), nil},
		{draw(a, 1), spent},
		{state("", "one"), nil},
		{state("", "two"), conflict},
		{state("one", "two"), nil},
	})
	if got, err := h.Spent(ctx, a, old); err != nil || got[0] != 5 || got[1] != 5 {
		t.Errorf("Spent = %d, %v", got, err)
	}
	if is, err := h.Counted(ctx, a, [16]byte{1}, [16]byte{2}); err != nil || !is[0] || is[1] {
		t.Errorf("Counted = %v, %v", is, err)
	}
	if value, err := h.State(ctx, "k"); err != nil || string(value) != "two" {
		t.Errorf("State = %q, %v", value, err)
	}
	if _, err := h.Commit(ctx, tokenizer.Unit{ExpireBudgets: time.Unix(60, 0), Event: event}); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Spent(ctx, a, old); err != nil || got[0] != 5 || got[1] != 0 {
		t.Errorf("Spent = %d, %v", got, err)
	}
	if h.firstBudget != string(idKey(60)) { // else it would look at what is gone each time
		t.Errorf("the next frame looks for what has expired from %x on", h.firstBudget)
	}
}
