package format

// Reasons why a value is not a date of birth.
var (
	errDateForm  = &ValueError{"must be a date as YYYY-MM-DD"}
	errDateDay   = &ValueError{"is a day that is in no calendar"}
	errDateRange = &ValueError{"is a date before the twentieth or after the twenty-first century"}
)

// normalizeDate appends a date of birth as ISO 8601 has it, YYYY-MM-DD, which is
// the only way to write it in: 01/02/2003 is two days.
//
// It is a day of the Gregorian calendar from 1900-01-01 to 2099-12-31. Whether
// it has come yet is not asked: this package has no clock, and the time zone of
// the person isn't known.
func normalizeDate(dst []byte, raw string) ([]byte, error) {
	if len(raw) != len("YYYY-MM-DD") || raw[4] != '-' || raw[7] != '-' {
		return dst, errDateForm
	}
	var date [8]byte
	copy(date[:4], raw)
	copy(date[4:6], raw[5:])
	copy(date[6:], raw[8:])
	if !allDigits(date[:]) {
		return dst, errDateForm
	}
	century, year, month, day := twoDigits(date[:]), twoDigits(date[2:]), twoDigits(date[4:]), twoDigits(date[6:])
	if century != 19 && century != 20 {
		return dst, errDateRange
	}
	days := 31
	switch month {
	case 4, 6, 9, 11:
		days = 30
	case 2:
		days = 28
		if year%4 == 0 && (year != 0 || century%4 == 0) {
			days = 29
		}
	}
	if month < 1 || month > 12 || day < 1 || day > days {
		return dst, errDateDay
	}
	return append(dst, raw...), nil
}

// maskDate appends a date of asterisks.
func maskDate(dst, _ []byte) []byte { return append(dst, "****-**-**"...) }

// appendDatePart appends the year of a date.
func appendDatePart(dst, date []byte, _ Part) ([]byte, bool) {
	return append(dst, date[:4]...), true
}
