package policy

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a caller identity, in bytes.
const (
	maxSPIFFE      = 2048 // SPIFFE-ID, section 2.3
	maxTrustDomain = 255  // SPIFFE-ID, section 2.1
	maxHostName    = 253  // RFC 1035, section 3.1, as text
	maxLabel       = 63   // RFC 1035, section 2.3.4
	maxCommonName  = 255  // X.520 says 64; not everyone keeps to it
)

// ValidateCaller returns nil if an identity is of one of the three forms, and
// else an error that says what is wrong with it, without repeating it.
//
//   - "spiffe://TRUST-DOMAIN/PATH": a SPIFFE ID. The trust domain consists of
//     lower-case letters, digits, dots, dashes and underscores; the path of
//     one or more segments of letters, digits, dots, dashes and underscores,
//     none of which is empty, "." or "..". There is no port, user, query,
//     fragment, percent-encoding or trailing slash, and it has at most 2,048
//     bytes (SPIFFE-ID, section 2). A path is required: an ID without one
//     names a trust domain, not a workload (X.509-SVID, section 5.2).
//   - "dns:NAME": a host name in lower case, of letters, digits and dashes
//     (RFC 1123, section 2.1). There is no wildcard and no trailing dot, and
//     the last label has a letter, so that it is no IP address.
//   - "cn:NAME": the common name of a certificate's subject, 1 to 255 bytes of
//     printable UTF-8 that neither begin nor end with a space.
//
// The forms are such that two identities are the same if and only if they are
// equal byte for byte. Patterns are not supported: '*' is in none of the forms.
func ValidateCaller(identity string) error {
	if strings.Contains(identity, "*") {
		return errors.New(`patterns are not supported: name each caller in full, without "*"`)
	}
	if rest, ok := strings.CutPrefix(identity, "spiffe://"); ok {
		return validateSPIFFE(rest)
	}
	if name, ok := strings.CutPrefix(identity, "dns:"); ok {
		return validateHostName(name)
	}
	if name, ok := strings.CutPrefix(identity, "cn:"); ok {
		return validateCommonName(name)
	}
	return errors.New(`a caller is "spiffe://TRUST-DOMAIN/PATH", "dns:NAME" or "cn:NAME"`)
}

// validateSPIFFE checks what follows "spiffe://".
func validateSPIFFE(rest string) error {
	if len("spiffe://")+len(rest) > maxSPIFFE {
		return errors.New("a SPIFFE ID has at most 2048 bytes")
	}
	domain, path, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(rest, "%"):
		return errors.New("a SPIFFE ID has no percent-encoding")
	case strings.Contains(rest, "?"):
		return errors.New("a SPIFFE ID has no query")
	case strings.Contains(rest, "#"):
		return errors.New("a SPIFFE ID has no fragment")
	case domain == "":
		return errors.New("the trust domain is missing")
	case len(domain) > maxTrustDomain:
		return errors.New("a trust domain has at most 255 bytes")
	case strings.Contains(domain, "@"):
		return errors.New("a SPIFFE ID has no user")
	case strings.Contains(domain, ":"):
		return errors.New("a SPIFFE ID has no port")
	case !consistsOf(domain, isLower, isDigit, isMark):
		return errors.New("a trust domain consists of lower-case letters, digits, dots, dashes and underscores")
	case path == "":
		return errors.New("the path is missing: a trust domain alone names no workload")
	case strings.HasSuffix(path, "/"):
		return errors.New("a SPIFFE ID has no trailing slash")
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			return errors.New("the path has an empty segment")
		case segment == ".", segment == "..":
			return errors.New(`the path has a segment "." or ".."`)
		case !consistsOf(segment, isLower, isUpper, isDigit, isMark):
			return errors.New("a path segment consists of letters, digits, dots, dashes and underscores")
		}
	}
	return nil
}

// validateHostName checks what follows "dns:".
func validateHostName(name string) error {
	switch {
	case name == "":
		return errors.New("the host name is missing")
	case len(name) > maxHostName:
		return errors.New("a host name has at most 253 bytes")
	case strings.HasSuffix(name, "."):
		return errors.New("a host name is written without a trailing dot")
	case name != strings.ToLower(name):
		return errors.New("a host name is written in lower case")
	}
	var label string
	for label = range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			!consistsOf(label, isLower, isDigit, isDash) {
			return errors.New("a label of a host name has 1 to 63 letters, digits and dashes, with no dash at either end")
		}
	}
	if consistsOf(label, isDigit) {
		return errors.New("a host name doesn't end in a number; an IP address is no caller")
	}
	return nil
}

// validateCommonName checks what follows "cn:".
func validateCommonName(name string) error {
	switch {
	case name == "":
		return errors.New("the common name is missing")
	case len(name) > maxCommonName:
		return errors.New("a common name has at most 255 bytes")
	case !utf8.ValidString(name), strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("a common name consists of printable characters")
	case strings.HasPrefix(name, " "), strings.HasSuffix(name, " "):
		return errors.New("a common name neither begins nor ends with a space")
	}
	return nil
}

func isLower(b byte) bool { return 'a' <= b && b <= 'z' }
func isUpper(b byte) bool { return 'A' <= b && b <= 'Z' }
func isDigit(b byte) bool { return '0' <= b && b <= '9' }
func isDash(b byte) bool  { return b == '-' }
func isMark(b byte) bool  { return b == '.' || b == '-' || b == '_' }

// consistsOf says whether each byte of s is in one of the classes.
func consistsOf(s string, classes ...func(byte) bool) bool {
	for i := range len(s) {
		in := false
		for _, class := range classes {
			in = in || class(s[i])
		}
		if !in {
			return false
		}
	}
	return true
}
