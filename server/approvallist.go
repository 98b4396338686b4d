package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// GetApproval tells of a request.
func (s *approvalService) GetApproval(ctx context.Context, req *coatcheckv1.GetApprovalRequest) (*coatcheckv1.GetApprovalResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	a, _, err := s.approvals.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	if !c.concerns(&a) {
		return nil, errApprovalNotFound
	}
	c.tellApproval(&a)
	messages, err := s.messages(ctx, []*approval{&a}, s.approvals.now())
	if err != nil {
		return nil, err
	}
	return &coatcheckv1.GetApprovalResponse{Approval: messages[0]}, nil
}

// concerns says whether the caller may know of a request.
func (c *call) concerns(a *approval) bool {
	needs := c.policy.Approval(a.Rule)
	return a.Requester == c.event.Caller || a.DecidedBy == c.event.Caller || needs != nil && needs.ApprovedBy(c.event.Caller, a.Requester)
}

// listStretches is how many stretches of the store, of maxPage requests each, are gone
// through for a page of a list.
const listStretches = 4

// ListApprovals tells of requests.
func (s *approvalService) ListApprovals(ctx context.Context, req *coatcheckv1.ListApprovalsRequest) (*coatcheckv1.ListApprovalsResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	limit, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if _, known := coatcheckv1.ApprovalState_name[int32(req.GetState())]; !known {
		return nil, errApprovalState
	}
	after := ""
	if at := req.GetPageToken(); at != "" {
		if !validApprovalID(at) {
			return nil, &tokenizer.InputError{Kind: tokenizer.ErrInvalidPage, Reason: "is none of a list of approvals"}
		}
		after = approvalPrefix + at
	}
	now := s.approvals.now()
	wanted := func(a *approval) bool {
		state := approvalStates[a.at(now)]
		return c.concerns(a) && (req.GetState() == coatcheckv1.ApprovalState_APPROVAL_STATE_UNSPECIFIED || req.GetState() == state)
	}
	found, next, damaged, err := s.approvals.list(ctx, after, limit, wanted)
	if err != nil {
		return nil, err
	}
	if damaged > 0 {
		c.defect = fmt.Errorf("%w: %d approvals are left out of a list", tokenizer.ErrDamaged, damaged)
	}
	resp := &coatcheckv1.ListApprovalsResponse{NextPageToken: next}
	if resp.Approvals, err = s.messages(ctx, found, now); err != nil {
		return nil, err
	}
	return resp, s.fits(resp)
}

// list returns up to limit requests that are wanted, where to go on, and how many are
// damaged and left out.
func (a *approvals) list(ctx context.Context, after string, limit int, wanted func(*approval) bool) (found []*approval, next string, damaged int, err error) {
	for range listStretches {
		rows, err := a.store.ListStates(ctx, approvalPrefix, after, maxPage)
		if err != nil {
			return nil, "", 0, err
		}
		for _, row := range rows {
			after = row.Key
			one, err := parseRow[approval]("an approval", row.Value)
			if err != nil {
				damaged++
				continue
			}
			if !wanted(&one) {
				continue
			}
			if found = append(found, &one); len(found) == limit {
				return found, strings.TrimPrefix(after, approvalPrefix), damaged, nil
			}
		}
		if len(rows) < maxPage {
			return found, "", damaged, nil
		}
	}
	return found, strings.TrimPrefix(after, approvalPrefix), damaged, nil
}

// used returns how many items of each have been used.
func (a *approvals) used(ctx context.Context, all ...*approval) ([]uint64, error) {
	budgets := make([]tokenizer.Budget, len(all))
	for i := range all {
		g := all[i].grant()
		budgets[i] = g.budget()
	}
	return a.store.Spent(ctx, budgets...)
}

// messages returns what is told of requests.
func (s *approvalService) messages(ctx context.Context, all []*approval, now time.Time) ([]*coatcheckv1.Approval, error) {
	used, err := s.approvals.used(ctx, all...)
	if err != nil {
		return nil, err
	}
	messages := make([]*coatcheckv1.Approval, len(all))
	for i := range all {
		messages[i] = approvalMessage(all[i], used[i], now)
	}
	return messages, nil
}

// approvalStates maps our states to the API's.
var approvalStates = map[approvalState]coatcheckv1.ApprovalState{
	approvalPending: coatcheckv1.ApprovalState_APPROVAL_STATE_PENDING,
	approvalGranted: coatcheckv1.ApprovalState_APPROVAL_STATE_GRANTED,
	approvalDenied:  coatcheckv1.ApprovalState_APPROVAL_STATE_DENIED,
	approvalEnded:   coatcheckv1.ApprovalState_APPROVAL_STATE_ENDED,
}

// approvalMessage is what is told of a request at a time.
func approvalMessage(a *approval, used uint64, now time.Time) *coatcheckv1.Approval {
	return &coatcheckv1.Approval{
		Id: a.ID, State: approvalStates[a.at(now)], Requester: a.Requester, Rule: a.Rule, Action: a.Action, Profile: a.Profile,
		Purpose: a.Purpose, Reason: a.Reason, Items: a.Items, CreateTime: timestamp(a.Filed), ExpireTime: timestamp(a.Expires),
		DecidedBy: a.DecidedBy, DecideTime: timestamp(a.Decided), DecideReason: a.DecideReason, GrantedItems: a.Granted, UsedItems: used,
		EndedBy: a.EndedBy, EndTime: timestamp(a.Ended), EndReason: a.EndReason,
	}
}
