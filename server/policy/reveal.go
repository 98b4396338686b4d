package policy

import (
	"fmt"
	"math/bits"
	"slices"
)

// Reveal says which form of a value comes back. The policy compares forms and
// no more: what they show is the business of those who make them.
//
// Full grants every form. Masked and each of the parts grant only themselves.
type Reveal uint8

// Forms.
const (
	// Unspecified leaves the choice to the policy. No rule grants it.
	Unspecified Reveal = iota

	// Masked is the masked form alone, such as ************1111.
	Masked

	// Full is the value.
	Full

	// The rest are parts. Each shows one part of a value, and nothing else.

	Last4
	BIN
	Brand
	Number
	Expiry
	Name
	CVV
	Domain
	Country
	Year
	Routing
)

// revealNames are the names that policy files and audit events use.
var revealNames = [...]string{
	Unspecified: "UNSPECIFIED",
	Masked:      "MASKED",
	Full:        "FULL",
	Last4:       "LAST4",
	BIN:         "BIN",
	Brand:       "BRAND",
	Number:      "NUMBER",
	Expiry:      "EXPIRY",
	Name:        "NAME",
	CVV:         "CVV",
	Domain:      "DOMAIN",
	Country:     "COUNTRY",
	Year:        "YEAR",
	Routing:     "ROUTING",
}

// String returns the name that policy files and audit events use.
func (r Reveal) String() string {
	if int(r) < len(revealNames) {
		return revealNames[r]
	}
	return fmt.Sprintf("Reveal(%d)", uint8(r))
}

// ParseReveal returns the form that a rule grants under a name, such as
// "LAST4", and false if there is none. Unspecified has no such name.
func ParseReveal(name string) (Reveal, bool) {
	if i := slices.Index(revealNames[:], name); i > int(Unspecified) {
		return Reveal(i), true
	}
	return Unspecified, false
}

// isPart says whether a form is a part, which the values of a profile may not
// have.
func (r Reveal) isPart() bool { return r > Full && int(r) < len(revealNames) }

// forms is a set of forms, a bit for each.
type forms uint16

// allForms is what Full grants.
const allForms forms = 1<<len(revealNames) - 1<<Masked

// grantedBy returns the forms that a rule which names one grants by it.
func grantedBy(r Reveal) forms {
	if r == Full {
		return allForms
	}
	return 1 << r
}

func (f forms) has(r Reveal) bool { return f&(1<<r) != 0 }

// choice returns the form for a request that names none, and false if it has
// to name one: there are several parts, and none of them is more than another.
func (f forms) choice() (Reveal, bool) {
	switch {
	case f.has(Full):
		return Full, true
	case f.has(Masked):
		return Masked, true
	case bits.OnesCount16(uint16(f)) == 1:
		return Reveal(bits.TrailingZeros16(uint16(f))), true
	}
	return Unspecified, false
}
