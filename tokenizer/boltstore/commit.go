package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore/journal"
)

// Bounds of a group: how many units it has at most, and after how many bytes the
// rest of them get a frame of their own.
const (
	maxGroup = 4096
	maxFrame = 16 << 20
)

// maxLayer is how much is in memory that the file hasn't yet; then commits wait.
const maxLayer = 64 << 20

// write is a unit on its way through the commit loop. Without a unit it asks for
// more ids, or whether a write works.
type write struct {
	ctx     context.Context
	unit    *tokenizer.Unit
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

// Commit queues the unit for the next group and waits for it.
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
		return fmt.Errorf("%w: a unit needs an event", tokenizer.ErrBadUnit)
	}
	for i := range unit.Claims {
		if err := validateClaim(&unit.Claims[i]); err != nil {
			return err
		}
	}
	if err := validateStates(unit.States); err != nil {
		return err
	}
	return validateSpends(&unit)
}

// submit hands w to the commit loop and waits until it is settled.
func (s *Store) submit(ctx context.Context, w *write) error {
	s.mu.Lock()
	if s.closed || s.broken != nil {
		err := s.broken
		s.mu.Unlock()
		if err == nil {
			err = errClosed
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
			// Who is ready to run, and about to come, comes along: under load that
			// makes fewer syncs, and alone it costs nothing.
			s.gatherGroup()
			group, closed := s.nextGroup()
			if len(group) > 0 {
				s.writeGroup(group)
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// gatherGroup lets who is ready to run go first, as long as more units come by that.
func (s *Store) gatherGroup() {
	for before := -1; ; {
		s.mu.Lock()
		now := len(s.pending)
		s.mu.Unlock()
		if now == before || now >= maxGroup {
			return
		}
		before = now
		runtime.Gosched()
	}
}

// nextGroup takes waiting writes from the queue, in the order in which they
// came; those whose callers gave up are dropped.
func (s *Store) nextGroup() (group []*write, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, w := range s.pending[:min(len(s.pending), maxGroup)] {
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

// writeGroup writes a group, in one frame unless it is large, and tells each of its
// units what became of it.
func (s *Store) writeGroup(group []*write) {
	s.writing.Store(time.Now().UnixNano())
	defer s.writing.Store(0)
	for len(group) > 0 {
		n, err := len(group), s.brokenBy()
		if err == nil {
			err = s.guard(func() (err error) {
				n, err = s.writeFrame(group)
				return err
			})
		}
		if err != nil {
			n, err = len(group), s.failure(err)
		}
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		for _, w := range group[:n] {
			if err != nil {
				w.outcome, w.err = tokenizer.Outcome{}, err
			}
			close(w.done)
		}
		group = group[n:]
	}
}

// writeFrame settles units of a group and makes them durable, in one frame of the
// journal. It returns how many they are.
func (s *Store) writeFrame(group []*write) (n int, err error) {
	if err := s.waitForRoom(); err != nil {
		return 0, err
	}
	done, err := s.settle(group)
	if err != nil || len(done.changes) == 0 {
		return done.units, err
	}
	s.frame = appendChanges(s.frame[:0], done.changes)
	frame, err := s.append(s.frame)
	if cap(s.frame) > maxFrame/4 {
		s.frame = nil // it isn't often that large
	}
	if err != nil {
		return 0, err
	}
	s.publish(frame, done.changes)
	s.firstBudget = done.firstBudget
	if done.limit > 0 {
		s.ids.extended(done.limit)
	}
	return done.units, nil
}

// failure wraps the error of a write. Unless it is plain that the disk was merely
// full, what is on disk and what the kernel holds may differ from now on, and no
// write is safe before the files are read again: the store refuses to go on.
func (s *Store) failure(err error) error {
	if errors.Is(err, tokenizer.ErrUnavailable) {
		return err
	}
	if !errors.Is(err, journal.ErrBroken) && (errors.Is(err, journal.ErrFull) || diskFull(err)) {
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

// settlement is what becomes of units of a group, once it is durable.
type settlement struct {
	units       int // how many they are
	changes     []change
	limit       uint64 // of ids, if there is a new one
	firstBudget string
}

// settle settles units of a group, until there is enough for a frame.
func (s *Store) settle(group []*write) (done settlement, err error) {
	s.readers.RLock()
	defer s.readers.RUnlock()
	v, err := s.view()
	if err != nil {
		return settlement{}, err
	}
	defer v.close()
	g, err := newGroup(v, s.logID)
	if err != nil {
		return settlement{}, err
	}
	g.firstBudget = s.firstBudget
	probe := false
	for done.units < len(group) && g.size < maxFrame {
		w := group[done.units]
		done.units++
		if w.unit == nil {
			probe = true
			continue
		}
		if w.outcome, w.err = g.settle(*w.unit); w.err != nil && !unitFault(w.err) {
			return settlement{}, w.err
		}
	}
	if s.ids.low() {
		if done.limit, err = s.ids.extend(g.meta); err != nil {
			return settlement{}, err
		}
	}
	if done.changes, err = g.finish(); probe && len(done.changes) == 0 && err == nil {
		// To find out whether a write works something has to be written.
		done.changes = append(done.changes, change{metaID, string(nextIDKey), g.meta.get(nextIDKey)})
	}
	done.firstBudget = g.firstBudget
	return done, err
}

// unitFault says whether an error of settle is the unit's own. Nothing of such
// a unit has been put into the transaction.
func unitFault(err error) bool {
	for _, fault := range []error{
		keystore.ErrKeyExists, keystore.ErrKeyChanged, keystore.ErrKeyInUse, keystore.ErrKeyVersion,
		tokenizer.ErrConflict, tokenizer.ErrBudgetSpent, tokenizer.ErrIDTaken, tokenizer.ErrDamaged, tokenizer.ErrBadUnit,
	} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
