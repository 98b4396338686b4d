// Package limit holds callers to the limits of the rules of a policy. How many items a
// rule lets a caller have in a second or a minute is counted in memory; what it reveals
// to them in an hour or a day is kept in the store, and settled with the commit of the
// call that reveals it.
package limit

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// ErrRate says that a caller has more items than a rule allows at a time. The error is
// an Error then; so is tokenizer.ErrBudgetSpent.
var ErrRate = errors.New("limit: too many items at a time")

// Name names a limit: one of a rule.
type Name struct {
	Rule  string
	Limit string // as the policy file calls it, such as "values_per_hour"
}

// Error says which limit an item is beyond; of several, the one that takes longest.
type Error struct {
	Name
	Kind  error         // ErrRate or tokenizer.ErrBudgetSpent
	Retry time.Duration // until there is room for one more, if nobody else takes it
}

func (e *Error) Error() string { return e.Kind.Error() + ": " + e.Rule + "/" + e.Limit }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Limiter holds callers to limits. It is safe for concurrent use.
type Limiter struct {
	store tokenizer.Store
	now   func() time.Time
	rates *rates

	mu      sync.Mutex
	refused map[Name]uint64
}

// New returns a Limiter whose budgets are kept in the store.
func New(store tokenizer.Store, now func() time.Time) *Limiter {
	return &Limiter{store: store, now: now, rates: newRates(), refused: make(map[Name]uint64)}
}

// Count is how many items were refused for a limit.
type Count struct {
	Name
	Refused uint64
}

// Counts returns how many items have been refused since the start, by limit and in
// order. Limits for which none was are left out.
func (l *Limiter) Counts() []Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make([]Count, 0, len(l.refused))
	for name, n := range l.refused {
		counts = append(counts, Count{name, n})
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Limit, b.Limit))
	})
	return counts
}

// count adds to the counts.
func (l *Limiter) count(refused map[Name]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range refused {
		l.refused[name] += n
	}
}
