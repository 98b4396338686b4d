package format

import "strings"

// Bounds of a phone number.
const (
	maxPhoneDigits = 15 // ITU-T E.164
	maxPhoneRaw    = 40 // bytes
)

// Reasons why a value is not a phone number.
var (
	errPhoneCharacter = &ValueError{"must hold only digits, spaces and the signs - . / ( ), behind a plus sign or none"}
	errPhonePlus      = &ValueError{"must begin with a plus sign and a calling code"}
	errPhoneCode      = &ValueError{"has a calling code that is not assigned"}
	errPhoneLength    = &ValueError{"has too few or too many digits for its calling code"}
	errPhoneNumber    = &ValueError{"has a national number that is never issued"}
)

// normalizePhone appends the E.164 form of a phone number, as +14155550123. A
// number without a plus sign is taken if there is a home, in which it is
// read.
//
// Groups may be set off by spaces, dashes, dots, slashes and parentheses; the
// number begins with a plus sign, a digit or a parenthesis and ends with a
// digit. ASCII only. Refused are what E.164 can't say: extensions, letters for
// digits, a prefix to dial abroad (00, 011), short codes. At most 40 bytes are
// looked at.
//
// What is checked is what is possible: an assigned calling code, a length that
// its area has numbers of, and in the area of +1 that area and office begin with
// 2 to 9. Which ranges are in use is not: they change by the week, and a number
// turned away for an old table is a customer lost. A trunk prefix is left out:
// at home where the digits without it are a number, behind a plus sign only the
// zero of "+44 (0)20 7946 0958".
//
// That is a table and no library: github.com/nyaruka/phonenumbers (MIT, alive)
// adds 2.9 MB to a binary beside protobuf, allocates for each number and holds
// patterns for formatting and for ranges, of which nothing is needed here.
func normalizePhone(dst []byte, raw string, home *callingArea) ([]byte, error) {
	international := raw[0] == '+'
	var buf [maxPhoneRaw]byte
	digits, err := phoneDigits(buf[:0], strings.TrimPrefix(raw, "+"))
	switch {
	case err != nil:
		return dst, err
	case !international && (home == nil || len(digits) > 1 && string(digits[:2]) == "00"):
		return dst, errPhonePlus
	}
	area, national := home, digits
	if international {
		if area = areaOf(digits); area == nil {
			return dst, errPhoneCode
		}
		national = digits[len(area.code):]
		if area.trunk == "0" && len(national) > 0 && national[0] == '0' {
			national = national[1:]
		}
	} else if without := len(digits) - len(area.trunk); without >= area.least &&
		string(digits[:len(area.trunk)]) == area.trunk {
		national = digits[len(area.trunk):]
	}
	switch {
	case len(national) < area.least || len(national) > area.most:
		return dst, errPhoneLength
	case area.trunk == "0" && national[0] == '0':
		return dst, errPhoneNumber
	case area.code == "1" && (national[0] < '2' || national[3] < '2'):
		return dst, errPhoneNumber
	}
	dst = append(dst, '+')
	dst = append(dst, area.code...)
	return append(dst, national...), nil
}

// normalizeInternationalPhone is normalizePhone without a home.
func normalizeInternationalPhone(dst []byte, raw string) ([]byte, error) {
	return normalizePhone(dst, raw, nil)
}

// phoneDigits appends the digits of what is behind a plus sign or without one.
func phoneDigits(dst []byte, raw string) ([]byte, error) {
	if len(raw) > maxPhoneRaw {
		return nil, errPhoneLength
	}
	for i := range len(raw) {
		switch c := raw[i]; {
		case '0' <= c && c <= '9':
			dst = append(dst, c)
		case strings.IndexByte(" -./()", c) < 0, i == 0 && c != '(':
			return nil, errPhoneCharacter
		}
	}
	switch {
	case raw == "":
		return nil, errPhoneLength
	case raw[len(raw)-1] < '0':
		return nil, errPhoneCharacter
	}
	return dst, nil
}

// configurePhone gives a phone number a region to be read in.
func configurePhone(row dataType, o TypeOptions) (*dataType, *OptionError) {
	home := areaOfRegion(o.Region)
	if home == nil {
		return nil, &OptionError{"region", "is no two-letter code of ISO 3166-1, in capitals, of a region with phone numbers, such as US or GB"}
	}
	row.normalize = func(dst []byte, raw string) ([]byte, error) { return normalizePhone(dst, raw, home) }
	row.sample = samplePhone(home)
	return &row, nil
}

// splitPhone cuts a number in E.164 form behind the calling code, which keeps
// its plus sign.
func splitPhone(number []byte) (code, national []byte) {
	if len(number) == 0 {
		return nil, nil
	}
	area := areaOf(number[1:])
	if area == nil {
		return nil, number
	}
	return number[:1+len(area.code)], number[1+len(area.code):]
}

// maskPhone appends the calling code and the last four digits of a national
// number that has eight or more; asterisks for the rest.
func maskPhone(dst, number []byte) []byte {
	code, national := splitPhone(number)
	return maskToLastFour(append(dst, code...), national)
}

// appendPhonePart appends a part of a phone number.
func appendPhonePart(dst, number []byte, p Part) ([]byte, bool) {
	code, national := splitPhone(number)
	if p == PartCountry {
		return append(dst, code...), len(code) > 0
	}
	return appendLast4(dst, national, p)
}
