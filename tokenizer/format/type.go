package format

import "errors"

// ErrValue is what every error of Type.Normalize is, by errors.Is.
var ErrValue = errors.New("format: invalid value")

// ValueError says why a value is not of a type. It must not be changed.
type ValueError struct {
	// Reason completes the sentence "the value …", as in "fails the Luhn
	// check". It is one of a few fixed texts and never holds a part of the
	// value, nor any three digits in a row.
	Reason string
}

// Error returns the reason behind a prefix.
func (e *ValueError) Error() string { return "format: value " + e.Reason }

// Is says that a ValueError is ErrValue.
func (e *ValueError) Is(target error) bool { return target == ErrValue }

// errEmpty is the one reason that all types share.
var errEmpty = &ValueError{"is empty"}

// Type is a kind of data: how a value is checked, brought to its normal form,
// masked and shown in part. It is got by NewType or Lookup; the zero Type is of
// no type, and its methods panic. Types are immutable, safe for concurrent use,
// and comparable: those that two calls give without options are equal, those
// with options need not be.
type Type struct{ row *dataType }

// dataType is one row of the table of types, or such a row with its options.
type dataType struct {
	name string

	// normalize appends the normal form of a raw value that is not empty, or
	// returns dst as it is and a *ValueError. Its cost is bounded by the
	// longest value that it accepts, not by the length of raw.
	normalize func(dst []byte, raw string) ([]byte, error)

	// mask appends the masked form of a normal form.
	mask func(dst, value []byte) []byte

	// parts are what appendPart appends, in ascending order. With none,
	// appendPart is nil.
	parts      []Part
	appendPart func(dst, value []byte, p Part) ([]byte, bool)

	example     string        // raw
	sample      func() string // raw; nil for the example, and it needn't be good each time
	least, most int           // digits
	luhn        bool
	ephemeral   bool
	binary      bool

	// options says which options the type takes.
	options options
	// configure returns the row with options that it takes, of which at least
	// one is set.
	configure func(row dataType, o TypeOptions) (*dataType, *OptionError)
}

// Lookup returns the type with the name and no options, and whether there is
// one: there is none for a type that needs a pattern.
func Lookup(name string) (Type, bool) {
	t, err := NewType(name, TypeOptions{})
	return t, err == nil
}

// Names returns the names of all types, sorted.
func Names() []string {
	names := make([]string, len(types))
	for i := range types {
		names[i] = types[i].name
	}
	return names
}

// Name returns the name by which NewType finds the type.
func (t Type) Name() string { return t.row.name }

// Normalize checks a value as a caller wrote it and appends its normal form to
// dst. It allocates only to grow dst, so that it costs nothing to call it with
// a buffer that is used again; only e-mail addresses whose domain is not ASCII
// take memory of their own.
//
// The normal form of a normal form is itself.
//
// The error is a *ValueError, which is ErrValue; then dst is returned as it
// was, and nothing of the value has been written to its spare capacity.
func (t Type) Normalize(dst []byte, raw string) ([]byte, error) {
	if raw == "" {
		return dst, errEmpty
	}
	return t.row.normalize(dst, raw)
}

// Mask appends the masked form of a value to dst: what may be shown to people
// who have no need of the value itself. The value must be in its normal form.
// Mask allocates only to grow dst.
func (t Type) Mask(dst, value []byte) []byte { return t.row.mask(dst, value) }

// Example returns a raw value that Normalize accepts and that is nobody's: a
// test number, or a name that is reserved for documentation.
func (t Type) Example() string { return t.row.example }

// Digits returns the least and the most digits of the type's normal forms, if
// these are nothing but ASCII digits; otherwise 0 and 0.
func (t Type) Digits() (least, most int) { return t.row.least, t.row.most }

// Luhn says whether all normal forms pass the Luhn check.
func (t Type) Luhn() bool { return t.row.luhn }

// Ephemeral says whether values must never be durable: PCI DSS 4.0.1, 3.3.1
// forbids to keep a card verification code after authorization, even encrypted.
func (t Type) Ephemeral() bool { return t.row.ephemeral }

// Binary says whether values are bytes and not text.
func (t Type) Binary() bool { return t.row.binary }
