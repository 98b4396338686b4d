package policy

import "fmt"

// Bounds of what the rules of a file come to, so that neither reading it nor keeping it
// takes much longer or more than its size makes one think.
const (
	// maxGrants bounds what the rules may expand to: the number of combinations of
	// caller, action, profile and purpose, where callers whom the same rules are about
	// count once.
	maxGrants = 1 << 18

	// maxNamed bounds how many callers all rules name, members of groups included in
	// each rule that names the group.
	maxNamed = 1 << 18

	// maxExpressions bounds the bytes of all different expressions, maxAllLoops what loops
	// they have, and maxAllStates the states of the regular expressions in all of them and
	// in all reasons.
	maxExpressions = 1 << 17
	maxAllLoops    = 1 << 9
	maxAllStates   = 1 << 17

	// maxAllowing is how many rules with something of their own to say can allow the
	// same caller the same, and maxObliging how many can oblige.
	maxAllowing = 256
	maxObliging = 64

	// maxAbout bounds the work of finding out which rules are about which callers:
	// comparisons of callers with patterns, and what is found.
	maxAbout = 1 << 22

	// maxRestricting bounds the work of finding out about which combinations the rules
	// that deny and oblige are.
	maxRestricting = 1 << 23
)

// Too much in one file.
var (
	errGrants      = fmt.Errorf("the rules make more than %d combinations of callers, actions, profiles and purposes", maxGrants)
	errNamed       = fmt.Errorf("the rules name more than %d callers, members of groups counted with each rule", maxNamed)
	errExpressions = fmt.Errorf("the expressions have more than %d bytes together", maxExpressions)
	errLoops       = fmt.Errorf("the expressions have more than %d of all, exists, exists_one, filter and map together", maxAllLoops)
	errStates      = fmt.Errorf("the regular expressions come to more than %d states together", maxAllStates)
	errAllowing    = fmt.Errorf("more than %d rules with conditions allow the same caller the same", maxAllowing)
	errObliging    = fmt.Errorf("more than %d rules oblige the same caller about the same", maxObliging)
	errAbout       = fmt.Errorf("too many rules are about too many callers, or there are too many patterns: more than %d combinations of them", maxAbout)
	errRestricting = fmt.Errorf("too many rules deny or oblige: more than %d combinations with what others allow", maxRestricting)
)

// totals are what the rules of a file come to, as they are read.
type totals struct {
	combinations int // as if one caller were in all of them
	callers      int
	expressions  int // in bytes
	loops        int
	states       int
}

// check returns an error if it is too much.
func (t *totals) check() error {
	switch {
	case t.combinations > maxGrants:
		return errGrants
	case t.callers > maxNamed:
		return errNamed
	case t.expressions > maxExpressions:
		return errExpressions
	case t.loops > maxAllLoops:
		return errLoops
	case t.states > maxAllStates:
		return errStates
	}
	return nil
}
