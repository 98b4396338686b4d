// Package bench measures a server against the wire: a process that speaks the same
// API over the same TLS, and answers constants. What a machine, its disk and its
// neighbours are like hits both, so the ratio says what Coatcheck costs.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Options say what is measured.
type Options struct {
	Workloads []Workload
	Rounds    int           // of each workload, on either server in turn
	Duration  time.Duration // of a round
	Preload   int           // tokens that are made first

	Profile string // one of Profiles, or of the target
	Purpose string // for which values are revealed
	Known   bool   // values that have been tokenized before, and not new ones
	Subject bool   // values are about somebody

	// Rest, if set, waits until the target has done what it put off, and returns how
	// long the processor worked for it.
	Rest func(context.Context) time.Duration

	// Progress is told what is done next.
	Progress func(format string, args ...any)
}

// Result is what was measured of a workload. Times are of a call: of a batch all its
// items, of a stream an item from its sending to its answer.
type Result struct {
	Name     string  `json:"name"`
	InFlight int     `json:"in_flight"`
	Rate     float64 `json:"items_per_second"` // the median of the rounds
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
	WireRate float64 `json:"wire_items_per_second"`
	WireP50  float64 `json:"wire_p50_us"`
	Ratio    float64 `json:"wire_ratio"` // the median of those of the rounds
}

// Run measures the workloads on a server and on the wire. The rounds alternate
// between the two. What was measured before an error is returned with it.
func Run(ctx context.Context, target, wire *Client, o Options) ([]Result, error) {
	load, err := prepare(ctx, target, o)
	if err != nil {
		return nil, err
	}
	if o.Rest != nil {
		o.Rest(ctx)
	}
	var results []Result
	for _, w := range o.Workloads {
		o.Progress("%v", w)
		r, err := measure(ctx, target, wire, w, load, o)
		if ctx.Err() != nil {
			return results, errors.New("interrupted")
		}
		if err != nil {
			return results, fmt.Errorf("%v: %w", w, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// measure measures one workload. What the target puts off, such as to write its file,
// is no load on the wire's round, and counts as time of the target's.
func measure(ctx context.Context, target, wire *Client, w Workload, load *load, o Options) (Result, error) {
	var all, wireAll samples
	var rates, wireRates, ratios []float64
	warm := min(o.Duration/4, time.Second/2)
	for round := range o.Rounds {
		var rate [2]float64
		for k, c := range [2]*Client{target, wire} {
			if round == 0 {
				if _, err := w.run(ctx, c, load, warm); err != nil {
					return Result{}, err
				}
				if c == target && o.Rest != nil {
					o.Rest(ctx)
				}
			}
			s, err := w.run(ctx, c, load, o.Duration)
			if err != nil {
				return Result{}, err
			}
			if c == target && o.Rest != nil {
				s.took += o.Rest(ctx)
			}
			rate[k] = s.rate()
			if c == target {
				all.add(s)
			} else {
				wireAll.add(s)
			}
		}
		rates, wireRates = append(rates, rate[0]), append(wireRates, rate[1])
		ratios = append(ratios, rate[0]/rate[1])
	}
	r := Result{Name: w.Name, InFlight: w.InFlight, Rate: median(rates), WireRate: median(wireRates), Ratio: median(ratios)}
	r.P50, r.P99, r.P999 = all.quantile(0.5), all.quantile(0.99), all.quantile(0.999)
	r.WireP50 = wireAll.quantile(0.5)
	return r, nil
}

// samples are how long calls took.
type samples struct {
	items int64
	took  time.Duration // all of it together
	each  []time.Duration
}

func (s *samples) add(other samples) {
	s.items += other.items
	s.took += other.took
	s.each = append(s.each, other.each...)
}

func (s *samples) rate() float64 { return float64(s.items) / s.took.Seconds() }

// quantile returns the time within which a part of the calls was over, in
// microseconds.
func (s *samples) quantile(q float64) float64 {
	if len(s.each) == 0 {
		return 0
	}
	slices.Sort(s.each)
	return float64(s.each[min(int(q*float64(len(s.each))), len(s.each)-1)].Nanoseconds()) / 1000
}

// median returns the median, the mean of the two in the middle of an even number; 0 of
// none.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	return (values[(n-1)/2] + values[n/2]) / 2
}
