package storetest

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// budget returns a budget that expires so many seconds after a fixed time.
func budget(name byte, expires int) tokenizer.Budget {
	return tokenizer.Budget{ID: [16]byte{name}, Expires: windowEnd(expires)}
}

func windowEnd(seconds int) time.Time { return time.Unix(1_700_000_000+int64(seconds), 0) }

func spends(s ...tokenizer.Spend) tokenizer.Unit { return tokenizer.Unit{Spends: s} }

// draw returns a spend of an amount.
func draw(b tokenizer.Budget, limit, amount uint64) tokenizer.Spend {
	return tokenizer.Spend{Budget: b, Limit: limit, Amount: amount}
}

// count returns a spend of members.
func count(b tokenizer.Budget, limit uint64, names ...uint64) tokenizer.Spend {
	return tokenizer.Spend{Budget: b, Limit: limit, Members: members(names...)}
}

func members(names ...uint64) (members [][16]byte) {
	for _, name := range names {
		var m [16]byte
		binary.BigEndian.PutUint64(m[8:], name)
		members = append(members, m)
	}
	return members
}

func wantSpent(t *testing.T, s tokenizer.Store, b tokenizer.Budget, want uint64) {
	t.Helper()
	if spent, err := s.Spent(ctx, b); err != nil || len(spent) != 1 || spent[0] != want {
		t.Fatalf("Spent(%x, %v) = %d, %v; want %d", b.ID, b.Expires.Unix(), spent, err, want)
	}
}

// wantCounted compares which of the members 0, 1, 2 and so on have been counted.
func wantCounted(t *testing.T, s tokenizer.Store, b tokenizer.Budget, want ...bool) {
	t.Helper()
	if got, err := s.Counted(ctx, b, members(numbers(0, len(want))...)...); err != nil || !slices.Equal(got, want) {
		t.Fatalf("Counted = %v, %v; want %v", got, err, want)
	}
}

// spent commits a unit that draws more than there is.
func spent(t *testing.T, s tokenizer.Store, unit tokenizer.Unit, spend int, before uint64) {
	t.Helper()
	unit.Event = event("refused")
	_, err := s.Commit(ctx, unit)
	var tells *tokenizer.BudgetError
	if !errors.Is(err, tokenizer.ErrBudgetSpent) || !errors.As(err, &tells) || *tells != (tokenizer.BudgetError{Spend: spend, Spent: before}) {
		t.Errorf("Commit: %v; want spend %d to fail with %d before it", err, spend, before)
	}
}

func testSpends(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 1)
	a, b := budget('a', 0), budget('b', 0)
	later := budget('a', 1)
	commit(t, s, spends(draw(a, 10, 4), draw(b, math.MaxUint64, math.MaxUint64-1)))
	for range 2 {
		for _, row := range []struct {
			unit   tokenizer.Unit
			spend  int
			before uint64
		}{
			{spends(draw(a, 10, 7)), 0, 4},
			{spends(draw(a, 3, 1)), 0, 4}, // less than was drawn under another limit
			{spends(draw(a, 10, math.MaxUint64)), 0, 4},
			{spends(draw(a, 10, 1), draw(b, math.MaxUint64, 2)), 1, math.MaxUint64 - 1},
			{spends(draw(b, math.MaxUint64, math.MaxUint64)), 0, math.MaxUint64 - 1},
			{spends(draw(later, 0, 1)), 0, 0},
			{spends(draw(later, 5, 3), count(a, 4, 0)), 1, 4},
		} {
			// Nothing is left of a unit that is refused.
			row.unit.Records = []tokenizer.Record{record(id)}
			row.unit.Claims = []tokenizer.Claim{claim("k", "", "v")}
			row.unit.States = []tokenizer.StateChange{state("k", "", "v")}
			spent(t, s, row.unit, row.spend, row.before)
		}
		wantSpent(t, s, a, 4)
		wantSpent(t, s, b, math.MaxUint64-1)
		wantSpent(t, s, later, 0)
		wantCounted(t, s, a, false)
		wantNoRecord(t, s, id)
		wantClaim(t, s, "k", "")
		wantState(t, s, "k", "")
		if log := readLog(t, s); len(log) != 1 {
			t.Fatalf("log = %v", log)
		}
		s = reopen()
	}
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{ // though it doesn't fit either
		Spends: []tokenizer.Spend{draw(a, 10, 7)}, Claims: []tokenizer.Claim{claim("k", "v", "")}})
	unit := spends(draw(a, 10, 6), draw(b, math.MaxUint64, 1))
	unit.Records = []tokenizer.Record{record(id)}
	commit(t, s, unit)
	commit(t, s, spends(draw(later, 3, 3)))
	for range 2 {
		got, err := s.Spent(ctx, later, b, budget('c', 0), a, budget('b', 1), later)
		if want := []uint64{3, math.MaxUint64, 0, 10, 0, 3}; err != nil || !slices.Equal(got, want) {
			t.Fatalf("Spent = %d, %v; want %d", got, err, want)
		}
		spent(t, s, spends(draw(a, 10, 1)), 0, 10)
		wantRecord(t, s, record(id))
		s = reopen()
	}
	if got, err := s.Spent(ctx); err != nil || len(got) != 0 {
		t.Errorf("Spent() = %d, %v", got, err)
	}
}

