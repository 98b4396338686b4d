package ff1

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"math/bits"
)

const (
	// MaxRadix is the largest radix, that of SP 800-38G section 5.2. The
	// smallest is 2.
	MaxRadix = 1 << 16

	// MaxLen is the length, in numerals, of the longest string.
	MaxLen = 4096

	// MaxTweak is the length, in bytes, of the longest tweak.
	MaxTweak = 1<<16 - 1
)

// The errors of this package wrap one of these. None holds a numeral, a digit
// or a byte of a tweak; they may tell of lengths, radices and positions.
var (
	// ErrBlock says that a block cipher is missing or has not the blocks of AES.
	ErrBlock = errors.New("ff1: not a block cipher with blocks of 16 bytes")

	// ErrRadix says that a radix is out of bounds, or not 10 where digits are
	// given.
	ErrRadix = errors.New("ff1: unsupported radix")

	// ErrLength says that a string is too long, too short for its radix, or not
	// as long as the destination.
	ErrLength = errors.New("ff1: unsupported length")

	// ErrTweak says that a tweak is too long.
	ErrTweak = errors.New("ff1: tweak too long")

	// ErrNumeral says that a string holds what is no numeral of its radix.
	ErrNumeral = errors.New("ff1: not a numeral of the radix")
)

// A Cipher encrypts and decrypts strings of numerals of one radix under one
// key. It holds nothing but these two and is safe for concurrent use if its
// block cipher is, as that of crypto/aes is.
type Cipher struct {
	block cipher.Block
	radix uint64
}

// New returns a Cipher for numerals below radix, which has to be 2 to MaxRadix.
// The block cipher has to be AES; what can be checked is that its blocks have 16
// bytes. Only its forward direction is used. New costs next to nothing, so a
// Cipher may be made for each operation. Its errors are ErrBlock and ErrRadix.
func New(block cipher.Block, radix int) (*Cipher, error) {
	if block == nil || block.BlockSize() != blockSize {
		return nil, ErrBlock
	}
	if radix < 2 || radix > MaxRadix {
		return nil, fmt.Errorf("%w: %d is not 2 to %d", ErrRadix, radix, MaxRadix)
	}
	return &Cipher{block: block, radix: uint64(radix)}, nil
}

// Encrypt writes the ciphertext of src under the tweak to dst, which has to be
// as long as src and may be the same slice or overlap it. Its errors are
// ErrLength, ErrTweak and ErrNumeral; dst is unchanged then.
func (c *Cipher) Encrypt(dst, src []uint16, tweak []byte) error {
	return crypt(c, dst, src, 0, tweak, false)
}

// Decrypt writes to dst the plaintext of which src is the ciphertext under the
// tweak. It is in all else like Encrypt.
func (c *Cipher) Decrypt(dst, src []uint16, tweak []byte) error {
	return crypt(c, dst, src, 0, tweak, true)
}

// EncryptDigits is like Encrypt for the ASCII digits '0' to '9'. The radix has
// to be 10, or the error is ErrRadix.
func (c *Cipher) EncryptDigits(dst, src, tweak []byte) error {
	return cryptDigits(c, dst, src, tweak, false)
}

// DecryptDigits is like Decrypt for the ASCII digits '0' to '9'. The radix has
// to be 10, or the error is ErrRadix.
func (c *Cipher) DecryptDigits(dst, src, tweak []byte) error {
	return cryptDigits(c, dst, src, tweak, true)
}

func cryptDigits(c *Cipher, dst, src, tweak []byte, decrypt bool) error {
	if c.radix != 10 {
		return fmt.Errorf("%w: digits under radix %d", ErrRadix, c.radix)
	}
	return crypt(c, dst, src, '0', tweak, decrypt)
}

// crypt is algorithm 7 (FF1.Encrypt) or algorithm 8 (FF1.Decrypt) of SP
// 800-38G, in the narrowest arithmetic that has room for half a string. It reads
// all of src before it writes to dst.
func crypt[T numeral](c *Cipher, dst, src []T, zero T, tweak []byte, decrypt bool) error {
	if err := c.checkLengths(len(dst), len(src), len(tweak)); err != nil {
		return err
	}
	if i := firstInvalid(src, zero, c.radix); i >= 0 {
		return fmt.Errorf("%w: at position %d of %d", ErrNumeral, i+1, len(src))
	}
	f := feistel{c: c, n: len(src), tweak: tweak, decrypt: decrypt}
	// Steps 1 and 2: the halves have u and v numerals.
	u := len(src) / 2
	v := len(src) - u
	modU, modV, ok := moduli(c.radix, u, v)
	switch {
	case !ok:
		a, b := readBig(src[:u], zero, c.radix), readBig(src[u:], zero, c.radix)
		a, b = f.roundsBig(u, v, a, b)
		writeBig(dst[:u], zero, c.radix, a)
		writeBig(dst[u:], zero, c.radix, b)
	case modV.hi != 0:
		a, b := readWide(src[:u], zero, c.radix), readWide(src[u:], zero, c.radix)
		a, b = f.roundsWide(modU, modV, a, b)
		writeWide(dst[:u], zero, c.radix, a)
		writeWide(dst[u:], zero, c.radix, b)
	default:
		a, b := readWord(src[:u], zero, c.radix), readWord(src[u:], zero, c.radix)
		a, b = f.roundsWord(modU.lo, modV.lo, a, b)
		writeWord(dst[:u], zero, c.radix, a)
		writeWord(dst[u:], zero, c.radix, b)
	}
	return nil
}

// feistel is what the ten rounds of a string of n numerals work with, besides
// its halves.
type feistel struct {
	c       *Cipher
	n       int
	tweak   []byte
	decrypt bool
}

// round returns the number of the round that comes k-th, and with it the modulus
// that counts in it: mod[i&1].
func (f *feistel) round(k int) int {
	if f.decrypt {
		return rounds - 1 - k
	}
	return k
}

// checkLengths checks what SP 800-38G asks of the lengths in sections 5.1 and
// 5.2.
func (c *Cipher) checkLengths(dst, src, tweak int) error {
	switch {
	case dst != src:
		return fmt.Errorf("%w: %d numerals into %d", ErrLength, src, dst)
	case src < 2:
		return fmt.Errorf("%w: %d numerals, fewer than 2", ErrLength, src)
	case src > MaxLen:
		return fmt.Errorf("%w: %d numerals, more than %d", ErrLength, src, MaxLen)
	case src < 7 && !c.hundred(src): // 2^7 > 100
		return fmt.Errorf("%w: fewer than 100 strings of %d numerals below %d", ErrLength, src, c.radix)
	case tweak > MaxTweak:
		return fmt.Errorf("%w: %d bytes, more than %d", ErrTweak, tweak, MaxTweak)
	}
	return nil
}

// hundred reports whether there are at least 100 strings of n numerals.
func (c *Cipher) hundred(n int) bool {
	size, ok := power(c.radix, n)
	return !ok || size.hi != 0 || size.lo >= 100
}

// moduli returns radix^u and radix^v, where v is u or u+1; ok is false if the
// larger is not below 2^128.
func moduli(radix uint64, u, v int) (modU, modV uint128, ok bool) {
	if radix == 10 && v < len(pow10) {
		return uint128{lo: pow10[u]}, uint128{lo: pow10[v]}, true
	}
	if v*(bits.Len64(radix)-1) >= 128 {
		return modU, modV, false
	}
	modU, ok = power(radix, u)
	if u == v || !ok {
		return modU, modU, ok
	}
	modV, carry := modU.mulAdd(radix, 0)
	return modU, modV, carry == 0
}
