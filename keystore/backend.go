package keystore

import (
	"context"
	"errors"
)

// KeySize is the size in bytes of every key that is wrapped: 32, for AES-256
// and HMAC-SHA-256.
const KeySize = 32

// MaxWrapped is the largest size in bytes of a wrapped key. A Backend returns
// 1 to MaxWrapped bytes from Wrap.
const MaxWrapped = 4096

// Sentinels of Backend. A Backend wraps them with what it knows, never with
// bytes of a key.
var (
	// ErrUnavailable says that the root key can't be reached or used now: the
	// service that holds it doesn't answer, refuses us, or is sealed. Nothing
	// is wrong with the data; the same call may work later.
	ErrUnavailable = errors.New("keystore: backend unavailable")

	// ErrDenied says that the service which holds the root key answers, and
	// refuses us: our credentials are revoked or expired and new ones are not to
	// be had, or we may no longer use the root key. What is in memory must not
	// be used any longer either.
	ErrDenied = errors.New("keystore: backend denies access")

	// ErrUnwrap says that the bytes were not wrapped by this root key for this
	// label, or have been altered since. It is final: the same call will never
	// work with this root key.
	ErrUnwrap = errors.New("keystore: key can't be unwrapped")

	// ErrKeySize says that what was to be wrapped is not KeySize bytes long.
	// It can only come from a defect.
	ErrKeySize = errors.New("keystore: wrong key size")
)

// Backend guards the root key, under which all other keys are wrapped. The
// root key never leaves it.
//
// A Backend is safe for concurrent use. It neither changes nor keeps the slices
// that it is given, and the slices that it returns are the caller's own: they
// share no memory with an argument, the Backend or another result. With an
// error it returns no bytes. It returns as soon as ctx ends, with an error
// that wraps ctx.Err(), and it does nothing for a ctx that has ended before.
//
// What any implementation must do is written as a test in package
// keystoretest.
type Backend interface {
	// Wrap encrypts and authenticates a key of KeySize bytes under the root
	// key. The label, which may be any bytes, is bound to the result but is no
	// part of it: Unwrap needs the same one. Wrapping a key twice gives two
	// different results. The result reveals nothing of the key.
	//
	// Errors: ErrKeySize, ErrUnavailable, ErrDenied, or that of ctx.
	Wrap(ctx context.Context, key, label []byte) (wrapped []byte, err error)

	// Unwrap returns the key that Wrap was given, if and only if wrapped is,
	// byte for byte, what Wrap returned for this label under this root key, in
	// this process or any other, at any time; or what Rewrap made of it. wrapped
	// may be of any length and come from an attacker.
	//
	// Errors: ErrUnwrap, ErrUnavailable, ErrDenied, or that of ctx.
	Unwrap(ctx context.Context, wrapped, label []byte) (key []byte, err error)

	// Rewrap returns the key that is in wrapped, wrapped under the newest
	// version of the root key, for the same label. If it is already under that,
	// the result has the same bytes as wrapped. wrapped stays good for as long
	// as the root key has the version that it is under.
	//
	// Errors: ErrUnwrap, ErrUnavailable, ErrDenied, or that of ctx.
	Rewrap(ctx context.Context, wrapped, label []byte) (rewrapped []byte, err error)

	// RootVersion returns the version of the root key that wrapped is under,
	// from 1, as it says itself: nothing is verified and nobody is asked. A root
	// key that has no versions is version 1.
	//
	// Errors: ErrUnwrap for what Wrap can't have made.
	RootVersion(wrapped []byte) (version uint32, err error)

	// Forget is called when keys are sealed. The Backend drops what it can of what
	// it has seen of keys: buffers, idle connections. Calls go on as before.
	Forget()

	// Check returns nil if Wrap and Unwrap can be expected to work now. It is
	// cheap enough to be called every few seconds.
	//
	// Errors: ErrUnavailable, ErrDenied, or that of ctx.
	Check(ctx context.Context) error
}
