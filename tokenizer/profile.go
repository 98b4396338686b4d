package tokenizer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Mode says how a profile makes tokens.
type Mode string

// Modes.
const (
	// Random makes a new token at each call.
	Random Mode = "random"
)

// TokenFormat says what a profile's tokens look like.
type TokenFormat string

// Token formats.
const (
	// Opaque tokens are sealed record ids, cc_<profile>_….
	Opaque TokenFormat = "opaque"
)

// Profile declares a kind of data. Together the profiles are the inventory of
// what a Coatcheck holds and why.
type Profile struct {
	Name        string      // [a-z][a-z0-9-]{0,30}
	Description string      // what the data is, for people
	Type        string      // a data type of package format
	Mode        Mode        // "" means Random
	Format      TokenFormat // "" means Opaque
	Owner       string      // who answers for it
	Task        string      // the business task that needs it
	Purposes    []string    // for which it may be revealed at all
}

// ErrProfile says that a profile declares what can't be.
var ErrProfile = errors.New("tokenizer: bad profile")

// ProfileError says which field of a profile is wrong and why. It is
// ErrProfile.
type ProfileError struct {
	Profile string
	Field   string // as the configuration calls it
	Reason  string
}

// Error names the profile, the field and the reason.
func (e *ProfileError) Error() string {
	return fmt.Sprintf("%v %q: %s %s", ErrProfile, e.Profile, e.Field, e.Reason)
}

// Unwrap returns ErrProfile.
func (e *ProfileError) Unwrap() error { return ErrProfile }

// ValidPurpose says whether a purpose is of the form [a-z][a-z0-9-]{0,30},
// which is that of a profile's name.
func ValidPurpose(purpose string) bool { return format.ValidProfile(purpose) }

// Validate returns nil or a *ProfileError.
func (p Profile) Validate() error {
	_, err := p.compile()
	return err
}

// profile is a Profile made ready for use.
type profile struct {
	Profile
	dataType format.Type
}

func (p Profile) compile() (*profile, error) {
	bad := func(field, why string) error { return &ProfileError{p.Name, field, why} }
	if !format.ValidProfile(p.Name) {
		return nil, bad("name", "must be of the form [a-z][a-z0-9-]{0,30}")
	}
	dataType, ok := format.Lookup(p.Type)
	if !ok {
		return nil, bad("type", fmt.Sprintf("%q is none of %v", p.Type, format.Names()))
	}
	if p.Mode == "" {
		p.Mode = Random
	}
	if p.Mode != Random {
		return nil, bad("mode", fmt.Sprintf("%q is none of [%s]", p.Mode, Random))
	}
	if p.Format == "" {
		p.Format = Opaque
	}
	if p.Format != Opaque {
		return nil, bad("format", fmt.Sprintf("%q is none of [%s]", p.Format, Opaque))
	}
	for i, purpose := range p.Purposes {
		if !ValidPurpose(purpose) {
			return nil, bad("purposes", fmt.Sprintf("%q is not of the form [a-z][a-z0-9-]{0,30}", purpose))
		}
		if slices.Contains(p.Purposes[:i], purpose) {
			return nil, bad("purposes", fmt.Sprintf("names %q twice", purpose))
		}
	}
	return &profile{Profile: p, dataType: dataType}, nil
}
