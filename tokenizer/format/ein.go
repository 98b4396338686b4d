package format

// Reasons why a value is not an Employer Identification Number.
var (
	errEINForm   = &ValueError{"must be nine digits, alone or with a dash or a space behind the second"}
	errEINPrefix = &ValueError{"has a prefix (the first two digits) that the IRS doesn't assign"}
)

// einPrefixes has the prefixes that the Internal Revenue Service assigns ("How
// EINs are assigned and valid EIN prefixes"): a one at the place of each.
const einPrefixes = "" +
	"0111111000" + "1111111000" + "1111111100" + "1111111111" + "1111111110" +
	"1111111111" + "1111111110" + "0111111100" + "1111111110" + "1111110011"

// normalizeEIN appends the nine digits of an Employer Identification Number.
//
// It is written as dd-ddddddd, "dd ddddddd" or ddddddddd, in ASCII digits and
// with nothing around it. The prefix must be one that is assigned. There is no
// check digit.
func normalizeEIN(dst []byte, raw string) ([]byte, error) {
	var digits [9]byte
	switch len(raw) {
	case 9:
		copy(digits[:], raw)
	case 10:
		if raw[2] != '-' && raw[2] != ' ' {
			return dst, errEINForm
		}
		copy(digits[:2], raw[:2])
		copy(digits[2:], raw[3:])
	default:
		return dst, errEINForm
	}
	if !allDigits(digits[:]) {
		return dst, errEINForm
	}
	if einPrefixes[twoDigits(digits[:])] == '0' {
		return dst, errEINPrefix
	}
	return append(dst, digits[:]...), nil
}

// twoDigits returns the number of the first two of some digits.
func twoDigits(digits []byte) int { return int(digits[0]-'0')*10 + int(digits[1]-'0') }
