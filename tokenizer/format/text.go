package format

import "unicode/utf8"

// MaxText is the length of the longest text, in bytes.
const MaxText = 64 << 10

// Reasons why a value is not a text.
var (
	errTextLength = &ValueError{"is longer than 64 KiB"}
	errTextUTF8   = &ValueError{"is not valid UTF-8"}
)

// normalizeText appends a text of 1 to MaxText bytes as it is. Any valid UTF-8
// will do (RFC 3629: no surrogates, no overlong forms), control characters and
// NUL included. It is not brought to a Unicode normal form and keeps its white
// space: what went in comes out, byte for byte, and two spellings of "é" are two
// texts.
func normalizeText(dst []byte, raw string) ([]byte, error) {
	if len(raw) > MaxText {
		return dst, errTextLength
	}
	if !utf8.ValidString(raw) {
		return dst, errTextUTF8
	}
	return append(dst, raw...), nil
}
