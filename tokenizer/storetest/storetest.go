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

	// Damage, if it is not nil, overwrites the stored form of a record with
	// something that is none.
	Damage func(t *testing.T, store tokenizer.Store, id uint64)

	// Files, if it is not nil, returns the names of the files that the store
	// writes by itself, to be searched for what Scrub should have overwritten.
	Files func(store tokenizer.Store) []string
}

// Run runs the contract.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"ids are handed out once":                      testIDs,
		"ids are bounded":                              testIDBounds,
		"a committed unit is there after reopening":    testDurable,
		"a unit is written whole or not at all":        testAtomic,
		"a bad unit fails alone":                       testBadUnit,
		"an id is inserted once":                       testIDTaken,
		"a key version is added once":                  testKeys,
		"records are kept in either form":              testForms,
		"the first claim holds the key":                testClaims,
		"a claim rests on what the key holds":          testClaimRows,
		"claims of a unit are held together":           testClaimsTogether,
		"racing claims have one winner":                testClaimRace,
		"racing changes of a claim are all made":       testClaimChain,
		"a claim is made under the newest key":         testClaimUnder,
		"claims are counted under their keys":          testClaimCensus,
		"a claim keeps its key":                        testClaimRetire,
		"claims are read in pages":                     testClaimPages,
		"a budget is drawn on up to its limit":         testSpends,
		"spends keep to the rules":                     testSpendRules,
		"racing spends keep to the limit":              testSpendRace,
		"members of a budget are counted once":         testMembers,
		"racing members are counted once":              testMemberRace,
		"budgets expire":                               testExpireBudgets,
		"many budgets expire in parts":                 testExpireMany,
		"a state is changed if it is what it was":      testStates,
		"states keep to the rules":                     testStateRules,
		"racing changes of a state are all made":       testStateChain,
		"states are read in pages":                     testStatePages,
		"the log is chained without gaps":              testLog,
		"racing commits are chained":                   testLogRace,
		"entries are read in pages":                    testLogPages,
		"the context bounds the wait":                  testContext,
		"a failed write leaves nothing":                testFailedWrite,
		"what is read is the reader's own":             testAliasing,
		"missing things are not found":                 testNotFound,
		"many are read at once":                        testMany,
		"a damaged record is alone":                    testDamaged,
		"the census is exact":                          testCensus,
		"what is sealed anew is counted":               testSealedAnew,
		"updates replace what they were made from":     testUpdates,
		"an update that comes too late":                testStale,
		"deletes remove what they were made from":      testDeletes,
		"racing changes of a record have one winner":   testChangeRace,
		"a record needs its keys":                      testKeyMustExist,
		"a record without a token key needs none":      testNoTokenKey,
		"a key is retired when nothing is under it":    testRetire,
		"racing with a retirement loses no key":        testRetireRace,
		"keys are rewrapped once":                      testRewrap,
		"outdated records are found in pages":          testOutdated,
		"records are found by namespace and profile":   testScan,
		"profiles are counted exactly":                 testProfiles,
		"what is deleted is overwritten":               testScrub,
		"scrubbing beside commits and reads is silent": testScrubRace,
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
	if unit.Event == nil {
		unit.Event = event("x")
	}
	outcome, err := s.Commit(ctx, unit)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return outcome
}

// refused commits a unit that is to fail.
func refused(t *testing.T, s tokenizer.Store, want error, unit tokenizer.Unit) {
	t.Helper()
	if unit.Event == nil {
		unit.Event = event("refused")
	}
	if outcome, err := s.Commit(ctx, unit); !errors.Is(err, want) {
		t.Errorf("Commit = %+v, %v; want %v", outcome, err, want)
	}
}

// malformed commits a unit that is against the rules.
func malformed(t *testing.T, s tokenizer.Store, name string, unit tokenizer.Unit) {
	t.Helper()
	if unit.Event == nil {
		unit.Event = event("malformed")
	}
	if _, err := s.Commit(ctx, unit); !errors.Is(err, tokenizer.ErrBadUnit) {
		t.Errorf("%s: error %v", name, err)
	}
}

// record returns a record with every field set but Token, since its token is a
// sealed id.
func record(id uint64) tokenizer.Record {
	return tokenizer.Record{
		ID: id, Namespace: "default", Profile: "card",
		Created: time.Unix(1_700_000_000, 0).UTC(), Expires: time.Unix(1_800_000_000, 0).UTC(),
		KeyVersion: 7, TokenVersion: 3, Check: [4]byte{1, 2, 3, byte(id)},
		State: tokenizer.Revoked, Imported: true, Subject: 99, MaxUses: 5, Uses: 2,
		Value: fmt.Appendf(nil, "ciphertext %d", id), Details: []byte("details"),
	}
}

// legacy returns a record in the form of before there were lives of tokens.
func legacy(id uint64) tokenizer.Record {
	r := record(id)
	r.Legacy, r.Expires = true, time.Time{}
	r.State, r.Imported, r.Subject, r.MaxUses, r.Uses = tokenizer.Active, false, 0, 0, 0
	return r
}

// changed returns an update of a record.
func changed(old tokenizer.Record, change func(*tokenizer.Record)) tokenizer.Update {
	u := tokenizer.Update{Old: old, New: old}
	change(&u.New)
	return u
}

func wantRecord(t *testing.T, s tokenizer.Store, want tokenizer.Record) {
	t.Helper()
	found, err := s.Records(ctx, want.ID)
	if err != nil || len(found) != 1 || found[0].Err != nil {
		t.Fatalf("Records(%d): %+v, %v", want.ID, found, err)
	}
	if got := found[0].Record; !got.Equal(want) {
		t.Fatalf("Records(%d) = %+v, want %+v", want.ID, got, want)
	}
}

func wantNoRecord(t *testing.T, s tokenizer.Store, id uint64) {
	t.Helper()
	found, err := s.Records(ctx, id)
	if err != nil || len(found) != 1 || !errors.Is(found[0].Err, tokenizer.ErrNotFound) || !found[0].Record.Equal(tokenizer.Record{}) {
		t.Fatalf("Records(%d): %+v, %v; want ErrNotFound", id, found, err)
	}
}

// wantClaim compares what a key holds, "" for nothing.
func wantClaim(t *testing.T, s tokenizer.Store, key, want string) {
	t.Helper()
	values, err := s.Claimed(ctx, []byte(key))
	if err != nil || len(values) != 1 || string(values[0]) != want || (values[0] == nil) != (want == "") {
		t.Fatalf("Claimed(%q) = %q, %v; want %q", key, values, err, want)
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
