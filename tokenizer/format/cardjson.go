package format

import (
	"unicode/utf16"
	"unicode/utf8"
)

// maxCardJSON is the length of the longest JSON object of a card, in bytes. It
// lives on the stack.
const maxCardJSON = 1 << 10

// cardMembers are the members of a card's object; nil is of one that is missing.
type cardMembers [4][]byte

// Places of the members.
const (
	cardNumber = iota
	cardExpiry
	cardName
	cardCVV
)

// cardKeys are the keys of the members.
var cardKeys = [len(cardMembers{})]string{"number", "expiry", "name", "cvv"}

// append appends the object with the members that there are.
func (c cardMembers) append(dst []byte) []byte {
	open := byte('{')
	for i, member := range c {
		if member == nil {
			continue
		}
		dst = append(dst, open, '"')
		dst = append(append(dst, cardKeys[i]...), `":"`...)
		for _, b := range member {
			if b == '"' || b == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, b)
		}
		dst = append(dst, '"')
		open = ','
	}
	return append(dst, '}')
}

// memberOf returns the place of the member of the key, or a negative number.
func memberOf(key []byte) int {
	for i := range cardKeys {
		if cardKeys[i] == string(key) {
			return i
		}
	}
	return -1
}

// parseCard reads a card's object. The members lie in text, which is changed:
// what they escape is written in its plain form, in its place. (encoding/json
// would leave copies of the number on the heap.)
func parseCard(text []byte) (card cardMembers, err error) {
	r := cardReader{text: text}
	if !r.next('{') {
		return card, errCardJSON
	}
	for !r.next('}') {
		if r.members > 0 && !r.next(',') {
			return card, errCardJSON
		}
		key, ok := r.string()
		if !ok || !r.next(':') {
			return card, errCardJSON
		}
		i := memberOf(key)
		if i < 0 || card[i] != nil {
			return card, errCardKey
		}
		if card[i], ok = r.string(); !ok {
			return card, errCardJSON
		}
		r.members++
	}
	r.space()
	if r.at < len(text) {
		return card, errCardJSON
	}
	return card, nil
}

// cardReader reads an object of strings from left to right.
type cardReader struct {
	text    []byte
	at      int
	members int // read
}

// space skips white space.
func (r *cardReader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next skips white space and the character, and says whether it was there.
func (r *cardReader) next(c byte) bool {
	r.space()
	if r.at == len(r.text) || r.text[r.at] != c {
		return false
	}
	r.at++
	return true
}

// string reads a string and returns what it stands for, which is not nil.
func (r *cardReader) string() (plain []byte, ok bool) {
	if !r.next('"') {
		return nil, false
	}
	plain = r.text[r.at:r.at]
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch {
		case c == '"':
			return plain, true
		case c < ' ':
			return nil, false
		case c != '\\':
			plain = append(plain, c)
		default:
			// What is escaped is at least as long as what it stands for, so that
			// nothing is overwritten before it is read.
			if plain, ok = r.escaped(plain); !ok {
				return nil, false
			}
		}
	}
	return nil, false
}

// escaped appends what stands behind a backslash.
func (r *cardReader) escaped(plain []byte) ([]byte, bool) {
	if r.at == len(r.text) {
		return nil, false
	}
	c := r.text[r.at]
	r.at++
	switch c {
	case '"', '\\', '/':
		return append(plain, c), true
	case 'b':
		return append(plain, '\b'), true
	case 'f':
		return append(plain, '\f'), true
	case 'n':
		return append(plain, '\n'), true
	case 'r':
		return append(plain, '\r'), true
	case 't':
		return append(plain, '\t'), true
	case 'u':
		char, ok := r.hex()
		if ok && utf16.IsSurrogate(char) {
			if r.at+2 > len(r.text) || string(r.text[r.at:r.at+2]) != `\u` {
				return nil, false
			}
			r.at += 2
			var low rune
			low, ok = r.hex()
			char = utf16.DecodeRune(char, low)
			ok = ok && char != utf8.RuneError
		}
		if !ok {
			return nil, false
		}
		return utf8.AppendRune(plain, char), true
	}
	return nil, false
}

// hex reads four hexadecimal digits.
func (r *cardReader) hex() (char rune, ok bool) {
	if r.at+4 > len(r.text) {
		return 0, false
	}
	for _, c := range r.text[r.at : r.at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		char = char<<4 | rune(c)
	}
	r.at += 4
	return char, true
}
