package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Consents says what people have consented to. It is safe for concurrent use.
type Consents interface {
	// Consent returns what is known of the consent of a subject, a customer id, to a
	// purpose. What can't be found out is an error, and then nothing is revealed that
	// depends on it.
	Consent(ctx context.Context, namespace, subject, purpose string) (policy.Consent, error)
}

// newToken is what policy can know of a token that is to be made.
func newToken(req *coatcheckv1.TokenizeRequest) policy.Token {
	return &policy.Known{Labels: req.GetMetadata(), Of: req.GetSubject()}
}

// facts is what policy can know of a token that was found.
type facts struct {
	*tokenizer.Facts
	ctx      context.Context
	consents Consents // nil if none are kept
	err      error    // why something can't be known

	shadow   *Shadow // nil if there is none
	shadowed string  // what it would have decided otherwise, for the event
}

// note keeps an error for judge.
func (f *facts) note(err error) {
	if f.err == nil {
		f.err = err
	}
}

// Metadata is part of policy.Token.
func (f *facts) Metadata() (map[string]string, error) {
	labels, err := f.Facts.Metadata()
	f.note(err)
	return labels, err
}

// Subject is part of policy.Token.
func (f *facts) Subject() (string, error) {
	subject, err := f.Facts.Subject()
	f.note(err)
	return subject, err
}

// Consent is part of policy.Token. Nothing can be known of the consent of nobody.
func (f *facts) Consent(purpose string) (policy.Consent, error) {
	subject, err := f.Subject()
	if err != nil || subject == "" || f.consents == nil {
		return policy.NoConsent, err
	}
	consent, err := f.consents.Consent(f.ctx, DefaultNamespace, subject, purpose)
	f.note(err)
	return consent, err
}

// judge asks policy again about something that depends on a token, now that the token
// is found. If what it depends on can't be known since the token has ended, or since
// something is away, that is what the caller is told.
func (f *facts) judge(p *policy.Policy, r policy.Request) (policy.Decision, error) {
	r.Token = f
	if f.shadow != nil {
		r.Token = &witness{Token: f}
	}
	decision := p.Decide(r)
	if f.shadow != nil {
		f.shadowed = f.shadow.compare(decision, r)
	}
	switch {
	case decision.Allowed:
		return decision, nil
	case decision.Reason == policy.ConditionFailed && f.err != nil && refuse(f.err).code != codes.Internal:
		return decision, f.err
	}
	return decision, denial(decision)
}

// trap says whether somebody who is denied what it wants with a token holds a
// honeytoken in hand.
func (t *tokenization) trap(ctx context.Context, ref tokenizer.Reference) bool {
	err := t.tokenizer.Find(ctx, DefaultNamespace, ref)
	return errors.Is(err, tokenizer.ErrHoneytoken)
}
