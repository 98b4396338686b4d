package keystore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
)

// Overhead is by how many bytes Seal's result is longer than its plaintext: 12
// for the nonce, 16 for the tag.
const Overhead = 28

// MaxPlaintext is the largest plaintext in bytes that Seal takes: 16 MiB, far
// more than any value, far less than where GCM ends.
const MaxPlaintext = 16 << 20

// MaxUses is how many times a data key may seal: 2³² with random nonces of 96
// bits (NIST SP 800-38D, section 8.3).
const MaxUses = 1 << 32

// Sentinels of Keyring.
var (
	// ErrKeyVersion says that the keyring has no key of that version: it has
	// been retired, or another replica has made it since this keyring was
	// loaded, or somebody made the number up.
	ErrKeyVersion = errors.New("keystore: unknown key version")

	// ErrOpen says that the bytes were not sealed under this key with this
	// additional data, or have been altered or cut since. It doesn't say
	// which: nobody can know.
	ErrOpen = errors.New("keystore: sealed data doesn't open")

	// ErrKeySpent says that the active data key has sealed as often as a key
	// may. It has to be replaced first.
	ErrKeySpent = errors.New("keystore: data key has been used too often")

	// ErrTooLarge says that a plaintext is larger than MaxPlaintext.
	ErrTooLarge = errors.New("keystore: plaintext too large")
)

// Keyring holds the keys of a namespace, all classes and versions, ready for
// use. It never changes, but for keys of subjects that it derives from its own
// and keeps for a while: keys that are made later are in a later Keyring. It
// always has at least one key of each class. Only Keystore makes a Keyring; the
// zero Keyring has no keys and must not be used.
//
// A Keyring is safe for concurrent use. It prints the versions of its keys and
// nothing else of them, whatever the verb and wherever it is embedded.
type Keyring struct {
	// Package fmt ignores our methods on an unexported field of somebody's
	// struct. It follows one pointer at most, for a verb that doesn't fit, and
	// prints addresses behind that one: in ringKeys every key is a pointer.
	keys      *ringKeys
	namespace string
	wrapped   []WrappedKey // what it was made of, in order

	// subjects is made when it is first called. As a function it prints as an
	// address.
	subjects func() *subjectCache
}

func newKeyring(namespace string, keys *ringKeys, wrapped []WrappedKey, count *inMemory) *Keyring {
	return &Keyring{
		keys: keys, namespace: namespace, wrapped: wrapped,
		subjects: sync.OnceValue(func() *subjectCache { return newSubjectCache(count) }),
	}
}

// Namespace returns the name of the namespace whose keys these are.
func (k *Keyring) Namespace() string { return k.namespace }

// ActiveVersion returns the version of the class that new work is done under,
// which is the largest, or 0 for a class that is none.
func (k *Keyring) ActiveVersion(class Class) uint32 { return k.keys.active(class) }

// Versions returns the versions of the class that the keyring has, the active
// one first and the oldest last, or none for a class that is none. While an
// index key is being replaced, a look-up has to be made under each. The slice
// is the caller's own.
func (k *Keyring) Versions(class Class) []uint32 { return k.keys.numbers(class) }

// Has says whether the keyring has the version of the class.
func (k *Keyring) Has(class Class, version uint32) bool {
	return k.keys.has(class, version)
}

// Uses returns how many times the data key of the version has sealed, as far as
// this process knows, for subjects and without: what was stored by whatever process when the key was
// last read, and what this process has sealed since. It is 0 for a version that
// the keyring doesn't have.
func (k *Keyring) Uses(version uint32) uint64 {
	key, ok := k.keys.data.find(version)
	if !ok {
		return 0
	}
	return key.uses.Load()
}

// Seal encrypts and authenticates plaintext, and authenticates additional,
// under the active data key; it appends the result to dst and returns it with
// the key's version, which Open needs. The result is Overhead bytes longer
// than plaintext:
//
//	nonce(12) ciphertext tag(16)
//
// This is AES-256-GCM with a random nonce (NIST SP 800-38D, section 8.2.2). A
// key seals no more than MaxUses times (section 8.3); replacing it in time is
// up to the caller. nonces, unless it is nil, has the nonce; else one is drawn. dst
// must share no memory with plaintext or additional.
//
// Errors: ErrTooLarge, ErrKeySpent.
func (k *Keyring) Seal(nonces *Nonces, dst, plaintext, additional []byte) (sealed []byte, version uint32, err error) {
	if len(plaintext) > MaxPlaintext {
		return nil, 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(plaintext))
	}
	active := k.keys.data.active()
	if active.key.uses.Add(1) > MaxUses {
		return nil, 0, fmt.Errorf("%w: data key %d", ErrKeySpent, active.number)
	}
	sealed = active.key.aead.seal(nonces, dst, plaintext, additional)
	runtime.KeepAlive(active.key)
	return sealed, active.number, nil
}

