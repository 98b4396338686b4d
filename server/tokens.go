package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// tokens is coatcheck.v1.TokenService. Its methods prepare, and the chain commits
// what they have prepared before it leaves.
type tokens struct {
	coatcheckv1.UnimplementedTokenServiceServer
	*tokenization
}

// about finds out what a request about one token is about, and asks policy before
// anything is looked up. What depends on the token is asked by judge, which is nil if
// nothing does.
func (t *tokens) about(ctx context.Context, token, profile, reason string) (c *call, ref tokenizer.Reference, judge func(*tokenizer.Facts) error, err error) {
	c = callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if ref, err = t.tokenizer.Inspect(tokenizer.Token(token), profile); err != nil {
		return c, ref, nil, err
	}
	d := &c.newDeeds(1)[0]
	d.Profile = ref.Profile.Name
	var unnamed error
	d.Token, unnamed = t.tokenizer.Digest(ctx, DefaultNamespace, ref.Profile.Name, tokenizer.Token(token))
	d.stated(reason)
	if d.err == nil {
		request := c.request(ref.Profile.Name)
		request.StatedReason = d.StatedReason
		decision := d.decide(c, request)
		if !decision.Allowed && t.trap(ctx, ref) {
			d.Alert = audit.AlertHoneytoken
		}
		if decision.Pending {
			judge = t.judgeLater(ctx, c, request)
		}
	}
	d.fail(unnamed) // a denial is one whether there are keys or not
	return c, ref, judge, c.tell(d, nil)
}

// judgeLater returns who decides about a request once its token is found.
func (t *tokens) judgeLater(ctx context.Context, c *call, request policy.Request) func(*tokenizer.Facts) error {
	return func(found *tokenizer.Facts) error {
		token := &facts{Facts: found, ctx: ctx, consents: t.server.consents, shadow: c.shadow}
		decision, err := token.judge(c.policy, request)
		c.event.Shadow = token.shadowed
		if err := c.judged(decision, err); err != nil {
			return err
		}
		return c.pay(decision.Duties())
	}
}

// within finds out whether a request about the tokens of a profile is allowed.
func (t *tokens) within(ctx context.Context, profile string) (*call, *tokenizer.Profile, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	p, err := t.tokenizer.Profile(profile)
	if err != nil {
		return c, p, err
	}
	d := &c.newDeeds(1)[0]
	d.Profile = p.Name
	d.decide(c, c.request(p.Name))
	return c, p, c.tell(d, nil)
}

// GetToken tells what is known of a token.
func (t *tokens) GetToken(ctx context.Context, req *coatcheckv1.GetTokenRequest) (*coatcheckv1.GetTokenResponse, error) {
	c, ref, judge, err := t.about(ctx, req.GetToken(), req.GetProfile(), "")
	if err != nil {
		return nil, err
	}
	info, err := t.tokenizer.Get(ctx, DefaultNamespace, ref, judge)
	if err != nil {
		return nil, err
	}
	if err := t.tellSubject(ctx, c, info); err != nil {
		return nil, err
	}
	return &coatcheckv1.GetTokenResponse{Token: tokenMessage(info)}, nil
}

// Bounds of a page of tokens.
const (
	defaultPage = 100
	maxPage     = 1000
)

// pageSize returns how many a page may have.
func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, errPageSize
	case asked == 0:
		return defaultPage, nil
	}
	return min(int(asked), maxPage), nil
}

// ListTokens tells of the tokens of a profile.
func (t *tokens) ListTokens(ctx context.Context, req *coatcheckv1.ListTokensRequest) (*coatcheckv1.ListTokensResponse, error) {
	c, p, err := t.within(ctx, req.GetProfile())
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	for {
		page, err := t.tokenizer.List(ctx, DefaultNamespace, tokenizer.ListRequest{
			Profile: p.Name, Subject: req.GetSubject(), Metadata: req.GetMetadata(), Page: req.GetPageToken(), Limit: limit,
		})
		if err != nil {
			return nil, err
		}
		messages, err := t.tellOf(ctx, c, page.Tokens)
		if err != nil {
			return nil, err
		}
		if page.Damaged > 0 {
			c.defect = fmt.Errorf("%w: %d records are left out of a list", tokenizer.ErrDamaged, page.Damaged)
		}
		resp := &coatcheckv1.ListTokensResponse{Tokens: messages, NextPageToken: page.Next}
		if err := t.fits(resp); err == nil || limit == 1 {
			return resp, err
		}
		limit /= 2 // much metadata: a page of fewer
	}
}

