package policy

import (
	"net/netip"
	"time"
)

// DefaultNamespace is the namespace of a request and of a rule that name none.
const DefaultNamespace = "default"

// Request is what is to be decided. What a rule has conditions about and a request
// leaves out counts against the caller: a rule that allows doesn't, one that denies does,
// and one that obliges denies.
type Request struct {
	// Caller is the identity of the caller, in a form of ValidateCaller.
	Caller string

	// Action is the name of what the caller wants to do.
	Action string

	// Profile is the name of the profile. It doesn't matter to a PlainAction.
	Profile string

	// Purpose says what for, and Reveal in which form: Unspecified leaves the
	// choice to the policy. They only matter to a RevealAction.
	Purpose string
	Reveal  Reveal

	// Namespace is the tenant whose data it is about; "" stands for DefaultNamespace.
	Namespace string

	// StatedReason is why the caller says that it does it.
	StatedReason string

	// Address is where the caller is.
	Address netip.Addr

	// Time is when it is.
	Time time.Time

	// Items is how many things the call is about.
	Items int

	// Consents says that consents are kept, so that what is about a person depends on
	// theirs.
	Consents bool

	// Token is what is known of the token that it is about, nil if nothing is yet. A
	// decision that depends on it is Pending then.
	Token Token
}

// Token is what is known of a token. It is asked only for what the rules need.
type Token interface {
	// Metadata returns the labels of the token.
	Metadata() (map[string]string, error)

	// Subject returns whom the token is about, "" if that isn't known.
	Subject() (string, error)

	// Created and Expires are times of the token; zero stands for none.
	Created() time.Time
	Expires() time.Time

	// Consent says whether the subject consents to a purpose.
	Consent(purpose string) (Consent, error)
}

// Consent is what is known of the consent of a subject to a purpose.
type Consent uint8

// Consents.
const (
	NoConsent        Consent = iota // nothing is known of any
	ConsentGiven                    // and not withdrawn since
	ConsentWithdrawn                // or refused
)

// Known is a Token of which all is known beforehand. The zero Known has no labels, no
// subject and no times.
type Known struct {
	Labels     map[string]string
	Of         string // the subject
	Made, Ends time.Time
	Agreed     Consent // to each purpose
}

// Metadata is part of Token.
func (k *Known) Metadata() (map[string]string, error) { return k.Labels, nil }

// Subject is part of Token.
func (k *Known) Subject() (string, error) { return k.Of, nil }

// Created is part of Token.
func (k *Known) Created() time.Time { return k.Made }

// Expires is part of Token.
func (k *Known) Expires() time.Time { return k.Ends }

// Consent is part of Token.
func (k *Known) Consent(string) (Consent, error) { return k.Agreed, nil }
