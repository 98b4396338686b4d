package keystoretest

import (
	"context"
	"sync/atomic"

	"github.com/coatcheck/coatcheck/keystore"
)

// Op is a call that can be made to fail.
type Op string

// The calls of keystore.Backend and keystore.Shelf.
const (
	OpWrap           Op = "Wrap"
	OpUnwrap         Op = "Unwrap"
	OpRewrap         Op = "Rewrap"
	OpCheck          Op = "Check"
	OpWrappedKeys    Op = "WrappedKeys"
	OpAddWrappedKeys Op = "AddWrappedKeys"
	OpCensus         Op = "Census"
)

// Fault is asked at each call whether it fails, and with which error; nil lets
// it go on. It may also do something at that moment, such as wait. It is safe
// for concurrent use. Faults are composed: the third Wrap fails with
//
//	On(OpWrap, Nth(3, Always(keystore.ErrUnavailable)))
type Fault func(op Op) error

// Always fails every call.
func Always(err error) Fault {
	return func(Op) error { return err }
}

// On asks f at calls of op only.
func On(op Op, f Fault) Fault {
	return func(got Op) error {
		if got != op {
			return nil
		}
		return f(got)
	}
}

// Nth asks f at the n-th time only that it is asked itself, from 1. Shared
// between a backend and a shelf it counts the calls of both.
func Nth(n int64, f Fault) Fault {
	var asked atomic.Int64
	return func(op Op) error {
		if asked.Add(1) != n {
			return nil
		}
		return f(op)
	}
}

// While asks f only while on is true.
func While(on *atomic.Bool, f Fault) Fault {
	return func(op Op) error {
		if !on.Load() {
			return nil
		}
		return f(op)
	}
}

// Any asks each of the faults until one fails.
func Any(faults ...Fault) Fault {
	return func(op Op) error {
		for _, f := range faults {
			if err := f(op); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask is f for a fault that may be nil.
func (f Fault) ask(op Op) error {
	if f == nil {
		return nil
	}
	return f(op)
}

// FaultyBackend is a Backend with faults. A call that Before fails isn't made;
// one that After fails is made, and its result is lost. Either may be nil.
type FaultyBackend struct {
	Backend keystore.Backend
	Before  Fault
	After   Fault
}

var _ keystore.Backend = (*FaultyBackend)(nil)

// Wrap implements keystore.Backend.
func (b *FaultyBackend) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	return faulty(OpWrap, b.Before, b.After, func() ([]byte, error) { return b.Backend.Wrap(ctx, key, label) })
}

// Unwrap implements keystore.Backend.
func (b *FaultyBackend) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	return faulty(OpUnwrap, b.Before, b.After, func() ([]byte, error) { return b.Backend.Unwrap(ctx, wrapped, label) })
}

// Rewrap implements keystore.Backend.
func (b *FaultyBackend) Rewrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	return faulty(OpRewrap, b.Before, b.After, func() ([]byte, error) { return b.Backend.Rewrap(ctx, wrapped, label) })
}

// RootVersion implements keystore.Backend. It never fails, since it asks
// nobody.
func (b *FaultyBackend) RootVersion(wrapped []byte) (uint32, error) {
	return b.Backend.RootVersion(wrapped)
}

// Forget implements keystore.Backend.
func (b *FaultyBackend) Forget() { b.Backend.Forget() }

// Check implements keystore.Backend.
func (b *FaultyBackend) Check(ctx context.Context) error {
	_, err := faulty(OpCheck, b.Before, b.After, func() (struct{}, error) { return struct{}{}, b.Backend.Check(ctx) })
	return err
}

// FaultyShelf is a Shelf with faults, as FaultyBackend is a Backend. After an
// AddWrappedKeys that After fails, the keys are on the shelf and nobody has
// been told: a connection that broke at the wrong moment.
type FaultyShelf struct {
	Shelf  keystore.Shelf
	Before Fault
	After  Fault
}

var _ keystore.Shelf = (*FaultyShelf)(nil)

// WrappedKeys implements keystore.Shelf.
func (s *FaultyShelf) WrappedKeys(ctx context.Context, namespace string) ([]keystore.WrappedKey, error) {
	return faulty(OpWrappedKeys, s.Before, s.After, func() ([]keystore.WrappedKey, error) {
		return s.Shelf.WrappedKeys(ctx, namespace)
	})
}

// AddWrappedKeys implements keystore.Shelf.
func (s *FaultyShelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	_, err := faulty(OpAddWrappedKeys, s.Before, s.After, func() (struct{}, error) {
		return struct{}{}, s.Shelf.AddWrappedKeys(ctx, keys)
	})
	return err
}

// Census implements keystore.Shelf.
func (s *FaultyShelf) Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error) {
	return faulty(OpCensus, s.Before, s.After, func() ([]keystore.KeyCount, error) { return s.Shelf.Census(ctx, namespace) })
}

// faulty makes a call between two faults.
func faulty[T any](op Op, before, after Fault, call func() (T, error)) (T, error) {
	var none T
	if err := before.ask(op); err != nil {
		return none, err
	}
	result, err := call()
	if err != nil {
		return none, err
	}
	if err := after.ask(op); err != nil {
		return none, err
	}
	return result, nil
}
