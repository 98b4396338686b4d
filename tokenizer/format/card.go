package format

import (
	"unicode"
	"unicode/utf8"
)

// maxCardName is the length of the longest name of a cardholder, in bytes. The
// magnetic stripe has room for 26 characters (ISO/IEC 7813); what people enter
// is longer.
const maxCardName = 128

// Reasons why a value is not a card.
var (
	errCardJSON    = &ValueError{"must be a JSON object whose members are strings, in 1 KiB at most"}
	errCardKey     = &ValueError{"must have no keys but number, expiry, name and cvv, and none twice"}
	errCardNoCVV   = &ValueError{"has a cvv, which its profile doesn't take"}
	errCardMissing = &ValueError{"must have a number and an expiry"}
	errCardExpiry  = &ValueError{"has an expiry that is none of MM/YY, MM/YYYY and YYYY-MM, of this century"}
	errCardName    = &ValueError{"has a name that is blank, too long or not printable"}
	errCardCVV     = &ValueError{"has a cvv that is not three or four digits"}
)

// normalizeCard appends a card in its normal form, without a cvv.
//
// A card comes in as a JSON object (RFC 8259) with the members
//
//	number  as normalizeCardNumber takes it
//	expiry  MM/YY, MM/YYYY or YYYY-MM
//	name    of the cardholder, if it is known: printable UTF-8, kept as it is
//	cvv     see normalizeCardWithCVV
//
// each of them a string; other and repeated keys are refused. The normal form is
// such an object without white space, members in this order, the number nothing
// but digits, the expiry YYYY-MM and nothing escaped that needn't be. A year of
// two digits is of this century. Whether the card has expired is not asked: this
// package has no clock, and one may refund to an expired card.
func normalizeCard(dst []byte, raw string) ([]byte, error) { return appendCard(dst, raw, false) }

// normalizeCardWithCVV is normalizeCard for a card that may come with its
// verification code.
func normalizeCardWithCVV(dst []byte, raw string) ([]byte, error) { return appendCard(dst, raw, true) }

// appendCard appends the normal form of a card. It works on a copy of raw on the
// stack.
func appendCard(dst []byte, raw string, takeCVV bool) ([]byte, error) {
	if len(raw) > maxCardJSON {
		return dst, errCardJSON
	}
	var scratch [maxCardJSON]byte
	card, err := parseCard(scratch[:copy(scratch[:], raw)])
	switch {
	case err != nil:
		return dst, err
	case card[cardNumber] == nil || card[cardExpiry] == nil:
		return dst, errCardMissing
	case card[cardCVV] != nil && !takeCVV:
		return dst, errCardNoCVV
	}
	var numberBuf [maxCardDigits]byte
	number, err := normalizeCardNumber(numberBuf[:0], card[cardNumber])
	if err != nil {
		return dst, err
	}
	var expiryBuf [len("YYYY-MM")]byte
	expiry := appendExpiry(expiryBuf[:0], card[cardExpiry])
	switch {
	case len(expiry) == 0:
		return dst, errCardExpiry
	case card[cardName] != nil && !validCardName(card[cardName]):
		return dst, errCardName
	case card[cardCVV] != nil && (len(card[cardCVV]) != 3 && len(card[cardCVV]) != 4 || !allDigits(card[cardCVV])):
		return dst, errCardCVV
	}
	card[cardNumber], card[cardExpiry] = number, expiry
	return card.append(dst), nil
}

// appendExpiry appends an expiry as YYYY-MM, or nothing if it is none.
func appendExpiry(dst, expiry []byte) []byte {
	var year, month []byte
	switch {
	case len(expiry) == len("MM/YY") && expiry[2] == '/':
		month, year = expiry[:2], expiry[3:]
	case len(expiry) == len("MM/YYYY") && expiry[2] == '/' && string(expiry[3:5]) == "20":
		month, year = expiry[:2], expiry[5:]
	case len(expiry) == len("YYYY-MM") && expiry[4] == '-' && string(expiry[:2]) == "20":
		month, year = expiry[5:], expiry[2:4]
	default:
		return dst
	}
	if !allDigits(year) || !allDigits(month) || twoDigits(month) < 1 || twoDigits(month) > 12 {
		return dst
	}
	dst = append(append(dst, "20"...), year...)
	return append(append(dst, '-'), month...)
}

// validCardName says whether a name is printable: letters, marks, digits, signs
// and spaces of any script, but not nothing and not spaces alone.
func validCardName(name []byte) bool {
	if len(name) > maxCardName || !utf8.Valid(name) {
		return false
	}
	blank := true
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		if !unicode.IsPrint(r) {
			return false
		}
		blank = blank && r == ' '
		i += size
	}
	return !blank
}

// configureCard makes a card ephemeral that may come with its verification code.
func configureCard(row dataType, _ TypeOptions) (*dataType, *OptionError) {
	row.normalize = normalizeCardWithCVV
	row.parts = []Part{PartLast4, PartBIN, PartBrand, PartNumber, PartExpiry, PartName, PartCVV}
	row.example = `{"number": "4111 1111 1111 1111", "expiry": "12/2030", "name": "A. Cardholder", "cvv": "123"}`
	row.ephemeral = true
	return &row, nil
}

// maskCard appends a card whose number shows the last four digits; all other
// members that it has are covered, whatever their length.
func maskCard(dst, value []byte) []byte {
	var scratch [maxCardJSON]byte
	card, err := parseCard(scratch[:copy(scratch[:], value)])
	if err != nil || card[cardNumber] == nil {
		return maskWhole(dst, value)
	}
	var number [maxCardJSON]byte
	masked := cardMembers{cardNumber: maskToLastFour(number[:0], card[cardNumber]), cardExpiry: []byte("**/**")}
	if card[cardName] != nil {
		masked[cardName] = []byte("********")
	}
	if card[cardCVV] != nil {
		masked[cardCVV] = []byte("***")
	}
	return masked.append(dst)
}

// appendCardPart appends a part of a card.
func appendCardPart(dst, value []byte, p Part) ([]byte, bool) {
	var scratch [maxCardJSON]byte
	card, err := parseCard(scratch[:copy(scratch[:], value)])
	if err != nil {
		return dst, false
	}
	var member []byte
	switch p {
	case PartNumber:
		member = card[cardNumber]
	case PartExpiry:
		member = card[cardExpiry]
	case PartName:
		member = card[cardName]
	case PartCVV:
		member = card[cardCVV]
	default:
		return appendCardNumberPart(dst, card[cardNumber], p)
	}
	return append(dst, member...), member != nil
}
