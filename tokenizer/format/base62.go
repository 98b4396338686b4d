package format

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// alphabet holds the digits of base62 in the order of their values, which is
// that of ASCII: of two numbers of one width, the text of the smaller sorts
// first.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// noDigit is the entry in digitValues of a byte that is no digit.
const noDigit = 0xFF

// digitValues holds the value of each byte as a digit, or noDigit.
var digitValues = func() (values [256]byte) {
	for i := range values {
		values[i] = noDigit
	}
	for i := range len(alphabet) {
		values[alphabet[i]] = byte(i)
	}
	return values
}()

// pow10 is 62¹⁰, the largest even power of 62 in 64 bits: a block of 16 bytes is
// written as 2, 10 and 10 digits.
const pow10 = 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62

// blockDigits is how many digits 16 bytes take: 62²¹ < 2¹²⁸ < 62²².
const blockDigits = 22

// appendBase62 appends v in exactly width digits, which must be enough.
func appendBase62(dst []byte, v uint64, width int) []byte {
	start := len(dst)
	dst = slices.Grow(dst, width)[:start+width]
	for i := len(dst) - 1; i >= start; i-- {
		dst[i] = alphabet[v%62]
		v /= 62
	}
	return dst
}

// parseBase62 returns the number that up to ten digits stand for, and false if
// one is no digit.
func parseBase62(s string) (v uint64, ok bool) {
	for i := range len(s) {
		d := digitValues[s[i]]
		if d == noDigit {
			return 0, false
		}
		v = v*62 + uint64(d)
	}
	return v, true
}

// widthBase62 returns how many digits v takes without leading zeros.
func widthBase62(v uint64) int {
	width := 1
	for ; v >= 62; v /= 62 {
		width++
	}
	return width
}

// appendBlock appends 16 bytes, read as a big-endian number, in 22 digits.
func appendBlock(dst []byte, block *[16]byte) []byte {
	hi, lo := binary.BigEndian.Uint64(block[:8]), binary.BigEndian.Uint64(block[8:])
	// Long division by 62¹⁰, twice; what is left after that is below 484.
	q, rem := hi/pow10, hi%pow10
	lo, low := bits.Div64(rem, lo, pow10)
	top, mid := bits.Div64(q, lo, pow10)
	dst = appendBase62(dst, top, 2)
	dst = appendBase62(dst, mid, 10)
	return appendBase62(dst, low, 10)
}

// parseBlock is the inverse of appendBlock. It returns false if a byte of s is
// no digit or the number is 2¹²⁸ or more.
func parseBlock(s string) (block [16]byte, ok bool) {
	top, ok1 := parseBase62(s[:2])
	mid, ok2 := parseBase62(s[2:12])
	low, ok3 := parseBase62(s[12:blockDigits])
	if !ok1 || !ok2 || !ok3 {
		return block, false
	}
	// (top·62¹⁰ + mid)·62¹⁰ + low; the first sum has fewer than 72 bits.
	hi, lo := bits.Mul64(top, pow10)
	lo, carry := bits.Add64(lo, mid, 0)
	hi += carry
	over, hi := bits.Mul64(hi, pow10)
	add, lo := bits.Mul64(lo, pow10)
	hi, carryHi := bits.Add64(hi, add, 0)
	lo, carry = bits.Add64(lo, low, 0)
	hi, carry = bits.Add64(hi, 0, carry)
	if over != 0 || carryHi != 0 || carry != 0 {
		return block, false
	}
	binary.BigEndian.PutUint64(block[:8], hi)
	binary.BigEndian.PutUint64(block[8:], lo)
	return block, true
}
