package tokenizer

import (
	"encoding/binary"
	"strings"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Token is the ticket that stands for a value. It is no secret, but it is not
// to be logged either.
type Token string

// MaxToken is the longest token in bytes.
const MaxToken = 512

// opaque says whether a token says of itself that it is a sealed id.
func (t Token) opaque() bool { return strings.HasPrefix(string(t), "cc_") }

// A token's block is id(8) ‖ check(4) ‖ tag(4), enciphered (DESIGN.md section
// 4). The tag is the same in all: a block that deciphers to another was not
// made by us.
var blockTag = [4]byte{'c', 'c', 0, 1}

// sealID returns the token of a record under the token key that it names.
//
// Errors: keystore.ErrKeyVersion.
func sealID(ring *keystore.Keyring, r *Record) (Token, error) {
	var block [16]byte
	binary.BigEndian.PutUint64(block[:8], r.ID)
	copy(block[8:12], r.Check[:])
	copy(block[12:], blockTag[:])
	if err := ring.PermuteVersion(r.TokenVersion, &block); err != nil {
		return "", err
	}
	var buf [format.MaxOpaqueLen]byte
	return Token(format.AppendOpaque(buf[:0], r.Profile, r.TokenVersion, &block)), nil
}

// openID returns what a token holds. A token that no key of ours made is
// ErrTokenNotFound: its form is right, so somebody made it up. One that names a
// version which the ring doesn't have is keystore.ErrKeyVersion.
func openID(ring *keystore.Keyring, ref *Reference) (id uint64, check [4]byte, err error) {
	block := ref.block
	if err := ring.Unpermute(ref.version, &block); err != nil {
		return 0, check, err
	}
	if [4]byte(block[12:]) != blockTag {
		return 0, check, ErrTokenNotFound
	}
	return binary.BigEndian.Uint64(block[:8]), [4]byte(block[8:12]), nil
}
