package limit_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// clock is one that tests move. It is safe for concurrent use.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 5, 4, 10, 30, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newStore(t *testing.T) tokenizer.Store {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// beyond returns which limit an error tells of, and for how long.
func beyond(t *testing.T, err error) (name string, retry time.Duration) {
	t.Helper()
	var e *limit.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e == nil {
		return "", 0
	}
	return e.Rule + "/" + e.Limit, e.Retry
}

func commit(t *testing.T, store tokenizer.Store, m *limit.Meter) error {
	t.Helper()
	unit := tokenizer.Unit{Event: func(tokenizer.Outcome) []byte { return []byte("x") }}
	if err := m.Settle(t.Context(), &unit); err != nil {
		t.Fatal(err)
	}
	_, err := store.Commit(t.Context(), unit)
	m.Done(err == nil)
	return err
}

// A bucket is full at first, and fills up as time passes.
func TestRates(t *testing.T) {
	c := newClock()
	l := limit.New(newStore(t), c.Now)
	both := []*policy.Limits{{Rule: "a", ItemsPerSecond: 4, ItemsPerMinute: 6}}
	try := func(caller string, limits []*policy.Limits, want string, wait time.Duration) {
		t.Helper()
		m := l.Meter("default", caller)
		name, retry := beyond(t, m.Pay(limits))
		if m.Done(true); name != want || retry != wait {
			t.Fatalf("refused for %q, %v; want %q, %v", name, retry, want, wait)
		}
	}
	for range 4 {
		try("x", both, "", 0)
	}
	try("x", both, "a/items_per_second", 250*time.Millisecond)
	try("y", both, "", 0) // another caller
	try("x", []*policy.Limits{{Rule: "b", ItemsPerSecond: 1}}, "", 0)
	c.pass(250 * time.Millisecond)
	try("x", both, "", 0)
	c.pass(time.Second)
	try("x", both, "", 0) // 6 in the minute, and 0.125 have come again
	try("x", both, "a/items_per_minute", 8750*time.Millisecond)
	c.pass(8749 * time.Millisecond)
	try("x", both, "a/items_per_minute", time.Millisecond)
	c.pass(time.Millisecond)
	try("x", both, "", 0)
	// Another number is another bucket; the one before goes on.
	try("x", []*policy.Limits{{Rule: "a", ItemsPerMinute: 7}}, "", 0)
	try("x", []*policy.Limits{{Rule: "a", ItemsPerMinute: 6}}, "a/items_per_minute", 10*time.Second)
	// Who is refused for one limit takes nothing of the others.
	two := []*policy.Limits{{Rule: "a", ItemsPerMinute: 6}, {Rule: "c", ItemsPerMinute: 1}}
	try("x", two, "a/items_per_minute", 10*time.Second)
	try("x", two[1:], "", 0)
	try("x", two, "c/items_per_minute", time.Minute)
	const want = "[{{a items_per_minute} 4} {{a items_per_second} 1} {{c items_per_minute} 1}]"
	if got := fmt.Sprint(l.Counts()); got != want {
		t.Errorf("counts %v, want %v", got, want)
	}
}

// A call that is done again doesn't pay again, but for what it had not paid.
func TestPaidOnce(t *testing.T) {
	c := newClock()
	l := limit.New(newStore(t), c.Now)
	limits := []*policy.Limits{{Rule: "a", ItemsPerMinute: 3}}
	m := l.Meter("default", "x")
	items := func(n, want int) {
		t.Helper()
		served := 0
		for range n {
			if m.Pay(limits) == nil {
				served++
			}
		}
		if served != want {
			t.Fatalf("%d of %d items were served, want %d", served, n, want)
		}
	}
	items(2, 2)
	m.Restart()
	items(4, 3)
	m.Restart()
	items(4, 3)
	m.Next()
	items(1, 0)
	m.Done(true)
	if got := m.Left(); !slices.Equal(got, []string{`"a/items_per_minute";r=0;t=60`}) {
		t.Errorf("left %q", got)
	}
	if got := l.Counts(); len(got) != 1 || got[0].Refused != 1 {
		t.Errorf("counts %v: those of what was done again count", got)
	}
}

