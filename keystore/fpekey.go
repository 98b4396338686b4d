package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// fpeKey is an fpe key. It is its own handle: a pointer to it keeps the key from
// being wiped, and callers get it as a cipher.Block.
type fpeKey struct{ block cipher.Block }

func newFPEKey(key []byte, count *inMemory) (*fpeKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return watch(count, &fpeKey{block}, func() { wipe.Value(block) }), nil
}

// FPE returns AES-256 (FIPS 197) under the fpe key of the version, for FF1. The
// result allocates nothing when it is made or used, and is safe for concurrent
// use; it prints nothing of the key. It only encrypts, which is all that FF1
// needs in either direction: Decrypt panics.
//
// The key is in memory for as long as somebody has the result, whatever the
// lease says. So get one for each call, as from the Keyring itself, and don't
// keep it.
//
// Errors: ErrKeyVersion.
func (k *Keyring) FPE(version uint32) (cipher.Block, error) {
	key, ok := k.keys.fpe.find(version)
	if !ok {
		return nil, fmt.Errorf("%w: fpe key %d", ErrKeyVersion, version)
	}
	return key, nil
}

// BlockSize returns 16.
func (*fpeKey) BlockSize() int { return aes.BlockSize }

// Encrypt encrypts the first block of src into dst, as cipher.Block has it.
func (k *fpeKey) Encrypt(dst, src []byte) {
	k.block.Encrypt(dst, src)
	runtime.KeepAlive(k)
}

// Decrypt panics.
func (*fpeKey) Decrypt(_, _ []byte) { panic("keystore: fpe keys only encrypt") }

// String says what it is and nothing else.
func (*fpeKey) String() string { return "fpe key" }

// GoString is String.
func (k *fpeKey) GoString() string { return k.String() }

// Format prints String, whatever the verb.
func (k *fpeKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k *fpeKey) LogValue() slog.Value { return slog.StringValue(k.String()) }