func testSpendRules(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	a := budget('a', 0)
	both := draw(a, 5, 1)
	both.Members = members(1)
	sooner := spends(draw(a, 5, 1))
	sooner.ExpireBudgets = windowEnd(1)
	fraction := a
	fraction.Expires = fraction.Expires.Add(time.Second / 2)
	for name, unit := range map[string]tokenizer.Unit{
		"nothing is drawn":            spends(draw(a, 5, 0)),
		"no members":                  spends(tokenizer.Spend{Budget: a, Limit: 5, Members: [][16]byte{}}),
		"an amount and members":       spends(both),
		"two on one budget":           spends(draw(a, 5, 1), draw(budget('b', 0), 5, 1), count(a, 5, 1)),
		"two on one, to the second":   spends(draw(a, 5, 1), draw(fraction, 5, 1)),
		"no expiry":                   spends(draw(tokenizer.Budget{ID: a.ID}, 5, 1)),
		"an expiry before there were": spends(draw(tokenizer.Budget{ID: a.ID, Expires: time.Unix(0, 0)}, 5, 1)),
		"on one that it removes":      sooner,
	} {
		malformed(t, s, name, unit)
	}
	wantSpent(t, s, a, 0)
	unit := spends(draw(fraction, 5, 1))
	unit.ExpireBudgets = windowEnd(0)
	commit(t, s, unit)
	wantSpent(t, s, a, 1)
}

