// Package burst notices when far more is revealed to a caller than usual.
//
// A minute is a burst when at least Rule.Least values have been revealed to the
// caller in it, and more than Rule.Factor times the mean of the caller's active
// minutes of the last 24 hours. An active minute is one with at least one value; of
// a caller with fewer than ten there is too little to compare with, and nothing is a
// burst. One burst is told of each caller in an hour.
//
// A minute that has passed counts in the mean with no more than it could have had
// without being a burst. So a single burst doesn't hide the next, while a caller that
// has come to do more for good ceases to be noticed within hours.
//
// What is known is in memory only, and begins anew with each start.
package burst

import (
	"container/list"
	"sync"
	"time"
)

// Rule says what a burst is.
type Rule struct {
	Factor int // how many times the mean; at least 1
	Least  int // values in a minute
}

// DefaultRule is the rule of whoever sets none.
var DefaultRule = Rule{Factor: 10, Least: 100}

const (
	window     = 24     // hours, the one under way included
	leastKnown = 10     // active minutes, below which nothing is a burst
	quiet      = 60     // minutes from one burst of a caller to the next that is told of
	maxCallers = 10_000 // that are remembered; about 4 MB
)

// Counter counts what is revealed to each caller. It remembers the 10,000 callers that
// were active last. It is safe for concurrent use.
type Counter struct {
	rule  Rule
	began time.Time

	mu      sync.Mutex
	callers map[string]*list.Element
	recent  *list.List // of *history, the caller that was active last first
}

// NewCounter returns a Counter whose minutes and hours begin at a time.
func NewCounter(rule Rule, began time.Time) *Counter {
	return &Counter{rule: rule, began: began, callers: make(map[string]*list.Element), recent: list.New()}
}

// history is what is known of a caller. Minutes and hours are numbered from the time
// that the Counter began.
type history struct {
	caller string
	minute int64  // the latest
	values uint64 // in it
	told   int64  // the minute of the latest burst that was told of
	hours  [window]hour
}

// hour is what is known of one hour, without the latest minute.
type hour struct {
	number  int32
	minutes uint32 // active ones
	values  uint64
}

// never is the minute of a burst that there hasn't been.
const never = -quiet

// Count counts n values that are revealed to a caller, and says whether that is a burst
// to be told of. What comes late counts in the latest minute.
func (c *Counter) Count(caller string, n int, at time.Time) bool {
	minute := max(0, int64(at.Sub(c.began)/time.Minute))
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.history(caller)
	c.advance(h, minute)
	h.values += uint64(n)
	if h.values < uint64(c.rule.Least) || h.minute-h.told < quiet || h.values <= c.most(h) {
		return false
	}
	h.told = h.minute
	return true
}

// Withdraw takes back a Count of values that were not revealed after all, and what it
// said.
func (c *Counter) Withdraw(caller string, n int, burst bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.callers[caller]
	if !ok {
		return
	}
	h := known.Value.(*history)
	h.values -= min(h.values, uint64(n))
	if burst {
		h.told = never
	}
}

// history returns that of a caller, who is the one that was active last.
func (c *Counter) history(caller string) *history {
	if known, ok := c.callers[caller]; ok {
		c.recent.MoveToFront(known)
		return known.Value.(*history)
	}
	if c.recent.Len() >= maxCallers {
		oldest := c.recent.Back()
		delete(c.callers, oldest.Value.(*history).caller)
		c.recent.Remove(oldest)
	}
	h := &history{caller: caller, told: never}
	c.callers[caller] = c.recent.PushFront(h)
	return h
}

// advance puts the latest minute into its hour, if another has come.
func (c *Counter) advance(h *history, minute int64) {
	if minute <= h.minute {
		return
	}
	if h.values > 0 {
		values := min(h.values, c.most(h))
		in := h.hour(h.minute)
		in.minutes++
		in.values += values
	}
	h.minute, h.values = minute, 0
}

// hour returns that of a minute, empty if it is new.
func (h *history) hour(minute int64) *hour {
	number := int32(minute / 60)
	in := &h.hours[number%window]
	if in.number != number {
		*in = hour{number: number}
	}
	return in
}

// most returns how many values the latest minute can have without being a burst.
func (c *Counter) most(h *history) uint64 {
	oldest := int32(h.minute/60) - window
	var values, minutes uint64
	for i := range h.hours {
		if in := &h.hours[i]; in.number > oldest {
			values, minutes = values+in.values, minutes+uint64(in.minutes)
		}
	}
	if minutes < leastKnown {
		return 1<<64 - 1
	}
	// Least itself is a burst, the multiple of the mean is not.
	return max(uint64(c.rule.Factor)*values/minutes, uint64(c.rule.Least)-1)
}
