package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Upgraded says whether Open has brought the file from an earlier format to the
// one of this version. Earlier versions can't read it any more.
func (s *Store) Upgraded() bool { return s.upgraded }

// upgrade brings a store of an earlier version to this one.
func upgrade(tx *bbolt.Tx) (upgraded bool, err error) {
	meta := tx.Bucket(metaBucket)
	f := meta.Get(formatKey)
	if len(f) != 1 || f[0] == 0 || f[0] > storeFormat {
		return false, ErrFormat
	}
	format := f[0]
	if format == storeFormat {
		return false, nil
	}
	if format < 3 {
		if err := count(tx, format == 1); err != nil {
			return false, err
		}
	}
	for _, id := range [...]bucketID{budgetsID, statesID} {
		if _, err := tx.CreateBucketIfNotExists(bucketNames[id]); err != nil {
			return false, err
		}
	}
	return true, meta.Put(formatKey, []byte{storeFormat})
}

// count makes the counts that a store of format 1 or 2 lacks, those of keys included
// if the census has to be made.
func count(tx *bbolt.Tx, census bool) error {
	buckets := [][]byte{recordsBucket, claimsBucket, keysBucket}
	if !census {
		buckets = append(buckets, censusBucket)
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: no bucket %s", tokenizer.ErrDamaged, name)
		}
	}
	if key, _ := tx.Bucket(claimsBucket).Cursor().First(); key != nil {
		return fmt.Errorf("%w: claims in a form that nothing made", tokenizer.ErrDamaged)
	}
	if _, err := tx.CreateBucketIfNotExists(profilesBucket); err != nil {
		return err
	}
	if census {
		if _, err := tx.CreateBucketIfNotExists(censusBucket); err != nil {
			return err
		}
	}
	return countAll(tx, census)
}

// countAll makes the rows of a store that has none: those of profiles, and of
// keys unless the census is there already.
func countAll(tx *bbolt.Tx, census bool) error {
	c := newCounts(tx.Bucket(keysBucket), tx.Bucket(censusBucket), tx.Bucket(profilesBucket))
	if census {
		if err := c.addAll(tx.Bucket(keysBucket)); err != nil {
			return err
		}
	}
	err := tx.Bucket(recordsBucket).ForEach(func(key, stored []byte) error {
		if len(key) != 8 {
			return fmt.Errorf("%w: a record without an id", tokenizer.ErrDamaged)
		}
		r, err := tokenizer.ParseRecord(binary.BigEndian.Uint64(key), stored)
		if errors.Is(err, tokenizer.ErrDamaged) {
			return nil // it can't be opened, so it needs no key
		}
		if !census {
			return c.countProfile(&r)
		}
		for _, id := range []keystore.KeyID{r.DataKey(), r.TokenKey()} {
			if c.rows[id] == nil { // lost: the version must not be used again
				c.rows[id] = &row{}
			}
		}
		h, err := c.home(&r)
		if err != nil {
			return err
		}
		h.add(r.Ciphertexts())
		return nil
	})
	if err != nil {
		return err
	}
	return c.flush()
}

// addAll makes rows of the keys that there are.
func (c *counts) addAll(keys *bbolt.Bucket) error {
	return keys.ForEach(func(name, stored []byte) error {
		k, err := keystore.ParseWrappedKey(stored)
		if err != nil || !bytes.Equal(keyName(k.ID()), name) {
			return fmt.Errorf("%w: a wrapped key", tokenizer.ErrDamaged)
		}
		c.add(k.ID())
		return nil
	})
}
