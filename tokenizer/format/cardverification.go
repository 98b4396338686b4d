package format

// errCVV says why a value is not a card verification code.
var errCVV = &ValueError{"must be three or four digits"}

// normalizeCVV appends a card verification code: three digits (CVV2, CVC2, …),
// or four (American Express's CID), in ASCII and with nothing around them.
// Whether a code belongs to a card only its issuer knows.
func normalizeCVV(dst []byte, raw string) ([]byte, error) {
	if len(raw) != 3 && len(raw) != 4 {
		return dst, errCVV
	}
	for i := range len(raw) {
		if raw[i] < '0' || raw[i] > '9' {
			return dst, errCVV
		}
	}
	return append(dst, raw...), nil
}

// maskCVV appends three asterisks, whatever the length of the code.
func maskCVV(dst, _ []byte) []byte { return append(dst, "***"...) }
