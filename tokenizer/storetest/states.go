package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// state returns a change of a state; "" stands for none.
func state(key, before, after string) tokenizer.StateChange {
	c := tokenizer.StateChange{Key: key}
	if before != "" {
		c.Old = []byte(before)
	}
	if after != "" {
		c.New = []byte(after)
	}
	return c
}

func states(c ...tokenizer.StateChange) tokenizer.Unit { return tokenizer.Unit{States: c} }

// wantState compares a state, "" for none.
func wantState(t *testing.T, s tokenizer.Store, key, want string) {
	t.Helper()
	value, err := s.State(ctx, key)
	if err != nil || string(value) != want || (value == nil) != (want == "") {
		t.Fatalf("State(%q) = %.40q, %v; want %.40q", key, value, err, want)
	}
}

func testStates(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	for _, row := range []struct {
		name                string
		held, before, after string
		want                string
		wantErr             error
	}{
		{"made", "", "", "new", "new", nil},
		{"made where there is one", "held", "", "new", "held", tokenizer.ErrConflict},
		{"made where there is the same", "held", "", "held", "held", tokenizer.ErrConflict},
		{"replaced", "held", "held", "new", "new", nil},
		{"replaced, another", "held", "other", "new", "held", tokenizer.ErrConflict},
		{"replaced, a part", "held", "hel", "new", "held", tokenizer.ErrConflict},
		{"replaced, none there", "", "held", "new", "", tokenizer.ErrConflict},
		{"removed", "held", "held", "", "", nil},
		{"removed, another", "held", "other", "", "held", tokenizer.ErrConflict},
		{"removed, none there", "", "held", "", "", tokenizer.ErrConflict},
		{"asserted", "held", "held", "held", "held", nil},
		{"asserted, another", "held", "other", "other", "held", tokenizer.ErrConflict},
		{"asserted that there is none", "", "", "", "", nil},
		{"asserted that there is none, one there", "held", "", "", "held", tokenizer.ErrConflict},
	} {
		if row.held != "" {
			commit(t, s, states(state(row.name, "", row.held)))
		}
		unit := states(state(row.name+", too", "", "too"), state(row.name, row.before, row.after))
		unit.Spends = []tokenizer.Spend{draw(budget('s', 0), 1000, 1)}
		unit.Event = event("x")
		before, err := s.Spent(ctx, budget('s', 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(ctx, unit); !errors.Is(err, row.wantErr) {
			t.Errorf("%s: error %v, want %v", row.name, err, row.wantErr)
		}
		want, drawn := "too", before[0]+1
		if row.wantErr != nil {
			want, drawn = "", before[0]
		}
		for range 2 {
			wantState(t, s, row.name, row.want)
			wantState(t, s, row.name+", too", want)
			wantSpent(t, s, budget('s', 0), drawn)
			wantClaim(t, s, row.name, "") // claims are elsewhere
			s = reopen()
		}
	}
}

func testStateRules(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	long := string(bytes.Repeat([]byte("k"), tokenizer.MaxStateKey))
	large := string(bytes.Repeat([]byte("v"), tokenizer.MaxState))
	commit(t, s, states(state(long, "", large)))
	for name, unit := range map[string]tokenizer.Unit{
		"no key":             states(state("", "", "v")),
		"long key":           states(state(long+"k", "", "v")),
		"empty":              states(tokenizer.StateChange{Key: "k", New: []byte{}}),
		"empty before":       states(tokenizer.StateChange{Key: "k", Old: []byte{}, New: []byte("v")}),
		"large":              states(state("k", "", large+"v")),
		"large before":       states(state("k", large+"v", "v")),
		"twice":              states(state("k", "", "one"), state("l", "", "v"), state("k", "one", "two")),
		"twice, and no more": states(state("k", "", ""), state("k", "", "")),
	} {
		malformed(t, s, name, unit)
	}
	s = reopen()
	wantState(t, s, long, large)
	wantState(t, s, "k", "")
	unit := states(state("k", "", "v"))
	if unit.Empty() {
		t.Error("a unit that changes a state is empty")
	}
	commit(t, s, unit)
	unit.States[0].New[0] = 'X' // the caller's own again
	wantState(t, s, "k", "v")
	value, err := s.State(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	wantState(t, s, "k", "v")
}

// testStateChain counts up in a state, at once: who is refused looks again.
func testStateChain(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const clients, each = 8, 10
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				for {
					old, err := s.State(ctx, "k")
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(old))
					unit := states(tokenizer.StateChange{Key: "k", Old: old, New: fmt.Append(nil, n+1)})
					unit.Event = event("x")
					if _, err = s.Commit(ctx, unit); err == nil {
						break
					} else if !errors.Is(err, tokenizer.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		wantState(t, s, "k", strconv.Itoa(clients*each))
		s = reopen()
	}
}

func testStatePages(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	var all []tokenizer.StateChange
	for i := range 25 {
		for _, prefix := range []string{"a/", "b/", "c/"} {
			all = append(all, state(fmt.Sprintf("%s%02d", prefix, i), "", fmt.Sprint(prefix, i)))
		}
	}
	all = append(all, state("b", "", "b"), state("gone", "", "v"), state("\xff", "", "last"))
	slices.Reverse(all)
	commit(t, s, states(all...))
	commit(t, s, states(state("gone", "v", "")))
	read := func(prefix string, limit int) (keys []string) {
		for after := ""; ; {
			page, err := s.ListStates(ctx, prefix, after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("ListStates(%q, %q, %d): %d, %v", prefix, after, limit, len(page), err)
			}
			for _, row := range page {
				i := slices.IndexFunc(all, func(c tokenizer.StateChange) bool { return c.Key == row.Key })
				if i < 0 || !bytes.Equal(all[i].New, row.Value) {
					t.Fatalf("%+v was not made like that", row)
				}
				keys = append(keys, row.Key)
				after = row.Key
				row.Value[0] = 'X' // the reader's own
			}
			if len(page) == 0 {
				return keys
			}
		}
	}
	for range 2 {
		for _, row := range []struct {
			prefix      string
			limit, want int
		}{{"", 10, 77}, {"b", 1, 26}, {"b/", 25, 25}, {"b/", 1000, 25}, {"b/1", 3, 10}, {"\xff", 5, 1}, {"aa", 5, 0}, {"d", 5, 0}, {"gone", 5, 0}} {
			keys := read(row.prefix, row.limit)
			if len(keys) != row.want || !slices.IsSorted(keys) || len(slices.Compact(keys)) != row.want {
				t.Errorf("prefix %q, limit %d: %q, want %d", row.prefix, row.limit, keys, row.want)
			}
		}
		s = reopen()
	}
	// One may start behind a key that there is not.
	if page, err := s.ListStates(ctx, "b/", "b/000", 1); err != nil || len(page) != 1 || page[0].Key != "b/01" {
		t.Errorf("behind b/000: %v, %v", page, err)
	}
	if page, err := s.ListStates(ctx, "b", "a", 1); err != nil || len(page) != 1 || page[0].Key != "b" {
		t.Errorf("behind a: %v, %v", page, err)
	}
}
