package format

import "slices"

// ssnTypes are the types to which the shape ssn fits: numbers that the Social
// Security Administration and the Internal Revenue Service of the United States
// give out, of nine digits.
var ssnTypes = []string{"ein", "itin", "ssn"}

// prepareSSN makes slots for nine digits but those that are kept of the serial
// number.
//
// Tokens with an area that is never issued have one from 900 to 999, which no
// SSN has, and a group from 01 to 49, which no ITIN has: those with area 9 have
// groups 50 to 65, 70 to 88, 90 to 92 and 94 to 99 (IRS, Internal Revenue Manual
// 3.21.263). An EIN may begin with a 9; for its type the area is from 960 to
// 979, since 96 and 97 are no prefix of an EIN. The serial number is never 0000,
// so that what checks the form of a number finds nothing else to object to.
func prepareSSN(s *Shape) error {
	if _, most := s.typ.Digits(); most != 9 || !slices.Contains(ssnTypes, s.typ.Name()) {
		return s.misfit("it is for United States numbers of nine digits")
	}
	free := 4 - s.options.KeepLast
	digit := character(digitAlphabet)
	if s.options.Area == areaAny {
		s.slots = slices.Repeat([]slot{digit}, 5+free)
		return nil
	}
	second := digit
	if s.typ.Name() == "ein" {
		second = character("67")
	}
	s.slots = []slot{character("9"), second, digit, number(2, 1, 49)}
	if free == 0 {
		return nil
	}
	most := 9
	for range free - 1 {
		most = most*10 + 9
	}
	s.zeroSlots = append(slices.Clone(s.slots), number(free, 1, most))
	s.slots = append(s.slots, number(free, 0, most))
	return nil
}

// frameSSN keeps the last digits of the serial number.
func frameSSN(s *Shape, text []byte) (Frame, error) {
	if len(text) != 9 || !allDigits(text) {
		return Frame{}, errShapeForm
	}
	f := Frame{tail: text[len(text)-s.options.KeepLast:], slots: s.slots}
	if s.zeroSlots != nil && !slices.ContainsFunc(f.tail, func(c byte) bool { return c != '0' }) {
		f.slots = s.zeroSlots
	}
	return f, nil
}

// smallestSSN is the frame of a value of which only zeros are kept, if any.
func smallestSSN(s *Shape) (Frame, bool) {
	f, err := frameSSN(s, []byte("000000000"))
	return f, err == nil
}
