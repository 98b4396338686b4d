package boltstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A layer whose changes lie all over the file is written in parts, each change in one of
// them, and only the last says that it is there.
func TestALayerIsWrittenInParts(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	commitEvent(t, s)
	follow(t, s)
	layerOf := func(from, value int) *layer {
		l := &layer{}
		var changes []change
		for i := from; i < 50_000; i += 2 {
			changes = append(changes, change{claimsID, fmt.Sprintf("%08d", i), fmt.Appendf(nil, "%d", value)})
		}
		changes = append(changes, change{profilesID, "p", fmt.Appendf(nil, "%d", value)})
		l.add(s.journal.Released(), changes)
		return l
	}
	whole, parts, fail := s.update, 0, 0
	write := func(l *layer) error {
		return s.withFile(context.Background(), func() error {
			parts = 0
			s.update = func(fn func(*bbolt.Tx) error) error {
				if parts++; parts == fail {
					return diskFullError
				}
				return whole(fn)
			}
			defer func() { s.update = whole }()
			return s.writeLayer(l)
		})
	}
	count := func(value int) (n int) {
		t.Helper()
		err := s.read(t.Context(), func(v *view) error {
			v.bucket(claimsID).ascend(nil, func(_, stored []byte) bool {
				if string(stored) == fmt.Sprint(value) {
					n++
				}
				return true
			})
			return nil
		}, claimsID)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// Behind all that there is.
	if err := write(layerOf(0, 1)); err != nil || parts != 1 {
		t.Fatalf("%d parts, %v; want one", parts, err)
	}
	// Between it.
	if err := write(layerOf(1, 2)); err != nil || parts < 3 || count(1) != 25_000 || count(2) != 25_000 {
		t.Fatalf("%d parts, %v, %d and %d entries", parts, err, count(1), count(2))
	}
	// A part that fails.
	fail = 2
	if err := write(layerOf(1, 3)); !errors.Is(err, diskFullError) {
		t.Fatal(err)
	}
	if n := count(3); n == 0 || n == 25_000 {
		t.Fatalf("%d entries are of a layer of which a part failed", n)
	}
	fail = 0
	if err := write(layerOf(1, 3)); err != nil || count(3) != 25_000 {
		t.Fatalf("%v, %d entries when it is written again", err, count(3))
	}
	take := &layer{} // and now all goes
	var changes []change
	for i := range 50_000 {
		changes = append(changes, change{claimsID, fmt.Sprintf("%08d", i), nil})
	}
	take.add(s.journal.Released(), append(changes, change{profilesID, "p", nil}))
	if err := write(take); err != nil || count(1)+count(3) != 0 {
		t.Fatalf("%v, %d entries are left", err, count(1)+count(3))
	}
	if _, err := s.Commit(t.Context(), tokenizer.Unit{Event: event}); err != nil {
		t.Fatal(err)
	}
}
