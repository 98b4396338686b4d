package exposure

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// tally is what there was of accesses to the data of one owner.
type tally struct {
	records, accesses uint64
	first, last       time.Time
	facets            map[uint32]use
	profiles          map[string]uint64 // records of each
	events            []uint64          // the first, in order
	more              bool              // there are more of them
}

// use is what there was of one facet.
type use struct {
	accesses    uint64
	first, last time.Time
}

// owners goes through the owners of what was accessed. The tally is good until the next.
func (f *Found) owners(do func(ref, *tally) error) error {
	t := &tally{facets: make(map[uint32]use), profiles: make(map[string]uint64)}
	var owner, record ref
	err := f.rows.each(func(r *row) error {
		if at := r.by(); at != owner {
			if t.accesses > 0 {
				if err := do(owner, t); err != nil {
					return err
				}
			}
			clear(t.facets)
			clear(t.profiles)
			*t = tally{facets: t.facets, profiles: t.profiles, events: t.events[:0]}
			owner, record = at, ref{}
		}
		if at := r.other(); at != record {
			record = at
			t.records++
			t.profiles[f.facets[r.facet()].profile]++
		}
		t.access(r.facet(), r.event(), r.time())
		return nil
	})
	if err != nil || t.accesses == 0 {
		return err
	}
	return do(owner, t)
}

// access counts an access.
func (t *tally) access(facet uint32, event uint64, at time.Time) {
	t.accesses++
	u := t.facets[facet]
	u.accesses++
	u.first, u.last = *earlier(orNone(u.first), at), *later(orNone(u.last), at)
	t.facets[facet] = u
	t.first, t.last = *earlier(orNone(t.first), at), *later(orNone(t.last), at)
	i, known := slices.BinarySearch(t.events, event)
	switch {
	case known:
		return
	case len(t.events) == maxEvents && i == maxEvents:
		t.more = true
		return
	case len(t.events) == maxEvents:
		t.more, t.events = true, t.events[:maxEvents-1]
	}
	t.events = slices.Insert(t.events, i, event)
}

// person returns the line of a report, without who it is.
func (t *tally) person(facets []facet) *Person {
	p := &Person{
		Records: t.records, Accesses: t.accesses, First: t.first, Last: t.last,
		Events: slices.Clone(t.events), MoreEvents: t.more,
	}
	reveals := make(map[string][]string)
	for id := range t.facets {
		f := facets[id]
		if !slices.Contains(reveals[f.profile], f.reveal) {
			reveals[f.profile] = append(reveals[f.profile], f.reveal)
		}
		if !slices.Contains(p.Purposes, f.purpose) {
			p.Purposes = append(p.Purposes, f.purpose)
		}
	}
	slices.Sort(p.Purposes)
	for _, name := range sorted(reveals) {
		slices.Sort(reveals[name])
		p.Profiles = append(p.Profiles, PersonProfile{name, t.profiles[name], reveals[name]})
	}
	return p
}

func orNone(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// earlier returns the earlier of two times, of which one may be missing.
func earlier(a *time.Time, b time.Time) *time.Time {
	if a == nil || b.Before(*a) {
		return &b
	}
	return a
}

// later is earlier the other way round.
func later(a *time.Time, b time.Time) *time.Time {
	if a == nil || b.After(*a) {
		return &b
	}
	return a
}

func compareCallers(a, b CallerTotal) int {
	return cmp.Or(cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Certificate, b.Certificate))
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
