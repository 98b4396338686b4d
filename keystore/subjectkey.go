package keystore

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// SubjectSecretSize is the size in bytes of a subject's secret.
const SubjectSecretSize = 32

// What keys are derived for, as HKDF's info. They are permanent.
const (
	subjectsInfo = "coatcheck subject keys v1" // from a data key: what is common to all subjects
	subjectInfo  = "coatcheck subject v1"      // with a subject's secret: its own key
)

// errNoSecret says that a subject has no secret. It can only come from a defect:
// what is sealed under zeros could not be shredded.
var errNoSecret = errors.New("keystore: a subject's secret can't be zero")

// subjectKey is the key of a subject under one data key.
type subjectKey struct{ aead gcm }

// SealFor is Seal under the key of a subject, the person whom the plaintext is
// about, which is derived from the active data key and the subject's secret:
// SubjectSecretSize random bytes that the caller keeps in one place and destroys
// when the person is to be forgotten. From then on nothing opens what was sealed
// for the subject, wherever it was copied to: not with the data key either.
//
// The key is derived by HKDF with SHA-256 (RFC 5869), || being concatenation:
//
//	salt  = HKDF-Expand(data key, "coatcheck subject keys v1", 32)
//	      = HMAC(data key, "coatcheck subject keys v1" || 0x01)
//	PRK   = HKDF-Extract(salt, secret)
//	      = HMAC(salt, secret)
//	key   = HKDF-Expand(PRK, "coatcheck subject v1", 32)
//	      = HMAC(PRK, "coatcheck subject v1" || 0x01)
//
// What is sealed has the form that Seal's has, and Seal's conditions hold. Each
// call is a use of the data key: that is more than any subject's key is used, and
// these have the same bound.
//
// The secret must not be all zeros: that is the error of who has none.
//
// Errors: ErrTooLarge, ErrKeySpent.
func (k *Keyring) SealFor(nonces *Nonces, dst, plaintext, additional []byte, secret *[SubjectSecretSize]byte) (sealed []byte, version uint32, err error) {
	if len(plaintext) > MaxPlaintext {
		return nil, 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(plaintext))
	}
	if *secret == [SubjectSecretSize]byte{} {
		return nil, 0, errNoSecret
	}
	active := k.keys.data.active()
	if active.key.uses.Add(1) > MaxUses {
		return nil, 0, fmt.Errorf("%w: data key %d", ErrKeySpent, active.number)
	}
	key, err := k.subjects().key(active.number, active.key, secret)
	if err != nil {
		return nil, 0, err
	}
	sealed = key.aead.seal(nonces, dst, plaintext, additional)
	runtime.KeepAlive(key)
	return sealed, active.number, nil
}

// OpenFor decrypts what SealFor returned, under the data key of the version and
// the subject's secret; for the rest it is Open.
//
// Errors: ErrKeyVersion; ErrOpen, also with another secret.
func (k *Keyring) OpenFor(dst []byte, version uint32, sealed, additional []byte, secret *[SubjectSecretSize]byte) ([]byte, error) {
	data, ok := k.keys.data.find(version)
	if !ok {
		return nil, fmt.Errorf("%w: data key %d", ErrKeyVersion, version)
	}
	if *secret == [SubjectSecretSize]byte{} {
		return nil, ErrOpen // nothing was sealed with it
	}
	key, err := k.subjects().key(version, data, secret)
	if err != nil {
		return nil, err
	}
	plaintext, err := key.aead.open(dst, sealed, additional)
	runtime.KeepAlive(key)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// Forget drops the keys of a subject that this keyring keeps so that they
// needn't be derived each time, for who has just destroyed the secret. They are
// wiped by the next garbage collection after the calls that use them. A call
// under way that still has the secret can go on, but the keyring keeps no key
// for it again, until thousands of other subjects have come by.
//
// Another keyring of the namespace, which a call may have got before a Reload,
// keeps its own, for as long as the call takes.
func (k *Keyring) Forget(secret *[SubjectSecretSize]byte) {
	k.subjects().forget(secret, k.keys.data)
}

// derive returns a subject's key under a data key.
func derive(data *dataKey, secret *[SubjectSecretSize]byte, count *inMemory) (*subjectKey, error) {
	// A copy, lest the caller's secret goes to the heap.
	material := append(make([]byte, 0, SubjectSecretSize), secret[:]...)
	prk := macOnce(data.subjects, material)
	runtime.KeepAlive(data)
	key := expand(prk, subjectInfo)
	defer wipe.All([][]byte{material, prk, key})
	aead, wipeKey, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return watch(count, &subjectKey{aead}, wipeKey), nil
}

// expand returns HKDF-Expand (RFC 5869, section 2.3) with SHA-256 for 32 bytes,
// for which it is a single HMAC.
func expand(key []byte, info string) []byte { return macOnce(key, append([]byte(info), 1)) }

// macOnce returns HMAC-SHA-256, and leaves nothing of the key in memory, as
// crypto/hkdf would. The caller clears the sum.
func macOnce(key, data []byte) []byte {
	mac := hmac.New(sha256.New, key)
	defer wipe.Value(mac)
	mac.Write(data)
	return mac.Sum(make([]byte, 0, sha256.Size))
}
