package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ActionKind says what a rule about an action must name, and what a decision
// on it depends on. The zero ActionKind is none.
type ActionKind uint8

// Kinds.
const (
	// A PlainAction is not about any data: only the caller matters.
	PlainAction ActionKind = iota + 1

	// A ProfileAction is about data of a profile, but shows none of it: a rule
	// about it needs profiles.
	ProfileAction

	// A RevealAction shows data of a profile: a rule about it needs profiles,
	// purposes and reveal.
	RevealAction
)

// Vocabulary is what a policy can speak of. A name that is not in it is an
// error in the file, so that a misspelled rule is found at the start.
type Vocabulary struct {
	// Actions are the actions that the server knows, from its method table.
	Actions map[string]ActionKind

	// Traits say more of some of them.
	Traits map[string]ActionTraits

	// Namespaces are the tenants; DefaultNamespace alone if there are none.
	Namespaces []string

	// Profiles are the profiles, by name.
	Profiles map[string]ProfileVocabulary
}

// ActionTraits is what there is to know of an action beside its kind.
type ActionTraits struct {
	Token  bool // it is about a token of which something is known once it is looked up
	Values bool // it gives values away, so that budgets and approvals make sense
	Reason bool // callers can state a reason
}

// namespaces returns those that there are.
func (v *Vocabulary) namespaces() []string {
	if len(v.Namespaces) == 0 {
		return []string{DefaultNamespace}
	}
	return v.Namespaces
}

// classes returns the profiles of each data class, in the order of their names.
func (v *Vocabulary) classes() map[string][]string {
	members := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(v.Profiles)) {
		for _, class := range v.Profiles[name].Classes {
			members[class] = append(members[class], name)
		}
	}
	return members
}

// Check returns an error for a name of an action, a profile or a purpose that there isn't,
// with what may have been meant. "" is none of them, and good.
func (v *Vocabulary) Check(action, profile, purpose string) error {
	if err := oneOf("action", action, v.Actions); err != nil {
		return err
	}
	if err := oneOf("profile", profile, v.Profiles); err != nil {
		return err
	}
	return oneOf("purpose", purpose, v.purposes())
}

// purposes returns the purposes that profiles allow.
func (v *Vocabulary) purposes() map[string]bool {
	all := make(map[string]bool)
	for _, p := range v.Profiles {
		for _, purpose := range p.Purposes {
			all[purpose] = true
		}
	}
	return all
}

// oneOf returns an error for a name that is none of those given.
func oneOf[V any](what, name string, names map[string]V) error {
	if _, ok := names[name]; ok || name == "" {
		return nil
	}
	return fmt.Errorf("unknown %s %s%s", what, quote(name), known(new(problems), name, names))
}

// CheckReveal returns the form of a name as ParseReveal does, Unspecified for "", or an
// error with what may have been meant. That of the API, as in REVEAL_FULL, is good too.
func CheckReveal(name string) (Reveal, error) {
	short := strings.TrimPrefix(name, "REVEAL_")
	names := make(map[string]bool)
	for _, form := range revealNames[Masked:] {
		names[form] = true
	}
	form, _ := ParseReveal(short)
	return form, oneOf("form", short, names)
}

// ProfileVocabulary is what a rule about a profile can speak of.
type ProfileVocabulary struct {
	// Purposes are the purposes that the profile allows.
	Purposes []string

	// Classes are the data classes that it is of, such as "pci".
	Classes []string

	// Parts names the parts that its values have, as ParseReveal takes them.
	Parts []string

	// Vain are actions that can't succeed on the profile, and why. A rule that
	// allows one is noted.
	Vain map[string]string
}

// mostListed is how many known names an error lists.
const mostListed = 16

// known returns what to add to an error about a name that is none of those
// given: all of them, the first time, or the most alike.
func known[V any](p *problems, name string, names map[string]V) string {
	if p.full() {
		return ""
	}
	sorted := slices.Sorted(maps.Keys(names))
	if len(sorted) == 0 {
		return " (there are none)"
	}
	if list := " (known: " + strings.Join(sorted, ", ") + ")"; len(sorted) <= mostListed && !p.listed[list] {
		if p.listed == nil {
			p.listed = make(map[string]bool)
		}
		p.listed[list] = true
		return list
	}
	near := mostAlike(name, sorted)
	if near == "" {
		return fmt.Sprintf(" (none of the %d that are known)", len(sorted))
	}
	return fmt.Sprintf("; did you mean %q?", near)
}

// mostAlike returns the name that is the most alike, "" if none is.
func mostAlike(name string, names []string) (near string) {
	least := 3
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			near, least = candidate, d
		}
	}
	return near
}

// distance returns how many bytes have to be put in, taken out or replaced to
// make b of a (Levenshtein), or a large number if a is far too long to be
// taken for a name.
func distance(a, b string) int {
	if len(a) > 2*len(b)+8 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