// Buckets that are full are dropped.
func TestManyCallers(t *testing.T) {
	c := newClock()
	l := limit.New(newStore(t), c.Now)
	limits := []*policy.Limits{{Rule: "a", ItemsPerMinute: 60}}
	for i := range 20_000 {
		m := l.Meter("default", fmt.Sprint(i))
		if err := m.Pay(limits); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Millisecond) // so about a thousand are not full
	}
	if n := l.Buckets(); n > 5_000 {
		t.Errorf("%d buckets are kept", n)
	}
	m := l.Meter("default", "19999")
	m.Restart()
	for range 59 {
		if err := m.Pay(limits); err != nil {
			t.Fatal(err)
		}
	}
	if m.Pay(limits) == nil {
		t.Error("a bucket that was drawn on was dropped")
	}
}

// Budgets count values of an hour and a day, and each subject once.
func TestBudgets(t *testing.T) {
	c := newClock()
	store := newStore(t)
	l := limit.New(store, c.Now)
	limits := []*policy.Limits{{Rule: "a", ValuesPerHour: 5, SubjectsPerDay: 3}, {Rule: "b", ValuesPerDay: 8}}
	draw := func(m *limit.Meter, subject uint64, want string, wait time.Duration) {
		t.Helper()
		if name, retry := beyond(t, m.Draw(t.Context(), limits, subject)); name != want || retry != wait {
			t.Fatalf("refused for %q, %v; want %q, %v", name, retry, want, wait)
		}
	}
	left := func(m *limit.Meter, want ...string) {
		t.Helper()
		if got := m.Left(); !slices.Equal(got, want) {
			t.Fatalf("left %q, want %q", got, want)
		}
	}
	m := l.Meter("default", "x")
	draw(m, 1, "", 0)
	draw(m, 1, "", 0)
	draw(m, 0, "", 0) // of nobody
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	left(m, `"a/values_per_hour";r=2;t=1800`, `"a/subjects_per_day";r=2;t=48600`, `"b/values_per_day";r=5;t=48600`)

	m = l.Meter("default", "x") // what isn't committed is as if it had not been
	draw(m, 2, "", 0)
	m.Done(false)
	left(m, `"a/values_per_hour";r=2;t=1800`, `"a/subjects_per_day";r=2;t=48600`, `"b/values_per_day";r=5;t=48600`)

	m = l.Meter("default", "x")
	draw(m, 2, "", 0)
	draw(m, 2, "", 0)
	draw(m, 2, "a/values_per_hour", 30*time.Minute)
	m.Restart()
	draw(m, 2, "", 0)
	m.Undo()
	draw(m, 2, "", 0)
	draw(m, 2, "", 0)
	draw(m, 2, "a/values_per_hour", 30*time.Minute)
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	left(m, `"a/values_per_hour";r=0;t=1800`, `"a/subjects_per_day";r=1;t=48600`, `"b/values_per_day";r=3;t=48600`)

	m = l.Meter("default", "y") // another caller
	for subject := range uint64(3) {
		draw(m, subject+10, "", 0)
	}
	draw(m, 13, "a/subjects_per_day", 13*time.Hour+30*time.Minute)
	m.Done(false)

	c.pass(30 * time.Minute) // another hour
	m = l.Meter("default", "x")
	draw(m, 3, "", 0)
	draw(m, 4, "a/subjects_per_day", 13*time.Hour)
	draw(m, 2, "", 0) // has been counted
	draw(m, 1, "", 0)
	draw(m, 1, "b/values_per_day", 13*time.Hour)
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	left(m, `"a/subjects_per_day";r=0;t=46800`, `"b/values_per_day";r=0;t=46800`, `"a/values_per_hour";r=2;t=3600`)

	c.pass(13 * time.Hour) // another day
	m = l.Meter("default", "x")
	for subject := range uint64(3) {
		draw(m, subject+10, "", 0)
	}
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	// A number that is lowered below what is spent leaves nothing.
	limits = []*policy.Limits{{Rule: "a", ValuesPerHour: 2}}
	m = l.Meter("default", "x")
	draw(m, 1, "a/values_per_hour", time.Hour)
	m.Done(true)
	left(m, `"a/values_per_hour";r=0;t=3600`)
}

