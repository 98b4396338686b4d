package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// view runs a read transaction, which sees every committed unit.
func (s *Store) view(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.guard(func() error { return s.db.View(fn) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: closed", tokenizer.ErrUnavailable)
	}
	return err
}

// Record reads a record.
func (s *Store) Record(ctx context.Context, id uint64) (record tokenizer.Record, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		stored := tx.Bucket(recordsBucket).Get(idKey(id))
		if stored == nil {
			return tokenizer.ErrNotFound
		}
		record, err = tokenizer.ParseRecord(id, stored)
		return err
	})
	return record, err
}

// Claimed reads the claim that holds the key.
func (s *Store) Claimed(ctx context.Context, key []byte) (value []byte, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if value = slices.Clone(tx.Bucket(claimsBucket).Get(key)); value == nil {
			return tokenizer.ErrNotFound
		}
		return nil
	})
	return value, err
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
