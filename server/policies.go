package server

import (
	"context"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
)

// policyService is coatcheck.v1.PolicyService. It speaks of the policy that the call
// itself is judged by.
type policyService struct {
	coatcheckv1.UnimplementedPolicyServiceServer
	*tokenization
}

// GetPolicy returns the rules.
func (p *policyService) GetPolicy(ctx context.Context, _ *coatcheckv1.GetPolicyRequest) (*coatcheckv1.GetPolicyResponse, error) {
	at := callFrom(ctx).policy
	resp := &coatcheckv1.GetPolicyResponse{Hash: at.Hash()}
	for r := range at.Rules() {
		rule := &coatcheckv1.PolicyRule{
			Name: r.Name, Line: uint32(r.Line), Callers: r.Callers, Actions: r.Actions, Profiles: r.Profiles, Purposes: r.Purposes,
		}
		for _, form := range r.Reveal {
			rule.Reveal = append(rule.Reveal, revealMessages[form])
		}
		resp.Rules = append(resp.Rules, rule)
	}
	return resp, p.fits(resp)
}

// Explain explains a decision.
func (p *policyService) Explain(ctx context.Context, req *coatcheckv1.ExplainRequest) (*coatcheckv1.ExplainResponse, error) {
	at := callFrom(ctx).policy
	reveal, ok := reveals[req.GetReveal()]
	switch {
	case policy.ValidateCaller(req.GetCaller()) != nil:
		return nil, errInvalidCaller
	case !at.Knows(req.GetAction()):
		return nil, errUnknownAction
	case !ok:
		return nil, errInvalidReveal
	}
	if req.GetProfile() != "" {
		if _, err := p.tokenizer.Profile(req.GetProfile()); err != nil {
			return nil, err
		}
	}
	e := at.Explain(policy.Request{
		Caller: req.GetCaller(), Action: req.GetAction(), Profile: req.GetProfile(), Purpose: req.GetPurpose(), Reveal: reveal,
		Time: time.Now(), Items: 1,
	})
	resp := &coatcheckv1.ExplainResponse{
		Allowed: e.Allowed, Reason: string(e.Reason), Rule: e.Rule, Line: uint32(e.Line), Reveal: revealMessages[e.Reveal], Hash: at.Hash(),
	}
	for _, m := range e.Near {
		near := &coatcheckv1.NearRule{Name: m.Rule, Line: uint32(m.Line), Has: m.Names}
		for _, part := range m.Lacks {
			near.Lacks = append(near.Lacks, string(part))
		}
		resp.Near = append(resp.Near, near)
	}
	return resp, nil
}
