package format

import (
	"fmt"
	"strings"
)

// TypeOptions are what a profile says of its type beside the name. Zero fields
// are defaults.
type TypeOptions struct {
	// Pattern is what numbers of passports and driving licences look like, as in
	// "[A-Z]{2}[0-9]{7}": see ParsePattern. Those types need one, others take
	// none.
	Pattern string

	// Region is the ISO 3166-1 alpha-2 code, in capitals, of the region in which
	// phone numbers without a plus sign are read. By default they are refused.
	Region string

	// CVV says that a card may come with its verification code. Then the type is
	// ephemeral.
	CVV bool
}

// OptionError says what is wrong with the name or an option of a type.
type OptionError struct {
	// Option is the configuration's key: "pattern", "region", "cvv", or "type"
	// for an unknown name.
	Option string
	// Reason completes the sentence "the option …".
	Reason string
}

// Error returns the option and the reason behind a prefix.
func (e *OptionError) Error() string { return "format: " + e.Option + " " + e.Reason }

// options is a set of options.
type options uint8

const (
	optionPattern options = 1 << iota
	optionRegion
	optionCVV
)

// set returns the options that are set.
func (o TypeOptions) set() (set options) {
	if o.Pattern != "" {
		set |= optionPattern
	}
	if o.Region != "" {
		set |= optionRegion
	}
	if o.CVV {
		set |= optionCVV
	}
	return set
}

// key returns the configuration's key of the first option in the set.
func (o options) key() string {
	switch {
	case o&optionPattern != 0:
		return "pattern"
	case o&optionRegion != 0:
		return "region"
	}
	return "cvv"
}

// NewType returns the type with the name and the options. The error is an
// *OptionError.
func NewType(name string, o TypeOptions) (Type, error) {
	for i := range types {
		if types[i].name == name {
			return types[i].with(o)
		}
	}
	return Type{}, &OptionError{"type", fmt.Sprintf("%q is none of %s", name, strings.Join(Names(), ", "))}
}

// with returns the row's type with the options.
func (d *dataType) with(o TypeOptions) (Type, error) {
	set := o.set()
	switch excess := set &^ d.options; {
	case excess != 0:
		return Type{}, &OptionError{excess.key(), "is not an option of the type " + d.name}
	case d.options&optionPattern&^set != 0:
		return Type{}, &OptionError{"pattern", "is required for the type " + d.name}
	case set == 0:
		return Type{d}, nil
	}
	row, err := d.configure(*d, o)
	if err != nil {
		return Type{}, err
	}
	return Type{row}, nil
}
