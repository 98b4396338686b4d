package format

import "slices"

// Part is a part of a value that can be revealed on its own. Parts are a closed
// set; their names are those of the configuration.
type Part uint8

// Parts.
const (
	// PartLast4 is the last four characters of a number of eight or more.
	PartLast4 Part = iota + 1
	// PartBIN is the issuer identification number of a card: eight digits of
	// numbers of sixteen and more, else six (PCI DSS 4.0.1, 3.4.1).
	PartBIN
	// PartBrand is the Brand of a card.
	PartBrand
	// PartNumber is the number of a card.
	PartNumber
	// PartExpiry is the month in which a card expires, as in 2030-12.
	PartExpiry
	// PartName is the name of the cardholder.
	PartName
	// PartCVV is the verification code of a card.
	PartCVV
	// PartDomain is what stands behind the @ of an e-mail address.
	PartDomain
	// PartCountry is the ISO 3166-1 code of an IBAN, or the calling code of a
	// phone number with its plus sign.
	PartCountry
	// PartYear is the year of a date.
	PartYear
	// PartRouting is the routing number of a United States bank account.
	PartRouting
)

// partNames are the names of parts; that of the part 0 is of none.
var partNames = [...]string{
	"", "LAST4", "BIN", "BRAND", "NUMBER", "EXPIRY", "NAME", "CVV", "DOMAIN", "COUNTRY", "YEAR", "ROUTING",
}

// String returns the name by which ParsePart finds the part.
func (p Part) String() string {
	if p == 0 || int(p) >= len(partNames) {
		return "UNKNOWN"
	}
	return partNames[p]
}

// ParsePart returns the part with the name, and whether there is one.
func ParsePart(name string) (Part, bool) {
	for i, partName := range partNames {
		if i > 0 && partName == name {
			return Part(i), true
		}
	}
	return 0, false
}

// Parts returns which parts values of the type have, in ascending order. A
// value need not have them all: see AppendPart.
func (t Type) Parts() []Part { return slices.Clone(t.row.parts) }

// AppendPart appends a part of a value in its normal form to dst. It returns dst
// as it is, and false, if values of the type never have the part, or this one
// hasn't: a card without a name, the last four of a number that has less than
// eight characters and so would show more than it hides. It allocates only to
// grow dst.
func (t Type) AppendPart(dst, value []byte, p Part) (part []byte, ok bool) {
	if !slices.Contains(t.row.parts, p) {
		return dst, false
	}
	return t.row.appendPart(dst, value, p)
}

// appendLast4 appends the last four bytes of a value that has no other part.
func appendLast4(dst, value []byte, _ Part) ([]byte, bool) {
	shown := lastFour(value)
	return append(dst, shown...), len(shown) > 0
}