// LookupToken finds the tokens of a value.
func (t *tokens) LookupToken(ctx context.Context, req *coatcheckv1.LookupTokenRequest) (*coatcheckv1.LookupTokenResponse, error) {
	c, p, err := t.within(ctx, req.GetProfile())
	if err != nil {
		return nil, err
	}
	value, err := valueOf(p, req.GetValue(), req.GetData())
	if err != nil {
		return nil, err
	}
	found, err := t.tokenizer.Lookup(ctx, DefaultNamespace, p.Name, value)
	if err != nil {
		return nil, err
	}
	messages, err := t.tellOf(ctx, c, found)
	if err != nil {
		return nil, err
	}
	resp := &coatcheckv1.LookupTokenResponse{Tokens: messages}
	return resp, t.fits(resp)
}

// tellOf records of which tokens is told, and returns what is.
func (t *tokens) tellOf(ctx context.Context, c *call, infos []tokenizer.TokenInfo) ([]*coatcheckv1.Token, error) {
	messages := make([]*coatcheckv1.Token, len(infos))
	items := make([]audit.Item, len(infos))
	for i, info := range infos {
		var err error
		messages[i] = tokenMessage(info)
		if items[i].Token, err = t.tokenizer.Digest(ctx, DefaultNamespace, info.Profile, info.Token); err != nil {
			return nil, err
		}
		if info.Subject != "" {
			if items[i].Subject, err = t.tokenizer.DigestSubject(ctx, DefaultNamespace, info.Subject); err != nil {
				return nil, err
			}
		}
	}
	c.event.Items = items
	return messages, nil
}

// tellSubject records about whom the token is that a call is about.
func (t *tokens) tellSubject(ctx context.Context, c *call, info tokenizer.TokenInfo) (err error) {
	if info.Subject != "" {
		c.event.Items[0].Subject, err = t.tokenizer.DigestSubject(ctx, DefaultNamespace, info.Subject)
	}
	return err
}

// UpdateToken changes labels or expiry.
func (t *tokens) UpdateToken(ctx context.Context, req *coatcheckv1.UpdateTokenRequest) (*coatcheckv1.UpdateTokenResponse, error) {
	c, ref, judge, err := t.about(ctx, req.GetToken(), req.GetProfile(), "")
	if err != nil {
		return nil, err
	}
	var change tokenizer.Change
	paths := req.GetUpdateMask().GetPaths()
	for i, path := range paths {
		switch {
		case slices.Contains(paths[:i], path):
			return nil, errUpdateMask
		case path == "metadata":
			labels := req.GetMetadata()
			change.Metadata = &labels
		case path == "ttl":
			var ttl time.Duration
			if ttl, err = ttlOf(req.GetTtl()); err != nil {
				return nil, err
			}
			change.TTL = &ttl
		default:
			return nil, errUpdateMask
		}
	}
	if len(paths) == 0 {
		return nil, errUpdateMask
	}
	if change.Metadata != nil && judge != nil {
		judge = t.judgeLabels(c, ref.Profile.Name, *change.Metadata, judge)
	}
	info, err := t.tokenizer.Update(ctx, DefaultNamespace, ref, change, judge, &c.unit)
	if err != nil {
		return nil, err
	}
	if err := t.tellSubject(ctx, c, info); err != nil {
		return nil, err
	}
	return &coatcheckv1.UpdateTokenResponse{Token: tokenMessage(info)}, nil
}

// judgeLabels returns who decides about new labels of a token, by the token as it is and
// as it would be: else whoever may change labels could have any rule apply.
func (t *tokens) judgeLabels(c *call, profile string, labels map[string]string, judge func(*tokenizer.Facts) error) func(*tokenizer.Facts) error {
	return func(found *tokenizer.Facts) error {
		if err := judge(found); err != nil {
			return err
		}
		subject, err := found.Subject()
		if err != nil {
			return err
		}
		request := c.request(profile)
		request.Token = &policy.Known{Labels: labels, Of: subject, Made: found.Created(), Ends: found.Expires()}
		if decision := c.policy.Decide(request); !decision.Allowed {
			return c.judged(decision, denial(decision))
		}
		return nil
	}
}

// RevokeToken ends the use of a token until it is restored.
func (t *tokens) RevokeToken(ctx context.Context, req *coatcheckv1.RevokeTokenRequest) (*coatcheckv1.RevokeTokenResponse, error) {
	message, err := t.turn(ctx, req.GetToken(), req.GetProfile(), req.GetReason(), tokenizer.Revoked)
	return &coatcheckv1.RevokeTokenResponse{Token: message}, err
}

// RestoreToken takes that back.
func (t *tokens) RestoreToken(ctx context.Context, req *coatcheckv1.RestoreTokenRequest) (*coatcheckv1.RestoreTokenResponse, error) {
	message, err := t.turn(ctx, req.GetToken(), req.GetProfile(), req.GetReason(), tokenizer.Active)
	return &coatcheckv1.RestoreTokenResponse{Token: message}, err
}

