package keystore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"
)

// MaxVersions is how many versions a class can have at a time. A start has all
// of them unwrapped.
const MaxVersions = 1000

// ErrTooManyKeys says that a class has MaxVersions, or that its numbers are used
// up. Some have to be retired first.
var ErrTooManyKeys = errors.New("keystore: too many key versions")

// NewVersion makes a key of the class, of the version that comes after all
// that the namespace has or ever had, and returns it wrapped. It becomes the
// active one once the caller has put it on the shelf and called Reload; if that
// fails, or never comes to pass, nothing has changed.
//
// Errors: ErrClass, ErrTooManyKeys, those of Keyring, and
// ErrUnavailable, ErrDenied, that of the Shelf, or that of ctx.
func (s *Keystore) NewVersion(ctx context.Context, namespace string, class Class) (WrappedKey, error) {
	if !class.valid() {
		return WrappedKey{}, fmt.Errorf("%w: new version of %v", ErrClass, class)
	}
	// A namespace without keys gets its first ones, of all classes.
	if _, err := s.Keyring(ctx, namespace); err != nil {
		return WrappedKey{}, err
	}
	census, err := s.shelf.Census(ctx, namespace)
	if err != nil {
		return WrappedKey{}, fmt.Errorf("keystore: read the census: %w", err)
	}
	var newest uint32
	there := 0
	for _, c := range census {
		if c.ID.Class != class {
			continue
		}
		if newest = max(newest, c.ID.Version); !c.Gone {
			there++
		}
	}
	if there >= MaxVersions || newest == math.MaxUint32 {
		return WrappedKey{}, fmt.Errorf("%w: %d of %v", ErrTooManyKeys, there, class)
	}
	k, err := s.wrapNew(ctx, KeyID{Namespace: namespace, Class: class, Version: newest + 1})
	if err != nil {
		return WrappedKey{}, fmt.Errorf("keystore: %w", err)
	}
	return k, nil
}

// Rewrap returns what is to be replaced on the shelf so that all keys of a
// namespace are wrapped under the newest version of the root key; nothing if
// they are. The keys stay as they are, and so does the keyring.
//
// Errors: ErrSealed, ErrUnavailable, ErrDenied, ErrUnwrap, that of the Shelf, or
// that of ctx.
func (s *Keystore) Rewrap(ctx context.Context, namespace string) ([]Rewrapping, error) {
	if err := s.lease.sealed(); err != nil {
		return nil, err
	}
	wrapped, err := s.shelf.WrappedKeys(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("keystore: read wrapped keys: %w", err)
	}
	again := make([]WrappedKey, len(wrapped))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, k := range wrapped {
		group.Go(func() (err error) {
			again[i], err = s.rewrapOne(ctx, k)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	var changes []Rewrapping
	for i, k := range wrapped {
		if !again[i].equal(k) {
			changes = append(changes, Rewrapping{Old: k, New: again[i]})
		}
	}
	return changes, nil
}

// rewrapOne returns a key wrapped under the newest version of the root key. What
// doesn't open must not take the place of what does, so it is opened.
func (s *Keystore) rewrapOne(ctx context.Context, k WrappedKey) (WrappedKey, error) {
	again := k
	var err error
	if again.Wrapped, err = s.backend.Rewrap(ctx, k.Wrapped, k.Label()); err != nil {
		return k, fmt.Errorf("rewrap %v: %w", k, err)
	}
	if bytes.Equal(again.Wrapped, k.Wrapped) {
		return k, nil
	}
	key, err := s.unwrapOne(ctx, again)
	clear(key)
	return again, err
}

// ShelvedKey is a key as it lies on the shelf, with what is under it.
type ShelvedKey struct {
	WrappedKey
	RootVersion uint32 // of the root key that it is wrapped under
	Active      bool   // the newest of its class
	Count       KeyCount
}

// Describe returns what there is to tell of a key that NewVersion has made or
// Rewrap has changed, as if it were on the shelf, active and unused.
//
// Errors: ErrUnwrap.
func (s *Keystore) Describe(k WrappedKey) (ShelvedKey, error) {
	version, err := s.backend.RootVersion(k.Wrapped)
	if err != nil {
		return ShelvedKey{}, fmt.Errorf("keystore: %v: %w", k, err)
	}
	return ShelvedKey{WrappedKey: k, RootVersion: version, Active: true, Count: KeyCount{ID: k.ID()}}, nil
}

// Keys returns the keys of a namespace, in the order of classes and versions.
// It needs no backend, so it also works while the Keystore is sealed.
//
// Errors: ErrUnwrap for wrapped keys that can't be such, that of the Shelf, or
// that of ctx.
func (s *Keystore) Keys(ctx context.Context, namespace string) ([]ShelvedKey, error) {
	wrapped, err := s.shelf.WrappedKeys(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("keystore: read wrapped keys: %w", err)
	}
	census, err := s.shelf.Census(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("keystore: read the census: %w", err)
	}
	counts := make(map[KeyID]KeyCount, len(census))
	for _, c := range census {
		counts[c.ID] = c
	}
	sortKeys(wrapped)
	keys := make([]ShelvedKey, len(wrapped))
	for i, k := range wrapped {
		if keys[i], err = s.Describe(k); err != nil {
			return nil, err
		}
		keys[i].Active = i+1 == len(wrapped) || wrapped[i+1].Class != k.Class
		keys[i].Count = counts[k.ID()]
	}
	return keys, nil
}

// sortKeys sorts keys by class and version.
func sortKeys(keys []WrappedKey) {
	slices.SortFunc(keys, func(a, b WrappedKey) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Version, b.Version))
	})
}
