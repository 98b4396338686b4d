package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Mode says how a profile makes tokens.
type Mode string

// Modes.
const (
	// Random makes a new token at each call.
	Random Mode = "random"

	// Convergent makes the same token for the same value, and the same subject if
	// there is one.
	Convergent Mode = "convergent"

	// FPE enciphers the value by FF1 (NIST SP 800-38G). Nothing is stored.
	FPE Mode = "fpe"

	// OneWay makes no token: only the masked form is given. Nothing is stored.
	OneWay Mode = "one-way"
)

var modes = []Mode{Random, Convergent, FPE, OneWay}

// TokenFormat says what a profile's tokens look like: Opaque, or the name of a
// shape of package format.
type TokenFormat string

// Opaque tokens are sealed record ids, cc_<profile>_….
const Opaque TokenFormat = "opaque"

// SubjectRule says whether values have to be about somebody.
type SubjectRule string

// Subject rules.
const (
	SubjectOptional  SubjectRule = "optional"
	SubjectRequired  SubjectRule = "required"
	SubjectForbidden SubjectRule = "forbidden"
)

// Defaults and bounds of a Profile.
const (
	DefaultRedemptionLease = 10 * time.Minute
	DefaultIdempotency     = 24 * time.Hour

	// MaxEphemeral is how long what must never be durable may be kept: the time
	// that an authorization takes (PCI DSS 4.0.1, 3.3.1).
	MaxEphemeral = 15 * time.Minute

	maxLease       = 24 * time.Hour
	maxIdempotency = 30 * 24 * time.Hour
	maxLife        = 100 * 365 * 24 * time.Hour
)

// Profile declares a kind of data. Together the profiles are the inventory of
// what a Coatcheck holds and why. A field that is zero stands for its default.
type Profile struct {
	Name        string             // [a-z][a-z0-9-]{0,30}
	Description string             // what the data is, for people
	Type        string             // a data type of package format
	TypeOptions format.TypeOptions // what the type needs to know
	Mode        Mode               // Random
	Format      TokenFormat        // Opaque
	Shape       format.ShapeOptions
	Owner       string   // who answers for it
	Task        string   // the business task that needs it
	Purposes    []string // for which it may be revealed at all
	Classes     []string // data classes, such as "pci", by which policy may name it

	// Lookup lets tokens be found by their value.
	Lookup bool

	// Subject says whether a subject has to be named; SubjectOptional.
	Subject SubjectRule

	// TTL is how long a token is good for if the caller doesn't say; for ever.
	// Retention is the longest that it can be; without a bound.
	TTL, Retention time.Duration

	// MaxUses is how often a value may be revealed; as often as one likes.
	MaxUses uint32

	// RedemptionLease is how long a use can be repeated; DefaultRedemptionLease.
	RedemptionLease time.Duration

	// Idempotency is how long idempotency keys are remembered;
	// DefaultIdempotency.
	Idempotency time.Duration

	// FPEKey is the version of the fpe key of the mode FPE; 1. Tokens name no
	// version, so that another one here is another profile in all but name.
	FPEKey uint32

	dataType format.Type // once compiled
}

// kind returns the data type; false if there is none of that name.
func (p Profile) kind() (format.Type, bool) {
	if p.dataType != (format.Type{}) {
		return p.dataType, true
	}
	t, err := format.NewType(p.Type, p.TypeOptions)
	return t, err == nil
}

// LargestValue returns how large a value of the profile can be, in bytes; of most
// types it is less.
func (p Profile) LargestValue() int {
	t, ok := p.kind()
	switch {
	case ok && t.Binary():
		return MaxValue
	case ok && t.Name() == "text":
		return format.MaxText
	}
	return 1 << 10
}

// Ephemeral says whether values may be kept for minutes only, and nowhere else.
func (p Profile) Ephemeral() bool {
	kind, ok := p.kind()
	return ok && kind.Ephemeral()
}

// Binary says whether values of the profile are bytes, and no text.
func (p Profile) Binary() bool {
	t, ok := p.kind()
	return ok && t.Binary()
}

