package format

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// minFPEDomain is the least number of values among which FF1 may be used (NIST
// SP 800-38G Rev. 1, section 5.1).
const minFPEDomain = 1_000_000

// usualCardDigits is the length of the shortest card numbers but some of Maestro's.
const usualCardDigits = 13

// commonCardDigits is the length of most card numbers.
const commonCardDigits = 16

// errShapeFew is what a value is if FF1 must not be used for it.
var errShapeFew = &ValueError{"leaves fewer than a million values beside what is kept of it, too few for mode fpe"}

// FPE returns nil if the values of the type can be enciphered in the shape, so
// that a value and its token are of one form and nothing is stored: digits as
// long as the value, and a template whose pattern all values match. Otherwise
// the error is an *OptionError. It is one also if there are fewer than 1,000,000
// values that have the length and the kept digits of the shortest, which is what
// NIST SP 800-38G Rev. 1 demands of FF1. The card numbers of 12 digits, which only
// Maestro has, don't count here: FPEFrame refuses those that are too short, one
// by one.
func (s *Shape) FPE() error {
	o := &s.options
	key := "format"
	switch s.Name() {
	case "digits":
		if o.Length != 0 {
			return &OptionError{"length", "must be left out in mode fpe, where a token is as long as its value"}
		}
		if o.Luhn != luhnAny && !s.typ.Luhn() {
			return &OptionError{"luhn", fmt.Sprintf("must be any in mode fpe for the type %s, whose values don't all pass the Luhn check", s.typ.Name())}
		}
		switch {
		case o.KeepFirst > 0:
			key = "keep_first"
		case o.KeepLast > 0:
			key = "keep_last"
		}
	case "template":
		if !s.matchesType() {
			return &OptionError{"pattern", fmt.Sprintf("is not that of the type %s: in mode fpe a token is of the form of its value", s.typ.Name())}
		}
		key = "pattern"
	default:
		return &OptionError{"format", fmt.Sprintf("%s can't be that of mode fpe, as not every value is of the form of its tokens", s.Name())}
	}
	domain := new(big.Int)
	f, ok := s.smallest()
	least, most := s.typ.Digits()
	if s.typ.Luhn() {
		least = usualCardDigits
		var err error
		f, err = frameDigits(s, bytes.Repeat([]byte{'0'}, least))
		ok = err == nil
	}
	if ok {
		domain = f.Domain()
	}
	if domain.Cmp(big.NewInt(minFPEDomain)) < 0 {
		of := ""
		if least != most {
			of = fmt.Sprintf(" of %d digits", least)
		}
		if f, err := frameDigits(s, bytes.Repeat([]byte{'0'}, commonCardDigits)); s.typ.Luhn() && err == nil {
			of += fmt.Sprintf(" and %v of %d digits", f.Domain(), commonCardDigits)
		}
		return &OptionError{key, fmt.Sprintf("leaves %v values%s, fewer than the %d that NIST SP 800-38G Rev 1 demands of FF1", domain, of, minFPEDomain)}
	}
	return nil
}

// matchesType says whether all values of the type match the pattern of a
// template. Of a type that was made with a pattern each position is on its own,
// so it is enough to try every character at every one. Values of other types do
// if they are digits of one length and the pattern is, too.
func (s *Shape) matchesType() bool {
	if s.typ.row.options&optionPattern == 0 {
		least, most := s.typ.Digits()
		return least == most && most == len(s.slots) &&
			!slices.ContainsFunc(s.slots, func(s slot) bool { return s.alphabet != digitAlphabet })
	}
	value, err := s.typ.Normalize(nil, s.typ.Example())
	if err != nil || len(value) != len(s.slots) {
		return false
	}
	for i, was := range value {
		for c := byte(' '); c <= '~'; c++ {
			value[i] = c
			if s.normal(string(value)) && strings.IndexByte(s.slots[i].alphabet, c) < 0 {
				return false
			}
		}
		value[i] = was
	}
	return true
}

// FPEFrame returns the frame of a value, which must be in its normal form, or
// of a token of a shape for which FPE returns nil: they have one. It is
// otherwise like Frame; the error says also if there are fewer than 1,000,000
// values in the frame, or if the text is not of its form.
func (s *Shape) FPEFrame(text []byte) (Frame, error) {
	f, err := s.Frame(text)
	if err != nil {
		return Frame{}, err
	}
	if !f.enough() {
		return Frame{}, errShapeFew
	}
	return f, nil
}

// enough says whether FF1 may be used in the frame. It is f.Domain() >=
// minFPEDomain without the memory.
func (f *Frame) enough() bool {
	domain := 1
	for i := range f.slots {
		if f.numeral(i) {
			if domain *= f.count(i); domain >= minFPEDomain {
				return true
			}
		}
	}
	return false
}

// Kept returns what tokens of the frame keep of the value at the front and at
// the back.
func (f Frame) Kept() (front, back []byte) { return f.head, f.tail }

// Values returns the frame of the values that have tokens in this one by mode
// fpe: under a luhn rule all values pass the check.
func (f Frame) Values() Frame {
	if f.luhn != luhnFree {
		f.luhn = luhnRight
	}
	return f
}

// numeral says whether a slot is one of those that are enciphered. A slot
// without a choice is not, nor is the one that a luhn rule is kept by: what a
// value has there follows from the rest of it.
func (f *Frame) numeral(i int) bool {
	return f.slots[i].count > 1 && (f.luhn == luhnFree || i != len(f.slots)-1)
}

// Domain returns how many values there are in the frame for mode fpe, which is
// how many of its tokens are used.
func (f Frame) Domain() *big.Int {
	n := big.NewInt(1)
	for i := range f.slots {
		if f.numeral(i) {
			n.Mul(n, big.NewInt(int64(f.count(i))))
		}
	}
	return n
}

// AppendRadices appends how many choices there are for each of the numerals
// that mode fpe enciphers, from left to right.
func (f Frame) AppendRadices(dst []uint16) []uint16 {
	for i := range f.slots {
		if f.numeral(i) {
			dst = append(dst, uint16(f.count(i)))
		}
	}
	return dst
}

// AppendNumerals appends the numerals of a token, and says whether it is one
// that AppendToken makes of them; if not, dst is returned as it was.
func (f Frame) AppendNumerals(dst []uint16, token []byte) ([]uint16, bool) {
	if !f.Match(token) {
		return dst, false
	}
	numerals := dst
	at := len(f.head)
	for i := range f.slots {
		n := f.index(token, i, at)
		switch {
		case f.numeral(i):
			numerals = append(numerals, uint16(n))
		case n != 0:
			return dst, false
		}
		at += f.slots[i].width
	}
	return numerals, true
}

// AppendToken appends the token of the frame with the numerals, of which there
// must be as many as AppendRadices appends, each below its radix. Under a luhn
// rule the last free digit is the one with which the token passes the check, or,
// if it must fail, the next greater one (0 after 9).
func (f Frame) AppendToken(dst []byte, numerals []uint16) []byte {
	grown := f.grow(dst)
	token := grown[len(dst):]
	at := len(f.head)
	for i := range f.slots {
		n := 0
		if f.numeral(i) {
			n, numerals = int(numerals[0]), numerals[1:]
		}
		f.put(token, i, at, n)
		at += f.slots[i].width
	}
	return grown
}
