package server

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
)

// policyService is coatcheck.v1.PolicyService. It speaks of the policy that the call
// itself is judged by.
type policyService struct {
	coatcheckv1.UnimplementedPolicyServiceServer
	*tokenization
}

// GetPolicy returns the rules, the groups and the text.
func (p *policyService) GetPolicy(ctx context.Context, _ *coatcheckv1.GetPolicyRequest) (*coatcheckv1.GetPolicyResponse, error) {
	at := callFrom(ctx).policy
	resp := &coatcheckv1.GetPolicyResponse{Hash: at.Hash()}
	for r := range at.Rules() {
		resp.Rules = append(resp.Rules, ruleMessage(r))
	}
	groups := at.Groups()
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		resp.Groups = append(resp.Groups, &coatcheckv1.PolicyGroup{Name: name, Callers: groups[name]})
	}
	var err error
	if resp.Text, err = at.Text(); err != nil {
		return nil, err
	}
	return resp, p.fits(resp)
}

func ruleMessage(r policy.Rule) *coatcheckv1.PolicyRule {
	rule := &coatcheckv1.PolicyRule{
		Name: r.Name, Line: uint32(r.Line), Callers: r.Callers, Actions: r.Actions, Profiles: r.Profiles, Purposes: r.Purposes,
		Effect: string(r.Effect), Namespaces: r.Namespaces, Classes: r.Classes, Conditions: r.Conditions, Notify: r.Notify,
		Reveal: revealsOf(r.Reveal), AtMost: revealsOf(r.AtMost),
	}
	if l := r.Limits; l != nil {
		rule.Limits = &coatcheckv1.RuleLimits{
			ItemsPerSecond: l.ItemsPerSecond, ItemsPerMinute: l.ItemsPerMinute,
			ValuesPerHour: l.ValuesPerHour, ValuesPerDay: l.ValuesPerDay,
			SubjectsPerHour: l.SubjectsPerHour, SubjectsPerDay: l.SubjectsPerDay,
		}
	}
	if a := r.Approval; a != nil {
		rule.Approval = &coatcheckv1.RuleApproval{Approvers: a.Approvers(), Duration: durationpb.New(a.For), MaxItems: a.MaxItems}
	}
	return rule
}

func revealsOf(forms []policy.Reveal) (messages []coatcheckv1.Reveal) {
	for _, form := range forms {
		messages = append(messages, revealMessages[form])
	}
	return messages
}

// Explain explains a decision.
func (p *policyService) Explain(ctx context.Context, req *coatcheckv1.ExplainRequest) (*coatcheckv1.ExplainResponse, error) {
	c := callFrom(ctx)
	about, err := p.supposed(c, req)
	if err != nil {
		return nil, err
	}
	e := c.policy.Explain(about)
	resp := &coatcheckv1.ExplainResponse{
		Allowed: e.Allowed, Reason: string(e.Reason), Rule: e.Rule, Line: uint32(e.Line), Reveal: revealMessages[e.Reveal],
		Hash: c.policy.Hash(), Pending: e.Pending, Demands: e.Demands,
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

// supposed returns the request that a question is about.
func (p *policyService) supposed(c *call, req *coatcheckv1.ExplainRequest) (about policy.Request, err error) {
	about = policy.Request{
		Caller: req.GetCaller(), Action: req.GetAction(), Namespace: DefaultNamespace, Profile: req.GetProfile(), Purpose: req.GetPurpose(),
		StatedReason: req.GetStatedReason(), Time: c.event.Time, Items: int(max(req.GetItems(), 1)), Consents: c.consents,
	}
	var ok bool
	about.Reveal, ok = reveals[req.GetReveal()]
	switch {
	case policy.ValidateCaller(about.Caller) != nil:
		return about, errInvalidCaller
	case !c.policy.Knows(about.Action):
		return about, errUnknownAction
	case !ok:
		return about, errInvalidReveal
	}
	if about.Purpose == "" && Actions()[about.Action] == policy.RevealAction {
		return about, errPurposeRequired
	}
	if c.policy.CheckPurpose(about.Purpose) != nil {
		return about, errUnknownPurpose // whose text has what was asked about
	}
	if about.Profile != "" {
		if _, err := p.tokenizer.Profile(about.Profile); err != nil {
			return about, err
		}
	}
	if req.GetAddress() != "" {
		if about.Address, err = netip.ParseAddr(req.GetAddress()); err != nil {
			return about, errInvalidAddress
		}
	}
	if req.GetTime() != nil {
		if about.Time, err = timeOf(req.GetTime()); err != nil {
			return about, err
		}
	}
	if req.GetToken() != nil {
		return about, assume(&about, req.GetToken())
	}
	return about, nil
}

// assume takes a token for known.
func assume(about *policy.Request, t *coatcheckv1.AssumedToken) (err error) {
	token := &policy.Known{Labels: t.GetMetadata()}
	if t.GetHasSubject() {
		token.Of = "somebody"
	}
	if token.Made, err = timeOf(t.GetCreateTime()); err != nil {
		return err
	}
	if token.Ends, err = timeOf(t.GetExpireTime()); err != nil {
		return err
	}
	switch t.GetConsent() {
	case coatcheckv1.AssumedConsent_ASSUMED_CONSENT_UNSPECIFIED:
	case coatcheckv1.AssumedConsent_ASSUMED_CONSENT_NONE:
		about.Consents = true
	case coatcheckv1.AssumedConsent_ASSUMED_CONSENT_GIVEN:
		about.Consents, token.Agreed = true, policy.ConsentGiven
	case coatcheckv1.AssumedConsent_ASSUMED_CONSENT_WITHDRAWN:
		about.Consents, token.Agreed = true, policy.ConsentWithdrawn
	default:
		return errInvalidConsent
	}
	about.Token = token
	return nil
}

// timeOf returns a time, zero for one that isn't set.
func timeOf(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil {
		return time.Time{}, errInvalidTime
	}
	return t.AsTime(), nil
}