// Parts returns the parts that values of the profile have.
func (p Profile) Parts() []format.Part {
	if t, ok := p.kind(); ok {
		return t.Parts()
	}
	return nil
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

// profile is a Profile made ready for use, its defaults filled in.
type profile struct {
	Profile
	shape *format.Shape // nil for Opaque
	fpe   fpe           // of the mode FPE
}

// stored says whether tokens of the profile have records.
func (p *profile) stored() bool { return p.Mode == Random || p.Mode == Convergent }

func (p Profile) compile() (*profile, error) {
	p = p.WithDefaults()
	c := &profile{Profile: p}
	for _, check := range []func() error{
		c.checkNames, c.checkType, c.checkMode, c.checkFormat, c.checkLife, c.checkEphemeral,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// WithDefaults returns the profile with its defaults in the place of what is
// left out.
func (p Profile) WithDefaults() Profile {
	if p.Mode == "" {
		p.Mode = Random
	}
	if p.Format == "" && (p.Mode == Random || p.Mode == Convergent) {
		p.Format = Opaque
	}
	if p.Subject == "" {
		p.Subject = SubjectOptional
	}
	if p.Mode == FPE || p.Mode == OneWay {
		if p.FPEKey == 0 && p.Mode == FPE {
			p.FPEKey = 1
		}
		return p
	}
	if p.RedemptionLease == 0 {
		p.RedemptionLease = DefaultRedemptionLease
		if p.TTL > 0 {
			p.RedemptionLease = min(p.RedemptionLease, p.TTL)
		}
	}
	if p.Idempotency == 0 {
		p.Idempotency = DefaultIdempotency
	}
	return p
}

func (p *profile) bad(field, why string, args ...any) error {
	return &ProfileError{p.Name, field, fmt.Sprintf(why, args...)}
}

// option gives the error of an option of package format its profile.
func (p *profile) option(err error) error {
	var option *format.OptionError
	if errors.As(err, &option) {
		return p.bad(option.Option, "%s", option.Reason)
	}
	return err
}

func (p *profile) checkNames() error {
	if !format.ValidProfile(p.Name) {
		return p.bad("name", "must be of the form [a-z][a-z0-9-]{0,30}")
	}
	for _, list := range []struct {
		option string
		names  []string
	}{{"purposes", p.Purposes}, {"classes", p.Classes}} {
		for i, name := range list.names {
			if !ValidPurpose(name) {
				return p.bad(list.option, "%q is not of the form [a-z][a-z0-9-]{0,30}", name)
			}
			if slices.Contains(list.names[:i], name) {
				return p.bad(list.option, "names %q twice", name)
			}
		}
	}
	switch p.Subject {
	case SubjectOptional, SubjectRequired, SubjectForbidden:
		return nil
	}
	return p.bad("subject", "%q is none of [%s %s %s]", p.Subject, SubjectOptional, SubjectRequired, SubjectForbidden)
}

func (p *profile) checkType() (err error) {
	p.dataType, err = format.NewType(p.Type, p.TypeOptions)
	return p.option(err)
}

func (p *profile) checkMode() error {
	if !slices.Contains(modes, p.Mode) {
		return p.bad("mode", "%q is none of %v", p.Mode, modes)
	}
	if p.stored() {
		if p.FPEKey != 0 {
			return p.bad("fpe_key", "has no meaning in the mode %s", p.Mode)
		}
		return nil
	}
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"lookup", p.Lookup}, {"ttl", p.TTL != 0}, {"retention", p.Retention != 0}, {"max_uses", p.MaxUses != 0},
		{"subject", p.Subject == SubjectRequired}, {"redemption_lease", p.RedemptionLease != 0}, {"idempotency", p.Idempotency != 0},
		{"format", p.Mode == OneWay && p.Format != ""}, {"fpe_key", p.Mode == OneWay && p.FPEKey != 0},
	} {
		if f.set {
			return p.bad(f.field, "has no meaning in the mode %s, which stores nothing", p.Mode)
		}
	}
	return nil
}

func (p *profile) checkFormat() (err error) {
	if p.Mode == OneWay {
		return p.checkNoShape("the mode one-way")
	}
	if p.Format == Opaque && p.Mode == FPE || p.Format == "" {
		return p.bad("format", "is required in the mode fpe: one of %v", format.ShapeNames())
	}
	if p.Format == Opaque {
		return p.checkNoShape("the format opaque")
	}
	if !slices.Contains(format.ShapeNames(), string(p.Format)) {
		return p.bad("format", "%q is none of %v", p.Format, append([]string{string(Opaque)}, format.ShapeNames()...))
	}
	if p.Format == template && p.Shape.Pattern == "" {
		p.Shape.Pattern = p.TypeOptions.Pattern // as the value, so the token
	}
	if p.shape, err = format.NewShape(string(p.Format), p.dataType, p.Shape); err != nil {
		return p.tokenOption(err)
	}
	if p.Mode == FPE {
		if err := p.shape.FPE(); err != nil {
			return p.tokenOption(err)
		}
		p.fpe, err = newFPE(p.Name, p.dataType, p.shape)
		return p.tokenOption(err)
	}
	return nil
}

const template TokenFormat = "template"

// tokenOption is option for what concerns tokens: their pattern is not that of
// values.
func (p *profile) tokenOption(err error) error {
	var option *format.OptionError
	if errors.As(err, &option) && option.Option == "pattern" {
		return p.bad("token_pattern", "%s", option.Reason)
	}
	return p.option(err)
}

// checkNoShape refuses options of shapes where there is none.
func (p *profile) checkNoShape(of string) error {
	o := p.Shape
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"keep_first", o.KeepFirst != 0}, {"keep_last", o.KeepLast != 0}, {"luhn", o.Luhn != ""}, {"length", o.Length != 0},
		{"token_pattern", o.Pattern != ""}, {"alphabets", len(o.Alphabets) > 0}, {"email_domain", o.Domain != ""}, {"area", o.Area != ""},
	} {
		if f.set {
			return p.bad(f.field, "has no meaning for %s", of)
		}
	}
	return nil
}

