// Package upkeep does what a service's keys and tokens need as time goes by: it
// makes new versions of keys that are due, moves records and the index from older
// keys to the active ones, and shreds and removes what has expired. It knows no
// gRPC.
//
// Everything that it does is committed with an audit event of the system, in
// units that are good wherever the process is killed between them. What is left
// to do is read off the store each time, so nothing has to be remembered over a
// restart. Several replicas may do it beside each other: one of them makes the
// version, and a record that two move is moved once.
package upkeep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Config holds what an Upkeep is made of. All of it is required but where a
// field says otherwise.
type Config struct {
	Namespace  string
	Keystore   *keystore.Keystore
	Tokenizer  *tokenizer.Tokenizer
	Store      tokenizer.Store
	Audit      *audit.Log
	PolicyHash func() string // for events
	Logger     *slog.Logger

	// Rotation says when keys are due. A class that is not in it is replaced by
	// command only.
	Rotation map[keystore.Class]Due

	// Rate is how many records are moved a second at most. 0 moves none unless
	// Reseal asks for it.
	Rate int

	// Period is how often it is looked what is to be done; 0 stands for a
	// minute.
	Period time.Duration

	// Sweep is how often it is looked for what has expired, which bounds how long
	// a value outlives its token; 0 stands for 5 seconds.
	Sweep time.Duration
}

// Due says when a key is replaced: whichever comes first. Zero stands for
// never.
type Due struct {
	Age  time.Duration // since it was made
	Uses uint64        // how often it has sealed; for data keys only
}

// Upkeep looks after the keys of a namespace. It is safe for concurrent use.
type Upkeep struct {
	cfg     Config
	limiter *rate.Limiter
	wake    chan struct{}
	turned  chan struct{} // wakes the look at the index

	mu       sync.Mutex
	progress Progress
	asked    int // how many passes Reseal has asked for
	answered int // how many of those have been made

	moving    atomic.Uint64 // how often records have been sealed that are being moved
	scrub     atomic.Bool   // something has been deleted or replaced
	nextScrub time.Time     // only scrubIfDue looks at it
	unswept   int           // entries that could not be dealt with; only sweep looks at it
}

// New returns an Upkeep, which does nothing before Run.
func New(cfg Config) *Upkeep {
	if cfg.Period <= 0 {
		cfg.Period = time.Minute
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = sweepPeriod
	}
	u := &Upkeep{cfg: cfg, wake: make(chan struct{}, 1), turned: make(chan struct{}, 1), limiter: rate.NewLimiter(0, batch)}
	u.setRate(cfg.Rate)
	u.ScrubSoon() // whoever was here before may have been interrupted
	return u
}

// Run looks after the keys until ctx ends. What fails is logged, and tried again
// after a Period.
func (u *Upkeep) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	// Apart, since a pass over all records may take days, and keys are due all
	// the same.
	all.Go(func() { every(ctx, u.cfg.Period, nil, u.rotateDue) })
	for _, task := range []struct {
		period time.Duration
		wake   <-chan struct{}
		do     func(context.Context) error
		failed string
	}{
		{u.cfg.Period, u.wake, u.resealAll, "records can't be moved to the active data key now"},
		{u.cfg.Period, u.turned, u.reindex, "the index can't be moved to the active keys now"},
		{u.cfg.Sweep, nil, u.sweep, "what has expired can't be removed now"},
		{time.Second, nil, u.scrubIfDue, "what was deleted can't be overwritten now"},
	} {
		all.Go(func() {
			every(ctx, task.period, task.wake, func(ctx context.Context) {
				if err := task.do(ctx); err != nil && ctx.Err() == nil {
					u.cfg.Logger.Warn(task.failed, "error", err)
				}
			})
		})
	}
}

// every does something at once, after each period, and when it is woken.
func every(ctx context.Context, period time.Duration, wake <-chan struct{}, do func(context.Context)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-wake:
		}
	}
}

// Wake has Run look now whether there is anything to be moved.
func (u *Upkeep) Wake() {
	for _, wake := range []chan struct{}{u.wake, u.turned} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// rotateDue makes a new version of each class that is due.
func (u *Upkeep) rotateDue(ctx context.Context) {
	for class, due := range u.cfg.Rotation {
		if err := u.rotateIfDue(ctx, class, due); err != nil && ctx.Err() == nil {
			u.cfg.Logger.Warn("key is due but can't be replaced now", "class", class, "error", err)
		}
	}
}

// rotateIfDue makes a new version of a class whose active key is due.
func (u *Upkeep) rotateIfDue(ctx context.Context, class keystore.Class, due Due) error {
	used := u.used(ctx) // before what is stored, which may have grown by what this has
	keys, err := u.cfg.Keystore.Keys(ctx, u.cfg.Namespace)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Class != class || !k.Active {
			continue
		}
		old := due.Age > 0 && time.Since(k.Created) >= due.Age
		spent := class == keystore.Data && due.Uses > 0 && used.spent(k, due.Uses)
		if !old && !spent {
			return nil
		}
		return u.rotate(ctx, class)
	}
	return nil // there is none yet
}

// MaxUses is the largest number of uses at which a data key can be due: it
// leaves time to make a new version.
const MaxUses = keystore.MaxUses - 1<<24

// uses tells how often data keys have been used, stored or not.
type uses struct {
	of     map[uint32]uint64 // by version
	moving uint64            // by records that were being moved
}

func (u *Upkeep) used(ctx context.Context) uses {
	ring, err := u.cfg.Keystore.Keyring(ctx, u.cfg.Namespace)
	if err != nil {
		return uses{} // what is stored has to do
	}
	of := make(map[uint32]uint64)
	for _, version := range ring.Versions(keystore.Data) {
		of[version] = ring.Uses(version)
	}
	return uses{of, u.moving.Load()}
}

// spent says whether a data key has been used as often as it is due for. Records
// that were moved to it don't count: that they all are, after a rotation, must
// not make it due again. At MaxUses they do.
func (n uses) spent(k keystore.ShelvedKey, due uint64) bool {
	all := max(k.Count.Sealed, n.of[k.Version]) // which knows of those that are not stored yet
	return all-min(all, k.Count.Moved+n.moving) >= due || all >= MaxUses
}

func (u *Upkeep) rotate(ctx context.Context, class keystore.Class) error {
	k, err := u.cfg.Keystore.NewVersion(ctx, u.cfg.Namespace, class)
	if err != nil {
		return err
	}
	event := audit.SystemEvent(audit.ActionRotateKey, u.cfg.Namespace, u.cfg.PolicyHash())
	event.Keys = []string{KeyName(k.ID())}
	_, err = u.cfg.Audit.Commit(ctx, tokenizer.Unit{Keys: []keystore.WrappedKey{k}}, &event)
	if errors.Is(err, keystore.ErrKeyExists) {
		err = nil // another replica was first
	} else if err == nil {
		u.cfg.Logger.Info("key replaced, since it was due", "class", class, "version", k.Version)
	}
	err = errors.Join(err, u.cfg.Keystore.Reload(ctx, u.cfg.Namespace))
	u.Wake()
	return err
}

// KeyName is how events name a key: "<class>/<version>".
func KeyName(id keystore.KeyID) string { return fmt.Sprintf("%v/%d", id.Class, id.Version) }
