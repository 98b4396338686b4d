package server

import (
	"context"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
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
