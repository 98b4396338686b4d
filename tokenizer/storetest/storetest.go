// Package storetest holds the contract that every tokenizer.Store passes.
//
// A backend's test is a Harness and a call of Run. The suite works through the
// interface alone and reopens the store where a promise is about what is
// durable.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Harness makes the stores under test.
type Harness struct {
	// Open opens a store on data of its own, empty, and returns it with a
	// function that opens the same data again. The second closes or abandons
	// what was open before, as a crash would, as far as the backend can.
	// Cleaning up is the harness's business (t.Cleanup).
	Open func(t *testing.T) (store tokenizer.Store, reopen func() tokenizer.Store)

	// Fail makes the next write of the store fail as a full disk would, once.
	Fail func(store tokenizer.Store)
}

// Run runs the contract.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"ids are handed out once":                   testIDs,
		"ids are bounded":                           testIDBounds,
		"a committed unit is there after reopening": testDurable,
		"a unit is written whole or not at all":     testAtomic,
		"a bad unit fails alone":                    testBadUnit,
		"an id is inserted once":                    testIDTaken,
		"a key version is added once":               testKeys,
		"the first claim holds the key":             testClaims,
		"claims within a unit are settled in order": testClaimsInUnit,
		"racing claims have one winner":             testClaimRace,
		"the log is chained without gaps":           testLog,
		"racing commits are chained":                testLogRace,
		"entries are read in pages":                 testLogPages,
		"the context bounds the wait":               testContext,
		"a failed write leaves nothing":             testFailedWrite,
		"what is read is the reader's own":          testAliasing,
		"missing things are not found":              testNotFound,
		"the census is exact":                       testCensus,
		"updates replace what they were made from":  testUpdates,
		"a record needs its keys":                   testKeyMustExist,
		"a key is retired when nothing is under it": testRetire,
		"racing with a retirement loses no key":     testRetireRace,
		"keys are rewrapped once":                   testRewrap,
		"outdated records are found in pages":       testOutdated,
	} {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}

var ctx = context.Background()

// event returns an Event with a fixed body.
func event(body string) func(tokenizer.Outcome) []byte {
	return func(tokenizer.Outcome) []byte { return []byte(body) }
}

func reserve(t *testing.T, s tokenizer.Store, n int) uint64 {
	t.Helper()
	first, err := s.ReserveIDs(ctx, n)
	if err != nil {
		t.Fatalf("ReserveIDs(%d): %v", n, err)
	}
	return first
}

func commit(t *testing.T, s tokenizer.Store, unit tokenizer.Unit) tokenizer.Outcome {
	t.Helper()
	outcome, err := s.Commit(ctx, unit)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return outcome
}

// record returns a record with every field set.
func record(id uint64) tokenizer.Record {
	return tokenizer.Record{
		ID: id, Namespace: "default", Profile: "card",
		Created: time.Unix(1_700_000_000, 0).UTC(), KeyVersion: 7, TokenVersion: 3,
		Check: [4]byte{1, 2, 3, byte(id)},
		Value: fmt.Appendf(nil, "ciphertext %d", id), Metadata: []byte("labels"),
	}
}

func wantRecord(t *testing.T, s tokenizer.Store, want tokenizer.Record) {
	t.Helper()
	got, err := s.Record(ctx, want.ID)
	if err != nil {
		t.Fatalf("Record(%d): %v", want.ID, err)
	}
	if !got.Equal(want) {
		t.Fatalf("Record(%d) = %+v, want %+v", want.ID, got, want)
	}
}

func wantNoRecord(t *testing.T, s tokenizer.Store, id uint64) {
	t.Helper()
	if _, err := s.Record(ctx, id); !errors.Is(err, tokenizer.ErrNotFound) {
		t.Fatalf("Record(%d): error %v, want ErrNotFound", id, err)
	}
}

// readLog returns the whole log, but for the event of the suite's own keys,
// after checking that it is chained.
func readLog(t *testing.T, s tokenizer.Store) []tokenizer.Entry {
	t.Helper()
	entries, err := s.Entries(ctx, 0, 1<<20)
	if err != nil {
		t.Fatalf("Entries: %v", err)
	}
	head := tokenizer.Genesis(s.LogID())
	for i, e := range entries {
		if e.Sequence != uint64(i)+1 || e.Prev != head {
			t.Fatalf("entry %d has sequence %d, prev %s; want prev %s", i, e.Sequence, e.Prev, head)
		}
		head = e.Hash()
	}
	if len(entries) > 0 && string(entries[0].Body) == keysBody {
		return entries[1:]
	}
	return entries
}
