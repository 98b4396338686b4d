package keystore

import (
	"context"
	"errors"
)

// ErrKeyExists says that a version of a class of a namespace is taken: another
// replica has made a key of that name. Shelf returns it.
var ErrKeyExists = errors.New("keystore: key version exists")

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
	// ErrKeyExists, because any (namespace, class, version) is taken or is in
	// keys twice, nothing has been added. After another error they may turn
	// out to be there, all of them, or none.
	//
	// Errors: ErrKeyExists, or its own.
	AddWrappedKeys(ctx context.Context, keys []WrappedKey) error
}
