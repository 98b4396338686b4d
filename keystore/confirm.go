package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// Confirm has the backend confirm the keys now, rather than with the next
// lease, and returns what it says. Where no keyring has been asked for yet, it
// asks whether the backend can be used.
//
// Errors: ErrUnavailable, ErrDenied, ErrUnwrap, ErrDamaged, or that of ctx.
func (s *Keystore) Confirm(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("keystore: confirm: %w", err)
	}
	defer s.unlock()
	rings, known, err := s.confirm(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("keystore: confirm: %w", ctx.Err()) // says nothing about the backend
	}
	if err == nil {
		maps.Copy(s.known, known)
	}
	s.settle(rings, err)
	return err
}

// confirm has the backend show that it still opens the keys, and returns
// keyrings of those that are on the shelf now, and what is known of them.
func (s *Keystore) confirm(ctx context.Context) (map[string]*Keyring, map[string]*namespaceKeys, error) {
	if len(s.known) == 0 {
		bounded, cancel := context.WithTimeout(ctx, s.options.patience())
		defer cancel()
		return nil, nil, s.backend.Check(bounded)
	}
	rings, all := make(map[string]*Keyring), make(map[string]*namespaceKeys)
	for namespace := range s.known {
		next, err := s.look(ctx, namespace)
		if err == nil {
			rings[namespace], err = s.confirmRing(ctx, namespace, next)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("keystore: keyring of namespace %q: %w", namespace, err)
		}
		all[namespace] = next
	}
	return rings, all, nil
}

// look returns what is on the shelf of a namespace. A shelf that can't be read
// says nothing about the backend: then it is what was known before. One that is
// damaged is not put up with: what is sealed from now on might never be opened.
func (s *Keystore) look(ctx context.Context, namespace string) (*namespaceKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.patience())
	defer cancel()
	next := *s.known[namespace]
	wrapped, err := s.fetch(ctx, namespace)
	for _, ours := range []error{ErrDamaged, ErrUnavailable, ErrDenied, ErrUnwrap} {
		if errors.Is(err, ours) {
			return nil, err
		}
	}
	if err == nil {
		next.wrapped = wrapped
	}
	census, unread := s.shelf.Census(ctx, namespace)
	if err != nil || unread != nil {
		return &next, nil
	}
	if err := checkCensus(wrapped, census); err != nil {
		return nil, err
	}
	next.uses = s.countUses(namespace, census)
	return &next, nil
}

// confirmRing returns the keyring of a namespace once the backend has unwrapped
// a key of each version of the root key that keys are wrapped under, and all
// that are new. Where there is no keyring, since the keys were sealed, it
// unwraps all.
func (s *Keystore) confirmRing(ctx context.Context, namespace string, next *namespaceKeys) (*Keyring, error) {
	before := (*s.rings.Load())[namespace]
	if before == nil {
		return s.unwrap(ctx, namespace, next, nil)
	}
	var probes []WrappedKey
	seen := make(map[uint32]bool)
	for _, k := range slices.Backward(next.wrapped) {
		version, err := s.backend.RootVersion(k.Wrapped)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", k, err)
		}
		if !seen[version] {
			seen[version] = true
			probes = append(probes, k)
		}
	}
	opened, err := s.unwrapAll(ctx, probes)
	wipe.All(opened)
	if err != nil {
		return nil, err
	}
	if slices.EqualFunc(before.wrapped, next.wrapped, WrappedKey.equal) {
		return before, nil
	}
	return s.unwrap(ctx, namespace, next, before)
}
