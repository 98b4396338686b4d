package format

import "slices"

// preparePhone makes slots for the longest national number.
func preparePhone(s *Shape) error {
	if s.typ.Name() != "phone" {
		return s.misfit("it is for phone numbers")
	}
	s.slots = slices.Concat(
		[]slot{character(digitAlphabet[1:])},
		slices.Repeat([]slot{character(digitAlphabet)}, maxPhoneDigits-2))
	return nil
}

// nanpSlots are those of a national number of the North American Numbering
// Plan, whose area and office codes begin with 2 to 9.
var nanpSlots = func() []slot {
	code := []slot{character(digitAlphabet[2:]), character(digitAlphabet), character(digitAlphabet)}
	return slices.Concat(code, code, slices.Repeat([]slot{character(digitAlphabet)}, 4))
}()

// framePhone keeps the plus sign and the calling code. What is free is as long
// as the value's national number and doesn't begin with a zero, so that a token
// is of the form that the type itself demands.
func framePhone(s *Shape, text []byte) (Frame, error) {
	if len(text) > 1+maxPhoneDigits {
		return Frame{}, errShapeForm
	}
	code, national := splitPhone(text)
	if len(code) == 0 || len(national) == 0 || text[0] != '+' || !allDigits(text[1:]) {
		return Frame{}, errShapeForm
	}
	f := Frame{head: code, slots: s.slots[:len(national)]}
	if string(code) == "+1" && len(national) == len(nanpSlots) {
		f.slots = nanpSlots
	}
	return f, nil
}

// smallestPhone is the frame of the shortest national number of all.
func smallestPhone(s *Shape) (Frame, bool) {
	least := len(s.slots)
	for i := range callingAreas {
		least = min(least, callingAreas[i].least)
	}
	return Frame{slots: s.slots[:least]}, true
}

// likePhone says whether a text is a token of its own frame, of a length that
// numbers with its calling code have.
func likePhone(s *Shape, token string, text []byte) bool {
	f, err := framePhone(s, text)
	return err == nil && f.Match(text) && s.normal(token)
}
