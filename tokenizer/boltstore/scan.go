package boltstore

import (
	"context"
	"encoding/binary"
	"math"
	"slices"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// maxScan is how many records or claims are looked at in one view: one that stays
// open keeps the file from using free pages again.
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

// scan shows the records above an id in order, of one moment, until it has
// shown enough or is told to stop. It returns the last id, or 0 if there are no
// records behind it.
func (s *Store) scan(ctx context.Context, after uint64, show func(id uint64, stored []byte) (more bool)) (next uint64, err error) {
	if after == math.MaxUint64 {
		return 0, ctx.Err()
	}
	err = s.read(ctx, func(v *view) error {
		seen, more, rest := 0, true, false
		v.bucket(recordsID).ascend(idKey(after+1), func(key, stored []byte) bool {
			if rest = !more || seen == maxScan; rest {
				return false
			}
			seen++
			next = binary.BigEndian.Uint64(key)
			more = show(next, stored)
			return true
		})
		if !rest {
			next = 0
		}
		return nil
	}, recordsID)
	return next, err
}

// Under looks at all records, or at all claims if those are what is under keys of
// the class, some at a time. What is written behind its back is under
// the newest key, or the census has it.
func (s *Store) Under(ctx context.Context, key keystore.KeyID) (under bool, err error) {
	bucket, is := recordsID, func(id, stored []byte) bool {
		head, err := tokenizer.ParseRecordHead(binary.BigEndian.Uint64(id), stored)
		return err == nil && (head.DataKey() == key || head.TokenKey() == key)
	}
	if ofClaims(key.Class) {
		bucket, is = claimsID, func(_, stored []byte) bool {
			claimed, _, err := parseClaim(stored)
			return err == nil && claimed == key
		}
	}
	var from []byte
	for more := true; more && !under && err == nil; {
		more = false
		err = s.read(ctx, func(v *view) error {
			seen := 0
			v.bucket(bucket).ascend(from, func(at, stored []byte) bool {
				if more = seen == maxScan; more {
					from = slices.Clone(at)
					return false
				}
				seen++
				under = is(at, stored)
				return !under
			})
			return nil
		}, bucket)
	}
	return under, err
}
