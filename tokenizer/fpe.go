package tokenizer

import (
	"bytes"
	"crypto/cipher"
	"math/big"

	"github.com/coatcheck/coatcheck/tokenizer/ff1"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// fpeLabel begins all tweaks.
const fpeLabel = "coatcheck fpe v1"

// maxNumerals is the most numerals of a value: the positions of a pattern.
const maxNumerals = 128

// fpe enciphers values of a profile by FF1 (NIST SP 800-38G) with AES-256, so
// that value and token are of one form and nothing is stored. Nothing of what
// follows may ever change: no record says how a token was made.
//
// The tweak is
//
//	"coatcheck fpe v1" ‖ len(profile) ‖ profile ‖ length ‖ len(front) ‖ front ‖ back
//
// with each length in one byte: that of the profile's name; of the value, which
// is that of the token; and of what is kept of the value at the front. front and
// back are what is kept, as it stands there. So equal digits have unrelated
// tokens in two profiles, and beside other kept digits.
//
// The numerals are the free characters from left to right, each as its place in
// the alphabet of its position, which is in the order of ASCII; characters with
// no alternative are none. If all alphabets are of one size, that is the radix.
// If not, the numerals are one number, in which each counts what those to its
// right can make, the number is enciphered in radix 2 with as many bits as the
// greatest takes, and enciphered again while the result is greater than that
// (cycle-walking).
//
// Of a type with a Luhn check digit the last free digit is no numeral, unless
// the shape has luhn "any": it follows from the rest. In a value and in a token
// that passes the check it is the digit with which it passes; in a token that
// must fail, that digit plus 1, and 0 after 9.
type fpe struct {
	prefix   []byte // of the tweak: all that is the same in the profile
	dataType format.Type
	shape    *format.Shape
}

// Reasons why a value has no token in the mode fpe.
var (
	errFPEForm = &InputError{ErrInvalidValue, "is not of the form of its profile's tokens, as the mode fpe demands"}
	errFPESelf = &InputError{ErrInvalidValue, "would be its own token in the mode fpe"}
)

// newFPE returns the fpe of a profile. The error is a *format.OptionError if the
// shape is not fit for it.
func newFPE(profile string, t format.Type, s *format.Shape) (fpe, error) {
	if err := s.FPE(); err != nil {
		return fpe{}, err
	}
	return fpe{tweakPrefix(profile), t, s}, nil
}

// tweakPrefix returns what all tweaks of a profile begin with.
func tweakPrefix(profile string) []byte {
	return append(append([]byte(fpeLabel), byte(len(profile))), profile...)
}

// encipher appends the token of a value in its normal form to dst.
//
// Errors: *InputError, which is ErrInvalidValue, for a value that leaves too
// little to encipher or would be its own token.
func (f fpe) encipher(dst []byte, block cipher.Block, value []byte) ([]byte, error) {
	frame, err := f.shape.FPEFrame(value)
	if err != nil {
		return dst, invalidValue(err)
	}
	var buf [maxNumerals]uint16
	defer clear(buf[:])
	numerals, ok := frame.Values().AppendNumerals(buf[:0], value)
	if !ok {
		return dst, errFPEForm
	}
	if err := f.crypt(frame, block, len(value), numerals, false); err != nil {
		return dst, err
	}
	made := frame.AppendToken(dst, numerals)
	if bytes.Equal(made[len(dst):], value) {
		clear(made[len(dst):])
		return dst, errFPESelf
	}
	return made, nil
}

// decipher appends the value of a token in its normal form to dst.
//
// Errors: ErrInvalidToken if no value has this token.
func (f fpe) decipher(dst []byte, block cipher.Block, token string) ([]byte, error) {
	if len(token) > maxNumerals {
		return dst, ErrInvalidToken
	}
	var text [maxNumerals]byte
	from := append(text[:0], token...)
	frame, err := f.shape.FPEFrame(from)
	if err != nil {
		return dst, ErrInvalidToken
	}
	var buf [maxNumerals]uint16
	defer clear(buf[:])
	numerals, ok := frame.AppendNumerals(buf[:0], from)
	if !ok {
		return dst, ErrInvalidToken
	}
	if err := f.crypt(frame, block, len(token), numerals, true); err != nil {
		return dst, err
	}
	made := frame.Values().AppendToken(dst, numerals)
	if value := made[len(dst):]; string(value) == token || !f.normal(value) {
		clear(value)
		return dst, ErrInvalidToken
	}
	return made, nil
}

// normal says whether a text is a normal form of the type.
func (f fpe) normal(text []byte) bool {
	var buf [maxNumerals]byte
	defer clear(buf[:])
	value, err := f.dataType.Normalize(buf[:0], string(text))
	return err == nil && bytes.Equal(value, text)
}

// crypt enciphers or deciphers numerals in place.
func (f fpe) crypt(frame format.Frame, block cipher.Block, length int, numerals []uint16, decrypt bool) error {
	front, back := frame.Kept()
	var tweakBuf [256]byte
	tweak := append(tweakBuf[:0], f.prefix...)
	tweak = append(tweak, byte(length), byte(len(front)))
	tweak = append(append(tweak, front...), back...)

	var buf [maxNumerals]uint16
	radices := frame.AppendRadices(buf[:0])
	for _, radix := range radices {
		if radix != radices[0] {
			return cryptMixed(block, radices, numerals, tweak, decrypt)
		}
	}
	c, err := ff1.New(block, int(radices[0]))
	if err != nil {
		return err
	}
	return cryptInPlace(c, numerals, tweak, decrypt)
}

// cryptInPlace enciphers or deciphers numerals of one radix.
func cryptInPlace(c *ff1.Cipher, numerals []uint16, tweak []byte, decrypt bool) error {
	if decrypt {
		return c.Decrypt(numerals, numerals, tweak)
	}
	return c.Encrypt(numerals, numerals, tweak)
}

// cryptMixed is crypt for numerals of more than one radix.
func cryptMixed(block cipher.Block, radices, numerals []uint16, tweak []byte, decrypt bool) error {
	c, err := ff1.New(block, 2)
	if err != nil {
		return err
	}
	rank, domain, digit := new(big.Int), big.NewInt(1), new(big.Int)
	for i, radix := range radices {
		digit.SetUint64(uint64(radix))
		domain.Mul(domain, digit)
		rank.Mul(rank, digit)
		rank.Add(rank, digit.SetUint64(uint64(numerals[i])))
	}
	bits := make([]uint16, new(big.Int).Sub(domain, big.NewInt(1)).BitLen())
	defer clear(bits)
	for i := range bits {
		bits[i] = uint16(rank.Bit(len(bits) - 1 - i))
	}
	// It ends: FF1 permutes the bit strings, so the way from a number below
	// domain leads back to it, if to no other before.
	for more := true; more; more = rank.Cmp(domain) >= 0 {
		if err := cryptInPlace(c, bits, tweak, decrypt); err != nil {
			return err
		}
		for i, bit := range bits {
			rank.SetBit(rank, len(bits)-1-i, uint(bit))
		}
	}
	for i := len(radices) - 1; i >= 0; i-- {
		rank.QuoRem(rank, domain.SetUint64(uint64(radices[i])), digit)
		numerals[i] = uint16(digit.Uint64())
	}
	return nil
}