// Open decrypts what Seal returned, under the data key of the version, and
// appends the plaintext to dst. additional must be what Seal was given. After
// an error nothing of the plaintext is in dst. dst must share no memory with sealed
// or additional.
//
// Errors: ErrKeyVersion, ErrOpen.
func (k *Keyring) Open(dst []byte, version uint32, sealed, additional []byte) ([]byte, error) {
	key, ok := k.keys.data.find(version)
	if !ok {
		return nil, fmt.Errorf("%w: data key %d", ErrKeyVersion, version)
	}
	plaintext, err := key.aead.open(dst, sealed, additional)
	runtime.KeepAlive(key)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// MAC returns HMAC-SHA-256 (FIPS 198-1) of data under the active key of the
// class, which is Index, Subject or Audit, and the key's version. The label says what
// the sum is for: sums with different labels have nothing to do with each
// other. What goes into the HMAC is
//
//	length(4, big endian, of label) label data
//
// Errors: ErrClass.
func (k *Keyring) MAC(class Class, label string, data []byte) (sum [32]byte, version uint32, err error) {
	keys, err := k.keys.mac(class)
	if err != nil {
		return sum, 0, err
	}
	active := keys.active()
	return active.key.sum(label, data), active.number, nil
}

// MACVersion is MAC under the key of the version.
//
// Errors: ErrClass, ErrKeyVersion.
func (k *Keyring) MACVersion(class Class, version uint32, label string, data []byte) (sum [32]byte, err error) {
	keys, err := k.keys.mac(class)
	if err != nil {
		return sum, err
	}
	key, ok := keys.find(version)
	if !ok {
		return sum, fmt.Errorf("%w: %v key %d", ErrKeyVersion, class, version)
	}
	return key.sum(label, data), nil
}

// Permute enciphers the block in place under the active token key and returns
// the key's version. It is the bare block cipher AES-256 (FIPS 197): the same
// block always gives the same result, and different blocks different ones. It
// authenticates nothing; the block has to hold something that Unpermute's
// caller can check.
func (k *Keyring) Permute(block *[16]byte) (version uint32) {
	active := k.keys.token.active()
	active.key.encrypt(block)
	return active.number
}

// PermuteVersion is Permute under the token key of the version: it makes the
// token of a record again.
//
// Errors: ErrKeyVersion, and the block is as it was.
func (k *Keyring) PermuteVersion(version uint32, block *[16]byte) error {
	key, ok := k.keys.token.find(version)
	if !ok {
		return fmt.Errorf("%w: token key %d", ErrKeyVersion, version)
	}
	key.encrypt(block)
	return nil
}

// Unpermute deciphers in place a block that Permute made under the token key
// of the version. Any block deciphers to something.
//
// Errors: ErrKeyVersion, and the block is as it was.
func (k *Keyring) Unpermute(version uint32, block *[16]byte) error {
	key, ok := k.keys.token.find(version)
	if !ok {
		return fmt.Errorf("%w: token key %d", ErrKeyVersion, version)
	}
	key.decrypt(block)
	return nil
}

// String names the namespace and the active version of each class.
func (k *Keyring) String() string {
	return fmt.Sprintf("keyring of namespace %q (data %d, token %d, index %d, subject %d, audit %d, fpe %d)", k.namespace,
		k.ActiveVersion(Data), k.ActiveVersion(Token), k.ActiveVersion(Index), k.ActiveVersion(Subject), k.ActiveVersion(Audit), k.ActiveVersion(FPE))
}

// GoString is String.
func (k *Keyring) GoString() string { return k.String() }

// Format prints String, whatever the verb.
func (k *Keyring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is a group of what String shows.
func (k *Keyring) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("namespace", k.namespace)}
	for _, class := range classes {
		attrs = append(attrs, slog.Uint64(class.String(), uint64(k.ActiveVersion(class))))
	}
	return slog.GroupValue(attrs...)
}
