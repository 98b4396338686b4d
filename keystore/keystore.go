// Package keystore keeps the keys that guard values and hands them out as
// opaque keyrings.
//
// Each namespace has a keyring with keys of four classes, and each class has
// versions, of which the newest is active. A key is 32 random bytes, made
// here, wrapped at once by the [Backend] that guards the root key (HashiCorp
// Vault, or a file, package local), and kept wrapped on the [Shelf], beside
// the data. A wrapped key is useless without the Backend.
//
//	keys := keystore.New(backend, shelf)
//	ring, err := keys.Keyring(ctx, "default")
//	...
//	sealed, version, err := ring.Seal(nil, value, additional)
//	...
//	value, err := ring.Open(nil, version, sealed, additional)
//
// # Key care
//
// Whoever has the root key and a copy of the data has every value; whoever
// loses the root key has lost every value. Back the two up apart from each
// other. No function of this package returns the bytes of a key, no type of it
// prints them, and the only copies in memory are those inside a [Keyring].
//
// # Key separation
//
// A key is used for one thing only (NIST SP 800-57 part 1, section 5.2): data
// keys for AES-256-GCM, token keys for a bare AES-256 block, index and subject
// keys for HMAC-SHA-256. Inside a Keyring each class has a type that can do
// nothing else.
//
// # Compatibility
//
// The numbers of the classes, the labels under which keys are wrapped, the
// stored form of a [WrappedKey] and the inputs of every algorithm are
// permanent: they are pinned by vectors under testdata, and a later version of
// this package reads all that an earlier one wrote.
//
// Only the standard library's cryptography is used, all of it available in its
// FIPS 140-3 module.
package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"
)

// ErrDamaged says that what the Shelf returned can't be what was put there: a
// stored form that doesn't parse, a key of another namespace, a version that
// is there twice, a class that is missing. Trying again doesn't help.
var ErrDamaged = errors.New("keystore: stored keys damaged")

// Keystore makes, loads and caches keyrings. It is safe for concurrent use.
type Keystore struct {
	backend Backend
	shelf   Shelf

	// rings is replaced as a whole and never changed, so that reading it needs
	// no lock.
	rings atomic.Pointer[map[string]*Keyring]

	// loading is held by the one call that loads a keyring. It is a channel
	// and not a mutex so that a call whose context ends stops waiting.
	loading chan struct{}
}

// New returns a Keystore on the backend and the shelf, neither of which may be
// nil. It calls neither.
func New(backend Backend, shelf Shelf) *Keystore {
	s := &Keystore{backend: backend, shelf: shelf, loading: make(chan struct{}, 1)}
	s.rings.Store(&map[string]*Keyring{})
	return s
}