// turn changes the state of a token.
func (t *tokens) turn(ctx context.Context, token, profile, reason string, state tokenizer.State) (*coatcheckv1.Token, error) {
	c, ref, judge, err := t.about(ctx, token, profile, reason)
	if err != nil {
		return nil, err
	}
	info, err := t.tokenizer.Update(ctx, DefaultNamespace, ref, tokenizer.Change{State: &state}, judge, &c.unit)
	if err != nil {
		return nil, err
	}
	return tokenMessage(info), t.tellSubject(ctx, c, info)
}

// DeleteToken deletes a token with all that is behind it.
func (t *tokens) DeleteToken(ctx context.Context, req *coatcheckv1.DeleteTokenRequest) (*coatcheckv1.DeleteTokenResponse, error) {
	c, ref, judge, err := t.about(ctx, req.GetToken(), req.GetProfile(), req.GetReason())
	if err != nil {
		return nil, err
	}
	return &coatcheckv1.DeleteTokenResponse{}, t.tokenizer.Delete(ctx, DefaultNamespace, ref, judge, &c.unit)
}

// ImportTokens takes tokens over from elsewhere.
func (t *tokens) ImportTokens(ctx context.Context, req *coatcheckv1.ImportTokensRequest) (*coatcheckv1.ImportTokensResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	items := req.GetItems()
	if len(items) == 0 || len(items) > MaxBatch {
		return nil, errBatchSize
	}
	deeds := c.newDeeds(len(items))
	asked := make([]tokenizer.TokenizeRequest, len(items))
	at := make([]int, 0, len(items))
	for i, item := range items {
		if err := goOn(ctx, i); err != nil {
			return nil, err
		}
		ask := &asked[len(at)]
		if !t.wants(ctx, c, item.GetRequest(), &deeds[i], ask) {
			continue
		}
		if ask.Import = tokenizer.Token(item.GetToken()); ask.Import == "" {
			deeds[i].fail(&tokenizer.InputError{Kind: tokenizer.ErrInvalidToken, Reason: "is required"})
			continue
		}
		ask.IdempotencyKey = ""
		at = append(at, i)
	}
	responses, err := t.prepare(ctx, c, asked[:len(at)], at, deeds)
	for i := range deeds {
		if d := &deeds[i]; d.err != nil && errors.Is(d.err, tokenizer.ErrTokenTaken) {
			t.traceTaken(ctx, tokenizer.Token(items[i].GetToken()), d)
		}
	}
	c.tellAll(deeds)
	if err != nil {
		return nil, err
	}
	resp := &coatcheckv1.ImportTokensResponse{Results: make([]*coatcheckv1.ImportResult, len(items))}
	for i := range deeds {
		resp.Results[i] = &coatcheckv1.ImportResult{Result: &coatcheckv1.ImportResult_Response{Response: responses[i]}}
		if deeds[i].err != nil {
			resp.Results[i].Result = &coatcheckv1.ImportResult_Error{Error: itemError(deeds[i].err)}
		}
	}
	return resp, t.fits(resp)
}

// traceTaken records which token it was that an import found taken, and whether it is a
// honeytoken.
func (t *tokens) traceTaken(ctx context.Context, token tokenizer.Token, d *deed) {
	ref, err := t.tokenizer.Inspect(token, d.Profile)
	if err != nil {
		return
	}
	if t.trap(ctx, ref) {
		d.Alert = audit.AlertHoneytoken
	}
	if digest, err := t.tokenizer.Digest(ctx, DefaultNamespace, d.Profile, token); err == nil {
		d.Token = digest
	}
}

// tokenMessage is what is told of a token.
func tokenMessage(info tokenizer.TokenInfo) *coatcheckv1.Token {
	return &coatcheckv1.Token{
		Token: string(info.Token), Profile: info.Profile, State: stateMessages[info.State],
		CreateTime: timestamp(info.Created), ExpireTime: timestamp(info.Expires),
		MaxUses: info.MaxUses, Uses: info.Uses, Subject: info.Subject, Metadata: info.Metadata, Imported: info.Imported,
	}
}

// stateMessages maps the tokenizer's states to the API's.
var stateMessages = map[tokenizer.State]coatcheckv1.TokenState{
	tokenizer.Active:  coatcheckv1.TokenState_TOKEN_STATE_ACTIVE,
	tokenizer.Revoked: coatcheckv1.TokenState_TOKEN_STATE_REVOKED,
	tokenizer.Spent:   coatcheckv1.TokenState_TOKEN_STATE_SPENT,
	tokenizer.Expired: coatcheckv1.TokenState_TOKEN_STATE_EXPIRED,
}
