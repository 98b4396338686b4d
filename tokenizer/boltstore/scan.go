package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// maxScan is how many records or claims are looked at in one transaction: one
// that stays open keeps the file from using free pages again.
const maxScan = 4096

// maxOutdated is after how many bytes of records Outdated has found enough,
// whatever the limit: there may be large values.
const maxOutdated = 32 << 20

// Outdated goes through the records in the order of ids.
func (s *Store) Outdated(ctx context.Context, namespace string, version uint32, after uint64, limit int) (found tokenizer.Outdated, err error) {
	size := 0
	found.Next, err = s.scan(ctx, after, func(id uint64, stored []byte) (more bool) {
		head, err := tokenizer.ParseRecordHead(id, stored)
		if err == nil && (head.Namespace != namespace || head.KeyVersion == version) {
			return true
		}
		record, err := tokenizer.ParseRecord(id, stored)
		if err != nil {
			found.Unreadable++
			return true
		}
		found.Records = append(found.Records, record)
		size += len(stored)
		return len(found.Records) < limit && size < maxOutdated
	})
	return found, err
}

// Scan goes through the records in the order of ids.
func (s *Store) Scan(ctx context.Context, namespace, profile string, after uint64, limit int) (found tokenizer.Scanned, err error) {
	found.Next, err = s.scan(ctx, after, func(id uint64, stored []byte) (more bool) {
		head, err := tokenizer.ParseRecordHead(id, stored)
		if err != nil || head.Namespace != namespace || profile != "" && head.Profile != profile {
			return true
		}
		found.IDs = append(found.IDs, id)
		return len(found.IDs) < limit
	})
	return found, err
}

// scan shows the records above an id in order, in one transaction, until it has
// shown enough or is told to stop. It returns the last id, or 0 if there are no
// records behind it.
func (s *Store) scan(ctx context.Context, after uint64, show func(id uint64, stored []byte) (more bool)) (next uint64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(recordsBucket).Cursor()
		key, stored := seekPast(cursor, idKey(after))
		for seen, more := 0, true; key != nil; key, stored = cursor.Next() {
			if !more || seen == maxScan {
				return nil
			}
			seen++
			next = binary.BigEndian.Uint64(key)
			more = show(next, stored)
		}
		next = 0
		return nil
	})
	return next, err
}

// seekPast moves a cursor to the first key behind the one that is given.
func seekPast(cursor *bbolt.Cursor, after []byte) (key, value []byte) {
	if key, value = cursor.Seek(after); key != nil && bytes.Equal(key, after) {
		return cursor.Next()
	}
	return key, value
}

// Under looks at all records, or at all claims if those are what is under keys of
// the class, some in each transaction. What is written behind its back is under
// the newest key, or the census has it.
func (s *Store) Under(ctx context.Context, key keystore.KeyID) (under bool, err error) {
	bucket, is := recordsBucket, func(id, stored []byte) bool {
		head, err := tokenizer.ParseRecordHead(binary.BigEndian.Uint64(id), stored)
		return err == nil && (head.DataKey() == key || head.TokenKey() == key)
	}
	if ofClaims(key.Class) {
		bucket, is = claimsBucket, func(_, stored []byte) bool {
			claimed, _, err := parseClaim(stored)
			return err == nil && claimed == key
		}
	}
	var after []byte
	for more := true; more && !under && err == nil; {
		more = false
		err = s.view(ctx, func(tx *bbolt.Tx) error {
			cursor := tx.Bucket(bucket).Cursor()
			at, stored := seekPast(cursor, after)
			for seen := 0; at != nil && !under; at, stored = cursor.Next() {
				if more = seen == maxScan; more {
					return nil
				}
				seen++
				after = append(after[:0], at...)
				under = is(at, stored)
			}
			return nil
		})
	}
	return under, err
}
