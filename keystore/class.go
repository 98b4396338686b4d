package keystore

import (
	"errors"
	"fmt"
	"slices"
)

// ErrClass says that keys of the class that was named are not for the use that
// was asked of them. It can only come from a defect.
var ErrClass = errors.New("keystore: key class is not for this use")

// Class says what a key is for. The numbers are part of stored forms and
// labels: they never change, and none is ever given a second meaning.
type Class uint8

const (
	// Data keys seal values, with AES-256-GCM.
	Data Class = 1

	// Token keys turn record ids into tokens, with one block of AES-256.
	Token Class = 2

	// Index keys MAC values, so that equal values can be found without being
	// stored, with HMAC-SHA-256.
	Index Class = 3

	// Subject keys MAC the ids of the persons whom values are about, with
	// HMAC-SHA-256.
	Subject Class = 4

	// Audit keys MAC what audit events name but must not show, such as tokens,
	// with HMAC-SHA-256. They are apart from index keys since a log, unlike an
	// index, can't be made anew under another key.
	Audit Class = 5

	// FPE keys encrypt values into tokens of the same form, with AES-256 inside
	// FF1 (NIST SP 800-38G). A profile names the version that its tokens are
	// under: a token can't, having no room for more than the value.
	FPE Class = 6
)

// classes are all the classes that a keyring has.
var classes = [...]Class{Data, Token, Index, Subject, Audit, FPE}

// later are the classes that keyrings didn't have at first: one that was made
// before has no key of them, and gets one when it is loaded.
var later = [...]Class{Audit, FPE}

// Classes returns all classes, in the order of their numbers. The slice is the
// caller's own.
func Classes() []Class { return slices.Clone(classes[:]) }

// String returns the name of the class, as in "data", or "class(9)" for a
// number that is none.
func (c Class) String() string {
	switch c {
	case Data:
		return "data"
	case Token:
		return "token"
	case Index:
		return "index"
	case Subject:
		return "subject"
	case Audit:
		return "audit"
	case FPE:
		return "fpe"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

func (c Class) valid() bool { return c >= Data && c <= FPE }

// Permanent says whether keys of the class are never retired, since nobody can
// know that nothing needs them any more: an audit log names its keys for ever,
// and tokens of FPE keys, of which nothing is stored, are counted nowhere.
func (c Class) Permanent() bool { return c == Audit || c == FPE }
