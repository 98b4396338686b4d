package boltstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// What is in files for good. None of it is ever changed: a new form gets a new
// storeFormat, and Open learns to upgrade.
func TestPersistedForms(t *testing.T) {
	index := keystore.KeyID{Namespace: "default", Class: keystore.Index, Version: 5}
	subject := keystore.KeyID{Namespace: "n", Class: keystore.Subject, Version: math.MaxUint32}
	card := profileID{"default", "card"}
	daily := tokenizer.Budget{ID: [16]byte{1, 2}, Expires: time.Unix(1_699_950_208, 5)}
	for _, row := range []struct {
		name string
		got  []byte
		want string
	}{
		{"format", []byte{storeFormat}, "05"},
		{"id", idKey(258), "0000000000000102"},
		{"claim", claimForm(nil, index, []byte("value")), "0305" + "07" + hex.EncodeToString([]byte("defaultvalue"))},
		{"claim under the last key", claimForm(nil, subject, []byte{0}), "04ffffffff0f" + "01" + "6e" + "00"},
		{"claim under no key", claimForm(nil, keystore.KeyID{}, []byte("value")), "00" + hex.EncodeToString([]byte("value"))},
		{"name of a key", keyName(index), "0007" + hex.EncodeToString([]byte("default")) + "03" + "00000005"},
		{"row of the census", tally{1, 2, 3}.row(keyName(index)), "000000000000000100000000000000020000000000000003" + "214c9fdc"},
		{"name of a profile", card.name(), "0007" + hex.EncodeToString([]byte("defaultcard"))},
		{"row of a profile", countForm(card.name(), 4), "0000000000000004" + "751a8732"},
		{"key of a budget", budgetKey(nil, daily), "0000000065532e80" + "0102" + strings.Repeat("00", 14)},
		{"row of a budget", countForm(budgetKey(nil, daily), 4), "0000000000000004" + "85f48b9a"},
	} {
		if got := hex.EncodeToString(row.got); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	var names []string
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			names = append(names, string(name))
			return nil
		})
	})
	if want := "budgets census claims keys log meta profiles records states"; err != nil || strings.Join(names, " ") != want {
		t.Errorf("buckets %v, %v; want %s", names, err, want)
	}
}

func TestMalformedClaims(t *testing.T) {
	for name, stored := range map[string][]byte{
		"empty":                   {},
		"no value":                {0},
		"a data key":              {1, 1, 1, 'n', 'v'},
		"an audit key":            {5, 1, 1, 'n', 'v'},
		"no such class":           {9, 1, 1, 'n', 'v'},
		"version 0":               {3, 0, 1, 'n', 'v'},
		"version not in short":    {3, 0x81, 0, 1, 'n', 'v'},
		"version too large":       {3, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 'n', 'v'},
		"no namespace":            {3, 1},
		"length not in short":     {3, 1, 0x81, 0, 'n', 'v'},
		"namespace beyond end":    {3, 1, 5, 'n', 'v'},
		"no value behind the key": {3, 1, 1, 'n'},
	} {
		if under, value, err := parseClaim(stored); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Errorf("%s: %v, %x, %v", name, under, value, err)
		}
	}
}

