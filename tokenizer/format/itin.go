package format

// Reasons why a value is not an Individual Taxpayer Identification Number.
var (
	errITINArea  = &ValueError{"must begin with a nine"}
	errITINGroup = &ValueError{"has a group number (the fourth and fifth digit) that no ITIN has"}
)

// normalizeITIN appends the nine digits of an Individual Taxpayer Identification
// Number.
//
// It is written like an SSN: ddddddddd, ddd-dd-dddd or "ddd dd dddd". It begins
// with a nine, and the fourth and fifth digit are 50 to 65, 70 to 88, 90 to 92 or
// 94 to 99 (IRS Publication 1915; IRM 3.21.263). 93 is of the ATIN, for children
// to be adopted, which is another number. There is no check digit.
func normalizeITIN(dst []byte, raw string) ([]byte, error) {
	digits, ok := ssnDigits(raw)
	if !ok {
		return dst, errSSNForm
	}
	if digits[0] != '9' {
		return dst, errITINArea
	}
	switch group := twoDigits(digits[3:]); {
	case 50 <= group && group <= 65, 70 <= group && group <= 88, 90 <= group && group <= 92, 94 <= group:
		return append(dst, digits[:]...), nil
	}
	return dst, errITINGroup
}
