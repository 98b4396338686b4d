package format

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
)

// ShapeOptions are what a profile may say of the shape of its tokens. An option
// that means nothing for a shape must be left at its zero value.
type ShapeOptions struct {
	// KeepFirst is how many digits of the value begin its token: 0, 4, 6 or 8.
	// For digits, of types that are all digits.
	KeepFirst int

	// KeepLast is how many digits of the value end its token: 0 to 4. For
	// digits, of types that are all digits, and for ssn.
	KeepLast int

	// Luhn says whether the whole token passes the Luhn check: "never",
	// "always", or "any" if it doesn't matter. For digits. Left empty, it is
	// "never" for a type whose values pass it, so that no token is ever a card
	// number, and "any" for others.
	Luhn string

	// Length is how many digits a token has, 1 to 64; 0 is as many as the value.
	// For digits.
	Length int

	// Pattern is what a token looks like, as in [A-Z]{2}-[0-9]{6} (see
	// ParsePattern). For template.
	Pattern string

	// Alphabets are alphabets that Pattern uses, by their names.
	Alphabets map[string]string

	// Domain is what stands behind the @: "keep" (which is what "" means) for
	// the value's own domain, "mask" for its top-level domain under .invalid
	// (RFC 2606), or a host name that all tokens have, such as tokens.example.
	// For email.
	Domain string

	// Area is "never-issued" (which is what "" means) for tokens that are
	// neither a Social Security number nor an ITIN, or "any" for any nine
	// digits. For ssn.
	Area string
}

// Values of ShapeOptions.
const (
	luhnNever       = "never"
	luhnAlways      = "always"
	luhnAny         = "any"
	domainKeep      = "keep"
	domainMask      = "mask"
	areaNeverIssued = "never-issued"
	areaAny         = "any"
)

// Shape is what the tokens of a profile look like if they are not opaque: a
// bounded format, in which there are only so many tokens. It is made by
// NewShape and never changes, so it is safe for concurrent use.
//
// A token is of a frame: what it keeps of its value, and the characters that
// are free. So each value has a set of tokens, and values that are kept alike
// share one.
type Shape struct {
	kind    *shapeKind
	typ     Type
	options ShapeOptions

	// slots are those of the longest frame. The shapes whose frames differ in
	// length use the first of them.
	slots []slot
	luhn  luhnRule

	// zeroSlots are those of frames that keep nothing but zeros of a serial
	// number (ssn).
	zeroSlots []slot
}

// shapeKind is one row of the table of shapes.
type shapeKind struct {
	name string

	// options are the configuration keys that mean something for the shape.
	options []string

	// prepare checks that shape and type fit and fills in the slots. The error
	// is an *OptionError.
	prepare func(*Shape) error

	// frame returns the frame of a value in its normal form, or, unless there is
	// a like, of one of its tokens: then it looks only at what these have in
	// common. The error is a *ValueError.
	frame func(s *Shape, text []byte) (Frame, error)

	// smallest returns the smallest frame, or false if some values have none.
	// Without it the slots are those of all frames.
	smallest func(*Shape) (Frame, bool)

	// like says whether a text, which it gets twice, can be the token of some
	// value. Without it a text can if it is one of the tokens of its own frame.
	like func(s *Shape, token string, text []byte) bool
}

// shapeKinds has a row for each shape, in the order of their names.
var shapeKinds = [...]shapeKind{
	{
		name:     "digits",
		options:  []string{"keep_first", "keep_last", "luhn", "length"},
		prepare:  prepareDigits,
		frame:    frameDigits,
		smallest: smallestDigits,
	},
	{
		name:    "email",
		options: []string{"email_domain"},
		prepare: prepareEmail,
		frame:   frameEmail,
		like:    likeEmail,
	},
	{
		name:     "phone",
		prepare:  preparePhone,
		frame:    framePhone,
		smallest: smallestPhone,
		like:     likePhone,
	},
	{
		name:     "ssn",
		options:  []string{"keep_last", "area"},
		prepare:  prepareSSN,
		frame:    frameSSN,
		smallest: smallestSSN,
	},
	{
		name:    "template",
		options: []string{"pattern", "alphabets"},
		prepare: prepareTemplate,
		frame:   frameWhole,
	},
	{
		name:    "uuid",
		prepare: prepareUUID,
		frame:   frameWhole,
	},
}

