package format

import (
	"io"
	"math/big"
	"slices"
)

// maxShapeLen is the length of the longest token of any shape, in bytes: an
// e-mail address has at most 254 (RFC 5321), a pattern fewer positions.
const maxShapeLen = 256

// luhnRule says what a frame's last slot does to the Luhn check of the token.
type luhnRule uint8

const (
	luhnFree  luhnRule = iota // any of the ten digits
	luhnWrong                 // one of the nine with which the token fails
	luhnRight                 // the one with which it passes
)

// slot is a piece of a token that is chosen by itself: one character of an
// alphabet, or a decimal number of a fixed width.
type slot struct {
	alphabet string // "" for a number
	width    int    // of a number, in digits
	least    int    // the smallest number
	count    int    // how many choices there are
}

// character returns the slot that is one of the characters.
func character(alphabet string) slot { return slot{alphabet: alphabet, width: 1, count: len(alphabet)} }

// number returns the slot that is a number from least to most.
func number(width, least, most int) slot {
	return slot{width: width, least: least, count: most - least + 1}
}

// put writes the n-th choice to text, which has the slot's width.
func (s *slot) put(text []byte, n int) {
	if s.alphabet != "" {
		text[0] = s.alphabet[n]
		return
	}
	n += s.least
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = digitAlphabet[n%10]
		n /= 10
	}
}

// index is the inverse of put. It returns -1 if the text is no choice.
func (s *slot) index(text []byte) int {
	if s.alphabet != "" {
		for i := range len(s.alphabet) {
			if s.alphabet[i] == text[0] {
				return i
			}
		}
		return -1
	}
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if n -= s.least; n < 0 || n >= s.count {
		return -1
	}
	return n
}

// Frame is the set of tokens that a value may have. It is got from Shape.Frame
// and refers to the value's memory. The zero Frame has one token, which is
// empty.
//
// A token is head ‖ slots ‖ tail ‖ end. Its slots are chosen freely, each on its
// own; with a luhn rule all of the token is digits and the choices for the last
// slot depend on all the rest.
type Frame struct {
	head, tail []byte // what is kept of the value
	slots      []slot
	luhn       luhnRule
	end        string // what is the same in all tokens of the shape
}

// free returns the number of characters in the slots.
func (f *Frame) free() (n int) {
	for i := range f.slots {
		n += f.slots[i].width
	}
	return n
}

// count returns how many choices there are for the i-th slot.
func (f *Frame) count(i int) int {
	if i == len(f.slots)-1 {
		switch f.luhn {
		case luhnWrong:
			return 9
		case luhnRight:
			return 1
		}
	}
	return f.slots[i].count
}

// put writes the n-th choice for the i-th slot, which is at token[at:]. For a
// last slot under a luhn rule the rest of the token must be there.
//
// Choices that make the check fail are counted from the digit that makes it
// pass, upwards and round.
func (f *Frame) put(token []byte, i, at, n int) {
	if i == len(f.slots)-1 && f.luhn != luhnFree {
		right := luhnDigit(token, at)
		if f.luhn == luhnWrong {
			right = (right + 1 + n) % 10
		}
		token[at] = digitAlphabet[right]
		return
	}
	f.slots[i].put(token[at:at+f.slots[i].width], n)
}

// index is the inverse of put. It returns -1 if there is no choice like this.
func (f *Frame) index(token []byte, i, at int) int {
	n := f.slots[i].index(token[at : at+f.slots[i].width])
	if n < 0 || i != len(f.slots)-1 || f.luhn == luhnFree {
		return n
	}
	n = (n + 10 - luhnDigit(token, at)) % 10
	if f.luhn == luhnWrong {
		return n - 1
	}
	if n != 0 {
		return -1
	}
	return 0
}

// choice says whether the frame has two tokens or more.
func (f *Frame) choice() bool {
	for i := range f.slots {
		if f.count(i) > 1 {
			return true
		}
	}
	return false
}

// Capacity returns how many tokens there are in the frame.
func (f Frame) Capacity() *big.Int {
	n := big.NewInt(1)
	for i := range f.slots {
		n.Mul(n, big.NewInt(int64(f.count(i))))
	}
	return n
}

