package vault

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// sealContext begins the additional data of every seal.
const sealContext = "coatcheck vault wrap v1"

// seal encrypts a key under its own secret, which is used for this one key and
// then known to Vault only: AES-256-GCM with a random nonce, which comes first.
// The additional data is sealContext, the format and the label.
//
// The label is bound here rather than by transit's associated_data, which older
// Vaults ignore without a word.
func seal(secret, key, label []byte) ([]byte, error) {
	aead, forget, err := newAEAD(secret)
	if err != nil {
		return nil, err
	}
	defer forget()
	return aead.Seal(make([]byte, 0, storedSealed), nil, key, sealData(label)), nil
}

// open is the inverse of seal. It returns keystore.ErrUnwrap, bare, for what was
// not sealed under this secret for this label.
func open(secret, sealed, label []byte) ([]byte, error) {
	aead, forget, err := newAEAD(secret)
	if err != nil {
		return nil, keystore.ErrUnwrap // transit decrypted something of another size
	}
	defer forget()
	key, err := aead.Open(nil, nil, sealed, sealData(label))
	if err != nil {
		return nil, keystore.ErrUnwrap
	}
	return key, nil
}

// newAEAD returns the cipher, and what wipes it once it has served.
func newAEAD(secret []byte) (aead cipher.AEAD, forget func(), err error) {
	if len(secret) != secretSize {
		return nil, nil, aes.KeySizeError(len(secret))
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, nil, err
	}
	if aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, nil, err
	}
	return aead, func() { wipe.Value(block, aead) }, nil
}

func sealData(label []byte) []byte {
	data := append(make([]byte, 0, len(sealContext)+1+len(label)), sealContext...)
	return append(append(data, storedFormat), label...)
}
