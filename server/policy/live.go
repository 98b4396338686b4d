package policy

import "sync/atomic"

// Live is the policy that is at work, which another can take the place of at any
// time. It is safe for concurrent use.
//
// Who decides more than one thing about a call takes Current once, so that no call
// is judged by parts of two policies.
type Live struct{ current atomic.Pointer[Policy] }

// NewLive returns a Live with a policy at work.
func NewLive(p *Policy) *Live {
	l := new(Live)
	l.current.Store(p)
	return l
}

// Current returns the policy that is at work.
func (l *Live) Current() *Policy { return l.current.Load() }

// Hash returns the hash of the policy that is at work.
func (l *Live) Hash() string { return l.Current().Hash() }

// Replace puts another policy in its place.
func (l *Live) Replace(p *Policy) { l.current.Store(p) }
