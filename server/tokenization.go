package server

import (
	"context"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// DefaultNamespace is the namespace of a call that names none.
const DefaultNamespace = "default"

// tokenization is coatcheck.v1.TokenizationService.
type tokenization struct {
	coatcheckv1.UnimplementedTokenizationServiceServer
	tokenizer *tokenizer.Tokenizer
	policy    *policy.Policy
}

// Tokenize prepares a token; the chain commits it.
func (t *tokenization) Tokenize(ctx context.Context, req *coatcheckv1.TokenizeRequest) (*coatcheckv1.TokenizeResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	// Only the name of a declared profile is recorded: anything else may be a
	// value that a client put into the wrong field.
	if _, err := t.tokenizer.Profile(req.GetProfile()); err != nil {
		return nil, err
	}
	c.event.Profile = req.GetProfile()
	decision := t.policy.Decide(policy.Request{
		Caller: c.event.Caller, Action: c.method.action, Profile: req.GetProfile(),
	})
	if err := c.decide(decision); err != nil {
		return nil, err
	}
	made, err := t.tokenizer.Tokenize(ctx, tokenizer.TokenizeRequest{
		Namespace: DefaultNamespace,
		Profile:   req.GetProfile(),
		Value:     tokenizer.NewValue(req.GetValue()),
		Metadata:  req.GetMetadata(),
	}, &c.unit)
	if err != nil {
		return nil, err
	}
	if err := t.name(ctx, c, made.Token); err != nil {
		return nil, err
	}
	return &coatcheckv1.TokenizeResponse{Token: string(made.Token), Masked: made.Masked}, nil
}

// Detokenize asks policy, then opens the record; the chain commits the event
// before the value leaves.
func (t *tokenization) Detokenize(ctx context.Context, req *coatcheckv1.DetokenizeRequest) (*coatcheckv1.DetokenizeResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	token := tokenizer.Token(req.GetToken())
	ref, err := t.tokenizer.Inspect(token, req.GetProfile())
	if err != nil {
		return nil, err
	}
	c.event.Profile = ref.Profile.Name
	unnamed := t.name(ctx, c, token)
	reveal, err := t.reveal(c, req, ref.Profile)
	if err != nil {
		return nil, err // a denial is one whether there are keys or not
	}
	if unnamed != nil {
		return nil, unnamed
	}
	form, given := tokenizer.Masked, coatcheckv1.Reveal_REVEAL_MASKED
	if reveal == policy.Full {
		form, given = tokenizer.Full, coatcheckv1.Reveal_REVEAL_FULL
	}
	value, err := t.tokenizer.Detokenize(ctx, DefaultNamespace, ref, form)
	if err != nil {
		return nil, err
	}
	c.event.Reveal = reveal.String()
	return &coatcheckv1.DetokenizeResponse{Value: value.Reveal(), Reveal: given}, nil
}

// reveal decides how much the caller gets to see.
func (t *tokenization) reveal(c *call, req *coatcheckv1.DetokenizeRequest, p tokenizer.Profile) (policy.Reveal, error) {
	purpose := req.GetPurpose()
	if purpose == "" {
		return 0, errPurposeRequired
	}
	if !tokenizer.ValidPurpose(purpose) {
		return 0, errInvalidPurpose
	}
	asked, ok := reveals[req.GetReveal()]
	if !ok {
		return 0, errInvalidReveal
	}
	// As with profiles, only a purpose that is declared is recorded.
	for _, declared := range p.Purposes {
		if purpose == declared {
			c.event.Purpose = purpose
		}
	}
	decision := t.policy.Decide(policy.Request{
		Caller: c.event.Caller, Action: c.method.action, Profile: p.Name, Purpose: purpose, Reveal: asked,
	})
	return decision.Reveal, c.decide(decision)
}

// reveals maps the API's levels to policy's.
var reveals = map[coatcheckv1.Reveal]policy.Reveal{
	coatcheckv1.Reveal_REVEAL_UNSPECIFIED: policy.Unspecified,
	coatcheckv1.Reveal_REVEAL_MASKED:      policy.Masked,
	coatcheckv1.Reveal_REVEAL_FULL:        policy.Full,
}

// name puts a token's keyed digest into the event.
func (t *tokenization) name(ctx context.Context, c *call, token tokenizer.Token) error {
	digest, err := t.tokenizer.Digest(ctx, DefaultNamespace, token)
	if err != nil {
		return err
	}
	c.event.Items = []audit.Item{{Token: digest}}
	return nil
}
