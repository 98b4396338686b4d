package format

import (
	"bytes"
	"slices"
	"strings"
)

const (
	// maxEmail is the length of the longest e-mail address, in bytes: that of a
	// path, which has 256 (RFC 5321, 4.5.3.1.3), without its angle brackets.
	maxEmail = 254

	// tokenLocal is the length of a token's part before the @.
	tokenLocal = 16

	// maskedEnd is what stands behind a top-level domain that is masked: a domain
	// in which there will never be anything (RFC 2606, section 2).
	maskedEnd = ".invalid"
)

// prepareEmail makes slots for the local part and the @.
func prepareEmail(s *Shape) error {
	if s.typ.Name() != "email" {
		return s.misfit("it is for e-mail addresses")
	}
	o := &s.options
	if o.Domain == "" {
		o.Domain = domainKeep
	}
	if o.Domain != domainKeep && o.Domain != domainMask &&
		(!validDomain(o.Domain) || o.Domain != strings.ToLower(o.Domain) || tokenLocal+1+len(o.Domain) > maxEmail) {
		return &OptionError{"email_domain", "must be keep, mask or a domain name in small letters, of two labels or more"}
	}
	s.slots = slices.Concat(
		[]slot{character(lowerAlphabet)},
		slices.Repeat([]slot{character(digitAlphabet + lowerAlphabet)}, tokenLocal-1),
		[]slot{character("@")})
	return nil
}

// frameEmail keeps the domain, or the top-level domain, or nothing.
func frameEmail(s *Shape, text []byte) (Frame, error) {
	_, domain := splitEmail(text)
	if len(domain) == 0 {
		return Frame{}, errShapeForm
	}
	f := Frame{slots: s.slots}
	switch s.options.Domain {
	case domainKeep:
		f.tail = domain
	case domainMask:
		f.tail, f.end = domain[bytes.LastIndexByte(domain, '.')+1:], maskedEnd
	default:
		f.end = s.options.Domain
	}
	if tokenLocal+1+len(f.tail)+len(f.end) > maxEmail {
		return Frame{}, errShapeDomain
	}
	return f, nil
}

// likeEmail says whether a text is an address with a token's local part and
// domain.
func likeEmail(s *Shape, token string, text []byte) bool {
	_, domain := splitEmail(text)
	if f := (Frame{slots: s.slots, tail: domain}); !f.Match(text) || !s.normal(token) {
		return false
	}
	switch s.options.Domain {
	case domainKeep:
		return true
	case domainMask:
		top, ok := bytes.CutSuffix(domain, []byte(maskedEnd))
		return ok && bytes.IndexByte(top, '.') < 0
	default:
		return string(domain) == s.options.Domain
	}
}
