package format

// Bounds of a card number, in digits. ISO/IEC 7812-1 allows up to 19. The
// shortest are Maestro's of 12; all others have 13, as Visa's old ones, or more.
const (
	minCardDigits = 12
	maxCardDigits = 19
)

// Reasons why a value is not a card number.
var (
	errCardCharacter = &ValueError{"must hold only digits, spaces and dashes"}
	errCardSeparator = &ValueError{"must have spaces and dashes only between digits, one at a time"}
	errCardLength    = &ValueError{"must have 13 to 19 digits, or 12 as a Maestro card"}
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
// ISO/IEC 7812-1 annex B). That goes for all brands: UnionPay is said to have
// issued a few numbers that fail it, years ago, but its own specifications demand
// it, and a check that one prefix escapes would no longer tell tokens from
// cards. Who must keep such numbers has them in a profile of the type text.
//
// A length that the brand never issues is not refused: the ranges of brands
// move (see BrandOf), and a number turned away for an old table is a payment
// lost. Only 12 digits must be of where Maestro is found (50, 56 to 69), for
// there it is far more often a number cut short. At most 39 bytes of raw are
// looked at, however long it is.
func normalizeCardNumber[T string | []byte](dst []byte, raw T) ([]byte, error) {
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
	case n < minCardDigits, n == minCardDigits && !maybeMaestro(digits[:n]):
		return dst, errCardLength
	case !luhn(digits[:n]):
		return dst, errCardLuhn
	}
	return append(dst, digits[:n]...), nil
}

// maybeMaestro says whether a number begins like one of Maestro: with 50 or 56 to
// 69 (Mastercard, Transaction Processing Rules).
func maybeMaestro(number []byte) bool {
	prefix := twoDigits(number)
	return prefix == 50 || 56 <= prefix && prefix <= 69
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

// appendCardNumberPart appends a part of a card number.
func appendCardNumberPart(dst, number []byte, p Part) ([]byte, bool) {
	switch p {
	case PartLast4:
		return appendLast4(dst, number, p)
	case PartBrand:
		return append(dst, BrandOf(number)...), true
	case PartBIN:
		n := binDigits(len(number))
		return append(dst, number[:n]...), true
	}
	return dst, false
}

// binDigits returns how many of a card number's digits are its BIN: since April
// 2022 eight (ISO/IEC 7812-1:2017), of which PCI DSS 4.0.1, 3.4.1 lets eight be
// shown of a number of sixteen digits and more, and six of a shorter one.
func binDigits(length int) int {
	if length >= 16 {
		return 8
	}
	return min(length, 6)
}
