package keystoretest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

// faultRows are the clauses about a Keystore whose backend or shelf fails.
func faultRows() []row {
	return []row{
		{"a fault before any call of first use passes", checkFirstUseFaults(false)},
		{"a fault after any call of first use passes", checkFirstUseFaults(true)},
		{"a fault at any call of a later use passes", checkLaterUseFaults},
		{"a key that isn't on the shelf isn't used", checkLostAdd},
		{"another replica's keys win", checkRival},
		{"a key that can't be unwrapped is final", checkFinal},
		{"a cached keyring outlives the backend", checkCached},
	}
}

// errShelf is what a shelf of these tests fails with.
var errShelf = errors.New("keystoretest: shelf fault")

// faultOf is the error that a call fails with when it can't be made.
func faultOf(op Op) error {
	if op == OpWrappedKeys || op == OpAddWrappedKeys || op == OpCensus {
		return errShelf
	}
	return keystore.ErrUnavailable
}

// once fails the n-th call, counted over backend and shelf, and reports in
// fired which one it was.
func once(n int64, fired *Op) Fault {
	return Nth(n, func(op Op) error {
		*fired = op
		return faultOf(op)
	})
}

// everyCall fails every single call of something in turn: the first in one run,
// the second in the next, and so on until one ends without a fault. run returns
// which call failed. It is an error if none was of one of the ops.
func everyCall(run func(n int64) (fired Op, err error), ops ...Op) error {
	failed := make(map[Op]bool)
	for n := int64(1); ; n++ {
		fired, err := run(n)
		if err != nil {
			return fmt.Errorf("fault at call %d, %s: %w", n, fired, err)
		}
		if fired == "" {
			break
		}
		failed[fired] = true
	}
	for _, op := range ops {
		if !failed[op] {
			return fmt.Errorf("no call of %s was made", op)
		}
	}
	return nil
}

// checkFirstUseFaults fails every single call of a namespace's first use.
func checkFirstUseFaults(after bool) func(t *testing.T, h Harness) error {
	return func(t *testing.T, h Harness) error {
		return everyCall(func(n int64) (Op, error) {
			return checkFault(t.Context(), h.newBackend(t), new(MemoryShelf), n, after)
		}, OpWrap, OpUnwrap, OpWrappedKeys, OpAddWrappedKeys, OpCensus)
	}
}

// checkLaterUseFaults is checkFirstUseFaults for a namespace that has its keys.
func checkLaterUseFaults(t *testing.T, h Harness) error {
	ctx, shelf, b := t.Context(), new(MemoryShelf), h.newBackend(t)
	if _, err := wantKeyring(ctx, b, shelf, "default"); err != nil {
		return err
	}
	before, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return err
	}
	for n := int64(1); ; n++ {
		fired, err := checkFault(ctx, b, shelf, n, n%2 == 0)
		if err == nil {
			err = wantShelf(ctx, shelf, "default", before...)
		}
		if err != nil || fired == "" {
			return err
		}
	}
}

// checkFault loads a keyring while the n-th call fails, and again when the
// fault is over. It returns the call that failed, if there were as many.
func checkFault(ctx context.Context, b keystore.Backend, shelf keystore.Shelf, n int64, after bool) (fired Op, err error) {
	fault := once(n, &fired)
	faultyBackend, faultyShelf := &FaultyBackend{Backend: b}, &FaultyShelf{Shelf: shelf}
	if after {
		faultyBackend.After, faultyShelf.After = fault, fault
	} else {
		faultyBackend.Before, faultyShelf.Before = fault, fault
	}
	keys := keystore.New(faultyBackend, faultyShelf, keystore.Options{})
	ring, err := keys.Keyring(ctx, "default")
	if fired == "" {
		return fired, err
	}
	if ring != nil {
		return fired, errors.New("a keyring was returned")
	}
	if err := wantErr("during the fault", err, faultOf(fired)); err != nil {
		return fired, err
	}
	wrapped, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return fired, err
	}
	if len(wrapped) != 0 && len(wrapped) != len(allClasses) {
		return fired, fmt.Errorf("%d keys on the shelf, want none or %d", len(wrapped), len(allClasses))
	}
	// The fault is over.
	if ring, err = keys.Keyring(ctx, "default"); err != nil {
		return fired, fmt.Errorf("after the fault: %w", err)
	}
	restarted, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return fired, fmt.Errorf("after the fault and a restart: %w", err)
	}
	return fired, wantSame(ring, restarted)
}

// lossyShelf says that it has added keys and has not.
type lossyShelf struct{ MemoryShelf }

func (*lossyShelf) AddWrappedKeys(context.Context, []keystore.WrappedKey) error { return nil }

func checkLostAdd(t *testing.T, h Harness) error {
	ring, err := wantKeyring(t.Context(), h.newBackend(t), new(lossyShelf), "default")
	if ring != nil {
		return errors.New("a keyring was returned whose keys are nowhere")
	}
	return wantErr("a shelf that loses keys", err, keystore.ErrDamaged)
}

// checkRival has another replica make the keys between our look at the empty
// shelf and our adding to it.
func checkRival(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	var rival *keystore.Keyring
	beaten := &FaultyShelf{Shelf: shelf, Before: On(OpAddWrappedKeys, func(Op) (err error) {
		rival, err = wantKeyring(ctx, root.Open(t), shelf, "default")
		return err
	})}
	ring, err := wantKeyring(ctx, root.Open(t), beaten, "default")
	if err != nil {
		return err
	}
	return wantSame(ring, rival)
}

func checkFinal(t *testing.T, h Harness) error {
	ctx, shelf, b := t.Context(), new(MemoryShelf), h.newBackend(t)
	if _, err := wantKeyring(ctx, b, shelf, "default"); err != nil {
		return err
	}
	for n := range len(keystore.Classes()) {
		faulty := &FaultyBackend{Backend: b, Before: On(OpUnwrap, Nth(int64(n)+1, Always(keystore.ErrUnwrap)))}
		ring, err := wantKeyring(ctx, faulty, shelf, "default")
		if ring != nil {
			return fmt.Errorf("a keyring was returned without key %d", n+1)
		}
		if err := wantErr("a key that can't be unwrapped", err, keystore.ErrUnwrap); err != nil {
			return err
		}
		if errors.Is(err, keystore.ErrUnavailable) {
			return errors.New("what is final was passed off as an outage")
		}
	}
	return nil
}

func checkCached(t *testing.T, h Harness) error {
	ctx := t.Context()
	var down atomic.Bool
	away := While(&down, func(op Op) error { return faultOf(op) })
	keys := keystore.New(
		&FaultyBackend{Backend: h.newBackend(t), Before: away},
		&FaultyShelf{Shelf: new(MemoryShelf), Before: away}, keystore.Options{})
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	down.Store(true)
	cached, err := keys.Keyring(ctx, "default")
	if err != nil || cached != ring {
		return fmt.Errorf("the cached keyring was not returned (error %v)", err)
	}
	_, err = keys.Keyring(ctx, "other")
	return wantErr("another namespace", err, errShelf)
}
