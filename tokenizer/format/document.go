package format

import "strings"

// Reasons why a value is not the number of a document.
var errDocumentForm = &ValueError{"is not of the form of its profile's pattern"}

// configureDocument makes a row of a pattern: the number of a passport or of a
// driving licence, whose form is its issuer's.
//
// Single spaces and dashes between the characters of a number are left out if
// the pattern has none, and small letters raised if the pattern has none, so
// that one number has one normal form; then it must match.
func configureDocument(row dataType, o TypeOptions) (*dataType, *OptionError) {
	pattern, err := ParsePattern(o.Pattern, nil)
	if err != nil {
		return nil, &OptionError{"pattern", "can't be read: " + err.Error()}
	}
	d := document{pattern: pattern, joins: true, raises: true}
	digits := true
	example := make([]byte, len(pattern.Positions))
	for i, p := range pattern.Positions {
		d.joins = d.joins && !strings.ContainsAny(p.Alphabet, " -")
		d.raises = d.raises && !strings.ContainsAny(p.Alphabet, lowerAlphabet)
		digits = digits && allDigits([]byte(p.Alphabet))
		example[i] = p.Alphabet[i%len(p.Alphabet)]
	}
	row.normalize = d.normalize
	row.example, row.sample = string(example), d.sample
	if digits {
		row.least, row.most = len(example), len(example)
	}
	return &row, nil
}

// document is the form of a number.
type document struct {
	pattern Pattern
	joins   bool // leaves out separators
	raises  bool // raises small letters
}

// normalize appends the normal form of a number. It looks at no more of raw than
// twice the length of the pattern.
func (d *document) normalize(dst []byte, raw string) ([]byte, error) {
	var number [maxPositions]byte
	n := 0
	separated := true // nothing, or a separator, stands before raw[i]
	for i := range len(raw) {
		c := raw[i]
		if d.joins && (c == ' ' || c == '-') {
			if separated {
				return dst, errDocumentForm
			}
			separated = true
			continue
		}
		separated = false
		if d.raises && kind(c) == 'a' {
			c -= 'a' - 'A'
		}
		if n == len(d.pattern.Positions) || strings.IndexByte(d.pattern.Positions[n].Alphabet, c) < 0 {
			return dst, errDocumentForm
		}
		number[n] = c
		n++
	}
	if separated || n < len(d.pattern.Positions) {
		return dst, errDocumentForm
	}
	return append(dst, number[:n]...), nil
}
