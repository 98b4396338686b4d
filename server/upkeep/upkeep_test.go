package upkeep_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// refusing is a store that refuses units with some claims.
type refusing struct {
	tokenizer.Store
	why atomic.Pointer[refusal]
}

type refusal struct {
	with func(key []byte) bool
	err  error
}

func (s *refusing) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	why := s.why.Load()
	if why != nil && slices.ContainsFunc(unit.Claims, func(c tokenizer.Claim) bool { return why.with(c.Key) }) {
		return tokenizer.Outcome{}, why.err
	}
	return s.Store.Commit(ctx, unit)
}

var profiles = []tokenizer.Profile{
	{Name: "short", Type: "text", TTL: time.Second},
	{Name: "known", Type: "text", Mode: tokenizer.Convergent, Lookup: true},
}

// start runs a service whose store refuses what it is told to.
func start(t *testing.T) (*servertest.Instance, *refusing, *tokenizer.Tokenizer) {
	t.Helper()
	var store refusing
	in := servertest.Start(t, servertest.Options{
		Profiles: profiles,
		Policy:   "version: 1\nrules:\n  - name: admin\n    callers: [\"spiffe://coatcheck.example/admin\"]\n    actions: [list-keys]\n",
		Upkeep:   upkeep.Config{Sweep: 20 * time.Millisecond, Period: 20 * time.Millisecond},
		Wrap: func(s tokenizer.Store) tokenizer.Store {
			store.Store = s
			return &store
		},
	})
	tokens, err := tokenizer.New(in.Keystore, in.Store, profiles)
	if err != nil {
		t.Fatal(err)
	}
	return in, &store, tokens
}

// fill makes n tokens of a profile, of the values from 0 on, and returns the id of
// the record of the one in the middle.
func fill(t *testing.T, in *servertest.Instance, tokens *tokenizer.Tokenizer, profile string, n int) (middle uint64) {
	t.Helper()
	var reqs []tokenizer.TokenizeRequest
	for i := range n {
		reqs = append(reqs, tokenizer.TokenizeRequest{Profile: profile, Value: tokenizer.NewValue(fmt.Sprint("value ", i))})
	}
	var unit tokenizer.Unit
	results, err := tokens.TokenizeAll(t.Context(), server.DefaultNamespace, reqs, &unit)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unit.Event = func(tokenizer.Outcome) []byte { return []byte(`{"fill":true}`) }
	if _, err := in.Store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	return unit.Records[n/2].ID
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() (string, bool)) {
	t.Helper()
	var now string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var ok bool
		if now, ok = is(); ok {
			return
		}
	}
	t.Fatalf("%s: %s", what, now)
}

// withValue counts the records of a profile that have a value.
func withValue(t *testing.T, in *servertest.Instance, profile string) (n int) {
	t.Helper()
	scanned, err := in.Store.Scan(t.Context(), server.DefaultNamespace, profile, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	found, err := in.Store.Records(t.Context(), scanned.IDs...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Err == nil && len(f.Record.Value) > 0 {
			n++
		}
	}
	return n
}

var refusals = map[string]error{
	"since a call is always faster": tokenizer.ErrConflict,
	"since something is damaged":    fmt.Errorf("%w: a claim", tokenizer.ErrDamaged),
}

// One entry that can't be dealt with holds up none of the others, before it or
// behind it, and is dealt with as soon as it can be.
func TestSweepPassesOneEntry(t *testing.T) {
	for name, err := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, store, tokens := start(t)
			const n = 700 // more than a unit has
			// Before anything is due.
			var id [8]byte
			store.why.Store(&refusal{func(key []byte) bool { return key[0] == 'x' }, tokenizer.ErrConflict})
			binary.BigEndian.PutUint64(id[:], fill(t, in, tokens, "short", n))
			store.why.Store(&refusal{func(key []byte) bool { return key[0] == 'x' && bytes.HasSuffix(key, id[:]) }, err})
			eventually(t, "all but one are shredded", func() (string, bool) {
				left := withValue(t, in, "short")
				return fmt.Sprint(left, " are left"), left == 1
			})
			store.why.Store(nil)
			eventually(t, "the last is shredded", func() (string, bool) {
				left := withValue(t, in, "short")
				return fmt.Sprint(left, " are left"), left == 0
			})
		})
	}
}

// So with entries that are to move to a newer key.
func TestReindexPassesOneEntry(t *testing.T) {
	for name, err := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, store, tokens := start(t)
			const n = 400
			var suffix [8]byte
			binary.BigEndian.PutUint64(suffix[:], ^fill(t, in, tokens, "known", n)) // as in keys of look-ups
			store.why.Store(&refusal{func(key []byte) bool { return key[0] == 'l' && bytes.HasSuffix(key, suffix[:]) }, err})
			k, err := in.Keystore.NewVersion(t.Context(), server.DefaultNamespace, keystore.Index)
			if err != nil {
				t.Fatal(err)
			}
			unit := tokenizer.Unit{Keys: []keystore.WrappedKey{k}, Event: func(tokenizer.Outcome) []byte { return []byte(`{"rotate":true}`) }}
			if _, err := in.Store.Commit(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
			if err := in.Keystore.Reload(t.Context(), server.DefaultNamespace); err != nil {
				t.Fatal(err)
			}
			old := func() (left uint64) {
				keys, err := in.Keystore.Keys(t.Context(), server.DefaultNamespace)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range keys {
					if k.Class == keystore.Index && !k.Active {
						left += k.Count.Records
					}
				}
				return left
			}
			eventually(t, "all but one have moved", func() (string, bool) { return fmt.Sprint(old(), " are left"), old() == 1 })
			store.why.Store(nil)
			eventually(t, "the last has moved", func() (string, bool) { return fmt.Sprint(old(), " are left"), old() == 0 })
		})
	}
}

// What stays as it is is told of once, and not at every look.
func TestSweepTellsOnce(t *testing.T) {
	in, _, _ := start(t)
	// An entry that no version of the sweeper has made.
	bad := append([]byte("x\x07default"), 0, 0, 0, 0, 0, 0, 0, 1, '?')
	unit := tokenizer.Unit{Claims: []tokenizer.Claim{{Key: bad, New: []byte{1}}}, Event: func(tokenizer.Outcome) []byte { return []byte(`{"x":1}`) }}
	if _, err := in.Store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	const told = "due don't open"
	eventually(t, "it is logged", func() (string, bool) { return in.Log.String(), strings.Contains(in.Log.String(), told) })
	time.Sleep(200 * time.Millisecond)
	if n := strings.Count(in.Log.String(), told); n != 1 {
		t.Errorf("told %d times", n)
	}
}
