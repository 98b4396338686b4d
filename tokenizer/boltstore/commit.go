package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// maxGroup is how many units share a transaction at most.
const maxGroup = 4096

// write is a unit on its way through the commit loop. Without a unit it asks
// for a transaction that only reserves ids, or finds out whether one works; or it
// is a step of something else that must not meet a transaction.
type write struct {
	ctx     context.Context
	unit    *tokenizer.Unit
	probe   bool
	step    func() error
	state   atomic.Int32 // waiting, then taken or given up
	outcome tokenizer.Outcome
	err     error
	done    chan struct{} // closed when outcome and err are final
}

const (
	waiting = iota
	taken
	givenUp
)

// Commit queues the unit for the next transaction and waits for it.
func (s *Store) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	if err := validate(unit); err != nil {
		return tokenizer.Outcome{}, err
	}
	w := &write{ctx: ctx, unit: &unit, done: make(chan struct{})}
	if err := s.submit(ctx, w); err != nil {
		return tokenizer.Outcome{}, err
	}
	return w.outcome, nil
}

// validate refuses what could only come from a defect of the caller, before
// anyone else's unit shares its fate.
func validate(unit tokenizer.Unit) error {
	if unit.Event == nil {
		return errors.New("boltstore: a unit needs an event")
	}
	for i := range unit.Claims {
		if err := validateClaim(&unit.Claims[i]); err != nil {
			return err
		}
	}
	return nil
}

// submit hands w to the commit loop and waits until it is settled.
func (s *Store) submit(ctx context.Context, w *write) error {
	s.mu.Lock()
	if s.closed || s.broken != nil {
		err := s.broken
		s.mu.Unlock()
		if err == nil {
			err = fmt.Errorf("%w: closed", tokenizer.ErrUnavailable)
		}
		return err
	}
	s.pending = append(s.pending, w)
	s.mu.Unlock()
	s.signal()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		if w.state.CompareAndSwap(waiting, givenUp) {
			w.unit = nil // what stays in the queue while a write hangs is small
			return ctx.Err()
		}
		return fmt.Errorf("%w: the write takes too long: %w", tokenizer.ErrUnavailable, ctx.Err())
	}
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the commit loop, the only writer. Whatever has arrived while one
// group was being synced is the next group.
func (s *Store) run() {
	defer close(s.done)
	for range s.wake {
		for {
			group, closed := s.nextGroup()
			switch {
			case len(group) > 0 && group[0].step != nil:
				s.runStep(group[0])
				continue
			case len(group) > 0:
				s.writeGroup(group)
				continue
			case closed:
				return
			}
			break
		}
	}
}

// nextGroup takes waiting writes from the queue, in the order in which they
// came; those whose callers gave up are dropped. A step is a group of its own.
func (s *Store) nextGroup() (group []*write, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, w := range s.pending[:min(len(s.pending), maxGroup)] {
		if len(group) > 0 && (w.step != nil || group[0].step != nil) {
			break
		}
		n++
		if w.ctx.Err() == nil && w.state.CompareAndSwap(waiting, taken) {
			group = append(group, w)
		} else if w.state.CompareAndSwap(waiting, taken) {
			w.err = w.ctx.Err()
			close(w.done)
		}
	}
	s.pending = append(s.pending[:0], s.pending[n:]...)
	clear(s.pending[len(s.pending):cap(s.pending)])
	if len(s.pending) > 0 {
		s.signal()
	}
	return group, s.closed && len(s.pending) == 0
}

// writeGroup writes a group in one transaction and tells each of its units
// what became of it.
func (s *Store) writeGroup(group []*write) {
	s.writing.Store(time.Now().UnixNano())
	defer s.writing.Store(0)
	err := s.broken
	if err == nil {
		err = s.guard(func() error { return s.transact(group) })
	}
	if err != nil {
		err = s.failure(err)
	}
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	for _, w := range group {
		if err != nil {
			w.outcome, w.err = tokenizer.Outcome{}, err
		}
		close(w.done)
	}
}

// runStep runs a step between two transactions.
func (s *Store) runStep(w *write) {
	s.writing.Store(time.Now().UnixNano())
	defer s.writing.Store(0)
	if w.err = s.broken; w.err == nil {
		w.err = s.guard(w.step)
	}
	close(w.done)
}

// failure wraps the error of a transaction. Unless it is plain that the disk
// was merely full, what is on disk and what the kernel holds may differ from
// now on, and no write is safe before the file is read again: the store
// refuses to go on.
func (s *Store) failure(err error) error {
	if errors.Is(err, tokenizer.ErrUnavailable) {
		return err
	}
	if diskFull(err) {
		return fmt.Errorf("%w: %w", tokenizer.ErrUnavailable, err)
	}
	broken := fmt.Errorf("%w until restarted: %w", tokenizer.ErrUnavailable, err)
	s.mu.Lock()
	s.broken = broken
	s.mu.Unlock()
	return broken
}

// diskFull says whether a transaction failed because there was no room to
// write, which leaves the file as it was. bbolt gives the error of a write as
// it is, but that of making the file longer, which comes before any write,
// only as text.
func diskFull(err error) bool {
	var path *os.PathError
	if errors.As(err, &path) {
		return errors.Is(path.Err, syscall.ENOSPC) || errors.Is(path.Err, syscall.EDQUOT) || errors.Is(path.Err, syscall.EFBIG)
	}
	return strings.HasPrefix(err.Error(), "file resize error")
}

// transact settles and writes the units of a group.
func (s *Store) transact(group []*write) error {
	return s.update(func(tx *bbolt.Tx) error {
		g, err := newGroup(tx)
		if err != nil {
			return err
		}
		for _, w := range group {
			if w.unit == nil {
				if err := probe(tx, w.probe); err != nil {
					return err
				}
				continue
			}
			if w.outcome, w.err = g.settle(*w.unit); w.err != nil && !unitFault(w.err) {
				return w.err
			}
		}
		if err := g.finish(); err != nil {
			return err
		}
		if !s.ids.low() {
			return nil
		}
		limit, err := s.ids.extend(tx)
		if err == nil {
			tx.OnCommit(func() { s.ids.extended(limit) })
		}
		return err
	})
}

// probeSize is more than bbolt is likely to have free inside the file, so that
// the probe needs what a unit may need: room for the file to grow.
const probeSize = 512 << 10

// probe puts something large into the file, or takes it away.
func probe(tx *bbolt.Tx, put bool) error {
	meta := tx.Bucket(metaBucket)
	if put {
		return meta.Put(probeKey, make([]byte, probeSize))
	}
	return meta.Delete(probeKey)
}

// errUnit says that a unit can't be stored as it is: its Event panicked or
// returned nothing, or a record or key has no stored form.
var errUnit = errors.New("boltstore: the unit can't be stored")

// unitFault says whether an error of settle is the unit's own. Nothing of such
// a unit has been put into the transaction.
func unitFault(err error) bool {
	for _, fault := range []error{
		keystore.ErrKeyExists, keystore.ErrKeyChanged, keystore.ErrKeyInUse, keystore.ErrKeyVersion,
		tokenizer.ErrConflict, tokenizer.ErrIDTaken, tokenizer.ErrDamaged, errUnit,
	} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
