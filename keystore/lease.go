package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSealed says that the keys are out of reach: the backend has not confirmed
// them for too long, or denies us. It is ErrUnavailable too, since the same call
// works once the backend confirms again.
var ErrSealed error = sealedError{}

type sealedError struct{}

func (sealedError) Error() string { return "keystore: sealed" }

// Is says that a sealed Keystore is unavailable.
func (sealedError) Is(target error) bool { return target == ErrUnavailable }

// Options say how long keys are good for.
type Options struct {
	// Lease is how often the backend has to confirm the keys in memory, by
	// unwrapping one for each version of the root key. It also bounds how long a
	// replica takes to notice keys that another has made. 0 stands for
	// DefaultLease.
	Lease time.Duration

	// MaxOffline is how long a backend that is away is put up with, from the
	// first confirmation that fails. 0 seals at once.
	MaxOffline time.Duration

	// Changed, if set, is called after each change of the state, in order and not
	// at the same time. Nothing waits for it. The Status has no count of Keys.
	Changed func(Status)
}

// Defaults for Options. That of MaxOffline is up to the configuration, since 0
// has a meaning of its own.
const (
	DefaultLease      = 30 * time.Second
	DefaultMaxOffline = 15 * time.Minute
)

func (o Options) withDefaults() Options {
	if o.Lease <= 0 {
		o.Lease = DefaultLease
	}
	if o.MaxOffline < 0 {
		o.MaxOffline = 0
	}
	if o.Changed == nil {
		o.Changed = func(Status) {}
	}
	return o
}

// patience is how long an answer of the backend or the shelf is waited for: one
// that hangs is away.
func (o Options) patience() time.Duration { return min(max(o.Lease, time.Second), 10*time.Second) }

// lease is the state, and the clock that ends it.
type lease struct {
	mu     sync.Mutex
	status Status
	expiry *time.Timer // nil unless Run runs

	// seal is ErrSealed with its cause while the Keystore is sealed.
	seal atomic.Pointer[error]

	// told are changes that Options.Changed has not been told of yet. One
	// goroutine tells them in order, so that nobody waits for it: to seal keys
	// must not depend on whether somebody reads the log.
	told    []Status
	telling bool
}

// tell has changed called with a status, after all that came before. The caller
// holds mu.
func (l *lease) tell(changed func(Status), status Status) {
	if l.told = append(l.told, status); l.telling {
		return
	}
	l.telling = true
	go func() {
		for {
			l.mu.Lock()
			if len(l.told) == 0 {
				l.telling = false
				l.mu.Unlock()
				return
			}
			next := l.told[0]
			l.told = l.told[1:]
			l.mu.Unlock()
			changed(next)
		}
	}()
}

func (l *lease) init() { l.status.Since = time.Now() }

// sealed returns the error of a Keystore that is sealed, else nil.
func (l *lease) sealed() error {
	if err := l.seal.Load(); err != nil {
		return *err
	}
	return nil
}

// Status returns the state now.
func (s *Keystore) Status() Status {
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	status := s.lease.status
	status.Keys = int(s.memory.Load())
	return status
}

// Check returns nil while the backend confirms the keys, else why it doesn't.
// It asks nobody: Run does.
//
// Errors: ErrSealed, ErrUnavailable.
func (s *Keystore) Check(context.Context) error {
	status := s.Status()
	switch status.State {
	case Sealed:
		return s.lease.sealed()
	case Offline:
		return fmt.Errorf("keys in memory are used until %s: %w", status.Until.UTC().Format(time.RFC3339), status.Cause)
	}
	return nil
}

// Usable returns nil while there are keys to be used, be the backend away or
// not.
//
// Errors: ErrSealed.
func (s *Keystore) Usable(context.Context) error { return s.lease.sealed() }

