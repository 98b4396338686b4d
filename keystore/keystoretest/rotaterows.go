package keystoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// rotateRows are the clauses about a Keystore's keys as time goes by.
func rotateRows() []row {
	return []row{
		{"a new version is active once it is on the shelf", checkRotation},
		{"a fault before any call of a rotation passes", checkRotationFaults(false)},
		{"a fault after any call of a rotation passes", checkRotationFaults(true)},
		{"another replica finds a version that it meets", checkNewer},
		{"another replica takes over a version within its lease", checkLease},
		{"rewrapping changes no key", checkRewrapKeys},
		{"a fault at any call of a rewrap passes", checkRewrapKeysFaults},
		{"keys are sealed without the backend, and opened again", checkSealing},
	}
}

// rotation makes a version of a class and takes it over.
func rotation(ctx context.Context, keys *keystore.Keystore, shelf keystore.Shelf, class keystore.Class) error {
	k, err := keys.NewVersion(ctx, "default", class)
	if err != nil {
		return err
	}
	if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{k}); err != nil {
		return err
	}
	return keys.Reload(ctx, "default")
}

func checkRotation(t *testing.T, h Harness) error {
	ctx, shelf, b := t.Context(), new(MemoryShelf), h.newBackend(t)
	keys := keystore.New(b, shelf, keystore.Options{})
	before, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	for _, class := range allClasses {
		if err := rotation(ctx, keys, shelf, class); err != nil {
			return fmt.Errorf("%v: %w", class, err)
		}
	}
	after, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	for _, class := range allClasses {
		if got := after.Versions(class); !slices.Equal(got, []uint32{2, 1}) {
			return fmt.Errorf("%v versions are %v, want [2 1]", class, got)
		}
	}
	restarted, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return err
	}
	return errors.Join(wantSame(after, restarted), wantOpens(before, after))
}

// checkRotationFaults fails every single call of a rotation in turn. Whatever
// failed, what was sealed before opens, and so it does after a restart.
func checkRotationFaults(after bool) func(t *testing.T, h Harness) error {
	return func(t *testing.T, h Harness) error {
		ctx, b := t.Context(), h.newBackend(t)
		return everyCall(func(n int64) (Op, error) {
			shelf := new(MemoryShelf)
			before, err := wantKeyring(ctx, b, shelf, "default")
			if err != nil {
				return "", err
			}
			return rotateWithFault(ctx, b, shelf, before, n, after)
		}, OpWrap, OpUnwrap, OpWrappedKeys, OpAddWrappedKeys, OpCensus)
	}
}

func rotateWithFault(ctx context.Context, b keystore.Backend, shelf *MemoryShelf, before *keystore.Keyring, n int64, after bool) (fired Op, err error) {
	var armed atomic.Bool
	fault := While(&armed, once(n, &fired))
	faultyBackend, faultyShelf := &FaultyBackend{Backend: b}, &FaultyShelf{Shelf: shelf}
	if after {
		faultyBackend.After, faultyShelf.After = fault, fault
	} else {
		faultyBackend.Before, faultyShelf.Before = fault, fault
	}
	keys := keystore.New(faultyBackend, faultyShelf, keystore.Options{})
	if _, err := keys.Keyring(ctx, "default"); err != nil {
		return fired, err
	}
	armed.Store(true)
	err = rotation(ctx, keys, faultyShelf, keystore.Data)
	armed.Store(false)
	if fired == "" {
		return fired, err
	}
	if err := wantErr("during the fault", err, faultOf(fired)); err != nil {
		return fired, err
	}
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		return fired, fmt.Errorf("after the fault: %w", err)
	}
	restarted, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return fired, fmt.Errorf("after the fault and a restart: %w", err)
	}
	if err := errors.Join(wantOpens(before, ring), wantOpens(before, restarted), wantOpens(ring, restarted)); err != nil {
		return fired, err
	}
	if err := rotation(ctx, keys, shelf, keystore.Data); err != nil {
		return fired, fmt.Errorf("once more after the fault: %w", err)
	}
	return fired, nil
}

func checkNewer(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	ours, theirs := keystore.New(root.Open(t), shelf, keystore.Options{}), keystore.New(root.Open(t), shelf, keystore.Options{})
	old, err := theirs.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	if same, err := theirs.Newer(ctx, "default", keystore.Data, 2); err != nil || same != old {
		return fmt.Errorf("nothing was new, and another keyring came (error %v)", err)
	}
	if _, err := ours.Keyring(ctx, "default"); err != nil {
		return err
	}
	if err := rotation(ctx, ours, shelf, keystore.Data); err != nil {
		return err
	}
	ring, err := ours.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	newer, err := theirs.Newer(ctx, "default", keystore.Data, 2)
	if err != nil {
		return err
	}
	// And what comes after that, though it has been looked since.
	if err := rotation(ctx, ours, shelf, keystore.Token); err != nil {
		return err
	}
	newest, err := theirs.Newer(ctx, "default", keystore.Token, 2)
	if err != nil {
		return err
	}
	if !newest.Has(keystore.Token, 2) || newest == newer {
		return errors.New("a version that came after the latest look was not found")
	}
	return wantSame(ring, newer)
}

