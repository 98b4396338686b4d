// Package local is a keystore.Backend with the root key in a file, for
// development and for hosts without a network.
//
//	err := local.Create("root.key", nil)   // once
//	...
//	backend, err := local.Open("root.key", nil)
//
// # Key care
//
// The file is the root key: whoever reads it can open every value in every
// copy of the data, and without it no value can be opened ever again. Keep a
// copy, away from the host and from the backups of the data. A passphrase
// protects the copy; on the host itself it helps only if it doesn't lie beside
// the file. Where Vault can be had, package keystore/vault is the better
// choice: there the root key is in nobody's file.
//
// The permissions of the file are checked when it is opened, so this package
// is for systems that have them.
//
// # Compatibility
//
// Every file and every wrapped key that a version of this package made is read
// by all later ones; vectors under testdata pin both. All cryptography is that
// of the standard library, except for Argon2id, which derives a key from a
// passphrase and is not approved by FIPS 140-3.
package local

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/coatcheck/coatcheck/keystore"
)

// Backend wraps keys under a root key that it holds in memory. Open makes it;
// the zero Backend must not be used. It is safe for concurrent use, and prints
// the id of its root key and nothing else of it.
type Backend struct {
	// root stands behind a pointer since package fmt, which ignores our methods
	// on an unexported field of somebody's struct, follows one pointer for a
	// verb that doesn't fit, and behind that one prints addresses.
	root *rootKey
}

// rootKey is the key in the only form in which it is used.
type rootKey struct {
	aead cipher.AEAD
	id   keyID
}

var _ keystore.Backend = (*Backend)(nil)

// A wrapped key is, in bytes:
//
//	format(1) root key id(8) nonce(12) ciphertext(32) tag(16)
//
// Ciphertext and tag are AES-256-GCM with a random nonce under the root key;
// the additional data is the first 9 bytes and then the label. A root key may
// wrap 2³² keys (NIST SP 800-38D section 8.3).
const (
	wrapFormat = 1
	wrapHeader = 1 + len(keyID{})
	wrapSize   = wrapHeader + keystore.KeySize + keystore.Overhead
)

// keyID tells root keys apart. It is not secret: the first 8 bytes of
// HMAC-SHA-256 of "coatcheck root key id v1" under the root key.
type keyID [8]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

func rootKeyID(root []byte) keyID {
	mac := hmac.New(sha256.New, root)
	mac.Write([]byte("coatcheck root key id v1"))
	return keyID(mac.Sum(nil)[:8])
}

// newBackend keeps no reference to root, which the caller wipes.
func newBackend(root []byte) (*Backend, error) {
	aead, err := newAEAD(root)
	if err != nil {
		return nil, err
	}
	return &Backend{root: &rootKey{aead: aead, id: rootKeyID(root)}}, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Wrap implements keystore.Backend. The result is 69 bytes long.
//
// Errors: keystore.ErrKeySize, or that of ctx.
func (b *Backend) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("local: wrap: %w", err)
	}
	if len(key) != keystore.KeySize {
		return nil, fmt.Errorf("%w: %d bytes", keystore.ErrKeySize, len(key))
	}
	header := b.header()
	wrapped := append(make([]byte, 0, wrapSize), header[:]...)
	return b.root.aead.Seal(wrapped, nil, key, append(header[:], label...)), nil
}

// Unwrap implements keystore.Backend.
//
// Errors: keystore.ErrUnwrap, or that of ctx.
func (b *Backend) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("local: unwrap: %w", err)
	}
	if _, err := b.RootVersion(wrapped); err != nil {
		return nil, err
	}
	header := b.header()
	if id := keyID(wrapped[1:wrapHeader]); id != b.root.id {
		return nil, fmt.Errorf("%w: wrapped under root key %v, but this is root key %v",
			keystore.ErrUnwrap, id, b.root.id)
	}
	key, err := b.root.aead.Open(nil, nil, wrapped[wrapHeader:], append(header[:], label...))
	if err != nil {
		return nil, fmt.Errorf("%w: altered, or of another label", keystore.ErrUnwrap)
	}
	return key, nil
}

// Rewrap implements keystore.Backend. The root key has one version only, so
// the result is a copy of wrapped, once that is known to unwrap.
//
// Errors: keystore.ErrUnwrap, or that of ctx.
func (b *Backend) Rewrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	key, err := b.Unwrap(ctx, wrapped, label)
	if err != nil {
		return nil, err
	}
	clear(key)
	return bytes.Clone(wrapped), nil
}

// RootVersion implements keystore.Backend. It is always 1.
//
// Errors: keystore.ErrUnwrap.
func (b *Backend) RootVersion(wrapped []byte) (uint32, error) {
	if len(wrapped) != wrapSize {
		return 0, fmt.Errorf("%w: %d bytes, which no root key of a file has wrapped", keystore.ErrUnwrap, len(wrapped))
	}
	if wrapped[0] != wrapFormat {
		return 0, fmt.Errorf("%w: unknown format %d", keystore.ErrUnwrap, wrapped[0])
	}
	return 1, nil
}

// Forget implements keystore.Backend. There is nothing to forget: what was
// unwrapped is with the caller, and the root key stays.
func (b *Backend) Forget() {}

// Check implements keystore.Backend: it wraps and unwraps a key. The file is
// not looked at again, since it is no longer needed.
//
// Errors: keystore.ErrUnavailable, or that of ctx.
func (b *Backend) Check(ctx context.Context) error {
	probe := make([]byte, keystore.KeySize)
	if _, err := rand.Read(probe); err != nil {
		return fmt.Errorf("%w: local: %w", keystore.ErrUnavailable, err)
	}
	label := []byte("coatcheck check")
	wrapped, err := b.Wrap(ctx, probe, label)
	if err != nil {
		return err
	}
	key, err := b.Unwrap(ctx, wrapped, label)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("local: check: %w", err)
	}
	if err != nil || subtle.ConstantTimeCompare(key, probe) != 1 {
		return fmt.Errorf("%w: local: what was wrapped doesn't unwrap", keystore.ErrUnavailable)
	}
	return nil
}

// header returns the first bytes of what this backend wraps.
func (b *Backend) header() [wrapHeader]byte {
	var header [wrapHeader]byte
	header[0] = wrapFormat
	copy(header[1:], b.root.id[:])
	return header
}

// String names the root key by its id.
func (b *Backend) String() string { return fmt.Sprintf("local root key %v", b.root.id) }

// GoString is String.
func (b *Backend) GoString() string { return b.String() }

// Format prints String, whatever the verb.
func (b *Backend) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }
