package keystore

import (
	"context"
	"errors"
	"fmt"
)

// Sentinels of Shelf.
var (
	// ErrKeyExists says that a version of a class of a namespace is taken:
	// another replica has made a key of that name, or there was one that has
	// been retired or lost.
	ErrKeyExists = errors.New("keystore: key version exists")

	// ErrKeyChanged says that a wrapped key is no longer what it was when it was
	// read: somebody else has rewrapped it.
	ErrKeyChanged = errors.New("keystore: wrapped key changed since")

	// ErrKeyInUse says that a key can't be retired: it is the active one of its
	// class, or something is still stored under it, or its class is one whose
	// keys are never retired.
	ErrKeyInUse = errors.New("keystore: key in use")
)

// Shelf is where wrapped keys are kept: the store, beside the data that is
// sealed under them. It needs to keep them whole, not secret.
//
// A Shelf is safe for concurrent use, by several processes where the store
// behind it is. It neither changes nor keeps the slices that it is given, and
// those that it returns are the caller's own. Its other errors, such as that
// of a store that is away, are its own and reach the caller of Keystore
// unchanged, to be told apart with errors.Is.
//
// What any implementation must do is written as a test in package
// keystoretest.
type Shelf interface {
	// WrappedKeys returns the wrapped keys of a namespace, all classes and
	// versions, in any order; none is not an error. It sees every key that an
	// AddWrappedKeys, by any replica, has added or refused as taken.
	WrappedKeys(ctx context.Context, namespace string) ([]WrappedKey, error)

	// AddWrappedKeys adds keys, all or none of them. When it returns nil, they
	// MUST survive a crash of the process and of the machine. When it returns
	// ErrKeyExists, because any (namespace, class, version) is or ever was
	// taken, or is in keys twice, nothing has been added. After another error
	// they may turn out to be there, all of them, or none.
	//
	// Errors: ErrKeyExists, or its own.
	AddWrappedKeys(ctx context.Context, keys []WrappedKey) error

	// Census returns a count for each key version that the namespace has or
	// ever had, in any order. It is exact, and cheap however much is stored.
	Census(ctx context.Context, namespace string) ([]KeyCount, error)
}

// KeyID names a version of a key.
type KeyID struct {
	Namespace string
	Class     Class
	Version   uint32
}

// String names the key, as in: data key 2 of namespace "default".
func (k KeyID) String() string {
	return fmt.Sprintf("%v key %d of namespace %q", k.Class, k.Version, k.Namespace)
}

// KeyCount says what is under a version of a key.
type KeyCount struct {
	ID KeyID

	// Records is how many records are under the version now: for a data key
	// those that it seals, for a token key those whose tokens it made. It is 0
	// for the other classes, under which nothing is stored yet.
	Records uint64

	// Sealed is how many ciphertexts that the data key sealed were ever stored.
	// It never falls, and it is no more than the key was used.
	Sealed uint64

	// Moved is how many of those came with updates: of records that were under
	// another key before.
	Moved uint64

	// Gone says that there is no such key any more: it has been retired, and
	// its number will not be used again.
	Gone bool
}

// Rewrapping replaces a wrapped key by the same key, wrapped under a newer
// version of the root key. Old and New differ in Wrapped only.
type Rewrapping struct{ Old, New WrappedKey }
