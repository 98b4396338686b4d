package server

import (
	"context"
	"fmt"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// honeytokens is coatcheck.v1.HoneytokenService. Its methods prepare, and the chain
// commits what they have prepared before it leaves.
type honeytokens struct {
	coatcheckv1.UnimplementedHoneytokenServiceServer
	*tokens
}

// CreateHoneytoken makes a honeytoken.
func (h *honeytokens) CreateHoneytoken(ctx context.Context, req *coatcheckv1.CreateHoneytokenRequest) (*coatcheckv1.CreateHoneytokenResponse, error) {
	c, p, err := h.within(ctx, req.GetProfile())
	if err != nil {
		return nil, err
	}
	ttl, err := ttlOf(req.GetTtl())
	if err != nil {
		return nil, err
	}
	made, err := h.tokenizer.CreateHoneytoken(ctx, DefaultNamespace, tokenizer.HoneytokenRequest{
		Profile: p.Name, Note: req.GetNote(), Caller: c.event.Caller, TTL: ttl,
	}, &c.unit)
	if err != nil {
		return nil, err
	}
	messages, err := h.tellOfPlanted(ctx, c, []tokenizer.Honeytoken{made})
	if err != nil {
		return nil, err
	}
	return &coatcheckv1.CreateHoneytokenResponse{Honeytoken: messages[0]}, nil
}

// ListHoneytokens tells of the honeytokens of a profile.
func (h *honeytokens) ListHoneytokens(ctx context.Context, req *coatcheckv1.ListHoneytokensRequest) (*coatcheckv1.ListHoneytokensResponse, error) {
	c, p, err := h.within(ctx, req.GetProfile())
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	for {
		page, err := h.tokenizer.Honeytokens(ctx, DefaultNamespace, p.Name, req.GetPageToken(), limit)
		if err != nil {
			return nil, err
		}
		messages, err := h.tellOfPlanted(ctx, c, page.Honeytokens)
		if err != nil {
			return nil, err
		}
		if page.Damaged > 0 {
			c.defect = fmt.Errorf("%w: %d records are left out of a list", tokenizer.ErrDamaged, page.Damaged)
		}
		resp := &coatcheckv1.ListHoneytokensResponse{Honeytokens: messages, NextPageToken: page.Next}
		if err := h.fits(resp); err == nil || limit == 1 {
			return resp, err
		}
		limit /= 2
	}
}

// tellOfPlanted records of which honeytokens is told, and returns what is.
func (h *honeytokens) tellOfPlanted(ctx context.Context, c *call, planted []tokenizer.Honeytoken) ([]*coatcheckv1.Honeytoken, error) {
	infos := make([]tokenizer.TokenInfo, len(planted))
	messages := make([]*coatcheckv1.Honeytoken, len(planted))
	for i, p := range planted {
		infos[i].Token, infos[i].Profile = p.Token, p.Profile
		messages[i] = &coatcheckv1.Honeytoken{
			Token: string(p.Token), Profile: p.Profile, Note: p.Note, Creator: p.Caller,
			CreateTime: timestamp(p.Created), ExpireTime: timestamp(p.Expires),
		}
	}
	if _, err := h.tellOf(ctx, c, infos); err != nil {
		return nil, err
	}
	for i, item := range c.event.Items {
		messages[i].Digest = item.Token
	}
	return messages, nil
}

// DeleteHoneytoken deletes a honeytoken.
func (h *honeytokens) DeleteHoneytoken(ctx context.Context, req *coatcheckv1.DeleteHoneytokenRequest) (*coatcheckv1.DeleteHoneytokenResponse, error) {
	c, ref, _, err := h.about(ctx, req.GetToken(), req.GetProfile(), req.GetReason())
	if err != nil {
		return nil, err
	}
	return &coatcheckv1.DeleteHoneytokenResponse{}, h.tokenizer.DeleteHoneytoken(ctx, DefaultNamespace, ref, &c.unit)
}
