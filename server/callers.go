package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// tellCaller puts which other caller a call is about, and why, into its event.
func (c *call) tellCaller(caller, reason string) error {
	if policy.ValidateCaller(caller) != nil {
		return errInvalidCaller
	}
	c.event.AboutCaller = caller
	return c.state(reason)
}

// SuspendCaller keeps a caller out.
func (s *callerService) SuspendCaller(ctx context.Context, req *coatcheckv1.SuspendCallerRequest) (*coatcheckv1.SuspendCallerResponse, error) {
	c := callFrom(ctx)
	if err := c.tellCaller(req.GetCaller(), req.GetReason()); err != nil {
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
	c.unit.States = []tokenizer.StateChange{change}
	c.after = func(context.Context) { s.suspended.set(req.GetCaller(), true) }
	return &coatcheckv1.SuspendCallerResponse{Suspension: suspensionMessage(kept)}, nil
}

// ListSuspensions tells who is kept out.
func (s *callerService) ListSuspensions(ctx context.Context, req *coatcheckv1.ListSuspensionsRequest) (*coatcheckv1.ListSuspensionsResponse, error) {
	limit, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
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
	damaged := 0
	for _, row := range rows {
		kept, err := parseSuspension(row)
		if err != nil {
			damaged++
			continue
		}
		resp.Suspensions = append(resp.Suspensions, suspensionMessage(kept))
	}
	if damaged > 0 {
		callFrom(ctx).defect = fmt.Errorf("%w: %d suspensions are left out of a list", tokenizer.ErrDamaged, damaged)
	}
	if len(rows) == limit {
		resp.NextPageToken = strings.TrimPrefix(rows[limit-1].Key, suspensionPrefix)
	}
	return resp, nil
}

// RestoreCaller lets a caller in again, whether what is kept of its suspension is damaged
// or not.
func (s *callerService) RestoreCaller(ctx context.Context, req *coatcheckv1.RestoreCallerRequest) (*coatcheckv1.RestoreCallerResponse, error) {
	c := callFrom(ctx)
	if err := c.tellCaller(req.GetCaller(), req.GetReason()); err != nil {
		return nil, err
	}
	key := suspensionPrefix + callerDigest(req.GetCaller())
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
