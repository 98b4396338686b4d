package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// What a Follower has in memory at once is bounded by these: batchBytes, and the bodies
// of readAtOnce events.
const (
	readAtOnce  = 8
	batchBytes  = 1 << 20
	batchEvents = 1024
)

// leastBytes is the least that is sent before it has to be confirmed: after failures it
// is less than what Bounds say.
const leastBytes = 1 << 12

// pacing says how often a Follower does what.
type pacing struct {
	poll       time.Duration // how often the log is looked at, unless woken
	save       time.Duration // between two times that the position is saved, at least
	firstRetry time.Duration // after a failure, then twice as long each time
	lastRetry  time.Duration
	last       time.Duration // how long what is left may take at the end
}

var usualPacing = pacing{poll: time.Second, save: time.Second, firstRetry: 250 * time.Millisecond, lastRetry: 30 * time.Second, last: 5 * time.Second}

// Counts are what there is to tell of a sink.
type Counts struct {
	Sink      string
	Lag       uint64 // events that are committed and not confirmed yet
	Delivered uint64 // events that were confirmed, those included that come again after a restart
	Reduced   uint64 // events of these that lost a part, since they are too large
	Rejected  uint64 // events of these that the receiver has refused to keep
	Skipped   uint64 // events that were pruned before they were delivered
	Failed    uint64 // attempts that failed
}

// Follower sends a log to a receiver. Committed and Counts are safe for concurrent use.
type Follower struct {
	sender Sender
	source Source
	log    *slog.Logger
	path   string // of the position
	pacing pacing
	woken  chan struct{}

	failing   bool // since the last attempt that worked
	unreached bool // why: there is no connection

	confirmed, sent place
	reduced         int       // of the events behind confirmed
	unconfirmed     int       // bytes of bodies between confirmed and sent
	due             time.Time // when they have to be confirmed
	window          int       // how many bytes there may be between them
	saved           uint64    // the position that is on disk
	savedAt         time.Time
	saveFails       bool

	committed, acked                             atomic.Uint64
	delivered, cut, rejected, skipped, failCount atomic.Uint64
}

// Open returns a Follower that goes on where the receiver's confirmations ended, by the
// file <name>.position in the directory. Without it, it begins with the first event of the
// log or, if fromEnd, with the next that is committed.
//
// Errors: that of the file system, or of the source.
func Open(ctx context.Context, dir string, fromEnd bool, source Source, sender Sender, log *slog.Logger) (*Follower, error) {
	f := &Follower{
		sender: sender, source: source, log: log.With("sink", sender.Name()), path: filepath.Join(dir, sender.Name()+".position"),
		pacing: usualPacing, woken: make(chan struct{}, 1), window: sender.Bounds().Bytes,
	}
	at, err := f.resume(ctx, fromEnd)
	if err != nil {
		return nil, fmt.Errorf("audit: sink %s: %w", sender.Name(), err)
	}
	f.confirmed, f.sent, f.saved = at, at, at.last
	f.acked.Store(at.last)
	f.Committed(at.last)
	return f, nil
}

// Committed says that an event was committed under a number. It never waits.
func (f *Follower) Committed(sequence uint64) {
	for {
		before := f.committed.Load()
		if sequence <= before {
			return
		}
		if f.committed.CompareAndSwap(before, sequence) {
			break
		}
	}
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// Counts returns what has been counted so far.
func (f *Follower) Counts() Counts {
	acked := f.acked.Load() // before committed, which is never less
	return Counts{
		Sink: f.sender.Name(), Lag: f.committed.Load() - acked, Delivered: f.delivered.Load(), Reduced: f.cut.Load(),
		Rejected: f.rejected.Load(), Skipped: f.skipped.Load(), Failed: f.failCount.Load(),
	}
}

// Run sends what is committed until ctx ends; what is left then has 5 seconds. It must be
// called once. What fails is tried again until it works: at first after a quarter of a
// second, later every 30.
func (f *Follower) Run(ctx context.Context) {
	defer f.sender.Close()
	var retry time.Duration
	for ctx.Err() == nil {
		more, err := f.step(ctx, false)
		if ctx.Err() != nil {
			break
		}
		f.report(err)
		switch {
		case err != nil:
			retry = min(max(2*retry, f.pacing.firstRetry), f.pacing.lastRetry)
			wait(ctx, nil, retry/2+rand.N(retry/2+1))
			continue
		case !more:
			wait(ctx, f.woken, f.pause())
		}
		if !f.failing {
			retry = 0
		}
	}
	if !f.failing {
		f.finish(context.WithoutCancel(ctx))
	}
	f.save(true)
}

// finish sends what is left.
func (f *Follower) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.pacing.last)
	defer cancel()
	for more := true; more; {
		var err error
		if more, err = f.step(ctx, true); err != nil {
			f.log.Warn("audit sink hasn't got all events; they follow after the next start", "lag", f.Counts().Lag, "error", err)
			return
		}
	}
}

// wait waits until ctx ends, woken has something or a time is over.
func wait(ctx context.Context, woken <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-woken:
	}
}

// pause returns how long there is nothing to do unless woken.
func (f *Follower) pause() time.Duration {
	if f.sent != f.confirmed {
		return min(max(time.Until(f.due), 0), f.pacing.poll)
	}
	return f.pacing.poll
}

