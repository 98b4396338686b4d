package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// view runs a read transaction, which sees every committed unit. fn must not
// call view.
func (s *Store) view(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.readers.RLock()
	defer s.readers.RUnlock()
	err := s.guard(func() error { return s.db.View(fn) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: closed", tokenizer.ErrUnavailable)
	}
	return err
}

// Records reads records.
func (s *Store) Records(ctx context.Context, ids ...uint64) ([]tokenizer.Found, error) {
	found := make([]tokenizer.Found, len(ids))
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(recordsBucket).Cursor()
		key := make([]byte, 8)
		for i, id := range ids {
			binary.BigEndian.PutUint64(key, id)
			if stored := find(cursor, key); stored != nil {
				found[i].Record, found[i].Err = tokenizer.ParseRecord(id, stored)
			} else {
				found[i].Err = tokenizer.ErrNotFound
			}
		}
		return nil
	})
	switch {
	case !errors.Is(err, tokenizer.ErrDamaged):
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
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(claimsBucket).Cursor()
		for i, key := range keys {
			if stored := find(cursor, key); stored != nil {
				_, value, _ := parseClaim(stored) // no value if it is damaged
				values[i] = append([]byte{}, value...)
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return values, nil
	case !errors.Is(err, tokenizer.ErrDamaged):
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
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(claimsBucket).Cursor()
		key, stored := cursor.Seek(prefix)
		if bytes.Compare(after, prefix) >= 0 {
			key, stored = seekPast(cursor, after)
		}
		for ; key != nil && bytes.HasPrefix(key, prefix) && len(claims) < limit; key, stored = cursor.Next() {
			under, value, _ := parseClaim(stored) // no value if it is damaged
			own := slices.Concat(key, value)
			claims = append(claims, tokenizer.Claimed{Key: own[:len(key):len(key)], Value: own[len(key):], Under: under})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// LogID names the audit log.
func (s *Store) LogID() tokenizer.LogID { return s.logID }

// Entries reads the audit log.
func (s *Store) Entries(ctx context.Context, after uint64, limit int) (entries []tokenizer.Entry, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(logBucket).Cursor()
		want := after + 1
		for key, value := cursor.Seek(idKey(want)); key != nil && len(entries) < limit; key, value = cursor.Next() {
			entry, err := parseEntry(key, value)
			if err != nil {
				return err
			}
			if entry.Sequence != want {
				return fmt.Errorf("%w: log entry %d is missing", tokenizer.ErrDamaged, want)
			}
			entries = append(entries, entry)
			want++
		}
		return nil
	})
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