func checkLease(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	ours, theirs := keystore.New(root.Open(t), shelf, keystore.Options{}), keystore.New(root.Open(t), shelf, keystore.Options{Lease: 50 * time.Millisecond})
	for _, keys := range []*keystore.Keystore{ours, theirs} {
		if _, err := keys.Keyring(ctx, "default"); err != nil {
			return err
		}
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { theirs.Run(running); close(done) }()
	defer func() { stop(); <-done }()
	if err := rotation(ctx, ours, shelf, keystore.Token); err != nil {
		return err
	}
	taken := func() bool {
		ring, err := theirs.Keyring(ctx, "default")
		return err == nil && ring.ActiveVersion(keystore.Token) == 2
	}
	if err := eventually("the version is taken over", taken); err != nil {
		return err
	}
	// And one that is gone is given up.
	shelf.Remove(keystore.KeyID{Namespace: "default", Class: keystore.Token, Version: 1})
	return eventually("the version that is gone is given up", func() bool {
		ring, err := theirs.Keyring(ctx, "default")
		return err == nil && slices.Equal(ring.Versions(keystore.Token), []uint32{2})
	})
}

func checkRewrapKeys(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	b := root.Open(t)
	keys := keystore.New(b, shelf, keystore.Options{})
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	if changes, err := keys.Rewrap(ctx, "default"); err != nil || len(changes) != 0 {
		return fmt.Errorf("%d keys rewrapped with nothing newer, error %w", len(changes), err)
	}
	want := uint32(1)
	if root.Rotate != nil {
		root.Rotate(t)
		want = 2
	}
	changes, err := keys.Rewrap(ctx, "default")
	if err != nil {
		return err
	}
	if root.Rotate != nil && len(changes) != len(allClasses) {
		return fmt.Errorf("%d keys rewrapped, want %d", len(changes), len(allClasses))
	}
	if err := errors.Join(shelf.Replace(changes), keys.Reload(ctx, "default")); err != nil {
		return err
	}
	shelved, err := keys.Keys(ctx, "default")
	if err != nil {
		return err
	}
	for _, k := range shelved {
		if k.RootVersion != want || !k.Active {
			return fmt.Errorf("%v is under version %d of the root key, want %d", k, k.RootVersion, want)
		}
	}
	after, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	restarted, err := wantKeyring(ctx, root.Open(t), shelf, "default")
	if err != nil {
		return err
	}
	return errors.Join(wantSame(ring, after), wantSame(ring, restarted))
}

func checkRewrapKeysFaults(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	b := root.Open(t)
	ring, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return err
	}
	if root.Rotate != nil {
		root.Rotate(t)
	}
	before, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return err
	}
	err = everyCall(func(n int64) (fired Op, err error) {
		fault := once(n, &fired)
		keys := keystore.New(&FaultyBackend{Backend: b, Before: fault}, &FaultyShelf{Shelf: shelf, Before: fault}, keystore.Options{})
		changes, err := keys.Rewrap(ctx, "default")
		if fired == "" {
			return fired, err
		}
		if changes != nil {
			return fired, errors.New("changes were returned")
		}
		return fired, errors.Join(wantErr("during the fault", err, faultOf(fired)), wantShelf(ctx, shelf, "default", before...))
	}, OpRewrap, OpWrappedKeys)
	if err != nil {
		return err
	}
	restarted, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return err
	}
	return wantSame(ring, restarted)
}

// checkSealing goes through the states of a Keystore whose backend goes away.
func checkSealing(t *testing.T, h Harness) error {
	ctx, shelf := t.Context(), new(MemoryShelf)
	var down atomic.Bool
	b := &FaultyBackend{Backend: h.newBackend(t), Before: While(&down, Always(keystore.ErrUnavailable))}
	keys := keystore.New(b, shelf, keystore.Options{Lease: time.Second, MaxOffline: 500 * time.Millisecond})
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { keys.Run(running); close(done) }()
	defer func() { stop(); <-done }()
	down.Store(true)
	if err := wantErr("confirming", keys.Confirm(ctx), keystore.ErrUnavailable); err != nil {
		return err
	}
	if same, err := keys.Keyring(ctx, "default"); err != nil || same != ring {
		return fmt.Errorf("offline: another keyring, error %v", err)
	}
	if err := wantErr("offline: Check", keys.Check(ctx), keystore.ErrUnavailable); err != nil {
		return err
	}
	if err := eventually("it is sealed", func() bool { return errors.Is(keys.Usable(ctx), keystore.ErrSealed) }); err != nil {
		return err
	}
	_, err = keys.Keyring(ctx, "default")
	if err := wantErr("sealed: Keyring", err, keystore.ErrSealed); err != nil {
		return err
	}
	down.Store(false)
	if err := eventually("it is ready", func() bool { return keys.Check(ctx) == nil }); err != nil {
		return err
	}
	again, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	return wantSame(ring, again)
}

// eventually waits until a condition holds.
func eventually(what string, holds func() bool) error {
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain: %s", what)
		}
	}
	return nil
}
