package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// callerService is coatcheck.v1.CallerService. Its methods prepare, and the chain
// commits what they have prepared.
type callerService struct {
	coatcheckv1.UnimplementedCallerServiceServer
	suspended *suspensions
}

// about begins a call about another caller.
func (s *callerService) about(ctx context.Context, caller, reason string) (*call, error) {
	c := callFrom(ctx)
	if policy.ValidateCaller(caller) != nil {
		return c, errInvalidCaller
	}
	c.event.AboutCaller = caller
	d := &c.newDeeds(1)[0]
	d.stated(reason)
	c.event.StatedReason = d.StatedReason
	return c, d.err
}

// SuspendCaller keeps a caller out.
func (s *callerService) SuspendCaller(ctx context.Context, req *coatcheckv1.SuspendCallerRequest) (*coatcheckv1.SuspendCallerResponse, error) {
	c, err := s.about(ctx, req.GetCaller(), req.GetReason())
	if err != nil {
		return nil, err
	}
	if req.GetCaller() == c.event.Caller {
		return nil, errOwnSuspension
	}
	change, kept, err := s.suspended.change(ctx, suspension{
		Caller: req.GetCaller(), Since: c.event.Time.UTC(), By: c.event.Caller, Reason: req.GetReason(), RequestID: c.event.RequestID,
	})
	if err != nil {
		return nil, err
	}
	if change != nil {
		c.unit.States = []tokenizer.StateChange{*change}
	}
	c.after = func(context.Context) { s.suspended.set(req.GetCaller(), true) }
	return &coatcheckv1.SuspendCallerResponse{Suspension: suspensionMessage(kept)}, nil
}

// ListSuspensions tells who is kept out.
func (s *callerService) ListSuspensions(ctx context.Context, req *coatcheckv1.ListSuspensionsRequest) (*coatcheckv1.ListSuspensionsResponse, error) {
	limit := min(int(req.GetPageSize()), maxPage)
	switch {
	case limit < 0:
		return nil, errPageSize
	case limit == 0:
		limit = defaultPage
	}
	after := ""
	if at := req.GetPageToken(); at != "" {
		if sum, err := hex.DecodeString(at); err != nil || len(sum) != sha256.Size {
			return nil, &tokenizer.InputError{Kind: tokenizer.ErrInvalidPage, Reason: "is none of a list of suspensions"}
		}
		after = suspensionPrefix + at
	}
	rows, err := s.suspended.store.ListStates(ctx, suspensionPrefix, after, limit)
	if err != nil {
		return nil, err
	}
	resp := new(coatcheckv1.ListSuspensionsResponse)
	for _, row := range rows {
		kept, err := parseSuspension(row.Value)
		if err != nil {
			return nil, err
		}
		resp.Suspensions = append(resp.Suspensions, suspensionMessage(kept))
	}
	if len(rows) == limit {
		resp.NextPageToken = strings.TrimPrefix(rows[limit-1].Key, suspensionPrefix)
	}
	return resp, nil
}

// RestoreCaller lets a caller in again.
func (s *callerService) RestoreCaller(ctx context.Context, req *coatcheckv1.RestoreCallerRequest) (*coatcheckv1.RestoreCallerResponse, error) {
	c, err := s.about(ctx, req.GetCaller(), req.GetReason())
	if err != nil {
		return nil, err
	}
	key := suspensionKey(req.GetCaller())
	old, err := s.suspended.store.State(ctx, key)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, errNotSuspended
	}
	c.unit.States = []tokenizer.StateChange{{Key: key, Old: old}}
	c.after = func(context.Context) { s.suspended.set(req.GetCaller(), false) }
	return &coatcheckv1.RestoreCallerResponse{}, nil
}

func suspensionMessage(kept suspension) *coatcheckv1.Suspension {
	return &coatcheckv1.Suspension{
		Caller: kept.Caller, SuspendTime: timestamppb.New(kept.Since), SuspendedBy: kept.By, Reason: kept.Reason, RequestId: kept.RequestID,
	}
}
