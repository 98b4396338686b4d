package burst

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

var began = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// at returns the beginning of a minute.
func at(minute int) time.Time { return began.Add(time.Duration(minute) * time.Minute) }

// known returns a Counter with a caller that has had so many values in each of so many
// minutes, from the first on.
func known(t testing.TB, rule Rule, minutes, values int) *Counter {
	t.Helper()
	c := NewCounter(rule, began)
	for m := range minutes {
		if c.Count("a", values, at(m)) {
			t.Fatalf("a burst in minute %d", m)
		}
	}
	return c
}

func TestBounds(t *testing.T) {
	for _, row := range []struct {
		name            string
		rule            Rule
		minutes, values int // of the history
		most            int // that is no burst; 0 if nothing is
	}{
		{"a small caller", DefaultRule, 10, 1, 99},
		{"as much as Least is ten times", DefaultRule, 10, 10, 100},
		{"a large caller", DefaultRule, 60, 500, 5000},
		{"a long history", DefaultRule, 23 * 60, 40, 400},
		{"another rule", Rule{Factor: 2, Least: 5}, 20, 50, 100},
		{"another rule, a small caller", Rule{Factor: 2, Least: 5}, 20, 1, 4},
		{"too little history", DefaultRule, 9, 1, 0},
		{"no history", DefaultRule, 0, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := known(t, row.rule, row.minutes, row.values)
			now := at(row.minutes)
			if row.most == 0 {
				if c.Count("a", 1_000_000, now) {
					t.Error("a burst")
				}
				return
			}
			for _, n := range []int{1, row.most - 1} { // what comes in one minute counts together
				if c.Count("a", n, now) {
					t.Errorf("%d are a burst already", row.most)
				}
			}
			if !c.Count("a", 1, now.Add(59*time.Second)) {
				t.Errorf("%d are no burst", row.most+1)
			}
		})
	}
}

func TestOneBurstAnHour(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	var told []int
	for m := 20; m < 20+150; m += 10 {
		for range 3 {
			if c.Count("a", 100_000, at(m)) {
				told = append(told, m)
			}
		}
	}
	if fmt.Sprint(told) != "[20 80 140]" {
		t.Errorf("told of in the minutes %v", told)
	}
	if c.Count("b", 100_000, at(170)) {
		t.Error("a burst of another caller")
	}
}

func TestABurstDoesNotHideTheNext(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	if !c.Count("a", 1_000_000, at(20)) {
		t.Fatal("no burst")
	}
	if !c.Count("a", 100, at(80)) {
		t.Error("the burst an hour before has become what is usual")
	}
}

func TestMoreForGoodBecomesUsual(t *testing.T) {
	c := known(t, DefaultRule, 600, 1)
	var told []int
	for m := 600; m < 2000; m++ {
		if c.Count("a", 1000, at(m)) {
			told = append(told, m)
		}
	}
	if fmt.Sprint(told) != "[600 660 720 780 840]" {
		t.Errorf("told of in the minutes %v", told)
	}
}

func TestMinutesPass(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	for m := 20; m < 60; m++ {
		for _, second := range []int{0, 59} {
			if c.Count("a", 45, at(m).Add(time.Duration(second)*time.Second)) {
				t.Fatalf("a burst in minute %d", m)
			}
		}
	}
	// A call that is late counts in the latest minute.
	c = known(t, DefaultRule, 20, 1)
	if c.Count("a", 60, at(20)) || c.Count("a", 30, at(3)) || c.Count("a", 9, at(20)) || !c.Count("a", 1, at(20)) {
		t.Error("what comes late doesn't count in the latest minute")
	}
}

func TestHistoryIsOfADay(t *testing.T) {
	const day = 24 * 60
	c := known(t, DefaultRule, 20, 1)
	if !c.Count("a", 100, at(23*60+59)) {
		t.Error("the history is forgotten too early")
	}
	c = known(t, DefaultRule, 20, 1)
	if c.Count("a", 100_000, at(day)) {
		t.Error("the history is remembered for longer than a day")
	}
	// Days later the hours are those of the new day.
	c = known(t, DefaultRule, 20, 1000)
	for m := range 20 {
		c.Count("a", 2, at(3*day+m))
	}
	if !c.Count("a", 100, at(3*day+20)) {
		t.Error("the mean is not that of the last day")
	}
}

func TestWithdraw(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	if !c.Count("a", 150, at(20)) {
		t.Fatal("no burst")
	}
	c.Withdraw("a", 150, true)
	if c.Count("a", 99, at(20)) {
		t.Error("what was withdrawn still counts")
	}
	if !c.Count("a", 1, at(20)) {
		t.Error("a burst that was withdrawn counts as told of")
	}
	c.Withdraw("nobody", 5, false)
	c.Withdraw("a", 1000, false) // of an earlier minute, in part
	if c.Count("a", 99, at(90)) || !c.Count("a", 1, at(90)) {
		t.Error("the minutes after a withdrawal are wrong")
	}
}

func TestCallersAreBounded(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	for i := range maxCallers - 1 {
		c.Count(fmt.Sprint("other ", i), 1, at(20))
	}
	c.Count("a", 1, at(20)) // active again: another one leaves
	for i := range 5 {
		c.Count(fmt.Sprint("more ", i), 1, at(20))
	}
	if len(c.callers) != maxCallers || c.recent.Len() != maxCallers {
		t.Errorf("%d callers, %d in their order", len(c.callers), c.recent.Len())
	}
	if !c.Count("a", 100, at(21)) {
		t.Error("a caller that was active is forgotten")
	}
	if _, ok := c.callers["other 0"]; ok {
		t.Error("the caller that was active first is remembered")
	}
}

// Of many who cross the line together one is told.
func TestConcurrentBurst(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	var wg sync.WaitGroup
	told := make(chan bool, 8000)
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				told <- c.Count("a", 1, at(20))
			}
		})
	}
	wg.Wait()
	close(told)
	bursts := 0
	for b := range told {
		if b {
			bursts++
		}
	}
	if bursts != 1 {
		t.Errorf("%d bursts", bursts)
	}
	if got := c.callers["a"].Value.(*history).values; got != 8000 {
		t.Errorf("%d values", got)
	}
}

func TestCountDoesNotAllocate(t *testing.T) {
	c := known(t, DefaultRule, 20, 1)
	m := 20
	if n := testing.AllocsPerRun(1000, func() { m++; c.Count("a", 50, at(m)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCount(b *testing.B) {
	c := known(b, DefaultRule, 20, 1)
	now := at(20)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Count("a", 1, now) // beyond the bound, which is the longest way
		}
	})
}