// A unit that rests on what others have spent meanwhile is refused.
func TestBudgetRace(t *testing.T) {
	store := newStore(t)
	l := limit.New(store, newClock().Now)
	for _, limits := range [][]*policy.Limits{{{Rule: "a", ValuesPerDay: 3}}, {{Rule: "b", SubjectsPerDay: 3}}} {
		one, two := l.Meter("default", "x"), l.Meter("default", "x")
		for subject := range uint64(2) {
			if err := errors.Join(one.Draw(t.Context(), limits, subject+1), two.Draw(t.Context(), limits, subject+11)); err != nil {
				t.Fatal(err)
			}
		}
		if err := commit(t, store, one); err != nil {
			t.Fatal(err)
		}
		if err := commit(t, store, two); !errors.Is(err, tokenizer.ErrBudgetSpent) {
			t.Errorf("%v, want ErrBudgetSpent", err)
		}
	}
}

// brokenStore can't be read.
type brokenStore struct{ tokenizer.Store }

func (brokenStore) Spent(context.Context, ...tokenizer.Budget) ([]uint64, error) {
	return nil, tokenizer.ErrUnavailable
}

func TestBudgetsFailClosed(t *testing.T) {
	l := limit.New(brokenStore{newStore(t)}, newClock().Now)
	m := l.Meter("default", "x")
	for range 2 {
		if err := m.Draw(t.Context(), []*policy.Limits{{Rule: "a", ValuesPerDay: 3}}, 0); !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Errorf("%v, want ErrUnavailable", err)
		}
	}
}

// However many limits apply, no more is told of them than any client takes: those that
// matter most.
func TestLeftIsBounded(t *testing.T) {
	store := newStore(t)
	l := limit.New(store, newClock().Now)
	m := l.Meter("default", "x")
	for i := range 100 {
		if err := m.Draw(t.Context(), []*policy.Limits{{Rule: fmt.Sprintf("rule-%d", i), ValuesPerDay: uint64(200 - i)}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	if got := m.Left(); len(got) != 32 || got[0] != `"rule-99/values_per_day";r=100;t=48600` {
		t.Errorf("%d: %q", len(got), got)
	}
}

// What a unit draws on something else stays.
func TestSettleAdds(t *testing.T) {
	c := newClock()
	m := limit.New(newStore(t), c.Now).Meter("default", "x")
	if err := m.Draw(t.Context(), []*policy.Limits{{Rule: "a", ValuesPerHour: 3}}, 0); err != nil {
		t.Fatal(err)
	}
	other := tokenizer.Spend{Budget: tokenizer.Budget{ID: [16]byte{1}, Expires: c.Now()}, Limit: 5, Amount: 2}
	unit := tokenizer.Unit{Spends: []tokenizer.Spend{other}}
	if err := m.Settle(t.Context(), &unit); err != nil {
		t.Fatal(err)
	}
	if len(unit.Spends) != 2 || unit.Spends[0].Budget != other.Budget || unit.Spends[1].Amount != 1 {
		t.Errorf("the unit draws %+v", unit.Spends)
	}
}

// askedStore counts how often it is asked for members.
type askedStore struct {
	tokenizer.Store
	asked int
}

func (s *askedStore) Counted(ctx context.Context, b tokenizer.Budget, members ...[16]byte) ([]bool, error) {
	s.asked++
	return s.Store.Counted(ctx, b, members...)
}

// A subject for whom there is no room is asked for once, however many items it has.
func TestNoRoomIsRemembered(t *testing.T) {
	c := newClock()
	store := &askedStore{Store: newStore(t)}
	l := limit.New(store, c.Now)
	limits := []*policy.Limits{{Rule: "a", SubjectsPerHour: 2}}
	m := l.Meter("default", "x")
	for _, subject := range []uint64{1, 2} {
		if err := m.Draw(t.Context(), limits, subject); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(t, store, m); err != nil {
		t.Fatal(err)
	}
	store.asked = 0
	for range 5 {
		for _, subject := range []uint64{3, 4, 1} {
			name, _ := beyond(t, m.Draw(t.Context(), limits, subject))
			if want := map[bool]string{true: "a/subjects_per_hour"}[subject > 2]; name != want {
				t.Errorf("subject %d is refused for %q", subject, name)
			}
		}
	}
	if store.asked != 3 {
		t.Errorf("asked %d times", store.asked)
	}
}