// ShapeNames returns the names of all shapes, sorted.
func ShapeNames() []string {
	names := make([]string, len(shapeKinds))
	for i := range shapeKinds {
		names[i] = shapeKinds[i].name
	}
	return names
}

// Reasons why a value has no token of a shape.
var (
	errShapeForm     = &ValueError{"is not a normal form of the type"}
	errShapeShort    = &ValueError{"is too short for what its token would keep of it"}
	errShapeCapacity = &ValueError{"leaves its token no choice beside what is kept of it"}
	errShapeDomain   = &ValueError{"has a domain too long for a token to keep"}
)

// NewShape returns the shape with the name for tokens of values of a type. The
// error is an *OptionError; it names the option at fault as the configuration
// does: format, keep_first, keep_last, luhn, length, pattern, alphabets,
// email_domain or area.
//
//	digits    as many digits as the value has, or Length; leading zeros may occur
//	email     16 letters and digits, the first a letter, before a domain
//	phone     the calling code of the value (E.164) and as many digits as it has
//	ssn       nine digits, by default with an area from 900 to 999 and a group
//	          from 01 to 49: an SSN has no such area, an ITIN no such group
//	template  what a pattern says
//	uuid      a version 4 UUID (RFC 9562) in lower case
//
// Tokens of email with the domain kept, of phone, of ssn with any area and of
// digits whose Luhn check may pass can be what they look like, and somebody's.
func NewShape(name string, t Type, o ShapeOptions) (*Shape, error) {
	i := slices.IndexFunc(shapeKinds[:], func(k shapeKind) bool { return k.name == name })
	if i < 0 {
		return nil, &OptionError{"format", fmt.Sprintf("%q is none of %s", name, strings.Join(ShapeNames(), ", "))}
	}
	s := &Shape{kind: &shapeKinds[i], typ: t, options: o}
	if err := s.checkOptions(); err != nil {
		return nil, err
	}
	if err := s.kind.prepare(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Name returns the name by which NewShape knows the shape.
func (s *Shape) Name() string { return s.kind.name }

// Frame returns the frame of a value, which must be in its normal form. The
// frame refers to the value's memory, which must not change as long as the
// frame is in use. Frame allocates nothing.
//
// The error is a *ValueError: the value is too short for what is kept of it,
// or there would be fewer than two tokens, so that it might be its own.
func (s *Shape) Frame(value []byte) (Frame, error) {
	f, err := s.kind.frame(s, value)
	if err != nil {
		return Frame{}, err
	}
	if !f.choice() {
		return Frame{}, errShapeCapacity
	}
	return f, nil
}

// Capacity returns how many tokens are in the smallest frame that a value of
// the type can have. It is 0 if some values have none (see Frame).
func (s *Shape) Capacity() *big.Int {
	f, ok := s.smallest()
	if !ok || !f.choice() {
		return new(big.Int)
	}
	return f.Capacity()
}

// smallest returns the smallest frame, or false if some values have none. What
// it keeps is of the right length but made up.
func (s *Shape) smallest() (Frame, bool) {
	if s.kind.smallest != nil {
		return s.kind.smallest(s)
	}
	return Frame{slots: s.slots}, true
}

// Like says whether a text is of the form of the shape's tokens: whether it
// could be the token of some value.
func (s *Shape) Like(token string) bool {
	if len(token) > maxShapeLen {
		return false
	}
	text := []byte(token)
	if s.kind.like != nil {
		return s.kind.like(s, token, text)
	}
	f, err := s.kind.frame(s, text)
	return err == nil && f.choice() && f.Match(text)
}

// normal says whether a text is a normal form of the type.
func (s *Shape) normal(text string) bool {
	value, err := s.typ.Normalize(make([]byte, 0, len(text)), text)
	return err == nil && string(value) == text
}

// Example returns a token for the example of the type, always the same, to be
// printed. It is "" if the example has no token of the shape.
func (s *Shape) Example() string {
	value, err := s.typ.Normalize(nil, s.typ.Example())
	if err != nil {
		return ""
	}
	f, err := s.Frame(value)
	if err != nil {
		return ""
	}
	token, err := f.Draw(nil, rand.NewChaCha8([32]byte([]byte("coatcheck: tokens to be printed."))))
	if err != nil {
		return ""
	}
	if slices.Equal(token, value) {
		f.Next(token)
	}
	return string(token)
}