// grow returns dst with room for a token behind it, in which all is set but the
// slots. It allocates only to grow dst.
func (f *Frame) grow(dst []byte) []byte {
	free := f.free()
	dst = slices.Grow(dst, len(f.head)+free+len(f.tail)+len(f.end))
	dst = append(dst, f.head...)
	dst = append(dst[:len(dst)+free], f.tail...)
	dst = append(dst, f.end...)
	return dst
}

// Draw appends one of the frame's tokens to dst, each with the same
// probability if the random bytes are uniform. It reads at least as many bytes
// as the token has free characters. It allocates only to grow dst.
//
// The error is that of random; then dst is returned as it was.
func (f Frame) Draw(dst []byte, random io.Reader) ([]byte, error) {
	grown := f.grow(dst)
	token := grown[len(dst):]
	at := len(f.head)
	if _, err := io.ReadFull(random, token[at:at+f.free()]); err != nil {
		return dst, err
	}
	for i := range f.slots {
		width := f.slots[i].width
		n, err := draw(token[at:at+width], f.count(i), random)
		if err != nil {
			return dst, err
		}
		f.put(token, i, at, n)
		at += width
	}
	return grown, nil
}

// draw makes a number below count, which is at most 2¹⁶ and at most 2⁸ for a
// text of one byte, of the random bytes in text. It draws again, into text, as
// often as the bytes are of no use.
func draw(text []byte, count int, random io.Reader) (int, error) {
	text = text[:min(len(text), 2)]
	span := 1 << (8 * len(text))
	for {
		n := 0
		for _, c := range text {
			n = n<<8 | int(c)
		}
		// Those beyond the last whole multiple of count would favour some.
		if n < span-span%count {
			return n % count, nil
		}
		if _, err := io.ReadFull(random, text); err != nil {
			return 0, err
		}
	}
}

// Match says whether a text is one of the frame's tokens.
func (f Frame) Match(token []byte) bool {
	at, free := len(f.head), f.free()
	tail := at + free
	end := tail + len(f.tail)
	if len(token) != end+len(f.end) || string(token[:at]) != string(f.head) ||
		string(token[tail:end]) != string(f.tail) || string(token[end:]) != f.end {
		return false
	}
	if f.luhn != luhnFree && !allDigits(token) {
		return false
	}
	for i := range f.slots {
		if f.index(token, i, at) < 0 {
			return false
		}
		at += f.slots[i].width
	}
	return true
}

// Next changes a token of the frame to the next one, in a cycle that goes
// through all of them: after Capacity calls it is what it was. It returns false,
// and leaves the text alone, if it is no token of the frame.
func (f Frame) Next(token []byte) bool {
	if len(f.slots) == 0 || !f.Match(token) {
		return false
	}
	// The choices are the digits of a number, to which one is added. What the
	// choice for the last slot stands for may change with the others.
	last := len(f.slots) - 1
	at := len(f.head) + f.free() - f.slots[last].width
	lastAt, choice := at, f.index(token, last, at)+1
	carry := choice == f.count(last)
	if carry {
		choice = 0
	}
	for i := last - 1; carry && i >= 0; i-- {
		at -= f.slots[i].width
		n := f.index(token, i, at) + 1
		if carry = n == f.count(i); carry {
			n = 0
		}
		f.put(token, i, at, n)
	}
	f.put(token, last, lastAt, choice)
	return true
}

// luhnDigit returns the digit at a place with which a text of digits passes the
// Luhn check (see luhn). There is exactly one, wherever the place is: doubling
// and adding the digits of the product maps the ten digits to the ten digits.
func luhnDigit(text []byte, at int) int {
	sum := 0
	for i, c := range text {
		d := int(c - '0')
		if i == at {
			continue
		}
		if (len(text)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	want := (10 - sum%10) % 10
	if (len(text)-at)%2 != 0 {
		return want
	}
	if want%2 != 0 {
		want += 9
	}
	return want / 2
}

// allDigits says whether all bytes are ASCII digits.
func allDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
