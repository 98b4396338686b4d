package keystore

import (
	"fmt"
	"time"
)

// State says whether keys can be used.
type State uint8

// States.
const (
	Ready   State = iota // the backend has confirmed the keys
	Offline              // the backend is away; the keys in memory are used, new ones can't be made
	Sealed               // no key can be used
)

// String returns "ready", "offline" or "sealed".
func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Offline:
		return "offline"
	case Sealed:
		return "sealed"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Status is the state and how it came about.
type Status struct {
	State     State
	Since     time.Time // when the state began
	Confirmed time.Time // when the backend last confirmed; zero if it has not
	Until     time.Time // when the keys will be sealed, if Offline goes on
	Cause     error     // why it isn't Ready
	Keys      int       // keys in memory, those in use by calls and those of subjects included
}
