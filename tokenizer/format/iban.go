package format

// maxIBAN is the length of the longest IBAN that ISO 13616 allows.
const maxIBAN = 34

// Reasons why a value is not an IBAN.
var (
	errIBANCharacter = &ValueError{"must hold only letters, digits and single spaces between them"}
	errIBANCountry   = &ValueError{"begins with no country that has IBANs"}
	errIBANForm      = &ValueError{"has not the length or the letters and digits of its country's IBANs"}
	errIBANCheck     = &ValueError{"fails the check of modulus 97"}
)

// normalizeIBAN appends an IBAN (ISO 13616-1) in its electronic form: capital
// letters and digits, no spaces.
//
// Small letters are raised, since a check digit can't tell them apart, and
// single spaces are left out wherever they stand between characters, as in the
// print form; other separators, and white space around, are refused. The
// country, its length and its structure must be SWIFT's (see ibanCountries), the
// check digits from 02 to 98 and right (ISO/IEC 7064, MOD 97-10). Check digits
// that a country has of its own within an IBAN, as Spain's, are not looked at:
// few banks abroad do, and there are accounts that fail them.
//
// At most 67 bytes of raw are looked at, however long it is.
func normalizeIBAN(dst []byte, raw string) ([]byte, error) {
	var buf [maxIBAN]byte
	n := 0
	separated := true // nothing, or a space, stands before raw[i]
	for i := range len(raw) {
		c := raw[i]
		switch kind(c) {
		case 'a':
			c -= 'a' - 'A'
		case 0:
			if c != ' ' || separated {
				return dst, errIBANCharacter
			}
			separated = true
			continue
		}
		if n == maxIBAN {
			return dst, errIBANForm
		}
		separated = false
		buf[n] = c
		n++
	}
	iban := buf[:n]
	if separated {
		return dst, errIBANCharacter
	}
	if n < 4 {
		return dst, errIBANForm
	}
	bban := bbanOf(iban[:2])
	switch check := string(iban[2:4]); {
	case bban == "":
		return dst, errIBANCountry
	case !matchBBAN(bban, iban[4:]), kind(check[0]) != '0', kind(check[1]) != '0':
		return dst, errIBANForm
	case check < "02", check > "98", mod97(iban) != 1:
		return dst, errIBANCheck
	}
	return append(dst, iban...), nil
}

// matchBBAN says whether a text has the structure of a BBAN, as ibanCountries
// writes it.
func matchBBAN(structure string, text []byte) bool {
	run := 0
	for i := range len(structure) {
		c := structure[i]
		if kind(c) == '0' {
			run = run*10 + int(c-'0')
			continue
		}
		if len(text) < run {
			return false
		}
		for _, t := range text[:run] {
			if k := kind(t); k == 0 || k == 'a' || c == 'n' && k != '0' || c == 'a' && k != 'A' {
				return false
			}
		}
		text, run = text[run:], 0
	}
	return len(text) == 0
}

// mod97 returns the remainder of an IBAN whose first four characters are moved
// to its end and whose letters are numbers from 10 (A) to 35 (Z).
func mod97(iban []byte) int {
	sum := 0
	for i := range iban {
		switch c := iban[(i+4)%len(iban)]; kind(c) {
		case '0':
			sum = (sum*10 + int(c-'0')) % 97
		default:
			sum = (sum*100 + int(c-'A') + 10) % 97
		}
	}
	return sum
}

// maskIBAN appends the country and the last four characters of an IBAN, with
// asterisks between. The check digits are covered: with them, two characters
// could be worked out.
func maskIBAN(dst, iban []byte) []byte {
	if len(iban) < 2 {
		return maskToLastFour(dst, iban)
	}
	return maskToLastFour(append(dst, iban[:2]...), iban[2:])
}

// appendIBANPart appends a part of an IBAN.
func appendIBANPart(dst, iban []byte, p Part) ([]byte, bool) {
	if p == PartCountry {
		return append(dst, iban[:2]...), true
	}
	return appendLast4(dst, iban, p)
}
