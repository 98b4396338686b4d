package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// load reads the namespace's keys from the shelf, after making those that it
// lacks, and gives out a keyring of them.
func (s *Keystore) load(ctx context.Context, namespace string) (*Keyring, error) {
	wrapped, err := s.fetch(ctx, namespace)
	if err != nil {
		return nil, err
	}
	census, err := s.shelf.Census(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("read the census: %w", err)
	}
	if err := checkCensus(wrapped, census); err != nil {
		return nil, err
	}
	next := &namespaceKeys{wrapped: wrapped, uses: s.countUses(namespace, census)}
	before := (*s.rings.Load())[namespace]
	ring, err := s.unwrap(ctx, namespace, next, before)
	if err != nil {
		return nil, err
	}
	if err := s.publish(ring, before == nil); err != nil {
		return nil, err
	}
	s.known[namespace] = next
	if before != nil && len(next.wrapped) < len(before.wrapped) {
		go s.collect() // a key has been retired
	}
	return ring, nil
}

// fetch returns the namespace's keys as the shelf has them, after making those
// that it lacks.
func (s *Keystore) fetch(ctx context.Context, namespace string) ([]WrappedKey, error) {
	wrapped, err := s.shelf.WrappedKeys(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("read wrapped keys: %w", err)
	}
	if lacking := lacks(wrapped); len(lacking) > 0 {
		// ErrKeyExists: another replica has made them since, or they are lost.
		// Either way the keys that count are those on the shelf.
		if err := s.create(ctx, namespace, lacking); err != nil && !errors.Is(err, ErrKeyExists) {
			return nil, err
		}
		if wrapped, err = s.shelf.WrappedKeys(ctx, namespace); err != nil {
			return nil, fmt.Errorf("read wrapped keys: %w", err)
		}
		if len(lacks(wrapped)) > 0 {
			return nil, fmt.Errorf("%w: keys that were there once are gone", ErrDamaged)
		}
	}
	sortKeys(wrapped)
	return wrapped, checkShelf(namespace, wrapped)
}

// lacks returns the classes of which keys are to be made: all where there is no
// key at all, else those that came later. That any other is missing is damage.
func lacks(wrapped []WrappedKey) []Class {
	if len(wrapped) == 0 {
		return classes[:]
	}
	var lacking []Class
	for _, class := range classes {
		if slices.ContainsFunc(wrapped, func(k WrappedKey) bool { return k.Class == class }) {
			continue
		}
		if !slices.Contains(later[:], class) {
			return nil
		}
		lacking = append(lacking, class)
	}
	return lacking
}

