package limit

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/coatcheck/coatcheck/server/policy"
)

// rates are buckets of items, one for each rule, caller and number. They are in memory:
// a restart fills them all. Safe for concurrent use.
type rates struct {
	mu      sync.Mutex
	buckets map[bucketKey]*rate.Limiter
	sweepAt int // with so many, those that are full are dropped
}

// bucketKey names a bucket. The number is part of it, so a policy with another begins
// another bucket, and one with the same goes on.
type bucketKey struct {
	Name
	caller string
	most   uint64
	per    time.Duration // in which it fills up
}

// minSweep is how many buckets are kept without a look at them.
const minSweep = 1024

func newRates() *rates {
	return &rates{buckets: make(map[bucketKey]*rate.Limiter), sweepAt: minSweep}
}

// payment is what a call has taken from a bucket, and how much of it the items have had
// that it is done with: a call that is done again doesn't pay again.
type payment struct {
	key         bucketKey
	taken, used uint64
}

// appendRates appends the keys of the buckets that limits demand.
func appendRates(keys []bucketKey, limits []*policy.Limits, caller string) []bucketKey {
	for _, l := range limits {
		if l.ItemsPerSecond > 0 {
			keys = append(keys, bucketKey{Name{l.Rule, "items_per_second"}, caller, l.ItemsPerSecond, time.Second})
		}
		if l.ItemsPerMinute > 0 {
			keys = append(keys, bucketKey{Name{l.Rule, "items_per_minute"}, caller, l.ItemsPerMinute, time.Minute})
		}
	}
	return keys
}

// pay takes one from each bucket that hasn't been paid yet, or from none: then it is an
// Error.
func (r *rates) pay(payments []*payment, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var worst *Error
	for _, p := range payments {
		if p.used < p.taken {
			continue
		}
		b := r.bucket(p.key, now)
		if lacks := 1 - b.TokensAt(now); lacks > 0 {
			wait := math.Ceil(1000 * lacks / float64(b.Limit())) // in ms
			worst = longer(worst, &Error{p.key.Name, ErrRate, time.Duration(wait) * time.Millisecond})
		}
	}
	if worst != nil {
		return worst
	}
	for _, p := range payments {
		if p.used == p.taken {
			r.bucket(p.key, now).AllowN(now, 1)
			p.taken++
		}
		p.used++
	}
	return nil
}

// longer returns the error that takes longer.
func longer(a, b *Error) *Error {
	if a == nil || b.Retry > a.Retry {
		return b
	}
	return a
}

// left returns how much is in a bucket, and how long it takes to fill it.
func (r *rates) left(key bucketKey, now time.Time) (left uint64, full time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tokens := max(r.bucket(key, now).TokensAt(now), 0)
	lacks := float64(key.most) - tokens
	return uint64(tokens), time.Duration(lacks / float64(key.most) * float64(key.per))
}

// bucket returns a bucket, a full one if there is none.
func (r *rates) bucket(key bucketKey, now time.Time) *rate.Limiter {
	if b := r.buckets[key]; b != nil {
		return b
	}
	if len(r.buckets) >= r.sweepAt {
		for key, b := range r.buckets {
			if b.TokensAt(now) >= float64(key.most) {
				delete(r.buckets, key)
			}
		}
		r.sweepAt = max(2*len(r.buckets), minSweep)
	}
	b := rate.NewLimiter(rate.Limit(float64(key.most)/key.per.Seconds()), int(key.most))
	r.buckets[key] = b
	return b
}
