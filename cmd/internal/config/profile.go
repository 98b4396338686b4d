package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Profile is one of tokenizer.Profile, under its name. All options stand side by
// side; one that means nothing beside the others is refused.
type Profile struct {
	Description string   `yaml:"description"`
	Owner       string   `yaml:"owner"`
	Task        string   `yaml:"business_task"`
	Purposes    []string `yaml:"purposes"`
	Classes     []string `yaml:"classes"`

	// The data.
	Type    string `yaml:"type"`
	Pattern string `yaml:"pattern"` // passport, driver-licence
	Region  string `yaml:"region"`  // phone
	CVV     bool   `yaml:"cvv"`     // card

	// The tokens.
	Mode         string            `yaml:"mode"`
	FPEKey       uint32            `yaml:"fpe_key"` // mode fpe
	Format       string            `yaml:"format"`
	KeepFirst    int               `yaml:"keep_first"`    // digits
	KeepLast     int               `yaml:"keep_last"`     // digits, ssn
	Luhn         string            `yaml:"luhn"`          // digits
	Length       int               `yaml:"length"`        // digits
	TokenPattern string            `yaml:"token_pattern"` // template
	Alphabets    map[string]string `yaml:"alphabets"`     // template
	EmailDomain  string            `yaml:"email_domain"`  // email
	Area         string            `yaml:"area"`          // ssn

	// Their life.
	Lookup          bool          `yaml:"lookup"`
	Subject         string        `yaml:"subject"`
	TTL             time.Duration `yaml:"ttl"`
	Retention       time.Duration `yaml:"retention"`
	MaxUses         uint32        `yaml:"max_uses"`
	RedemptionLease time.Duration `yaml:"redemption_lease"`
	Idempotency     time.Duration `yaml:"idempotency"`
}

// TokenizerProfiles returns the profiles in the order of their names.
func (c *Config) TokenizerProfiles() []tokenizer.Profile {
	profiles := make([]tokenizer.Profile, 0, len(c.Profiles))
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		p := c.Profiles[name]
		profiles = append(profiles, tokenizer.Profile{
			Name: name, Description: p.Description, Owner: p.Owner, Task: p.Task, Purposes: p.Purposes, Classes: p.Classes,
			Type: p.Type, TypeOptions: format.TypeOptions{Pattern: p.Pattern, Region: p.Region, CVV: p.CVV},
			Mode: tokenizer.Mode(p.Mode), FPEKey: p.FPEKey, Format: tokenizer.TokenFormat(p.Format),
			Shape: format.ShapeOptions{
				KeepFirst: p.KeepFirst, KeepLast: p.KeepLast, Luhn: p.Luhn, Length: p.Length,
				Pattern: p.TokenPattern, Alphabets: p.Alphabets, Domain: p.EmailDomain, Area: p.Area,
			},
			Lookup: p.Lookup, Subject: tokenizer.SubjectRule(p.Subject), TTL: p.TTL, Retention: p.Retention,
			MaxUses: p.MaxUses, RedemptionLease: p.RedemptionLease, Idempotency: p.Idempotency,
		})
	}
	return profiles
}

// leastForBytes is the least message size that the largest value of the type bytes
// fits, and what surrounds it.
const leastForBytes = 2 << 20

// checkProfiles reports what profiles can't be.
func (c *Config) checkProfiles(fault func(string, ...string)) {
	for _, p := range c.TokenizerProfiles() {
		var bad *tokenizer.ProfileError
		if err := p.Validate(); errors.As(err, &bad) {
			fault(fmt.Sprintf("profile %q: %s %s", p.Name, bad.Field, bad.Reason), "profiles", p.Name, bad.Field)
		}
		if size := c.Server.Limits.MessageSize; size > 0 && size < leastForBytes && p.Binary() {
			fault(fmt.Sprintf("message_size must be at least %d, since profile %q is of the type bytes", leastForBytes, p.Name), "server", "limits", "message_size")
		}
	}
}
