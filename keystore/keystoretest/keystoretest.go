// Package keystoretest holds the contracts of package keystore as tests:
// TestBackend for a keystore.Backend and all that is built on it, TestShelf for
// a keystore.Shelf. An implementation's own test is a factory and a call:
//
//	func TestContract(t *testing.T) {
//		keystoretest.TestBackend(t, keystoretest.Harness{NewRoot: newRoot})
//	}
//
// FaultyBackend and FaultyShelf inject errors at chosen calls; MemoryShelf is a
// shelf for tests. They serve the tests of other packages too.
package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

// Harness makes what TestBackend tests.
type Harness struct {
	// NewRoot makes a root key that is unlike any other. What it takes is
	// undone by t.Cleanup.
	NewRoot func(t *testing.T) Root
}

// Root is a root key.
type Root struct {
	// Open returns a backend for the root key. It is called more than once, as
	// by one process after the other and by several at once.
	Open func(t *testing.T) keystore.Backend

	// Outage makes the root key unreachable for all its backends until end is
	// called. It is nil where there is nothing that could go away: a key in
	// memory.
	Outage func(t *testing.T) (end func())

	// Deny has the root key's service refuse all its backends until end is
	// called. It is nil where nobody can be refused.
	Deny func(t *testing.T) (end func())

	// Rotate makes a new version of the root key, which is the newest from then
	// on. It is nil for a root key that has no versions.
	Rotate func(t *testing.T)
}

// TestBackend runs the contract of keystore.Backend, and then that of a
// Keystore on top of it, with faults injected.
func TestBackend(t *testing.T, h Harness) {
	for _, r := range slices.Concat(wrapRows(), rewrapRows(), callRows(), keystoreRows(), rotateRows(), faultRows()) {
		t.Run(r.name, r.run(h))
	}
}

// TestOutage runs only the clause about outages, for a root key that can go away
// in more than one way.
func TestOutage(t *testing.T, h Harness) {
	t.Run(outageRow.name, outageRow.run(h))
}

// row is one clause of the contract. It returns an error where the clause is
// broken, rather than failing t, so that the suite can be tested on backends
// that break it.
type row struct {
	name  string
	check func(t *testing.T, h Harness) error
}

func (r row) run(h Harness) func(t *testing.T) {
	return func(t *testing.T) {
		if err := r.check(t, h); err != nil {
			t.Error(err)
		}
	}
}

// newBackend opens a new root key.
func (h Harness) newBackend(t *testing.T) keystore.Backend {
	return h.NewRoot(t).Open(t)
}

// testKey returns a key whose bytes are all different; n makes it another one.
func testKey(n byte) []byte {
	key := make([]byte, keystore.KeySize)
	for i := range key {
		key[i] = n + byte(i)*7
	}
	return key
}

// wantErr returns an error unless got wraps want.
func wantErr(what string, got, want error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("%s: got error %v, want %v", what, got, want)
	}
	return nil
}

// wantUnwrap returns an error unless wrapped unwraps to key.
func wantUnwrap(ctx context.Context, b keystore.Backend, wrapped, label, key []byte) error {
	got, err := b.Unwrap(ctx, wrapped, label)
	if err != nil {
		return fmt.Errorf("unwrap: %w", err)
	}
	if !bytes.Equal(got, key) {
		return fmt.Errorf("unwrapped to %d bytes that are not the key", len(got))
	}
	return nil
}

// wantNoUnwrap returns an error unless unwrapping is refused for good.
func wantNoUnwrap(ctx context.Context, what string, b keystore.Backend, wrapped, label []byte) error {
	key, err := b.Unwrap(ctx, wrapped, label)
	if key != nil {
		return fmt.Errorf("%s: unwrapped to %d bytes", what, len(key))
	}
	return wantErr(what, err, keystore.ErrUnwrap)
}

// inParallel runs f n times at once and returns the errors joined.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