// Keyring returns the keyring of a namespace, whose name is 1 to MaxNamespace
// bytes of UTF-8. The caller has checked that there is such a namespace: the
// first call for a name makes its keys.
//
// After the first call that succeeds the keyring comes from memory, without a
// lock, and ctx is not looked at. Until then a call reads the wrapped keys
// from the shelf and has the backend unwrap them; where there are none it
// makes version 1 of each class, adds them to the shelf in one AddWrappedKeys,
// and reads them back. If another replica was first, its keys are the ones
// that are read. No key is ever used that was not read from the shelf, and
// nothing is cached after an error. Concurrent first calls load one after the
// other, and the first that succeeds serves the rest.
//
// Errors: ErrUnavailable, ErrUnwrap, ErrDamaged, that of the Shelf, or that of
// ctx.
func (s *Keystore) Keyring(ctx context.Context, namespace string) (*Keyring, error) {
	if ring := (*s.rings.Load())[namespace]; ring != nil {
		return ring, nil
	}
	if err := checkNamespace(namespace); err != nil {
		return nil, err
	}
	select {
	case s.loading <- struct{}{}:
		defer func() { <-s.loading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("keystore: keyring of namespace %q: %w", namespace, ctx.Err())
	}
	if ring := (*s.rings.Load())[namespace]; ring != nil {
		return ring, nil
	}
	ring, err := s.load(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("keystore: keyring of namespace %q: %w", namespace, err)
	}
	rings := maps.Clone(*s.rings.Load())
	rings[namespace] = ring
	s.rings.Store(&rings)
	return ring, nil
}

// Check asks the backend whether it can be reached and used now. The errors
// are those of Backend.Check.
func (s *Keystore) Check(ctx context.Context) error {
	return s.backend.Check(ctx)
}

// load reads the namespace's keys from the shelf, after making them where
// there are none, and unwraps them.
func (s *Keystore) load(ctx context.Context, namespace string) (*Keyring, error) {
	wrapped, err := s.shelf.WrappedKeys(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("read wrapped keys: %w", err)
	}
	if len(wrapped) == 0 {
		// ErrKeyExists: another replica has made them since. Either way the
		// keys that count are those on the shelf.
		if err := s.create(ctx, namespace); err != nil && !errors.Is(err, ErrKeyExists) {
			return nil, err
		}
		if wrapped, err = s.shelf.WrappedKeys(ctx, namespace); err != nil {
			return nil, fmt.Errorf("read wrapped keys: %w", err)
		}
	}
	if err := checkShelf(namespace, wrapped); err != nil {
		return nil, err
	}
	return s.unwrap(ctx, namespace, wrapped)
}

// create makes version 1 of each class and adds them to the shelf. What it has
// made is forgotten: load reads it back.
func (s *Keystore) create(ctx context.Context, namespace string) error {
	created := time.Unix(time.Now().Unix(), 0).UTC()
	keys := make([]WrappedKey, 0, len(classes))
	for _, class := range classes {
		k := WrappedKey{Namespace: namespace, Class: class, Version: 1, Created: created}
		var err error
		if k.Wrapped, err = s.wrapNew(ctx, k.Label()); err != nil {
			return fmt.Errorf("wrap new %v: %w", k, err)
		}
		if err := k.check(); err != nil {
			return err
		}
		keys = append(keys, k)
	}
	if err := s.shelf.AddWrappedKeys(ctx, keys); err != nil {
		return fmt.Errorf("add wrapped keys: %w", err)
	}
	return nil
}

// wrapNew returns a new key, wrapped; its bytes are wiped before it returns.
func (s *Keystore) wrapNew(ctx context.Context, label []byte) ([]byte, error) {
	key := make([]byte, KeySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return s.backend.Wrap(ctx, key, label)
}

// unwrap makes the keyring: of all the keys, or not at all.
func (s *Keystore) unwrap(ctx context.Context, namespace string, wrapped []WrappedKey) (*Keyring, error) {
	keys := new(ringKeys)
	for _, k := range wrapped {
		key, err := s.backend.Unwrap(ctx, k.Wrapped, k.Label())
		if err != nil {
			return nil, fmt.Errorf("unwrap %v: %w", k, err)
		}
		err = keys.add(k.Class, k.Version, key)
		clear(key)
		if err != nil {
			return nil, fmt.Errorf("unwrap %v: %w", k, err)
		}
	}
	return newKeyring(namespace, keys), nil
}

// checkShelf refuses what no Keystore has put on a shelf. Versions may have
// gaps, since a version that is no longer needed is taken away.
func checkShelf(namespace string, wrapped []WrappedKey) error {
	type id struct {
		class   Class
		version uint32
	}
	seen := make(map[id]bool)
	present := make(map[Class]bool)
	for _, k := range wrapped {
		if err := k.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if k.Namespace != namespace {
			return fmt.Errorf("%w: found %v", ErrDamaged, k)
		}
		if seen[id{k.Class, k.Version}] {
			return fmt.Errorf("%w: found %v twice", ErrDamaged, k)
		}
		seen[id{k.Class, k.Version}] = true
		present[k.Class] = true
	}
	for _, class := range classes {
		if !present[class] {
			return fmt.Errorf("%w: no %v key", ErrDamaged, class)
		}
	}
	return nil
}
