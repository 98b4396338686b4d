package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// read shows the store as the latest frame left it, in which buckets can be gone
// through that are named. fn must not call read.
func (s *Store) read(ctx context.Context, fn func(*view) error, through ...bucketID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.readers.RLock()
	defer s.readers.RUnlock()
	return s.guard(func() error {
		v, err := s.view(through...)
		if err != nil {
			return err
		}
		defer v.close()
		return fn(v)
	})
}

// lookUp shows what keys of a bucket hold, all at one moment, in their order: nil
// for nothing. What is shown may be looked at during the call only.
func (s *Store) lookUp(ctx context.Context, id bucketID, n int, key func(i int) []byte, show func(i int, stored []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.readers.RLock()
	defer s.readers.RUnlock()
	return s.guard(func() error {
		// Those that the layers have are noted, and a snapshot taken for the
		// others, before the layers can change.
		var one [1][]byte
		noted, missing := one[:0], false
		if n > 1 {
			noted = make([][]byte, 0, n)
		}
		s.state.RLock()
		layers := [2]*layer{s.active, s.frozen}
		for i := range n {
			value, ok := layered(layers, id, key(i))
			if !ok {
				value, missing = inFile, true
			}
			noted = append(noted, value)
		}
		var file *snapshot
		var err error
		if missing {
			file, err = s.files.take()
		}
		s.state.RUnlock()
		if err != nil {
			return err
		}
		var cursor *bbolt.Cursor
		if missing {
			defer s.files.give(file)
			cursor = file.cursor(id)
		}
		for i, stored := range noted {
			if len(stored) == 1 && &stored[0] == &inFile[0] {
				stored = find(cursor, key(i))
			}
			if err := show(i, stored); err != nil {
				return err
			}
		}
		return nil
	})
}

// inFile stands for what is to be looked for in the file.
var inFile = []byte{0}

// Records reads records.
func (s *Store) Records(ctx context.Context, ids ...uint64) ([]tokenizer.Found, error) {
	found := make([]tokenizer.Found, len(ids))
	var key [8]byte
	err := s.lookUp(ctx, recordsID, len(ids), func(i int) []byte {
		binary.BigEndian.PutUint64(key[:], ids[i])
		return key[:]
	}, func(i int, stored []byte) error {
		if stored != nil {
			found[i].Record, found[i].Err = tokenizer.ParseRecord(ids[i], stored)
		} else {
			found[i].Err = tokenizer.ErrNotFound
		}
		return nil
	})
	switch {
	case !isDamaged(err):
		return found, err
	case len(ids) == 1:
		return []tokenizer.Found{{Err: err}}, nil
	}
	// bbolt can't read a page. Those records that are elsewhere are well.
	for i, id := range ids {
		one, err := s.Records(ctx, id)
		if err != nil {
			return nil, err
		}
		found[i] = one[0]
	}
	return found, nil
}

// Claimed reads what keys hold.
func (s *Store) Claimed(ctx context.Context, keys ...[]byte) ([][]byte, error) {
	values := make([][]byte, len(keys))
	err := s.lookUp(ctx, claimsID, len(keys), func(i int) []byte { return keys[i] }, func(i int, stored []byte) error {
		if stored != nil {
			_, value, _ := parseClaim(stored) // no value if it is damaged
			values[i] = append([]byte{}, value...)
		}
		return nil
	})
	switch {
	case err == nil:
		return values, nil
	case !isDamaged(err):
		return nil, err
	case len(keys) == 1:
		return [][]byte{{}}, nil
	}
	// bbolt can't read a page. Those claims that are elsewhere are well.
	for i, key := range keys {
		one, err := s.Claimed(ctx, key)
		if err != nil {
			return nil, err
		}
		values[i] = one[0]
	}
	return values, nil
}

// Claims reads claims in the order of their keys.
func (s *Store) Claims(ctx context.Context, prefix, after []byte, limit int) (claims []tokenizer.Claimed, err error) {
	if limit < 1 {
		return nil, ctx.Err()
	}
	from := prefix
	if bytes.Compare(after, prefix) >= 0 {
		from = append(slices.Clone(after), 0) // the next key that there can be
	}
	err = s.read(ctx, func(v *view) error {
		v.bucket(claimsID).ascend(from, func(key, stored []byte) bool {
			if !bytes.HasPrefix(key, prefix) {
				return false
			}
			under, value, _ := parseClaim(stored) // no value if it is damaged
			own := slices.Concat(key, value)
			claims = append(claims, tokenizer.Claimed{Key: own[:len(key):len(key)], Value: own[len(key):], Under: under})
			return len(claims) < limit
		})
		return nil
	}, claimsID)
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// LogID names the audit log.
func (s *Store) LogID() tokenizer.LogID { return s.logID }

// Entries reads the audit log.
func (s *Store) Entries(ctx context.Context, after uint64, limit int) (entries []tokenizer.Entry, err error) {
	if limit < 1 {
		return nil, ctx.Err()
	}
	err = s.read(ctx, func(v *view) (err error) {
		want := after + 1
		v.bucket(logBucketID).ascend(idKey(want), func(key, value []byte) bool {
			entry, damage := parseEntry(key, value)
			if damage == nil && entry.Sequence != want {
				damage = fmt.Errorf("%w: log entry %d is missing", tokenizer.ErrDamaged, want)
			}
			if err = damage; err != nil {
				return false
			}
			entries = append(entries, entry)
			want++
			return len(entries) < limit
		})
		return err
	}, logBucketID)
	return entries, err
}

// parseEntry reads a stored log entry into memory of its own.
func parseEntry(key, value []byte) (tokenizer.Entry, error) {
	var entry tokenizer.Entry
	if len(key) != 8 || len(value) <= len(entry.Prev) {
		return entry, fmt.Errorf("%w: a log entry", tokenizer.ErrDamaged)
	}
	entry.Sequence = binary.BigEndian.Uint64(key)
	n := copy(entry.Prev[:], value)
	entry.Body = slices.Clone(value[n:])
	return entry, nil
}
