package upkeep

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// batch is how many records are moved in one unit at most. Calls that wait for
// the same commit wait a little longer for it.
const batch = 256

// DefaultRate is how many records are moved a second when somebody asks for it
// and the configuration moves none.
const DefaultRate = 1000

// Progress tells how far the records are on their way to the active data key.
type Progress struct {
	Running bool
	Began   time.Time // of the pass that is running, or ran last
	Ended   time.Time // of the pass that ran last; zero while one is running
	Moved   uint64    // in this pass
	Total   uint64    // moved since New, in all passes
	Failed  uint64    // in this pass: records that don't parse or open
	Rate    int       // records a second at most; 0 if none are moved unasked
}

// Progress returns how far it is.
func (u *Upkeep) Progress() Progress {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.progress
	p.Rate = int(u.limiter.Limit())
	return p
}

// Reseal asks for a pass over all records at a rate, from now on; 0 stands for
// the configured one, or else DefaultRate. A pass that is running goes on at
// the new rate, and another follows it.
func (u *Upkeep) Reseal(perSecond int) {
	if perSecond == 0 {
		perSecond = u.cfg.Rate
	}
	if perSecond == 0 {
		perSecond = DefaultRate
	}
	u.mu.Lock()
	u.asked++
	u.setRate(perSecond) // before a pass can begin at the old one, which may be 0
	u.mu.Unlock()
	u.Wake()
}

// setRate sets the limit. The burst is what is moved at once: a quarter of a
// second's worth, so that a low rate is an even one.
func (u *Upkeep) setRate(perSecond int) {
	u.limiter.SetLimit(rate.Limit(perSecond))
	u.limiter.SetBurst(min(max(perSecond/4, 1), batch))
}

// Remaining returns how many records are not under the active data key.
func Remaining(keys []keystore.ShelvedKey) (records uint64) {
	for _, k := range keys {
		if k.Class == keystore.Data && !k.Active {
			records += k.Count.Records
		}
	}
	return records
}

// resealAll makes a pass over all records, if there are any to be moved and it
// is wanted.
func (u *Upkeep) resealAll(ctx context.Context) error {
	u.mu.Lock()
	asked := u.asked
	wanted := asked > u.answered || u.cfg.Rate > 0
	// What could not be opened in the latest pass is not tried all the time.
	stuck := asked == u.answered && u.progress.Moved == 0 && u.progress.Failed > 0 && time.Since(u.progress.Ended) < time.Hour
	u.mu.Unlock()
	if !wanted || stuck {
		return nil
	}
	keys, err := u.cfg.Keystore.Keys(ctx, u.cfg.Namespace)
	if err != nil {
		return err
	}
	if Remaining(keys) == 0 {
		u.answer(asked)
		return nil
	}
	if err := u.cfg.Keystore.Usable(ctx); err != nil {
		return err
	}
	u.mu.Lock()
	u.progress = Progress{Running: true, Began: time.Now(), Total: u.progress.Total}
	u.mu.Unlock()
	err = u.pass(ctx)
	if errors.Is(err, keystore.ErrKeyVersion) {
		// Another replica has retired what is the active key here.
		err = errors.Join(err, u.cfg.Keystore.Reload(ctx, u.cfg.Namespace))
	}
	u.mu.Lock()
	u.progress.Running, u.progress.Ended = false, time.Now()
	p := u.progress
	u.mu.Unlock()
	if err == nil {
		u.answer(asked)
	}
	if p.Moved+p.Failed > 0 {
		u.cfg.Logger.Info("records moved to the active data key", "moved", p.Moved, "failed", p.Failed, "took", time.Since(p.Began).Round(time.Millisecond))
	}
	return err
}

// answer notes that what Reseal had asked for until then is done. If nothing
// has been asked for since, the rate is the configured one again.
func (u *Upkeep) answer(asked int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answered = asked
	if u.asked == asked {
		u.setRate(u.cfg.Rate)
	}
}

// maxSeals is how often a record is sealed at most: value, details and token.
const maxSeals = 3

// pass goes once through all records.
func (u *Upkeep) pass(ctx context.Context) error {
	defer u.moving.Store(0)
	for after := uint64(0); ; {
		n := u.limiter.Burst()
		var unit tokenizer.Unit
		u.moving.Store(uint64(n) * maxSeals)
		r, err := u.cfg.Tokenizer.Reseal(ctx, u.cfg.Namespace, after, n, &unit)
		if err != nil {
			return err
		}
		moved, err := u.commit(ctx, r, unit)
		u.moving.Store(0)
		if err != nil {
			return err
		}
		u.mu.Lock()
		u.progress.Moved += uint64(moved)
		u.progress.Total += uint64(moved)
		u.progress.Failed += uint64(r.Failed)
		u.mu.Unlock()
		if moved > 0 {
			u.ScrubSoon()
		}
		if after = r.Next; after == 0 {
			return nil
		}
		if err := u.pause(ctx, r.Moved); err != nil {
			return err
		}
	}
}

// commit makes a batch durable and returns how many records of it have moved:
// those that somebody else changed meanwhile have not.
func (u *Upkeep) commit(ctx context.Context, r tokenizer.Resealed, unit tokenizer.Unit) (moved int, err error) {
	if r.Moved == 0 {
		return 0, nil
	}
	event := audit.SystemEvent(audit.ActionReseal, u.cfg.Namespace, u.cfg.PolicyHash())
	event.Keys = []string{KeyName(keystore.KeyID{Class: keystore.Data, Version: r.Version})}
	outcome, err := u.cfg.Audit.CommitFunc(ctx, unit, func(o tokenizer.Outcome) []byte {
		told := event // it may be called again, and late
		told.Records = uint64(fresh(o.Stale))
		return told.Body()
	})
	return fresh(outcome.Stale), err
}

// fresh returns how many updates were not left out.
func fresh(stale []bool) (n int) {
	for _, left := range stale {
		if !left {
			n++
		}
	}
	return n
}

// pause keeps to the rate after n records.
func (u *Upkeep) pause(ctx context.Context, n int) error {
	for n > 0 && ctx.Err() == nil {
		part := min(n, u.limiter.Burst())
		if u.limiter.WaitN(ctx, part) == nil { // else the rate has just been lowered
			n -= part
		}
	}
	return ctx.Err()
}