// Run has the backend confirm the keys until ctx ends, and seals them when it
// doesn't. It is called once.
func (s *Keystore) Run(ctx context.Context) {
	s.lease.mu.Lock()
	s.lease.expiry = time.AfterFunc(s.bound(), s.expire)
	s.lease.mu.Unlock()
	defer func() {
		s.lease.mu.Lock()
		s.lease.expiry.Stop()
		s.lease.mu.Unlock()
	}()
	const first, last = 100 * time.Millisecond, 5 * time.Second
	again := first
	for {
		wait := s.options.Lease
		if s.Status().State != Ready {
			wait = min(again, s.options.Lease)
			again = min(2*again, last)
		} else {
			again = first
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		_ = s.Confirm(ctx) // the status tells
		if status := s.Status(); status.State == Sealed && status.Keys > 0 {
			s.collect()
		}
	}
}

// bound is how long after a confirmation the keys are good at the very most,
// whatever becomes of the one that asks for the next.
func (s *Keystore) bound() time.Duration {
	return s.options.Lease + s.options.patience() + s.options.MaxOffline
}

// settle draws the consequences of a confirmation.
func (s *Keystore) settle(rings map[string]*Keyring, err error) {
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		s.lease.seal.Store(nil)
		s.replace(rings)
		s.lease.status.Confirmed = now
		s.enter(Status{State: Ready})
		s.expireAfter(s.bound())
	case errors.Is(err, ErrDenied), errors.Is(err, ErrUnwrap):
		s.sealKeys(err)
	case s.lease.status.State == Ready && s.options.MaxOffline > 0:
		until := now.Add(s.options.MaxOffline)
		s.enter(Status{State: Offline, Until: until, Cause: err})
		s.expireAfter(s.options.MaxOffline)
	case s.lease.status.State == Ready:
		s.sealKeys(err)
	case s.lease.status.State == Sealed:
		s.sealKeys(err)
	default: // offline as before; the clock ticks
		s.lease.status.Cause = err
	}
}

// expireAfter sets the clock that seals. The caller holds lease.mu.
func (s *Keystore) expireAfter(d time.Duration) {
	if s.lease.expiry != nil {
		s.lease.expiry.Reset(d)
	}
}

// expire seals the keys since they have not been confirmed in time.
func (s *Keystore) expire() {
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	status := s.lease.status
	if status.State == Ready && time.Since(status.Confirmed) < s.bound() {
		return // confirmed at the last moment
	}
	cause := status.Cause
	if cause == nil {
		cause = fmt.Errorf("%w: keys not confirmed in time", ErrUnavailable)
	}
	s.sealKeys(cause)
}

// sealKeys forgets all keyrings. The caller holds lease.mu.
func (s *Keystore) sealKeys(cause error) {
	sealed := fmt.Errorf("%w: %w", ErrSealed, cause)
	s.lease.seal.Store(&sealed)
	if s.lease.status.State == Sealed {
		s.lease.status.Cause = cause
		return
	}
	s.rings.Store(&map[string]*Keyring{})
	s.enter(Status{State: Sealed, Cause: cause})
	go func() {
		s.backend.Forget()
		s.collect()
		time.Sleep(time.Second) // what was being closed is by then
		s.collect()
	}()
}

// enter changes the state. The caller holds lease.mu.
func (s *Keystore) enter(next Status) {
	status := &s.lease.status
	if next.State == status.State {
		return
	}
	next.Since, next.Confirmed = time.Now(), status.Confirmed
	*status = next
	s.lease.tell(s.options.Changed, next)
}

// publish gives out a keyring beside those that are given out already, unless
// the Keystore has been sealed since it was read. fresh says that the backend
// has just unwrapped all of its keys.
func (s *Keystore) publish(ring *Keyring, fresh bool) error {
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	if err := s.lease.sealed(); err != nil {
		return err
	}
	s.replace(map[string]*Keyring{ring.namespace: ring})
	if fresh && s.lease.status.State == Ready {
		s.lease.status.Confirmed = time.Now()
		s.expireAfter(s.bound())
	}
	return nil
}

// replace gives out keyrings. The caller holds lease.mu.
func (s *Keystore) replace(rings map[string]*Keyring) {
	all := maps.Clone(*s.rings.Load())
	maps.Copy(all, rings)
	s.rings.Store(&all)
}
