package keystore

import "fmt"

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
