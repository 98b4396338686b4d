package server

import (
	"cmp"
	"context"
	"math"
	"strings"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// approvalService is coatcheck.v1.ApprovalService. Its methods prepare, and the chain
// commits what they have prepared; who was too late is refused when it is done again.
type approvalService struct {
	coatcheckv1.UnimplementedApprovalServiceServer
	*tokenization
	approvals *approvals
}

// tellApproval puts what a call is about into its event.
func (c *call) tellApproval(a *approval) {
	c.event.Approval, c.event.ApprovalRule, c.event.ApprovalAction, c.event.AboutCaller = a.ID, a.Rule, a.Action, a.Requester
	c.event.Profile, c.event.Purpose = a.Profile, a.Purpose
}

// RequestApproval files a request.
func (s *approvalService) RequestApproval(ctx context.Context, req *coatcheckv1.RequestApprovalRequest) (*coatcheckv1.RequestApprovalResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if err := c.state(req.GetReason()); err != nil {
		return nil, err
	}
	action := cmp.Or(req.GetAction(), "detokenize")
	needs, err := s.needed(c, action, req)
	if err != nil {
		return nil, err
	}
	if req.GetItems() > needs.MaxItems {
		return nil, errApprovalItems
	}
	now := s.approvals.now().UTC()
	next := approval{
		ID: newApprovalID(), State: approvalPending, Requester: c.event.Caller, Certificate: c.event.Certificate, Rule: needs.Rule,
		Action: action, Profile: req.GetProfile(), Purpose: req.GetPurpose(), Reason: req.GetReason(),
		Items: cmp.Or(req.GetItems(), needs.MaxItems), Filed: now, Expires: now.Add(pendingTime).Truncate(time.Second),
	}
	c.tellApproval(&next)
	c.tellGrant(next.Items, next.Expires)
	if err := s.approvals.file(ctx, next, &c.unit); err != nil {
		return nil, err
	}
	return &coatcheckv1.RequestApprovalResponse{Approval: approvalMessage(&next, 0, now)}, nil
}

// tellGrant puts for how many items something is, and until when, into the event.
func (c *call) tellGrant(items uint64, ends time.Time) {
	c.event.Records, c.event.ApprovalEnds = items, ends.Format(time.RFC3339)
}

// needed returns the approval that is asked for. What the request names is then known to
// be declared, and nothing else may be kept: it might be a value that a client put into
// the wrong field. A purpose is one that the rule names, which all of its profiles allow.
func (s *approvalService) needed(c *call, action string, req *coatcheckv1.RequestApprovalRequest) (*policy.Approval, error) {
	reveal, known := reveals[req.GetReveal()]
	switch {
	case !c.policy.Knows(action):
		return nil, errUnknownAction
	case !known:
		return nil, errInvalidReveal
	}
	named, purpose := req.GetRule() != "", req.GetPurpose()
	if purpose != "" && (Actions()[action] != policy.RevealAction || !tokenizer.ValidPurpose(purpose)) {
		return nil, errInvalidPurpose
	}
	if req.GetProfile() != "" || !named {
		if _, err := s.tokenizer.Profile(req.GetProfile()); err != nil {
			return nil, err
		}
	}
	if purpose == "" && !named && Actions()[action] == policy.RevealAction {
		return nil, errPurposeRequired
	}
	q := c.request(req.GetProfile())
	q.Action, q.Purpose, q.Reveal, q.StatedReason = action, purpose, reveal, req.GetReason()
	if named {
		if found := c.policy.NeedsApprovalBy(req.GetRule(), q); found != nil {
			return found, nil
		}
		return nil, errUnknownRule
	}
	all := c.policy.NeedsApproval(q)
	if Actions()[action] == policy.RevealAction { // by one call about all items
		q.Items = itemsOf(req, all)
	}
	d := c.policy.Decide(q)
	if d.Allowed && !d.Pending {
		if found := d.Duties().Approval(); found != nil {
			return found, nil
		}
		return nil, errApprovalNotNeeded
	}
	// The call may meet the conditions of these.
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1:
		return nil, ambiguousRule(all)
	case d.Allowed:
		return nil, errApprovalNotNeeded
	}
	return nil, c.decide(d)
}

// itemsOf returns how many items are asked for: if that isn't said, the most that any of
// the approvals is good for, and 1 if there are none.
func itemsOf(req *coatcheckv1.RequestApprovalRequest, all []*policy.Approval) int {
	items := req.GetItems()
	if items > 0 {
		return int(min(items, math.MaxInt32))
	}
	for _, a := range all {
		items = max(items, a.MaxItems)
	}
	return int(max(items, 1))
}

// ambiguousRule returns the errRuleRequired that names the rules of approvals.
func ambiguousRule(of []*policy.Approval) error {
	const most = 10
	var names []string
	for _, a := range of[:min(len(of), most)] {
		names = append(names, a.Rule)
	}
	if len(of) > most {
		names = append(names, "and more")
	}
	return &tokenizer.InputError{Kind: errRuleRequired, Reason: "which rule will decide isn't known yet; name one of " + strings.Join(names, ", ")}
}

