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
//
// In FIPS 140 mode the module has to draw the nonces, so there it does; its source of
// random numbers doesn't ask the system each time. Else they are drawn together.
type gcm struct {
	aead    cipher.AEAD
	drawing bool // aead draws nonces, and puts them in front
}

func newGCM(key []byte) (g gcm, clear func(), err error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return g, nil, err
	}
	if g.drawing = fips140.Enabled(); g.drawing {
		g.aead, err = cipher.NewGCMWithRandomNonce(block)
	} else {
		g.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		return g, nil, err
	}
	// Both in the end: on most platforms aead has a copy of block's key schedule, on
	// some it points into block.
	return g, func() { wipe.Value(g.aead, block) }, nil
}

// seal appends what plaintext is sealed as.
func (g *gcm) seal(nonces *Nonces, dst, plaintext, additional []byte) []byte {
	if g.drawing {
		return g.aead.Seal(dst, nil, plaintext, additional)
	}
	var own Nonces
	if nonces == nil {
		nonces = &own
	}
	nonce := nonces.next()
	if dst == nil {
		dst = make([]byte, 0, Overhead+len(plaintext))
	}
	return g.aead.Seal(append(dst, nonce...), nonce, plaintext, additional)
}

// open appends what was sealed.
func (g *gcm) open(dst, sealed, additional []byte) ([]byte, error) {
	if g.drawing {
		return g.aead.Open(dst, nil, sealed, additional)
	}
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	return g.aead.Open(dst, sealed[:nonceSize], sealed[nonceSize:], additional)
}
