package format

// Reasons why a value is not a Social Security number.
var (
	errSSNForm   = &ValueError{"must be nine digits, alone or in groups of three, two and four with a dash or a space between"}
	errSSNArea   = &ValueError{"has an area number (the first three digits) that is never issued"}
	errSSNGroup  = &ValueError{"has a group number (the middle two digits) of zero, which is never issued"}
	errSSNSerial = &ValueError{"has a serial number (the last four digits) of zero, which is never issued"}
	errSSNPublic = &ValueError{"is a well-known number from a publication, not a person's"}
)

// normalizeSSN appends the nine digits of a United States Social Security
// number.
//
// It is written as ddddddddd, ddd-dd-dddd or "ddd dd dddd", in ASCII digits and
// with nothing around it. Refused is what the Social Security Administration
// never issues (POMS RM 10201.035): area 000, 666 and 900 to 999, group 00 and
// serial 0000. There are no rules beside these since numbers are given out at
// random (25 June 2011); which area belonged to which state no longer matters.
// An ITIN, which has an area from 900, is not an SSN.
//
// Three numbers that the rules allow are refused because they were printed and
// copied so often that they name nobody: 078-05-1120 (a card sold with wallets
// from 1938, since voided), 219-09-9999 (a pamphlet of 1940) and 457-55-5462
// (an advertising campaign). Placeholders such as 123-45-6789 or 111-11-1111 are
// accepted: they are of the right form and may have been issued, and a vault
// that turns away somebody's number does more harm than one that keeps a
// made-up one.
func normalizeSSN(dst []byte, raw string) ([]byte, error) {
	digits, ok := ssnDigits(raw)
	if !ok {
		return dst, errSSNForm
	}
	area := string(digits[:3])
	switch {
	case area == "000", area == "666", area[0] == '9':
		return dst, errSSNArea
	case string(digits[3:5]) == "00":
		return dst, errSSNGroup
	case string(digits[5:]) == "0000":
		return dst, errSSNSerial
	}
	switch string(digits[:]) {
	case "078051120", "219099999", "457555462":
		return dst, errSSNPublic
	}
	return append(dst, digits[:]...), nil
}

// ssnDigits returns the digits of a number that is written as one of the Social
// Security Administration, and whether it is.
func ssnDigits(raw string) (digits [9]byte, ok bool) {
	switch len(raw) {
	case 9:
		copy(digits[:], raw)
	case 11:
		if separator := raw[3]; (separator != '-' && separator != ' ') || raw[6] != separator {
			return digits, false
		}
		copy(digits[:3], raw[:3])
		copy(digits[3:5], raw[4:6])
		copy(digits[5:], raw[7:])
	default:
		return digits, false
	}
	return digits, allDigits(digits[:])
}