// Approve grants a request.
func (s *approvalService) Approve(ctx context.Context, req *coatcheckv1.ApproveRequest) (*coatcheckv1.ApproveResponse, error) {
	ttl, err := ttlOf(req.GetTtl())
	if err != nil {
		return nil, err
	}
	message, err := s.decideOn(ctx, req.GetId(), req.GetReason(), func(c *call, a *approval, needs *policy.Approval) error {
		most := min(a.Items, needs.MaxItems)
		switch {
		case req.GetItems() > most:
			return errApprovalItems
		case ttl > needs.For:
			return &tokenizer.InputError{Kind: tokenizer.ErrInvalidTTL, Reason: "is longer than the rule allows"}
		}
		a.State, a.Granted = approvalGranted, cmp.Or(req.GetItems(), most)
		a.Expires = a.Decided.Add(cmp.Or(ttl, needs.For)).Truncate(time.Second)
		c.tellGrant(a.Granted, a.Expires)
		return nil
	})
	return &coatcheckv1.ApproveResponse{Approval: message}, err
}

// Deny refuses a request.
func (s *approvalService) Deny(ctx context.Context, req *coatcheckv1.DenyRequest) (*coatcheckv1.DenyResponse, error) {
	message, err := s.decideOn(ctx, req.GetId(), req.GetReason(), func(_ *call, a *approval, _ *policy.Approval) error {
		a.State = approvalDenied
		return nil
	})
	return &coatcheckv1.DenyResponse{Approval: message}, err
}

// decideOn has a pending request decided on by the caller.
func (s *approvalService) decideOn(ctx context.Context, id, reason string, do func(*call, *approval, *policy.Approval) error) (*coatcheckv1.Approval, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if err := c.state(reason); err != nil {
		return nil, err
	}
	from, row, err := s.approvals.find(ctx, id)
	if err != nil {
		return nil, err
	}
	c.tellApproval(&from)
	needs, err := c.approver(&from)
	if err != nil {
		return nil, err
	}
	now := s.approvals.now().UTC()
	if from.at(now) != approvalPending {
		return nil, errApprovalNotPending
	}
	to := from
	to.DecidedBy, to.Decided, to.DecideReason = c.event.Caller, now, reason
	if err := do(c, &to, needs); err != nil {
		return nil, err
	}
	return approvalMessage(&to, 0, now), s.approvals.turn(ctx, row, from, to, &c.unit)
}

// approver returns the approval that a request is for by the policy of the call, if the
// caller is one who can give it.
//
// Errors: errOwnApproval, errNotApprover.
func (c *call) approver(a *approval) (*policy.Approval, error) {
	needs := c.policy.Approval(a.Rule)
	switch {
	case c.owns(a):
		c.event.Decision = audit.Deny
		return nil, errOwnApproval
	case needs == nil || !needs.ApprovedBy(c.event.Caller, a.Requester):
		c.event.Decision = audit.Deny
		return nil, errNotApprover
	}
	return needs, nil
}

// owns says whether the caller is the requester, by name or by certificate.
func (c *call) owns(a *approval) bool {
	return c.event.Caller == a.Requester || c.event.Certificate == a.Certificate
}

// WithdrawApproval takes back what the caller has filed.
func (s *approvalService) WithdrawApproval(ctx context.Context, req *coatcheckv1.WithdrawApprovalRequest) (*coatcheckv1.WithdrawApprovalResponse, error) {
	message, err := s.end(ctx, req.GetId(), req.GetReason(), func(c *call, a *approval, state approvalState) error {
		switch {
		case a.Requester != c.event.Caller:
			return errApprovalNotFound
		case state != approvalPending && state != approvalGranted:
			return errApprovalNotInForce
		}
		return nil
	})
	return &coatcheckv1.WithdrawApprovalResponse{Approval: message}, err
}

// RevokeApproval ends a grant.
func (s *approvalService) RevokeApproval(ctx context.Context, req *coatcheckv1.RevokeApprovalRequest) (*coatcheckv1.RevokeApprovalResponse, error) {
	message, err := s.end(ctx, req.GetId(), req.GetReason(), func(c *call, a *approval, state approvalState) error {
		if a.DecidedBy != c.event.Caller {
			if _, err := c.approver(a); err != nil {
				return err
			}
		}
		if state != approvalGranted {
			return errApprovalNotInForce
		}
		return nil
	})
	return &coatcheckv1.RevokeApprovalResponse{Approval: message}, err
}

// end ends a request or a grant, if check lets the caller.
func (s *approvalService) end(ctx context.Context, id, reason string, check func(*call, *approval, approvalState) error) (*coatcheckv1.Approval, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if err := c.state(reason); err != nil {
		return nil, err
	}
	from, row, err := s.approvals.find(ctx, id)
	if err != nil {
		return nil, err
	}
	c.tellApproval(&from)
	now := s.approvals.now().UTC()
	if err := check(c, &from, from.at(now)); err != nil {
		return nil, err
	}
	to := from
	to.State, to.EndedBy, to.Ended, to.EndReason = approvalEnded, c.event.Caller, now, reason
	used, err := s.approvals.used(ctx, &to)
	if err != nil {
		return nil, err
	}
	return approvalMessage(&to, used[0], now), s.approvals.turn(ctx, row, from, to, &c.unit)
}
