package policy

import "fmt"

// Reveal says how much of a value comes back. A greater level shows more, and
// whoever is granted a level may ask for a lesser one.
type Reveal uint8

// Levels.
const (
	// Unspecified asks for the most that the policy grants. No rule grants it.
	Unspecified Reveal = iota

	// Masked is the masked form alone, such as ************1111.
	Masked

	// Full is the value.
	Full
)

// String returns the name that policy files and audit events use.
func (r Reveal) String() string {
	switch r {
	case Unspecified:
		return "UNSPECIFIED"
	case Masked:
		return "MASKED"
	case Full:
		return "FULL"
	}
	return fmt.Sprintf("Reveal(%d)", uint8(r))
}

// parseReveal returns the level that a rule may grant under a name.
func parseReveal(name string) (Reveal, bool) {
	for _, level := range []Reveal{Masked, Full} {
		if name == level.String() {
			return level, true
		}
	}
	return Unspecified, false
}
