package boltstore

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// A bit of the census that flips is found before anything is done by it, and
// spoils nobody else's unit.
func TestDamagedCensus(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	key := func(class keystore.Class, version uint32) keystore.WrappedKey {
		return keystore.WrappedKey{Namespace: "default", Class: class, Version: version, Created: time.Unix(1, 0).UTC(), Wrapped: []byte("wrapped")}
	}
	id, err := s.ReserveIDs(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(ctx, tokenizer.Unit{Keys: []keystore.WrappedKey{key(keystore.Data, 1), key(keystore.Data, 2), key(keystore.Token, 1)}, Event: event})
	if err != nil {
		t.Fatal(err)
	}
	record := tokenizer.Record{ID: id, Namespace: "default", Profile: "card", KeyVersion: 1, TokenVersion: 1, Value: []byte("sealed")}
	if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{record}, Event: event}); err != nil {
		t.Fatal(err)
	}
	row := keyName(record.DataKey())
	for bit := range 8 * tallySize {
		flip := func() {
			edit(t, s, censusBucket, row, func(b []byte) []byte {
				b[bit/8] ^= 1 << (bit % 8)
				return b
			})
		}
		flip()
		if _, err := s.Census(ctx, "default"); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Census: %v", bit, err)
		}
		if _, err := s.Commit(ctx, tokenizer.Unit{Retire: record.DataKey(), Event: event}); !errors.Is(err, tokenizer.ErrDamaged) {
			t.Fatalf("bit %d: Retire: %v", bit, err)
		}
		if _, err := s.Commit(ctx, tokenizer.Unit{Event: event}); err != nil {
			t.Fatalf("bit %d: another unit: %v", bit, err)
		}
		flip()
	}
	if _, err := s.Census(ctx, "default"); err != nil {
		t.Error(err)
	}
	closeChecked(t, s)
}