// testSpendRace has many draw on a few budgets at once: each is drawn to its limit and
// no further, and what is drawn is what was granted.
func testSpendRace(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const clients, each, limit = 64, 20, 500
	all, odd := budget('a', 0), budget('o', 0)
	var mu sync.Mutex
	var granted, grantedOdd uint64
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				amount := uint64(c%3 + 1)
				unit := spends(draw(all, limit, amount))
				if i%2 == 1 {
					unit = spends(draw(odd, limit/4, 1), draw(all, limit, amount))
				}
				unit.Event = event("x")
				_, err := s.Commit(ctx, unit)
				if err != nil {
					if !errors.Is(err, tokenizer.ErrBudgetSpent) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				granted += amount
				grantedOdd += uint64(i % 2)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if granted != limit || grantedOdd > limit/4 {
		t.Errorf("%d and %d were granted; there were %d and %d, and many who wanted one", granted, grantedOdd, limit, limit/4)
	}
	for range 2 {
		wantSpent(t, s, all, granted)
		wantSpent(t, s, odd, grantedOdd)
		s = reopen()
	}
}

func testMembers(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	a, other := budget('a', 0), budget('b', 0)
	commit(t, s, spends(count(a, 3, 0, 2, 0, 0, 2)))
	for range 2 {
		wantSpent(t, s, a, 2)
		wantCounted(t, s, a, true, false, true, false)
		wantCounted(t, s, other, false, false, false)
		wantCounted(t, s, budget('a', 1), false, false, false)
		spent(t, s, spends(count(a, 3, 0, 1, 3)), 0, 2)
		spent(t, s, spends(draw(other, 9, 1), count(a, 3, 3, 4)), 1, 2)
		s = reopen()
	}
	commit(t, s, spends(count(a, 3, 2, 1, 0)))
	for range 2 {
		wantSpent(t, s, a, 3)
		wantCounted(t, s, a, true, true, true, false, false)
		commit(t, s, spends(count(a, 3, 0, 1, 2)))
		commit(t, s, spends(count(a, 1, 1))) // it draws nothing, so it doesn't matter
		spent(t, s, spends(count(a, 3, 3)), 0, 3)
		wantSpent(t, s, other, 0)
		s = reopen()
	}
	if is, err := s.Counted(ctx, a); err != nil || len(is) != 0 {
		t.Errorf("Counted() = %v, %v", is, err)
	}
}

// testMemberRace has many count members of one set at once.
func testMemberRace(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const clients, set, limit = 64, 40, 30
	a := budget('a', 0)
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	var wg sync.WaitGroup
	for c := range uint64(clients) {
		wg.Go(func() {
			for i := range uint64(10) {
				names := []uint64{(c + i) % set, (c*7 + i) % set}
				unit := spends(count(a, limit, names...))
				unit.Event = event("x")
				_, err := s.Commit(ctx, unit)
				if err != nil {
					if !errors.Is(err, tokenizer.ErrBudgetSpent) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				for _, name := range names {
					seen[name] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	want := make([]bool, set)
	for name := range seen {
		want[name] = true
	}
	if len(seen) > limit || len(seen) < limit-1 {
		t.Errorf("%d members were counted; there was room for %d", len(seen), limit)
	}
	for range 2 {
		wantSpent(t, s, a, uint64(len(seen)))
		wantCounted(t, s, a, want...)
		s = reopen()
	}
}

// testExpireBudgets removes what has expired and nothing else.
func testExpireBudgets(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	expire := func(seconds int) tokenizer.Unit { return tokenizer.Unit{ExpireBudgets: windowEnd(seconds)} }
	unit := expire(-1000)
	unit.Spends = []tokenizer.Spend{
		draw(budget('a', 0), 9, 1), draw(budget('a', 10), 9, 2), draw(budget('a', 20), 9, 3), count(budget('b', 10), 9, 0, 1), count(budget('b', 20), 9, 0, 1)}
	commit(t, s, unit)
	want := func(now ...uint64) {
		t.Helper()
		got, err := s.Spent(ctx, budget('a', 0), budget('a', 10), budget('a', 20), budget('b', 10), budget('b', 20))
		if err != nil || !slices.Equal(got, now) {
			t.Fatalf("Spent = %d, %v; want %d", got, err, now)
		}
	}
	commit(t, s, expire(0))
	want(1, 2, 3, 2, 2) // it isn't before
	unit = expire(1)
	unit.Event = event("")
	malformed(t, s, "no event", unit)
	want(1, 2, 3, 2, 2)
	commit(t, s, expire(1))
	want(0, 2, 3, 2, 2)
	s = reopen()
	want(0, 2, 3, 2, 2)
	commit(t, s, spends(draw(budget('a', 0), 9, 4))) // too late: it begins anew, and goes again
	want(4, 2, 3, 2, 2)
	unit = expire(11)
	unit.Spends = []tokenizer.Spend{draw(budget('a', 20), 9, 1)}
	commit(t, s, unit)
	for range 2 {
		want(0, 0, 4, 0, 2)
		wantCounted(t, s, budget('b', 10), false, false)
		wantCounted(t, s, budget('b', 20), true, true)
		s = reopen()
	}
	if unit := expire(11); unit.Empty() {
		t.Error("a unit that removes budgets is empty")
	}
}

// testExpireMany removes many in parts, while more come than go in one.
func testExpireMany(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	names := numbers(0, 5000)
	var all []tokenizer.Budget
	for i := range 3 {
		all = append(all, budget('m', i))
		commit(t, s, spends(count(all[i], 5000, names...)))
	}
	s = reopen()
	left := func() (n int) {
		t.Helper()
		for _, b := range all {
			is, err := s.Counted(ctx, b, members(names...)...)
			if err != nil {
				t.Fatal(err)
			}
			for _, is := range is {
				if is {
					n++
				}
			}
		}
		return n
	}
	for round := 0; left() > 0; round++ {
		// Each unit adds a thousand to one that lasts longer, so as many go at least.
		if round > 15 {
			t.Fatalf("%d members are left", left())
		}
		unit := spends(count(budget('n', 100), math.MaxUint64, numbers(round*1000, 1000)...))
		unit.ExpireBudgets = windowEnd(3)
		commit(t, s, unit)
		if round == 5 {
			s = reopen()
		}
	}
	for _, b := range all {
		wantSpent(t, s, b, 0)
	}
	if got, err := s.Spent(ctx, budget('n', 100)); err != nil || got[0] == 0 || got[0]%1000 != 0 {
		t.Errorf("what has not expired came to %d, %v", got, err)
	}
}

func numbers(from, n int) (names []uint64) {
	for i := range n {
		names = append(names, uint64(from+i))
	}
	return names
}
