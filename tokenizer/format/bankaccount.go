package format

// Bounds of an account number, in digits. The seventeen are those of an entry of
// the ACH (Nacha Operating Rules, appendix three).
const (
	minAccountDigits = 4
	maxAccountDigits = 17
	routingDigits    = 9
)

// Reasons why a value is not a United States bank account.
var (
	errAccountForm    = &ValueError{"must be a routing number of nine digits, a slash and an account number"}
	errRoutingPrefix  = &ValueError{"has a routing number whose first two digits are not assigned"}
	errRoutingCheck   = &ValueError{"has a routing number that fails its check"}
	errAccountNumber  = &ValueError{"has an account number that is not digits with single spaces or dashes between"}
	errAccountLength  = &ValueError{"has an account number of less than 4 or more than 17 digits"}
	errAccountNothing = &ValueError{"has an account number of nothing but zeros"}
)

// normalizeBankAccount appends a United States bank account as its routing
// number, a slash and its account number, as in 110000000/000123456789.
//
// That is how it comes in, too, but that single spaces and dashes between the
// digits of the account number are left out. Zeros at its front are kept: banks
// tell them apart.
//
// The routing number (ABA routing transit number, ANSI X9.100) begins with 00 to
// 12 (Federal Reserve districts; 00 is the government), 21 to 32 (thrifts), 61 to
// 72 (electronic) or 80 (traveller's cheques), and its digits weighted with 3, 7
// and 1 in turn make a multiple of ten. All zeros pass both and are refused, for
// they are no bank. Account numbers have 4 to 17 digits; they have no check digit
// that banks agree on, and those with letters are not taken.
func normalizeBankAccount(dst []byte, raw string) ([]byte, error) {
	if len(raw) <= routingDigits || raw[routingDigits] != '/' {
		return dst, errAccountForm
	}
	var routing [routingDigits]byte
	copy(routing[:], raw)
	if !allDigits(routing[:]) {
		return dst, errAccountForm
	}
	if err := checkRouting(&routing); err != nil {
		return dst, err
	}
	var account [maxAccountDigits]byte
	n := 0
	separated := true // nothing, or a separator, stands before c
	zeros := true
	for i := routingDigits + 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case '0' <= c && c <= '9':
			if n == maxAccountDigits {
				return dst, errAccountLength
			}
			account[n] = c
			n++
			separated = false
			zeros = zeros && c == '0'
		case separated || c != ' ' && c != '-':
			return dst, errAccountNumber
		default:
			separated = true
		}
	}
	switch {
	case separated:
		return dst, errAccountNumber
	case n < minAccountDigits:
		return dst, errAccountLength
	case zeros:
		return dst, errAccountNothing
	}
	dst = append(dst, routing[:]...)
	dst = append(dst, '/')
	return append(dst, account[:n]...), nil
}

// checkRouting says what is wrong with a routing number, or nil. (It is an error
// and not a *ValueError, so that nil is nil.)
func checkRouting(digits *[routingDigits]byte) error {
	switch prefix := twoDigits(digits[:]); {
	case prefix <= 12, 21 <= prefix && prefix <= 32, 61 <= prefix && prefix <= 72, prefix == 80:
	default:
		return errRoutingPrefix
	}
	sum, zeros := 0, true
	for i, c := range digits {
		sum += int(c-'0') * int("371"[i%3]-'0')
		zeros = zeros && c == '0'
	}
	switch {
	case sum%10 != 0:
		return errRoutingCheck
	case zeros:
		return errRoutingPrefix
	}
	return nil
}

// splitBankAccount cuts an account in its normal form at the slash.
func splitBankAccount(value []byte) (routing, account []byte) {
	if len(value) <= routingDigits {
		return nil, value
	}
	return value[:routingDigits], value[routingDigits+1:]
}

// maskBankAccount appends asterisks for the digits but the last four of an
// account number of eight or more.
func maskBankAccount(dst, value []byte) []byte {
	_, account := splitBankAccount(value)
	dst = append(dst, "*********/"...)
	return maskToLastFour(dst, account)
}

// appendBankAccountPart appends a part of an account.
func appendBankAccountPart(dst, value []byte, p Part) ([]byte, bool) {
	routing, account := splitBankAccount(value)
	if p == PartRouting {
		return append(dst, routing...), len(routing) > 0
	}
	return appendLast4(dst, account, p)
}
