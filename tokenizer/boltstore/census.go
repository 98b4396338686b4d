package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// The census has a row for each key version that is or ever was, under the
// name that the key has in the bucket of keys:
//
//	records(8) sealed(8) moved(8) checksum(4)
//
// records is how many records are under the key, sealed how many ciphertexts of
// it were ever stored, and moved how many of those came with updates; big
// endian. The checksum is CRC-32C of the name and what comes before it: a bit
// that flips in a count must not let a key go that is needed. A row outlives its key, so that the version
// is not used again: not after the key was retired, not after it was lost.
//
// Rows change in the transaction that changes what they count.

// tally is a row.
type tally struct{ records, sealed, moved uint64 }

const tallySize = 24 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func tallyChecksum(name, counts []byte) uint32 {
	return crc32.Update(crc32.Checksum(name, castagnoli), castagnoli, counts)
}

func parseTally(name, b []byte) (tally, error) {
	if len(b) != tallySize || binary.BigEndian.Uint32(b[24:]) != tallyChecksum(name, b[:24]) {
		return tally{}, fmt.Errorf("%w: a row of the census", tokenizer.ErrDamaged)
	}
	return tally{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, nil
}

func (c tally) row(name []byte) []byte {
	b := make([]byte, 0, tallySize)
	for _, n := range [...]uint64{c.records, c.sealed, c.moved} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return binary.BigEndian.AppendUint32(b, tallyChecksum(name, b))
}

// counts are rows as a transaction will leave them, by name of the key.
type counts struct {
	keys, census *bbolt.Bucket
	rows         map[keystore.KeyID]*row
}

// row is a row in a transaction.
type row struct {
	tally
	exists bool // the key is on the shelf
	dirty  bool
}

func newCounts(tx *bbolt.Tx) counts {
	return counts{tx.Bucket(keysBucket), tx.Bucket(censusBucket), make(map[keystore.KeyID]*row)}
}

// row returns the row of a key, or nil if there is no such key and never was.
func (c counts) row(id keystore.KeyID) (*row, error) {
	if r, ok := c.rows[id]; ok {
		return r, nil
	}
	name := keyName(id)
	stored := c.census.Get(name)
	exists := c.keys.Get(name) != nil
	if stored == nil {
		if exists {
			return nil, fmt.Errorf("%w: the census lacks %v", tokenizer.ErrDamaged, id)
		}
		return nil, nil
	}
	t, err := parseTally(name, stored)
	if err != nil {
		return nil, err
	}
	r := &row{tally: t, exists: exists}
	c.rows[id] = r
	return r, nil
}

// usable refuses a key that is not on the shelf.
func (c counts) usable(id keystore.KeyID) error {
	r, err := c.row(id)
	if err == nil && (r == nil || !r.exists) {
		err = fmt.Errorf("%w: %v", keystore.ErrKeyVersion, id)
	}
	return err
}

// add makes the row of a new key.
func (c counts) add(id keystore.KeyID) { c.rows[id] = &row{exists: true, dirty: true} }

// inserted counts a record. Its keys are usable.
func (c counts) inserted(r tokenizer.Record) {
	data, token := c.rows[r.DataKey()], c.rows[r.TokenKey()]
	data.records++
	data.sealed += r.Ciphertexts()
	token.records++
	data.dirty, token.dirty = true, true
}

// updated counts a record that takes the place of another. Both keys have rows.
func (c counts) updated(u tokenizer.Update) {
	from, to := c.rows[u.Old.DataKey()], c.rows[u.New.DataKey()]
	from.records--
	to.records++
	if !bytes.Equal(u.Old.Value, u.New.Value) || !bytes.Equal(u.Old.Metadata, u.New.Metadata) {
		to.sealed += u.New.Ciphertexts()
		to.moved += u.New.Ciphertexts()
	}
	from.dirty, to.dirty = true, true
}

// flush writes the rows that changed.
func (c counts) flush() error {
	for id, r := range c.rows {
		if !r.dirty {
			continue
		}
		name := keyName(id)
		if err := c.census.Put(name, r.row(name)); err != nil {
			return err
		}
	}
	return nil
}

// countAll makes the census of a store that has none.
func countAll(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(censusBucket); err != nil {
		return err
	}
	c := newCounts(tx)
	err := c.keys.ForEach(func(name, stored []byte) error {
		k, err := keystore.ParseWrappedKey(stored)
		if err != nil || !bytes.Equal(keyName(k.ID()), name) {
			return fmt.Errorf("%w: a wrapped key", tokenizer.ErrDamaged)
		}
		c.add(k.ID())
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(recordsBucket).ForEach(func(key, stored []byte) error {
		if len(key) != 8 {
			return fmt.Errorf("%w: a record without an id", tokenizer.ErrDamaged)
		}
		r, err := tokenizer.ParseRecord(binary.BigEndian.Uint64(key), stored)
		if errors.Is(err, tokenizer.ErrDamaged) {
			return nil // it can't be opened, so it needs no key
		}
		for _, id := range []keystore.KeyID{r.DataKey(), r.TokenKey()} {
			if c.rows[id] == nil { // lost: the version must not be used again
				c.rows[id] = &row{}
			}
		}
		c.inserted(r)
		return nil
	})
	if err != nil {
		return err
	}
	return c.flush()
}

// Census reads the rows of a namespace.
func (s *Store) Census(ctx context.Context, namespace string) (census []keystore.KeyCount, err error) {
	prefix := keysPrefix(namespace)
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		keys, cursor := tx.Bucket(keysBucket), tx.Bucket(censusBucket).Cursor()
		for name, stored := cursor.Seek(prefix); bytes.HasPrefix(name, prefix); name, stored = cursor.Next() {
			t, err := parseTally(name, stored)
			rest := name[len(prefix):]
			if err != nil || len(rest) != 5 {
				return fmt.Errorf("%w: the census of namespace %q", tokenizer.ErrDamaged, namespace)
			}
			census = append(census, keystore.KeyCount{
				ID:      keystore.KeyID{Namespace: namespace, Class: keystore.Class(rest[0]), Version: binary.BigEndian.Uint32(rest[1:])},
				Records: t.records, Sealed: t.sealed, Moved: t.moved, Gone: keys.Get(name) == nil,
			})
		}
		return nil
	})
	return census, err
}

// maxScan is how many records Outdated looks at in one transaction: one that
// stays open keeps the file from using free pages again.
const maxScan = 4096

// Outdated goes through the records in the order of ids.
func (s *Store) Outdated(ctx context.Context, namespace string, version uint32, after uint64, limit int) (found tokenizer.Outdated, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(recordsBucket).Cursor()
		key, stored := cursor.Seek(idKey(after + 1))
		for seen := 0; key != nil; key, stored = cursor.Next() {
			if seen == maxScan || len(found.Records) == limit {
				return nil
			}
			seen++
			found.Next = binary.BigEndian.Uint64(key)
			data, _, err := tokenizer.ParseRecordKeys(found.Next, stored)
			if err == nil && (data.Namespace != namespace || data.Version == version) {
				continue
			}
			record, err := tokenizer.ParseRecord(found.Next, stored)
			if err != nil {
				found.Unreadable++
				continue
			}
			found.Records = append(found.Records, record)
		}
		found.Next = 0
		return nil
	})
	return found, err
}

// Under looks at all records, some in each transaction. Those that are inserted
// behind its back are under the active key, or the census has them.
func (s *Store) Under(ctx context.Context, key keystore.KeyID) (under bool, err error) {
	for after, more := uint64(0), true; more && !under && err == nil; {
		more = false
		err = s.view(ctx, func(tx *bbolt.Tx) error {
			cursor := tx.Bucket(recordsBucket).Cursor()
			id, stored := cursor.Seek(idKey(after + 1))
			for seen := 0; id != nil && seen < maxScan; id, stored = cursor.Next() {
				seen++
				after, more = binary.BigEndian.Uint64(id), true
				data, token, err := tokenizer.ParseRecordKeys(after, stored)
				if err == nil && (data == key || token == key) {
					under = true
					return nil
				}
			}
			return nil
		})
	}
	return under, err
}
