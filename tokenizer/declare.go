package tokenizer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
)

// declaredClaim is the claim that says how the tokens of a profile are made: its
// key ends in the profile's name.
const declaredClaim claimKind = 'p'

// Declare compares how the profiles make their tokens with how the profiles of
// the same names did when they were first declared in the namespace, and adds to
// the unit what is new. It is to be called, and the unit committed, before any
// token is made; if the unit is refused with ErrConflict, call it again.
//
// Tokens of the mode FPE tell nothing of how they were made. So a profile can't
// come to that mode or go from it, and what its tokens depend on can't change:
// one and the same token would answer for two values.
//
// Errors: a *ProfileError for a profile that needs another name, ErrDamaged,
// ErrUnavailable, or that of ctx. The unit is unchanged after an error.
func (t *Tokenizer) Declare(ctx context.Context, namespace string, unit *Unit) error {
	names := slices.Sorted(maps.Keys(t.profiles))
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = append(claimPrefix(declaredClaim, namespace), name...)
	}
	held, err := t.store.Claimed(ctx, keys...)
	if err != nil {
		return err
	}
	counts, err := t.store.Profiles(ctx, namespace)
	if err != nil {
		return err
	}
	var claims []Claim
	for i, name := range names {
		p := t.profiles[name]
		made := p.making()
		was := string(held[i])
		if held[i] != nil && was == "" {
			return fmt.Errorf("%w: what profile %s was declared as", ErrDamaged, name)
		}
		if was == "" && counts[name] > 0 {
			was = madeStored // before profiles were declared in the store
		}
		switch {
		case p.Mode == OneWay: // has no tokens
		case was != "" && was != made:
			return p.bad("mode", "or what its tokens are made of has changed since it was first declared: its tokens were %s, and now would be %s. "+
				"The same token would stand for two values. Give what is new another name", was, made)
		case held[i] == nil:
			claims = append(claims, Claim{Key: keys[i], New: []byte(made)})
		}
	}
	unit.Claims = append(unit.Claims, claims...)
	return nil
}

// madeStored is what making says of profiles with records.
const madeStored = "stored"

// making says how tokens of a profile are made, as far as that must stay. What
// isn't set, or is as it is by default, isn't there, so that options which don't
// exist yet change nothing. It is stored: what it says of a profile must not
// change.
func (p *profile) making() string {
	if p.Mode != FPE {
		return madeStored
	}
	made := fmt.Sprintf("enciphered (type %s, format %s", p.Type, p.Format)
	add := func(name string, value any, set bool) {
		if set {
			made += fmt.Sprintf(", %s %v", name, value)
		}
	}
	o := p.Shape
	add("keep_first", o.KeepFirst, o.KeepFirst != 0)
	add("keep_last", o.KeepLast, o.KeepLast != 0)
	add("luhn", o.Luhn, o.Luhn != "" && o.Luhn != p.usualLuhn())
	add("length", o.Length, o.Length != 0)
	add("token_pattern", o.Pattern, o.Pattern != "")
	for _, name := range slices.Sorted(maps.Keys(o.Alphabets)) {
		add("alphabet "+name, o.Alphabets[name], true)
	}
	add("email_domain", o.Domain, o.Domain != "" && o.Domain != "keep")
	add("area", o.Area, o.Area != "" && o.Area != "never-issued")
	add("fpe_key", p.FPEKey, p.FPEKey != 1)
	if made += ")"; len(made) > MaxClaim {
		made = fmt.Sprintf("enciphered (%x)", sha256.Sum256([]byte(made)))
	}
	return made
}

// usualLuhn is what format.ShapeOptions.Luhn is if it isn't set.
func (p *profile) usualLuhn() string {
	if p.dataType.Luhn() {
		return "never"
	}
	return "any"
}
