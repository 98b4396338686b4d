package format

import "math/rand/v2"

// Sample returns a raw value at random, which Normalize accepts: of its form it is
// like anybody's, and by chance it may be somebody's. What it is good for is to have
// a token drawn that keeps of it what tokens keep, so only that is random: all digits
// of a type that is all digits, the domain of an e-mail address, the length of a phone
// number with the calling code of the profile's region or +1. Of other types it is the
// example.
func (t Type) Sample() string {
	if t.row.sample == nil {
		return t.row.example
	}
	for {
		raw := t.row.sample()
		if _, err := t.Normalize(nil, raw); err == nil {
			return raw
		}
	}
}

// sampleDigits appends n digits.
func sampleDigits(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, digitAlphabet[rand.N(10)])
	}
	return dst
}

// sampleNineDigits returns nine digits, of which those of a type are not few.
func sampleNineDigits() string { return string(sampleDigits(nil, 9)) }

// sampleITIN returns nine digits that begin as ITINs do.
func sampleITIN() string { return string(sampleDigits([]byte("9"), 8)) }

// sampleCVV returns three digits, as most cards have them.
func sampleCVV() string { return string(sampleDigits(nil, 3)) }

// sampleCardNumber returns 16 digits that begin as numbers of the two brands that are
// most usual.
func sampleCardNumber() string {
	number := []byte{'4'}
	if rand.N(2) == 0 {
		number = []byte{'5', digitAlphabet[1+rand.N(5)]}
	}
	number = append(sampleDigits(number, 15-len(number)), '0')
	number[15] = digitAlphabet[luhnDigit(number, 15)]
	return string(number)
}

// sampleDomains are domains in which many have their e-mail addresses.
var sampleDomains = [...]string{"gmail.com", "icloud.com", "outlook.com", "yahoo.com"}

func sampleEmail() string { return "someone@" + sampleDomains[rand.N(len(sampleDomains))] }

// usualPhone is how many digits national numbers have in most areas.
const usualPhone = 10

// samplePhone returns the sample of phone numbers of an area.
func samplePhone(area *callingArea) func() string {
	n := max(area.least, min(area.most, usualPhone))
	return func() string { return string(sampleDigits([]byte("+"+area.code), n)) }
}

func sampleNorthAmericanPhone() string { return samplePhone(areaOfRegion("US"))() }

// sample returns a number of the pattern.
func (d *document) sample() string {
	number := make([]byte, len(d.pattern.Positions))
	for i, p := range d.pattern.Positions {
		number[i] = p.Alphabet[rand.N(len(p.Alphabet))]
	}
	return string(number)
}
