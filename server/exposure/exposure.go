// Package exposure finds out from the audit log whose data was shown to whom.
//
// An event names the records that a call was about, and the people whom they are about,
// by keyed digests. Find reads the events of a time, and looks in the store for whose the
// digests are. That goes for any number of events and people in bounded memory: rows of
// digests are sorted, in a temporary file if they are many.
//
// A report is a JSON document whose last line is a signature over all before it; see
// Verify.
package exposure

import (
	"context"
	"errors"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// ErrScratch says that a temporary file can't be made, written or read.
var ErrScratch = errors.New("exposure: temporary file")

// Query says which accesses are wanted: those for which all holds that is set.
type Query struct {
	Since, Until time.Time // from the one on and before the other; Until zero is no bound

	Caller, Certificate, Profile string

	// Subject is the name of a person, and names those who are asked about alone.
	Subject string
}

// Finder is where reports come from.
type Finder struct {
	Store     tokenizer.Store
	Tokenizer *tokenizer.Tokenizer
	Namespace string

	// Scratch is the directory of temporary files; "" is that of the system.
	Scratch string

	// Progress, if set, is told now and then how many events have been read.
	Progress func(events uint64)
}

// Found is all accesses of a query. Close frees its memory and its file.
type Found struct {
	query    Query
	facets   []facet
	rows     *sorter // by owner
	evidence Evidence
	damaged  int // records of the store that can't be read
	peers    addresses
}

// Close frees what it takes.
func (f *Found) Close() { f.rows.close() }

// Find finds all accesses of a query.
//
// Errors: ErrScratch, those of tokenizer.Store.Entries and of
// tokenizer.Tokenizer.AuditedTokens, tokenizer.ErrInvalidSubject, or that of ctx.
func (f *Finder) Find(ctx context.Context, q Query) (*Found, error) {
	return f.find(ctx, q, runRows)
}

// find is Find with so many rows in memory at once.
func (f *Finder) find(ctx context.Context, q Query, size int) (*Found, error) {
	g := &gathering{Finder: f, query: q, rows: newSorter(f.Scratch, size), ids: make(map[facet]uint32)}
	defer g.rows.close()
	if q.Subject != "" {
		digests, err := f.Tokenizer.SubjectDigests(ctx, f.Namespace, q.Subject)
		if err != nil {
			return nil, err
		}
		for _, d := range digests {
			if r, ok := digestRef(kindSubject, d); ok {
				g.wanted = append(g.wanted, r)
			}
		}
	}
	if err := g.events(ctx); err != nil {
		return nil, err
	}
	found := &Found{query: q, facets: g.facets, evidence: g.evidence, peers: g.peers, rows: newSorter(f.Scratch, size)}
	err := g.attribute(ctx, found, size)
	if err != nil {
		found.Close()
		return nil, err
	}
	return found, nil
}
