package format

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of an e-mail address, in bytes (RFC 5321, 4.5.3.1; RFC 3696, erratum
// 1690; RFC 1035, 2.3.4).
const (
	maxLocal = 64
	maxLabel = 63
)

// Reasons why a value is not an e-mail address.
var (
	errEmailLength = &ValueError{"is longer than an e-mail address, or the part before its @, may be"}
	errEmailUTF8   = &ValueError{"is not valid UTF-8"}
	errEmailForm   = &ValueError{"must be an e-mail address and nothing else, with one @"}
	errEmailLocal  = &ValueError{"has a part before its @ that is none of an e-mail address"}
	errEmailDomain = &ValueError{"has a part behind its @ that is no domain name of two labels or more"}
)

// normalizeEmail appends an e-mail address (RFC 5321, RFC 6531) with its domain
// in small letters and, where it has others than ASCII, in its A-label form
// (IDNA 2008, RFC 5891): user@bücher.example is user@xn--bcher-kva.example.
//
// The part before the @ is kept as it is, since only its own host may say that
// case, a dot or what follows a plus don't matter (RFC 5321, 2.4). It is atoms with
// single dots, or a quoted string that is not empty. Beyond ASCII, it may have
// what is printable: no joiners, marks of direction or spaces, nor full-width and
// half-width forms, with which nobody writes addresses. It is not brought to a
// Unicode normal form: letters that look alike, of two scripts or composed and
// not, remain two.
//
// The domain is one that mail is sent to from anywhere: two labels or more of
// letters, digits and inner dashes, the last one of at least two characters and
// not digits alone (RFC 3696, 2). So refused are, though SMTP knows them, a lone
// top-level domain or host name, an address literal in brackets and a dot at the
// end; and what surrounds addresses in headers: display names, comments, white
// space.
//
// Only a domain beyond ASCII is normalized with allocations.
func normalizeEmail(dst []byte, raw string) ([]byte, error) {
	if len(raw) > maxEmail {
		return dst, errEmailLength
	}
	if !utf8.ValidString(raw) {
		return dst, errEmailUTF8
	}
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return dst, errEmailForm
	}
	local, domain := raw[:at], raw[at+1:]
	if !isASCII(domain) {
		var ok bool
		if domain, ok = asciiDomain(domain); !ok {
			return dst, errEmailDomain
		}
	}
	switch {
	case len(local) > maxLocal, len(local)+len("@")+len(domain) > maxEmail:
		return dst, errEmailLength
	case !validLocal(local):
		return dst, errEmailLocal
	case !validDomain(domain):
		return dst, errEmailDomain
	}
	dst = append(append(dst, local...), '@')
	for i := range len(domain) {
		c := domain[i]
		if kind(c) == 'A' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// isASCII says whether a text is ASCII alone.
func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asciiDomain returns the A-label form of a domain name. Capitals are lowered
// first (RFC 5895, 2); nothing else is mapped.
func asciiDomain(domain string) (ascii string, ok bool) {
	domain = strings.ToLower(domain)
	for _, r := range domain {
		switch {
		case unicode.IsLetter(r), unicode.IsMark(r), unicode.IsDigit(r), r == '-', r == '.':
		case r == '·', r == '・': // RFC 5892, A.3 and A.7
		default:
			return "", false
		}
	}
	ascii, err := idna.Registration.ToASCII(domain)
	return ascii, err == nil
}

// validLocal says whether a text may stand before the @.
func validLocal(local string) bool {
	if len(local) > len(`""`) && local[0] == '"' {
		return validQuoted(local)
	}
	dot := true // nothing, or a dot, stands before r
	for _, r := range local {
		switch {
		case r == '.':
			if dot {
				return false
			}
			dot = true
			continue
		case r >= utf8.RuneSelf:
			if !printableLetter(r) {
				return false
			}
		case kind(byte(r)) == 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", byte(r)) < 0:
			return false
		}
		dot = false
	}
	return !dot
}

// printableLetter says whether a character may stand before the @ if it is not of
// ASCII, or in quotes: it can be seen, or is a space of ASCII, and is none of the
// block of half-width and full-width forms.
func printableLetter(r rune) bool {
	return unicode.IsPrint(r) && (r < 0xFF00 || r > 0xFFEF)
}

// validQuoted says whether a text is a quoted string (RFC 5321, 4.1.2).
func validQuoted(local string) bool {
	last := len(local) - 1
	escaped := false
	for _, r := range local[1:last] {
		switch {
		case !printableLetter(r):
			return false
		case escaped:
			if r >= utf8.RuneSelf {
				return false
			}
			escaped = false
		case r == '\\':
			escaped = true
		case r == '"':
			return false
		}
	}
	return local[last] == '"' && !escaped
}

// validDomain says whether an ASCII text is a domain name that mail goes to.
func validDomain(domain string) bool {
	labels := 0
	for more := true; more; labels++ {
		var label string
		label, domain, more = strings.Cut(domain, ".")
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		letter := false
		for i := range len(label) {
			switch {
			case label[i] == '-':
			case kind(label[i]) == 0:
				return false
			case kind(label[i]) != '0':
				letter = true
			}
		}
		if !more && (!letter || len(label) < 2) {
			return false
		}
	}
	return labels >= 2
}

// splitEmail cuts an address at its last @. There is nothing of a text without
// one.
func splitEmail(email []byte) (local, domain []byte) {
	at := bytes.LastIndexByte(email, '@')
	if at < 0 {
		return nil, nil
	}
	return email[:at], email[at+1:]
}

// maskEmail appends the domain of an address behind three asterisks, whatever
// stands before its @. Of that, the first character is shown if it has four or
// more and no quotes.
func maskEmail(dst, email []byte) []byte {
	local, domain := splitEmail(email)
	if len(domain) == 0 {
		return maskWhole(dst, nil)
	}
	if utf8.RuneCount(local) >= 4 && local[0] != '"' {
		_, size := utf8.DecodeRune(local)
		dst = append(dst, local[:size]...)
	}
	dst = append(dst, "***@"...)
	return append(dst, domain...)
}

// appendEmailPart appends the domain of an address.
func appendEmailPart(dst, email []byte, _ Part) ([]byte, bool) {
	_, domain := splitEmail(email)
	return append(dst, domain...), len(domain) > 0
}
