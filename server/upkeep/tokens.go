package upkeep

import (
	"context"
	"errors"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// sweepPeriod is how often it is looked for what has expired, unless Config says.
const sweepPeriod = 5 * time.Second

// What was deleted is overwritten in the store's files no more often than every
// scrubPeriod, and for one part in scrubShare of the time at most.
const (
	scrubPeriod = 5 * time.Second
	scrubShare  = 10
)

// yielding is how long a pass pauses between two units, so that calls get their
// turn.
const yielding = 2 * time.Millisecond

// sweep shreds and removes what is due, some in each unit.
func (u *Upkeep) sweep(ctx context.Context) error {
	failed := 0
	for at := beginning(); !at.end; wait(ctx, yielding) {
		var unit tokenizer.Unit
		swept, err := u.cfg.Tokenizer.Sweep(ctx, u.cfg.Namespace, at.after, at.limit, &unit)
		if err != nil {
			return err
		}
		event := audit.SystemEvent(audit.ActionSweep, u.cfg.Namespace, u.cfg.PolicyHash())
		event.Records = uint64(swept.Shredded + swept.Removed)
		done, err := u.commitIfFresh(ctx, unit, &event)
		if err != nil {
			return err
		}
		if done {
			failed += swept.Failed
		}
		if done && !unit.Empty() {
			u.ScrubSoon()
		}
		if !swept.More {
			swept.Next = nil
		}
		at.step(done, swept.Next)
	}
	if failed > 0 && failed != u.unswept {
		u.cfg.Logger.Warn("records or entries that are due don't open, and stay as they are", "number", failed)
	}
	u.unswept = failed
	return ctx.Err()
}

// place is where a pass through the index is, and how much it takes at once.
type place struct {
	after []byte
	limit int
	end   bool
}

func beginning() place { return place{limit: batch} }

// step goes on behind next, or ends if that is nil. After a unit that was not done,
// since a call was faster or one entry can't be done, it takes fewer at once, and in
// the end steps over the one, so that it doesn't hold up the others.
func (p *place) step(done bool, next []byte) (over bool) {
	switch {
	case done:
		p.limit = min(2*p.limit, batch)
	case p.limit > 1:
		p.limit /= 2
		return false
	}
	p.after, p.end = next, next == nil
	return !done
}

// commitIfFresh commits a unit, unless it rests on what calls have changed
// meanwhile.
func (u *Upkeep) commitIfFresh(ctx context.Context, unit tokenizer.Unit, event *audit.Event) (done bool, err error) {
	if err := ctx.Err(); err != nil || unit.Empty() {
		return err == nil, err
	}
	_, err = u.cfg.Audit.Commit(ctx, unit, event)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, tokenizer.ErrConflict):
		return false, nil
	case errors.Is(err, keystore.ErrKeyVersion):
		return false, u.cfg.Keystore.Reload(ctx, u.cfg.Namespace)
	case errors.Is(err, tokenizer.ErrUnavailable), ctx.Err() != nil:
		return false, err
	}
	u.cfg.Logger.Error("a unit of upkeep is refused", "action", event.Action, "error", err)
	return false, nil
}

// ScrubSoon has what was deleted or replaced overwritten in the store's files,
// within seconds unless they are large.
func (u *Upkeep) ScrubSoon() { u.scrub.Store(true) }

// scrubIfDue overwrites what was deleted, if anything was.
func (u *Upkeep) scrubIfDue(ctx context.Context) error {
	if !u.scrub.Load() || time.Now().Before(u.nextScrub) {
		return nil
	}
	u.scrub.Store(false)
	began := time.Now()
	err := u.cfg.Store.Scrub(ctx)
	if err != nil {
		u.scrub.Store(true)
	}
	u.nextScrub = time.Now().Add(max(scrubPeriod, scrubShare*time.Since(began)))
	return err
}

// reindexPasses is how often the index is gone through at once at most, where
// calls keep changing what is to be moved.
const reindexPasses = 10

// reindex moves the index to the active index and subject keys, if it isn't all
// under them.
func (u *Upkeep) reindex(ctx context.Context) error {
	for range reindexPasses {
		left, err := u.outdatedIndex(ctx)
		if err != nil || left == 0 {
			return err
		}
		moved, missed, err := u.reindexPass(ctx)
		if err != nil {
			return err
		}
		if moved > 0 {
			u.cfg.Logger.Info("index moved to the active keys", "entries", moved)
		}
		if missed == 0 {
			return nil // what is left can't be moved, or goes by itself
		}
		wait(ctx, 50*yielding)
	}
	return ctx.Err()
}

// outdatedIndex returns how many entries of the index are not under the active
// keys.
func (u *Upkeep) outdatedIndex(ctx context.Context) (left uint64, err error) {
	keys, err := u.cfg.Keystore.Keys(ctx, u.cfg.Namespace)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		if (k.Class == keystore.Index || k.Class == keystore.Subject) && !k.Active {
			left += k.Count.Records
		}
	}
	if left == 0 {
		return 0, nil
	}
	return left, u.cfg.Keystore.Usable(ctx)
}

// reindexPass goes through the index once. missed is how many entries were left
// since a call had changed them.
func (u *Upkeep) reindexPass(ctx context.Context) (moved, missed int, err error) {
	for at := beginning(); !at.end; wait(ctx, yielding) {
		var unit tokenizer.Unit
		r, err := u.cfg.Tokenizer.Reindex(ctx, u.cfg.Namespace, at.after, at.limit, &unit)
		if err != nil {
			return moved, missed, err
		}
		event := audit.SystemEvent(audit.ActionReindex, u.cfg.Namespace, u.cfg.PolicyHash())
		event.Records = uint64(r.Moved)
		done, err := u.commitIfFresh(ctx, unit, &event)
		if err != nil {
			return moved, missed, err
		}
		if done {
			moved += r.Moved
		}
		if over := at.step(done, r.Next); over {
			missed++
		}
	}
	return moved, missed, nil
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