// create makes version 1 of each of the classes and adds them to the shelf.
// What it has made is forgotten: load reads it back.
func (s *Keystore) create(ctx context.Context, namespace string, lacking []Class) error {
	keys := make([]WrappedKey, 0, len(lacking))
	for _, class := range lacking {
		k, err := s.wrapNew(ctx, KeyID{namespace, class, 1})
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	if err := s.shelf.AddWrappedKeys(ctx, keys); err != nil {
		return fmt.Errorf("add wrapped keys: %w", err)
	}
	return nil
}

// wrapNew returns a new key, wrapped; its bytes are wiped before it returns. It
// is unwrapped once: a key that doesn't open must never get on the shelf, where
// one is enough to have no keyring.
func (s *Keystore) wrapNew(ctx context.Context, id KeyID) (WrappedKey, error) {
	k := WrappedKey{Namespace: id.Namespace, Class: id.Class, Version: id.Version, Created: time.Unix(time.Now().Unix(), 0).UTC()}
	key := make([]byte, KeySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return WrappedKey{}, fmt.Errorf("read random bytes: %w", err)
	}
	var err error
	if k.Wrapped, err = s.backend.Wrap(ctx, key, k.Label()); err != nil {
		return WrappedKey{}, fmt.Errorf("wrap new %v: %w", k, err)
	}
	if err := k.check(); err != nil {
		return WrappedKey{}, err
	}
	again, err := s.unwrapOne(ctx, k)
	defer clear(again)
	if errors.Is(err, ErrUnwrap) || err == nil && subtle.ConstantTimeCompare(again, key) != 1 {
		return WrappedKey{}, fmt.Errorf("%w: what was wrapped for a new key doesn't unwrap to it", ErrUnavailable)
	}
	return k, err
}

// countUses returns the counters of the data keys in the census. They only
// rise: what the shelf says lacks what is being stored at this moment.
func (s *Keystore) countUses(namespace string, census []KeyCount) map[uint32]*atomic.Uint64 {
	uses := make(map[uint32]*atomic.Uint64)
	if known := s.known[namespace]; known != nil {
		maps.Copy(uses, known.uses)
	}
	for _, c := range census {
		if c.ID.Class != Data {
			continue
		}
		n := uses[c.ID.Version]
		if n == nil {
			n = new(atomic.Uint64)
			uses[c.ID.Version] = n
		}
		for have := n.Load(); have < c.Sealed && !n.CompareAndSwap(have, c.Sealed); have = n.Load() {
		}
	}
	return uses
}

// unwrap makes a keyring: of all the keys, or not at all. If there is one
// before, keys that are as they were are taken over from it.
func (s *Keystore) unwrap(ctx context.Context, namespace string, next *namespaceKeys, before *Keyring) (*Keyring, error) {
	same := make(map[KeyID]WrappedKey)
	if before != nil {
		for _, k := range before.wrapped {
			same[k.ID()] = k
		}
	}
	keys := new(ringKeys)
	var fresh []WrappedKey
	for _, k := range next.wrapped {
		if have, ok := same[k.ID()]; !ok || !have.equal(k) || !keys.share(before.keys, k.Class, k.Version) {
			fresh = append(fresh, k)
		}
	}
	opened, err := s.unwrapAll(ctx, fresh)
	defer wipe.All(opened)
	if err != nil {
		return nil, err
	}
	for i, k := range fresh {
		uses := next.uses[k.Version]
		if k.Class == Data && uses == nil { // a census that doesn't know it yet
			uses = new(atomic.Uint64)
			next.uses[k.Version] = uses
		}
		if err := keys.add(k.Class, k.Version, opened[i], uses, &s.memory); err != nil {
			return nil, fmt.Errorf("unwrap %v: %w", k, err)
		}
	}
	return newKeyring(namespace, keys, next.wrapped, &s.memory), nil
}

// atOnce is how many requests are made of the backend at the same time.
const atOnce = 8

// unwrapAll has the backend unwrap keys, some at a time. The caller wipes the
// result, error or not.
func (s *Keystore) unwrapAll(ctx context.Context, wrapped []WrappedKey) ([][]byte, error) {
	keys := make([][]byte, len(wrapped))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, k := range wrapped {
		group.Go(func() (err error) {
			keys[i], err = s.unwrapOne(ctx, k)
			return err
		})
	}
	return keys, group.Wait()
}

// unwrapOne has the backend unwrap a key, and waits no longer than patience: a
// backend that hangs is away.
func (s *Keystore) unwrapOne(ctx context.Context, k WrappedKey) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, s.options.patience())
	defer cancel()
	key, err := s.backend.Unwrap(bounded, k.Wrapped, k.Label())
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrDenied) {
		err = fmt.Errorf("%w: no answer within %s", ErrUnavailable, s.options.patience())
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap %v: %w", k, err)
	}
	return key, nil
}

// equal says whether two keys are the same in every byte.
func (k WrappedKey) equal(other WrappedKey) bool {
	return k.ID() == other.ID() && k.Created.Equal(other.Created) && bytes.Equal(k.Wrapped, other.Wrapped)
}

// checkCensus refuses a shelf that has lost a key which is needed, and one with a
// key that was never counted.
func checkCensus(wrapped []WrappedKey, census []KeyCount) error {
	counted := make(map[KeyID]bool, len(census))
	for _, c := range census {
		if counted[c.ID] = true; c.Gone && c.Records > 0 {
			return fmt.Errorf("%w: %v is gone, and %d records are under it", ErrDamaged, c.ID, c.Records)
		}
	}
	for _, k := range wrapped {
		if !counted[k.ID()] {
			return fmt.Errorf("%w: the census lacks %v", ErrDamaged, k)
		}
	}
	return nil
}

// checkShelf refuses what no Keystore has put on a shelf. Versions may have
// gaps, since a version that is no longer needed is taken away.
func checkShelf(namespace string, wrapped []WrappedKey) error {
	seen := make(map[KeyID]bool)
	present := make(map[Class]bool)
	for _, k := range wrapped {
		if err := k.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if k.Namespace != namespace {
			return fmt.Errorf("%w: found %v", ErrDamaged, k)
		}
		if seen[k.ID()] {
			return fmt.Errorf("%w: found %v twice", ErrDamaged, k)
		}
		seen[k.ID()] = true
		present[k.Class] = true
	}
	for _, class := range classes {
		if !present[class] {
			return fmt.Errorf("%w: no %v key", ErrDamaged, class)
		}
	}
	return nil
}
