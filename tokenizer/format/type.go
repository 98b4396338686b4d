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
// and masked. It is got by Lookup; the zero Type is of no type, and its methods
// panic. Types are comparable.
type Type struct{ row *dataType }

// dataType is one row of the table of types.
type dataType struct {
	name string

	// normalize appends the normal form of a raw value that is not empty, or
	// returns dst as it is and a *ValueError. Its cost is bounded by the
	// longest value that it accepts, not by the length of raw.
	normalize func(dst []byte, raw string) ([]byte, error)

	// mask appends the masked form of a normal form.
	mask func(dst, value []byte) []byte
}

// types has a row for each type, in the order of their names.
var types = [...]dataType{
	{"card-number", normalizeCardNumber, maskToLastFour},
	{"ssn", normalizeSSN, maskToLastFour},
	{"text", normalizeText, maskWhole},
}

// Lookup returns the type with the name, and whether there is one.
func Lookup(name string) (Type, bool) {
	for i := range types {
		if types[i].name == name {
			return Type{&types[i]}, true
		}
	}
	return Type{}, false
}

// Names returns the names of all types, sorted.
func Names() []string {
	names := make([]string, len(types))
	for i := range types {
		names[i] = types[i].name
	}
	return names
}

// Name returns the name by which Lookup finds the type.
func (t Type) Name() string { return t.row.name }

// Normalize checks a value as a caller wrote it and appends its normal form to
// dst. It allocates only to grow dst, so that it costs nothing to call it with
// a buffer that is used again.
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
