package format

// Bounds of a card number, in digits. ISO/IEC 7812-1 allows up to 19. Visa's old
// numbers of 13 are the shortest that are accepted; Maestro's of 12 are not.
const (
	minCardDigits = 13
	maxCardDigits = 19
)

// Reasons why a value is not a card number.
var (
	errCardCharacter = &ValueError{"must hold only digits, spaces and dashes"}
	errCardSeparator = &ValueError{"must have spaces and dashes only between digits, one at a time"}
	errCardLength    = &ValueError{"must have 13 to 19 digits"}
	errCardLuhn      = &ValueError{"fails the Luhn check"}
)

// normalizeCardNumber appends the digits of a card number (PAN, ISO/IEC 7812-1)
// and nothing else.
//
// The digits are ASCII; those of other scripts, and full-width ones, are
// refused, because what looks the same to a person is not the same to an
// acquirer. A single space or dash may stand between any two digits, wherever
// the groups of the brand may end, and nowhere else: white space around the
// number is for the caller to remove. The check digit must be right (Luhn,
// ISO/IEC 7812-1 annex B).
//
// A length that the brand never issues is not refused: the ranges of brands
// move (see BrandOf), and a number turned away for an old table is a payment
// lost. At most 39 bytes of raw are looked at, however long it is.
func normalizeCardNumber(dst []byte, raw string) ([]byte, error) {
	var digits [maxCardDigits]byte
	n := 0
	separated := true // nothing, or a separator, stands before raw[i]
	for i := range len(raw) {
		switch c := raw[i]; {
		case '0' <= c && c <= '9':
			if n == maxCardDigits {
				return dst, errCardLength
			}
			digits[n] = c
			n++
			separated = false
		case c != ' ' && c != '-':
			return dst, errCardCharacter
		case separated:
			return dst, errCardSeparator
		default:
			separated = true
		}
	}
	switch {
	case separated:
		return dst, errCardSeparator
	case n < minCardDigits:
		return dst, errCardLength
	case !luhn(digits[:n]):
		return dst, errCardLuhn
	}
	return append(dst, digits[:n]...), nil
}

// luhn says whether the last of the ASCII digits is the check digit of those
// before it, by the "modulus 10, double-add-double" formula of ISO/IEC 7812-1
// annex B: from the right, every second digit is doubled and the digits of the
// product added; the sum of all is a multiple of ten.
func luhn(digits []byte) bool {
	sum := 0
	for i, c := range digits {
		d := int(c - '0')
		if (len(digits)-i)%2 == 0 {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
