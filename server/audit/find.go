package audit

import (
	"context"
	"math"
	"sort"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Bounds bound one Find.
type Bounds struct {
	Events int // that are found, at least 1
	Bytes  int // of their bodies together; one event may go beyond it
	Look   int // events that are looked at, and blocks of them that are passed over, about
}

// Found is what a Find has found.
type Found struct {
	Entries []tokenizer.Entry // in the order that was asked for

	// Next is the number of the event at which to go on. If End, there is no more: no
	// event has the number yet, or it is 0.
	Next uint64
	End  bool
}

// Find finds events, from the one with the number from on: later ones, or with newest
// earlier ones. It ends when one of the bounds is reached, also with nothing found; then
// Next goes on.
//
// Errors: those of tokenizer.Store.Entries.
func (x *Index) Find(ctx context.Context, f *Filter, from uint64, newest bool, bounds Bounds) (Found, error) {
	s := search{Index: x, filter: f, bounds: bounds, blocks: x.snapshot(), limit: 1}
	s.found.Next = min(from, math.MaxInt64)
	if newest {
		last, err := x.LastEvent(ctx)
		if err != nil {
			return Found{}, err
		}
		s.found.Next = min(from, last)
	}
	for !s.found.End && !s.full {
		if err := ctx.Err(); err != nil {
			return Found{}, err
		}
		if s.found.Next == 0 {
			s.found.End = true
			break
		}
		if err := s.step(ctx, newest); err != nil {
			return Found{}, err
		}
	}
	return s.found, nil
}

// search is a Find at work.
type search struct {
	*Index
	filter *Filter
	bounds Bounds
	blocks []indexBlock
	found  Found
	full   bool // whether a bound is reached

	inside        *indexBlock // that is gone through
	looked, bytes int
	limit         int
}

// step looks at some events, or passes over a block of them.
func (s *search) step(ctx context.Context, newest bool) error {
	at := s.found.Next
	if b := blockOf(s.blocks, at); b != nil && b != s.inside {
		if !s.mayMatch(b, s.filter) {
			s.found.Next = b.last() + 1
			if newest {
				s.found.Next = b.first - 1
			}
			s.look()
			return nil
		}
		s.inside = b
	}
	low, high := uint64(1), uint64(math.MaxUint64)
	if b := blockOf(s.blocks, at); b != nil {
		low, high = b.first, b.last()
	} else if n := len(s.blocks); n > 0 {
		low = s.blocks[n-1].last() + 1
	}
	n := uint64(min(s.limit, s.bounds.Look-s.looked))
	if newest {
		low = max(low, at-min(n-1, at-1))
		high = at
	} else {
		low = at
		high = min(high, at+n-1)
	}
	entries, err := s.store.Entries(ctx, low-1, int(high-low+1))
	if err != nil {
		return err
	}
	s.limit = adaptLimit(s.limit, entries)
	switch {
	case len(entries) > 0:
	case newest:
		s.found.Next = low - 1
	default:
		s.found.End = true
	}
	for i := range entries {
		if newest {
			i = len(entries) - 1 - i
		}
		if s.take(entries[i], newest); s.full {
			break
		}
	}
	return nil
}

// take looks at an event.
func (s *search) take(e tokenizer.Entry, newest bool) {
	s.Index.looked.Add(1)
	if s.filter.Match(e.Body) {
		if len(s.found.Entries) > 0 && s.bytes+len(e.Body) > s.bounds.Bytes {
			s.found.Next, s.full = e.Sequence, true
			return
		}
		s.found.Entries = append(s.found.Entries, e)
		s.bytes += len(e.Body)
	}
	s.found.Next = e.Sequence + 1
	if newest {
		s.found.Next = e.Sequence - 1
	}
	s.look()
	s.full = s.full || len(s.found.Entries) == s.bounds.Events
}

// look counts what was looked at.
func (s *search) look() {
	s.looked++
	s.full = s.full || s.looked >= s.bounds.Look
}

// LastEvent returns the number of the last event of the log, 0 if there is none.
//
// Errors: those of tokenizer.Store.Entries.
func (x *Index) LastEvent(ctx context.Context) (uint64, error) {
	known := x.Last()
	var failed error
	exists := func(sequence uint64) bool {
		entries, err := x.store.Entries(ctx, sequence-1, 1)
		if err != nil && failed == nil {
			failed = err
		}
		return failed == nil && len(entries) > 0
	}
	step := uint64(1)
	for exists(known + step) {
		known += step
		step *= 2
	}
	// known exists, known+step doesn't.
	known += uint64(sort.Search(int(step-1), func(i int) bool { return !exists(known + uint64(i) + 1) }))
	return known, failed
}
