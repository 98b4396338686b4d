package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// The file follows the journal: what units changed lies in layers until it is
// written to the file, much of it in one transaction of bbolt's, which also says
// up to which frame the file has it all. Only then the frames go.
//
// The layer that the commit loop adds to is the active one. To be written it is
// frozen, and a new one takes its place; so two are enough, and each change is in
// one of them, or in the file, or for a moment in both.

const (
	layerSize = 24 << 20               // of a layer that is worth a transaction
	layerAge  = 500 * time.Millisecond // after which it is written in any case
	pauseFull = time.Second            // after a transaction that failed
)

// publish lays what a frame holds over what there is.
func (s *Store) publish(frame uint64, changes []change) {
	sum := s.journal.Sum()
	s.state.Lock()
	s.active.add(frame, changes)
	s.active.sum = sum
	s.state.Unlock()
	select {
	case s.behind <- struct{}{}:
	default:
	}
}

// activeSize returns how much the file hasn't, and isn't being written.
func (s *Store) activeSize() int {
	s.state.RLock()
	defer s.state.RUnlock()
	return s.active.size
}

// waitForRoom waits until there is room in memory for more. While the file can't
// follow, nothing more is taken: the more there is in the journal, the more room the
// file needs to go on.
func (s *Store) waitForRoom() error {
	for {
		if err := s.followFault(); err != nil {
			return err
		}
		if s.activeSize() < maxLayer {
			return nil
		}
		select {
		case <-s.froze:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// follow keeps the file not far behind the journal, until the store is closed.
func (s *Store) follow() {
	defer close(s.followed)
	for {
		select {
		case <-s.stop:
			return
		case <-s.behind:
		}
		s.gather()
		if err := s.withFile(context.Background(), s.checkpoint); err != nil {
			s.pause(pauseFull)
		} else if s.activeSize() == 0 {
			continue
		}
		select {
		case s.behind <- struct{}{}: // again, for what is left
		default:
		}
	}
}

// gather waits for more to write along with what there is.
func (s *Store) gather() {
	for began := time.Now(); s.activeSize() < layerSize && time.Since(began) < layerAge; {
		if s.pause(layerAge / 20); s.stopped() {
			return
		}
	}
}

func (s *Store) pause(d time.Duration) {
	select {
	case <-s.stop:
	case <-time.After(d):
	}
}

func (s *Store) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// withFile runs what must have the file to itself.
func (s *Store) withFile(ctx context.Context, fn func() error) error {
	select {
	case s.file <- struct{}{}:
		defer func() { <-s.file }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	closed, broken := s.ended, s.broken
	s.mu.Unlock()
	if broken != nil {
		return broken
	}
	if closed {
		return errClosed
	}
	return s.guard(fn)
}

// checkpoint writes a layer into the file.
func (s *Store) checkpoint() error {
	s.following.Store(time.Now().UnixNano())
	defer s.following.Store(0)
	l := s.freeze()
	if l == nil {
		return nil
	}
	err := s.guard(func() error { return s.writeLayer(l) })
	if err != nil {
		err = s.failure(err)
	}
	s.mu.Lock()
	s.unfollowed = err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.state.Lock()
	s.frozen = nil
	s.state.Unlock()
	s.journal.Release(l.frame)
	return nil
}

// change runs a transaction that writes to the file.
func (s *Store) change(fn func(*bbolt.Tx) error) error {
	return s.files.change(func() error { return s.update(fn) })
}

// freeze returns the layer to be written: one that couldn't be before, else the
// active one; nil if there is nothing.
func (s *Store) freeze() *layer {
	s.state.Lock()
	defer s.state.Unlock()
	if s.frozen == nil && s.active.size > 0 {
		s.frozen, s.active = s.active, new(layer)
		select {
		case s.froze <- struct{}{}:
		default:
		}
	}
	return s.frozen
}

// checkpointAll writes into the file all that has been committed so far.
func (s *Store) checkpointAll() error {
	s.state.RLock()
	frozen := s.frozen != nil
	s.state.RUnlock()
	if frozen {
		if err := s.checkpoint(); err != nil {
			return err
		}
	}
	return s.checkpoint()
}

// Bounds of a transaction that writes a part of a layer. bbolt has each page in memory
// that a transaction changes, a few times over: a key that comes between others costs a
// page, one behind all others only what it holds.
const (
	partSize = 32 << 20
	pageCost = 4096
)

// writeLayer puts the changes of a layer into the file, in the order of keys: a page that
// takes many in any order has to move most of what it holds for each. Large layers are
// written in parts, each of other pages. The frames of a layer are needed until all of
// it is there: then the last part says so.
func (s *Store) writeLayer(l *layer) error {
	for from := (place{}); !from.end(); {
		err := s.change(func(tx *bbolt.Tx) (err error) {
			from, err = l.write(tx, from)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// place is a key of a bucket of a layer, from which on it has to be written.
type place struct {
	bucket bucketID
	key    string
}

func (p place) end() bool { return p.bucket == buckets }

// write puts a part of a layer into a transaction, and returns where the next begins.
func (l *layer) write(tx *bbolt.Tx, from place) (next place, err error) {
	cost := 0
	for id := from.bucket; id < buckets; id, from.key = id+1, "" {
		if l.buckets[id].Len() == 0 {
			continue
		}
		b := tx.Bucket(bucketNames[id])
		if id == recordsID || id == logBucketID {
			b.FillPercent = 0.95 // keys ascend, so that there is little to come between
		}
		last, _ := b.Cursor().Last()
		last = bytes.Clone(last)
		l.buckets[id].Ascend(from.key, func(key string, value []byte) bool {
			if cost > partSize {
				next = place{id, key}
				return false
			}
			if cost += len(key) + len(value) + changeCost; key <= string(last) {
				cost += pageCost
			}
			if value == nil {
				err = b.Delete([]byte(key))
			} else {
				err = b.Put([]byte(key), value)
			}
			return err == nil
		})
		if err != nil || next.key != "" {
			return next, err
		}
	}
	return place{bucket: buckets}, tx.Bucket(metaBucket).Put(appliedKey, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, l.frame), l.sum))
}

// replay lays what the journal has, and the file hasn't, over it.
func (s *Store) replay() (err error) {
	v, err := s.view()
	if err != nil {
		return err
	}
	stored := v.bucket(metaID).get(appliedKey)
	v.close()
	applied := uint64(0)
	switch {
	case len(stored) == 12:
		s.journal.Expect(binary.BigEndian.Uint32(stored[8:]))
		fallthrough
	case len(stored) == 8: // before frames were chained
		applied = binary.BigEndian.Uint64(stored)
	case stored != nil:
		return fmt.Errorf("%w: up to which frame the journal is in the file", tokenizer.ErrDamaged)
	}
	s.replayed, err = s.journal.Replay(applied, func(frame uint64, payload []byte) error {
		changes, err := parseChanges(payload)
		if err != nil {
			return fmt.Errorf("%w: frame %d of the journal: %w", tokenizer.ErrDamaged, frame, err)
		}
		s.active.add(frame, changes)
		return nil
	})
	s.active.sum = s.journal.Sum()
	return err
}

// followFault returns why the file doesn't follow, nil if it does.
func (s *Store) followFault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unfollowed
}

// brokenBy returns why the store doesn't go on, nil if it does.
func (s *Store) brokenBy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

var errClosed = fmt.Errorf("%w: closed", tokenizer.ErrUnavailable)

// unavailable wraps an error that isn't one of tokenizer's.
func unavailable(err error) error {
	if errors.Is(err, tokenizer.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", tokenizer.ErrUnavailable, err)
}

func isDamaged(err error) bool { return errors.Is(err, tokenizer.ErrDamaged) }
