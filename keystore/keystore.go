// Package keystore keeps the keys that guard values and hands them out as
// opaque keyrings.
//
// Each namespace has a keyring with keys of six classes, and each class has
// versions, of which the newest is active. A key is 32 random bytes, made
// here, wrapped at once by the [Backend] that guards the root key (HashiCorp
// Vault, or a file, package local), and kept wrapped on the [Shelf], beside
// the data. A wrapped key is useless without the Backend.
//
//	keys := keystore.New(backend, shelf, keystore.Options{MaxOffline: keystore.DefaultMaxOffline})
//	go keys.Run(ctx)
//	ring, err := keys.Keyring(ctx, "default")
//	...
//	sealed, version, err := ring.Seal(nil, nil, value, additional)
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
// # Keys on lease
//
// Keys are in memory on lease: while [Keystore.Run] runs, the backend has to
// confirm them every [Options.Lease] by unwrapping some of them anew. A backend that is
// away is put up with for [Options.MaxOffline]; then, or as soon as it denies
// us, the Keystore is sealed: it gives out no keyring, and keys are wiped from
// memory as soon as the calls that use them end. Once the backend confirms
// again, so is everything else.
//
// # Keys in time
//
// A class gets a new version by [Keystore.NewVersion], which is used once it is
// on the shelf and read back. Versions are taken over by other replicas with
// the next lease, or when they meet one that they don't know ([Keystore.Newer]).
// A version's number is never used again.
//
// # Key separation
//
// A key is used for one thing only (NIST SP 800-57 part 1, section 5.2): data
// keys for AES-256-GCM, token keys for a bare AES-256 block, index, subject and
// audit keys for HMAC-SHA-256, fpe keys for AES-256 inside FF1. Inside a Keyring
// each class has a type that can do nothing else.
//
// A data key has one use more: keys of subjects are derived from it
// ([Keyring.SealFor]), by HMAC-SHA-256, which has nothing in common with AES-GCM.
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
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// ErrDamaged says that what the Shelf returned can't be what was put there: a
// stored form that doesn't parse, a key of another namespace, a version that
// is there twice, a class that is missing. Trying again doesn't help.
var ErrDamaged = errors.New("keystore: stored keys damaged")

// Keystore makes, loads and caches keyrings. It is safe for concurrent use.
type Keystore struct {
	backend Backend
	shelf   Shelf
	options Options

	// rings is replaced as a whole and never changed, so that reading it needs
	// no lock. It is empty while the Keystore is sealed.
	rings atomic.Pointer[map[string]*Keyring]

	// loading is held by the one call that reads keys. It is a channel and not
	// a mutex so that a call whose context ends stops waiting. It guards the
	// fields below it.
	loading chan struct{}
	known   map[string]*namespaceKeys

	memory inMemory
	lease  lease
}

// namespaceKeys is what a Keystore keeps of a namespace whose keyring it has
// once given out, sealed or not.
type namespaceKeys struct {
	wrapped []WrappedKey              // as they were on the shelf when last read, in order
	uses    map[uint32]*atomic.Uint64 // of data keys, by version
}

// New returns a Keystore on the backend and the shelf, neither of which may be
// nil. It calls neither. Without Run keys stay in memory for good.
func New(backend Backend, shelf Shelf, o Options) *Keystore {
	s := &Keystore{
		backend: backend, shelf: shelf, options: o.withDefaults(),
		loading: make(chan struct{}, 1), known: make(map[string]*namespaceKeys),
	}
	s.rings.Store(&map[string]*Keyring{})
	s.lease.init()
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
// While the Keystore is sealed, the error is ErrSealed, at once.
//
// Errors: ErrSealed, ErrUnavailable, ErrDenied, ErrUnwrap, ErrDamaged, that of
// the Shelf, or that of ctx.
func (s *Keystore) Keyring(ctx context.Context, namespace string) (*Keyring, error) {
	if ring := (*s.rings.Load())[namespace]; ring != nil {
		return ring, nil
	}
	if err := checkNamespace(namespace); err != nil {
		return nil, err
	}
	if err := s.lease.sealed(); err != nil {
		return nil, err
	}
	return s.locked(ctx, namespace, func() (*Keyring, error) {
		if ring := (*s.rings.Load())[namespace]; ring != nil {
			return ring, nil
		}
		return s.load(ctx, namespace)
	})
}

// Reload reads a namespace's keys from the shelf, unwraps those that are new
// and puts the keyring that has them in the place of the one before. It is for
// who has just changed what is on the shelf.
//
// Errors: those of Keyring. After an error the keyring is the one before.
func (s *Keystore) Reload(ctx context.Context, namespace string) error {
	if err := s.lease.sealed(); err != nil {
		return err
	}
	_, err := s.locked(ctx, namespace, func() (*Keyring, error) { return s.load(ctx, namespace) })
	return err
}

// Newer returns a keyring that has the version of the class, for who has met one
// that is not in the keyring at hand: another replica may have made it since. It
// looks at the shelf, and asks the backend only for keys that are new there:
// anybody can make up a version that nobody knows. If there is no such key, it
// returns the keyring of now.
//
// Errors: those of Keyring.
func (s *Keystore) Newer(ctx context.Context, namespace string, class Class, version uint32) (*Keyring, error) {
	if err := s.lease.sealed(); err != nil {
		return nil, err
	}
	// Without the lock: a confirmation may hold it for as long as the backend
	// hangs.
	if now := (*s.rings.Load())[namespace]; now != nil {
		if now.Has(class, version) {
			return now, nil
		}
		wrapped, err := s.shelf.WrappedKeys(ctx, namespace)
		if err != nil {
			return nil, fmt.Errorf("keystore: read wrapped keys: %w", err)
		}
		sortKeys(wrapped)
		if slices.EqualFunc(now.wrapped, wrapped, WrappedKey.equal) {
			return now, nil
		}
	}
	return s.locked(ctx, namespace, func() (*Keyring, error) {
		if now := (*s.rings.Load())[namespace]; now != nil && now.Has(class, version) {
			return now, nil
		}
		return s.load(ctx, namespace)
	})
}

// locked runs f while nobody else reads keys.
func (s *Keystore) locked(ctx context.Context, namespace string, f func() (*Keyring, error)) (*Keyring, error) {
	ring, err := (*Keyring)(nil), s.lock(ctx)
	if err == nil {
		defer s.unlock()
		ring, err = f()
	}
	if err != nil {
		return nil, fmt.Errorf("keystore: keyring of namespace %q: %w", namespace, err)
	}
	return ring, nil
}

func (s *Keystore) lock(ctx context.Context) error {
	select {
	case s.loading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Keystore) unlock() { <-s.loading }
