package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// nonceSize is the size in bytes of a nonce of GCM.
const nonceSize = 12

// Nonces are random nonces that are drawn together, for who seals several times: to
// ask the system for each costs more than to seal. Each is used once. The zero Nonces
// are none, and more are drawn when there are none left. They are for one goroutine,
// and not for keeping: a copy of the machine's memory would have them too.
type Nonces struct{ left []byte }

// NewNonces draws n nonces, and more random bytes for any other use.
func NewNonces(n, more int) (nonces Nonces, random []byte) {
	drawn := make([]byte, n*nonceSize+more)
	_, _ = rand.Read(drawn) // it never fails
	return Nonces{drawn[more:]}, drawn[:more:more]
}

// next returns a nonce.
func (n *Nonces) next() []byte {
	if len(n.left) < nonceSize {
		*n, _ = NewNonces(1, 0)
	}
	nonce := n.left[:nonceSize:nonceSize]
	n.left = n.left[nonceSize:]
	return nonce
}

// gcm is AES-256-GCM with random nonces (NIST SP 800-38D, section 8.2.2):
//
//	nonce(12) ciphertext tag(16)
type gcm struct {
	random cipher.AEAD // draws nonces itself
	given  cipher.AEAD // takes them; nil in FIPS 140 mode, which demands the other
}

func newGCM(block cipher.Block) (g gcm, err error) {
	if g.random, err = cipher.NewGCMWithRandomNonce(block); err != nil || fips140.Enabled() {
		return g, err
	}
	g.given, err = cipher.NewGCM(block)
	return g, err
}

// newGCMKey is newGCM for a key.
func newGCMKey(key []byte) (g gcm, clear func(), err error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return g, nil, err
	}
	if g, err = newGCM(block); err != nil {
		return g, nil, err
	}
	// All in the end: on most platforms an AEAD has a copy of block's key schedule,
	// on some it points into block.
	return g, func() {
		wipe.Value(g.random, block)
		if g.given != nil {
			wipe.Value(g.given, block)
		}
	}, nil
}

// seal appends what plaintext is sealed as.
func (g *gcm) seal(nonces *Nonces, dst, plaintext, additional []byte) []byte {
	if nonces == nil || g.given == nil {
		return g.random.Seal(dst, nil, plaintext, additional)
	}
	nonce := nonces.next()
	if dst == nil {
		dst = make([]byte, 0, Overhead+len(plaintext))
	}
	return g.given.Seal(append(dst, nonce...), nonce, plaintext, additional)
}

// open appends what was sealed.
func (g *gcm) open(dst, sealed, additional []byte) ([]byte, error) {
	return g.random.Open(dst, nil, sealed, additional)
}
