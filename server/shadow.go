package server

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/coatcheck/coatcheck/server/policy"
)

// Shadow is a policy that is asked beside the one at work, to see what it would
// change. No answer depends on it. It is safe for concurrent use.
type Shadow struct {
	current atomic.Pointer[policy.Policy] // nil while there is none

	mu          sync.Mutex
	differences map[Difference]uint64
}

// Difference is what the two policies say to an action: "allow", "approval" if
// somebody has to approve first, or the reason to deny it. Of the shadow it is also
// "pending", if that depends on what wasn't looked up, or "failed".
type Difference struct{ Action, Live, Shadow string }

// What else a shadow policy can say.
const (
	shadowPending = "pending"
	shadowFailed  = "failed"
)

// Current returns the shadow policy, nil if there is none.
func (s *Shadow) Current() *policy.Policy { return s.current.Load() }

// Replace puts another in its place; nil for none.
func (s *Shadow) Replace(p *policy.Policy) { s.current.Store(p) }

// Differences returns how often decisions have differed.
func (s *Shadow) Differences() map[Difference]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.differences)
}

// compare asks the shadow policy what another has decided, and counts a difference. It
// returns what the shadow policy would have decided, as audit events have it; "" if
// that is the same.
func (s *Shadow) compare(live policy.Decision, r policy.Request) (note string) {
	if live.Pending && r.Token == nil {
		return "" // both are asked again
	}
	return s.asked(r.Action, decisionWord(live), func(p *policy.Policy) (word, note string) {
		seen, _ := r.Token.(*witness)
		if seen != nil {
			r.Token = (*testimony)(seen)
		}
		d := p.Decide(r)
		switch {
		case d.Pending, seen != nil && seen.wanting:
			return shadowPending, shadowPending
		case same(live, d):
			return "", ""
		}
		return decisionWord(d), decisionText(d)
	})
}

// compareAtAll is compare where nothing but the caller and the action is known, and the
// policy at work doesn't allow it whatever else there is.
func (s *Shadow) compareAtAll(caller, namespace, action string) (note string) {
	return s.asked(action, string(policy.NoRule), func(p *policy.Policy) (word, note string) {
		if _, may := p.May(caller, namespace, action); !may {
			return "", ""
		}
		return shadowPending, shadowPending
	})
}

// asked asks the shadow policy, if there is one. What ask returns is counted, but for
// ""; a panic of it ends here.
func (s *Shadow) asked(action, live string, ask func(*policy.Policy) (word, note string)) (note string) {
	p := s.current.Load()
	if p == nil {
		return ""
	}
	word := ""
	defer func() {
		if recover() != nil {
			word, note = shadowFailed, shadowFailed
		}
		if word != "" {
			s.count(Difference{action, live, word})
		}
	}()
	word, note = ask(p)
	return note
}

func (s *Shadow) count(d Difference) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.differences == nil {
		s.differences = make(map[Difference]uint64)
	}
	s.differences[d]++
}

// same says whether decisions are the same to the caller.
func same(a, b policy.Decision) bool {
	if a.Allowed != b.Allowed || !a.Allowed {
		return a.Allowed == b.Allowed
	}
	return a.Reveal == b.Reveal && needsApproval(&a) == needsApproval(&b)
}

func needsApproval(d *policy.Decision) bool { return d.Duties().Approval() != nil }

// decisionWord is a decision as a metric has it.
func decisionWord(d policy.Decision) string {
	switch {
	case !d.Allowed:
		return string(d.Reason)
	case needsApproval(&d):
		return "approval"
	}
	return "allow"
}

// decisionText is a decision as an event has it.
func decisionText(d policy.Decision) string {
	text := "deny " + string(d.Reason)
	if d.Allowed {
		text = "allow"
	}
	if d.Rule != "" {
		text += " " + d.Rule
	}
	if d.Reveal != policy.Unspecified {
		text += " " + d.Reveal.String()
	}
	if d.Allowed && needsApproval(&d) {
		text += " after approval"
	}
	return text
}

// witness is a token that remembers what the policy at work has asked of it.
type witness struct {
	policy.Token
	labels  *fact[map[string]string]
	subject *fact[string]
	consent *fact[policy.Consent]

	wanting bool // whether the shadow policy has asked for more
}

// fact is what was found out.
type fact[T any] struct {
	is  T
	err error
}

func (w *witness) Metadata() (map[string]string, error) {
	labels, err := w.Token.Metadata()
	w.labels = &fact[map[string]string]{labels, err}
	return labels, err
}

func (w *witness) Subject() (string, error) {
	subject, err := w.Token.Subject()
	w.subject = &fact[string]{subject, err}
	return subject, err
}

func (w *witness) Consent(purpose string) (policy.Consent, error) {
	consent, err := w.Token.Consent(purpose)
	w.consent = &fact[policy.Consent]{consent, err}
	return consent, err
}

// testimony is the token as the shadow policy sees it: nothing is looked up for it that
// wasn't for the policy at work.
type testimony witness

var errNotSeen = errors.New("server: not looked up for the policy that is at work")

// Created and Expires, which come with the token, are those of the token.

func (t *testimony) Metadata() (map[string]string, error) { return known((*witness)(t), t.labels) }
func (t *testimony) Subject() (string, error)             { return known((*witness)(t), t.subject) }

// Consent is that for the purpose of the call, which is the only one that is asked for.
func (t *testimony) Consent(string) (policy.Consent, error) { return known((*witness)(t), t.consent) }

// known returns a fact that there is.
func known[T any](w *witness, f *fact[T]) (is T, err error) {
	if f == nil {
		w.wanting = true
		return is, errNotSeen
	}
	return f.is, f.err
}