// step sends a batch, and has the receiver confirm if that is due, or if it is the end of
// the log and asked for. It says whether there may be more to send. If it fails, all that
// isn't confirmed will be sent again.
func (f *Follower) step(ctx context.Context, last bool) (more bool, err error) {
	defer func() {
		if err != nil {
			f.sender.Close()
			f.sent, f.unconfirmed, f.reduced = f.confirmed, 0, 0
			if !notReached(err) {
				f.window = max(f.window/2, leastBytes)
			}
		}
	}()
	bounds := f.sender.Bounds()
	events, size, err := f.read(ctx, min(f.window-f.unconfirmed, batchBytes))
	if err != nil {
		return false, err
	}
	if len(events) > 0 {
		if f.sent == f.confirmed {
			f.due = time.Now().Add(bounds.Age)
		}
		reduced, err := f.sender.Send(ctx, events)
		if err != nil {
			return false, err
		}
		end := events[len(events)-1]
		f.sent = place{end.Sequence, end.Hash}
		f.unconfirmed += size
		f.reduced += reduced
	}
	if f.sent != f.confirmed && (f.unconfirmed >= f.window || time.Until(f.due) <= 0 || last && len(events) == 0) {
		if err := f.confirm(ctx); err != nil {
			return false, err
		}
		f.window = min(f.window+f.window/8, bounds.Bytes)
	}
	f.save(false)
	return len(events) > 0, nil
}

// notReached says whether there was no connection at all, so that a failure has nothing
// to do with how much was sent.
func notReached(err error) bool {
	var fault *net.OpError
	return errors.As(err, &fault) && fault.Op == "dial"
}

// read returns the next events of the log, of about so many bytes, but at least one if
// there is one.
func (f *Follower) read(ctx context.Context, most int) (events []Event, size int, err error) {
	at := f.sent
	for len(events) == 0 || size < most && len(events) < batchEvents {
		entries, err := f.source.Entries(ctx, at.last, readAtOnce)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			if e.Sequence > at.last+1 { // those between were pruned
				if at != f.confirmed {
					return events, size, nil // what was sent before them is confirmed first
				}
				f.skip(e)
				at = f.sent
			}
			if err := follows(at, e); err != nil {
				return nil, 0, err
			}
			event, err := newEvent(f.source.LogID(), e)
			if err != nil {
				return nil, 0, err
			}
			if len(events) > 0 && size+len(e.Body) > most {
				return events, size, nil
			}
			events = append(events, event)
			size += len(e.Body)
			at = place{e.Sequence, event.Hash}
		}
		if len(entries) < readAtOnce {
			break
		}
	}
	f.Committed(at.last)
	return events, size, nil
}

// follows checks that an entry comes behind a place.
func follows(at place, e tokenizer.Entry) error {
	if e.Sequence != at.last+1 || e.Prev != at.head && at.head != (tokenizer.Hash{}) {
		return fmt.Errorf("%w: event %d of the audit log can't be the one that follows", tokenizer.ErrDamaged, at.last+1)
	}
	return nil
}

// skip goes on before an entry, since those that should come before it were pruned. All
// that was sent is confirmed.
func (f *Follower) skip(e tokenizer.Entry) {
	n := e.Sequence - f.confirmed.last - 1
	f.skipped.Add(n)
	f.log.Error("audit sink can't deliver events that have been pruned; it goes on behind them",
		"first", f.confirmed.last+1, "last", e.Sequence-1, "events", n)
	f.confirmed = place{e.Sequence - 1, e.Prev}
	f.sent = f.confirmed
	f.acked.Store(f.confirmed.last)
}

// confirm has the receiver confirm what was sent.
func (f *Follower) confirm(ctx context.Context) error {
	receipt, err := f.sender.Confirm(ctx)
	if err != nil {
		return err
	}
	if receipt.Rejected > 0 {
		f.log.Error("the receiver of the audit sink has rejected events, which it doesn't get again",
			"events", receipt.Rejected, "why", receipt.Why, "first", f.confirmed.last+1, "last", f.sent.last)
		f.rejected.Add(uint64(receipt.Rejected))
	}
	f.delivered.Add(f.sent.last - f.confirmed.last)
	f.cut.Add(uint64(f.reduced))
	f.confirmed, f.unconfirmed, f.reduced = f.sent, 0, 0
	f.acked.Store(f.confirmed.last)
	return nil
}

// save saves the position if it has changed and that is due, or now. If it can't be,
// nothing is lost, but more will come twice after a restart.
func (f *Follower) save(now bool) {
	if f.confirmed.last == f.saved || !now && time.Since(f.savedAt) < f.pacing.save {
		return
	}
	err := f.position(f.confirmed).save(f.path)
	f.savedAt = time.Now()
	switch {
	case err == nil:
		f.saved = f.confirmed.last
	case !f.saveFails:
		f.log.Error("the position of the audit sink can't be saved; after a restart, events will come twice", "error", err)
	}
	f.saveFails = err != nil
}

// report counts how a step went, and logs it if that is new, or of another kind.
func (f *Follower) report(err error) {
	switch {
	case err != nil && (!f.failing || f.unreached != notReached(err)):
		f.log.Error("audit sink fails; nothing is lost, and it is tried again until it works",
			"error", err, "confirmed", f.confirmed.last, "lag", f.Counts().Lag)
	case err == nil && f.failing && f.sent != f.confirmed:
		return // it is known once it is confirmed
	case err == nil && f.failing:
		f.log.Info("audit sink works again", "confirmed", f.confirmed.last, "lag", f.Counts().Lag)
	}
	if err != nil {
		f.failCount.Add(1)
	}
	f.failing, f.unreached = err != nil, notReached(err)
}