// What parses is written again byte for byte, and whatever else is refused.
func FuzzClaim(f *testing.F) {
	f.Add(claimForm(nil, keystore.KeyID{}, []byte("value")))
	f.Add(claimForm(nil, keystore.KeyID{Namespace: "default", Class: keystore.Index, Version: 300}, []byte("value")))
	f.Add([]byte{3, 0x81, 0, 0, 1})
	f.Fuzz(func(t *testing.T, stored []byte) {
		under, value, err := parseClaim(stored)
		if err != nil {
			if !errors.Is(err, tokenizer.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if len(value) == 0 || !bytes.Equal(claimForm(nil, under, value), stored) {
			t.Fatalf("%x is %v, %x", stored, under, value)
		}
	})
}

// filled is a store with a record, and claims under an index key and under none.
func filled(t *testing.T) (*Store, tokenizer.Record) {
	t.Helper()
	ctx, s := context.Background(), open(t, filepath.Join(t.TempDir(), "store.db"))
	var keys []keystore.WrappedKey
	for _, class := range []keystore.Class{keystore.Data, keystore.Token, keystore.Index} {
		keys = append(keys, keystore.WrappedKey{Namespace: "default", Class: class, Version: 1, Created: time.Unix(1, 0).UTC(), Wrapped: []byte("wrapped")})
	}
	id, err := s.ReserveIDs(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	record := tokenizer.Record{ID: id, Namespace: "default", Profile: "card", KeyVersion: 1, TokenVersion: 1, Value: []byte("sealed"), Created: time.Unix(1, 0).UTC()}
	claims := []tokenizer.Claim{
		{Key: []byte("a"), New: []byte("v"), Under: keystore.KeyID{Namespace: "default", Class: keystore.Index, Version: 1}},
		{Key: []byte("b"), New: []byte("v")},
	}
	for _, unit := range []tokenizer.Unit{{Keys: keys}, {Records: []tokenizer.Record{record}, Claims: claims}} {
		unit.Event = event
		if _, err := s.Commit(ctx, unit); err != nil {
			t.Fatal(err)
		}
	}
	return s, record
}

// flip makes each bit of what is stored the other, in turn.
func flip(t *testing.T, s *Store, bucket, key []byte, size int, check func(bit int)) {
	t.Helper()
	for bit := range 8 * size {
		other := func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b }
		edit(t, s, bucket, key, other)
		check(bit)
		edit(t, s, bucket, key, other)
	}
}

// A bit of the count of a profile that flips is found before anything is done by
// it, and spoils nobody else's unit.
func TestDamagedProfile(t *testing.T) {
	ctx := context.Background()
	s, record := filled(t)
	defer closeChecked(t, s)
	flip(t, s, profilesBucket, profileID{"default", "card"}.name(), countSize, func(bit int) {
		if _, err := s.Profiles(ctx, "default"); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Profiles: %v", bit, err)
		}
		if _, err := s.Commit(ctx, tokenizer.Unit{Deletes: []tokenizer.Record{record}, Event: event}); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Commit: %v", bit, err)
		}
		if _, err := s.Profiles(ctx, "other"); err != nil {
			t.Fatalf("bit %d: another namespace: %v", bit, err)
		}
	})
	if got, err := s.Profiles(ctx, "default"); err != nil || got["card"] != 1 {
		t.Errorf("Profiles = %v, %v", got, err)
	}
}

// A bit of what a budget has come to that flips doesn't open it.
func TestDamagedBudget(t *testing.T) {
	ctx, s := context.Background(), open(t, filepath.Join(t.TempDir(), "store.db"))
	defer closeChecked(t, s)
	budget, other := tokenizer.Budget{ID: [16]byte{1}, Expires: time.Unix(1, 0)}, tokenizer.Budget{ID: [16]byte{2}, Expires: time.Unix(1, 0)}
	spend := func(b tokenizer.Budget) error {
		_, err := s.Commit(ctx, tokenizer.Unit{Spends: []tokenizer.Spend{{Budget: b, Limit: 1000, Amount: 1}}, Event: event})
		return err
	}
	if err := spend(budget); err != nil {
		t.Fatal(err)
	}
	flip(t, s, bucketNames[budgetsID], budgetKey(nil, budget), countSize, func(bit int) {
		if _, err := s.Spent(ctx, other, budget); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Spent: %v", bit, err)
		}
		if err := spend(budget); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Commit: %v", bit, err)
		}
		if err := spend(other); err != nil {
			t.Fatalf("bit %d: another budget: %v", bit, err)
		}
	})
	if got, err := s.Spent(ctx, budget); err != nil || got[0] != 1 {
		t.Errorf("Spent = %d, %v", got, err)
	}
}

// No count falls below what it counts: who would take away more than there is
// finds that something is damaged.
func TestCountsTooLow(t *testing.T) {
	ctx := context.Background()
	s, record := filled(t)
	defer closeChecked(t, s)
	moved := record
	moved.Uses++
	remove := tokenizer.Unit{Deletes: []tokenizer.Record{record}, Event: event}
	update := tokenizer.Unit{Updates: []tokenizer.Update{{Old: record, New: moved}}, Event: event}
	release := tokenizer.Unit{Claims: []tokenizer.Claim{{Key: []byte("a"), Old: []byte("v")}}, Event: event}
	profile := profileID{"default", "card"}.name()
	key := func(class keystore.Class) []byte {
		return keyName(keystore.KeyID{Namespace: "default", Class: class, Version: 1})
	}
	none := func(name []byte) func([]byte) []byte {
		return func([]byte) []byte { return tally{}.row(name) }
	}
	for name, row := range map[string]struct {
		bucket, key []byte
		change      func([]byte) []byte
		units       []tokenizer.Unit
	}{
		"data key":  {censusBucket, key(keystore.Data), none(key(keystore.Data)), []tokenizer.Unit{remove, update}},
		"token key": {censusBucket, key(keystore.Token), none(key(keystore.Token)), []tokenizer.Unit{remove}},
		"index key": {censusBucket, key(keystore.Index), none(key(keystore.Index)), []tokenizer.Unit{release}},
		"profile":   {profilesBucket, profile, func([]byte) []byte { return countForm(profile, 0) }, []tokenizer.Unit{remove}},
	} {
		var was []byte
		edit(t, s, row.bucket, row.key, func(b []byte) []byte { was = b; return row.change(b) })
		for _, unit := range row.units {
			if _, err := s.Commit(ctx, unit); !errors.Is(err, tokenizer.ErrDamaged) {
				t.Errorf("%s: Commit: %v, want ErrDamaged", name, err)
			}
		}
		edit(t, s, row.bucket, row.key, func([]byte) []byte { return was })
	}
	for _, unit := range []tokenizer.Unit{release, remove} {
		if _, err := s.Commit(ctx, unit); err != nil {
			t.Errorf("with all as it was: %v", err)
		}
	}
}