func (p *profile) checkLife() error {
	for _, f := range []struct {
		field      string
		d          time.Duration
		most, unit time.Duration
	}{
		{"ttl", p.TTL, maxLife, time.Second}, {"retention", p.Retention, maxLife, time.Second},
		{"redemption_lease", p.RedemptionLease, maxLease, time.Second}, {"idempotency", p.Idempotency, maxIdempotency, time.Second},
	} {
		if f.d < 0 || f.d > f.most || f.d%f.unit != 0 {
			return p.bad(f.field, "must be whole seconds, at most %v", f.most)
		}
	}
	if p.Retention > 0 && p.TTL > p.Retention {
		return p.bad("ttl", "is longer than the retention of %v", p.Retention)
	}
	return nil
}

// checkEphemeral sees to it that what must never be durable is not (PCI DSS
// 4.0.1, 3.3.1).
func (p *profile) checkEphemeral() error {
	if !p.dataType.Ephemeral() || p.Mode == OneWay {
		return nil
	}
	const why = "a card verification value must not be kept after authorization (PCI DSS 3.3.1)"
	switch {
	case p.Mode != Random:
		return p.bad("mode", "must be random or one-way: %s", why)
	case p.TTL <= 0 || p.TTL > MaxEphemeral:
		return p.bad("ttl", "must be from 1s to %v: %s", MaxEphemeral, why)
	case p.Retention > MaxEphemeral:
		return p.bad("retention", "must be at most %v: %s", MaxEphemeral, why)
	case p.MaxUses != 1:
		return p.bad("max_uses", "must be 1: %s", why)
	case p.RedemptionLease > p.TTL:
		return p.bad("redemption_lease", "must be at most the ttl of %v: %s", p.TTL, why)
	case p.Lookup:
		return p.bad("lookup", "can't be: %s", why)
	}
	if p.Retention == 0 {
		p.Retention = MaxEphemeral
	}
	// A key that is remembered for longer would tell of a value that is gone.
	p.Idempotency = min(p.Idempotency, p.Retention)
	return nil
}