// A claim that doesn't parse is nobody's: it is neither replaced nor passed over.
func TestDamagedClaim(t *testing.T) {
	ctx := context.Background()
	s, _ := filled(t)
	defer closeChecked(t, s)
	edit(t, s, claimsBucket, []byte("a"), func(b []byte) []byte { b[0] = byte(keystore.Data); return b })
	if values, err := s.Claimed(ctx, []byte("b"), []byte("a"), []byte("c")); err != nil || string(values[0]) != "v" || values[1] == nil || len(values[1]) != 0 || values[2] != nil {
		t.Errorf("Claimed: %q, %v", values, err)
	}
	if all, err := s.Claims(ctx, nil, nil, 10); err != nil || len(all) != 2 || len(all[0].Value) != 0 || string(all[0].Key) != "a" || string(all[1].Value) != "v" {
		t.Errorf("Claims: %q, %v", all, err)
	}
	for _, old := range [][]byte{nil, []byte("v")} {
		if _, err := s.Commit(ctx, tokenizer.Unit{Claims: []tokenizer.Claim{{Key: []byte("a"), Old: old, New: []byte("w")}}, Event: event}); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Errorf("Commit: %v", err)
		}
	}
	if values, err := s.Claimed(ctx, []byte("b")); err != nil || string(values[0]) != "v" {
		t.Errorf("another claim: %q, %v", values, err)
	}
	if _, err := s.Commit(ctx, tokenizer.Unit{Claims: []tokenizer.Claim{{Key: []byte("b"), Old: []byte("v")}}, Event: event}); err != nil {
		t.Errorf("another claim: %v", err)
	}
}

// A page that bbolt can't read costs the records that are on it, and no others.
func TestDamagedPage(t *testing.T) {
	ctx := context.Background()
	s, small := filled(t)
	large := small
	large.ID++
	large.Value = bytes.Repeat([]byte("<large value>"), 10_000)
	small2 := small
	small2.ID += 2
	if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{large, small2}, Event: event}); err != nil {
		t.Fatal(err)
	}
	// Records above and below, so that the large one has a page of its own.
	var unit tokenizer.Unit
	for i := range uint64(2000) {
		r := small
		r.ID = large.ID + 2 + i
		unit.Records = append(unit.Records, r)
	}
	unit.Event = event
	if _, err := s.Commit(ctx, unit); err != nil {
		t.Fatal(err)
	}
	if err := s.Scrub(ctx); err != nil { // so that the page is the only one with the value
		t.Fatal(err)
	}
	content, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	page := int64(bytes.Index(content, []byte("<large value>"))) &^ int64(s.db.Info().PageSize-1)
	if _, err := s.bolt.WriteAt(bytes.Repeat([]byte{0xff}, 16), page); err != nil {
		t.Fatal(err)
	}
	last := unit.Records[len(unit.Records)-1].ID
	found, err := s.Records(ctx, large.ID, last, last+1)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(found[0].Err, tokenizer.ErrDamaged) || found[1].Err != nil || !errors.Is(found[2].Err, tokenizer.ErrNotFound) {
		t.Errorf("%v, %v, %v", found[0].Err, found[1].Err, found[2].Err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func readAll(s *Store) ([]byte, error) {
	info, err := s.bolt.Stat()
	if err != nil {
		return nil, err
	}
	content := make([]byte, info.Size())
	_, err = s.bolt.ReadAt(content, 0)
	return content, err
}
