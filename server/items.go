package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// MaxBatch is how many items a batch has at most.
const MaxBatch = 10_000

// itemError is what the client of a batch or stream is told of an item that
// failed.
func itemError(err error) *status.Status { return refuse(err).status(err).Proto() }

// tokenize prepares the tokens of requests, and returns a response for each that
// didn't fail.
func (t *tokenization) tokenize(ctx context.Context, c *call, reqs []*coatcheckv1.TokenizeRequest, deeds []deed) ([]*coatcheckv1.TokenizeResponse, error) {
	c.event.Namespace = DefaultNamespace
	asked := make([]tokenizer.TokenizeRequest, len(reqs))
	at := make([]int, 0, len(reqs))
	for i, req := range reqs {
		if err := goOn(ctx, i); err != nil {
			return nil, err
		}
		if t.wants(ctx, c, req, &deeds[i], &asked[len(at)]) {
			at = append(at, i)
		}
	}
	return t.prepare(ctx, c, asked[:len(at)], at, deeds)
}

// prepare prepares the tokens of what is asked; at says which deed each is.
func (t *tokenization) prepare(ctx context.Context, c *call, asked []tokenizer.TokenizeRequest, at []int, deeds []deed) ([]*coatcheckv1.TokenizeResponse, error) {
	responses := make([]*coatcheckv1.TokenizeResponse, len(deeds))
	if len(asked) == 0 {
		return responses, nil
	}
	block := make([]coatcheckv1.TokenizeResponse, len(asked))
	made, err := t.tokenizer.TokenizeAll(ctx, DefaultNamespace, asked, &c.unit)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		d := &deeds[i]
		if d.fail(made[k].Err); d.err != nil {
			continue
		}
		if d.Reused = made[k].Reused; made[k].Token != "" {
			if d.Token, err = t.tokenizer.Digest(ctx, DefaultNamespace, d.Profile, made[k].Token); err != nil {
				return nil, err
			}
		}
		r := &block[k]
		r.Token, r.Masked, r.Reused, r.ExpireTime = string(made[k].Token), made[k].Masked, made[k].Reused, timestamp(made[k].Expires)
		responses[i] = r
	}
	return responses, nil
}

// wants checks what can be checked of a request before the tokenizer sees it,
// asks policy, and fills in what the tokenizer is to be asked. Large things go by
// reference: a frame more can make the stack of every call grow.
func (t *tokenization) wants(ctx context.Context, c *call, req *coatcheckv1.TokenizeRequest, d *deed, ask *tokenizer.TokenizeRequest) bool {
	// Only the name of a declared profile is recorded: anything else may be a
	// value that a client put into the wrong field.
	p, err := t.tokenizer.Profile(req.GetProfile())
	if d.fail(err); err != nil {
		return false
	}
	d.Profile = p.Name
	asked := c.request(p.Name)
	if d.decide(c, asked).Pending {
		asked.Token = newToken(req)
		d.decide(c, asked)
	}
	if d.err != nil {
		return false
	}
	ttl, err := ttlOf(req.GetTtl())
	d.fail(err)
	value, err := valueOf(p, req.GetValue(), req.GetData())
	d.fail(err)
	if subject := req.GetSubject(); subject != "" && len(subject) <= tokenizer.MaxSubject && d.err == nil {
		d.Subject, err = t.tokenizer.DigestSubject(ctx, DefaultNamespace, subject)
		d.fail(err)
	}
	ask.Profile, ask.Value, ask.Subject, ask.Metadata = p.Name, value, req.GetSubject(), req.GetMetadata()
	ask.TTL, ask.MaxUses, ask.IdempotencyKey, ask.Caller = ttl, req.GetMaxUses(), req.GetIdempotencyKey(), c.event.Caller
	return d.err == nil
}

// ttlOf returns a ttl, 0 for one that is not set.
func ttlOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.GetSeconds() < 1 || d.GetNanos() != 0 {
		return 0, &tokenizer.InputError{Kind: tokenizer.ErrInvalidTTL, Reason: "must be whole seconds, at least one"}
	}
	if d.GetSeconds() > int64(maxTTL/time.Second) {
		return 0, &tokenizer.InputError{Kind: tokenizer.ErrInvalidTTL, Reason: "is longer than a hundred years"}
	}
	return d.AsDuration(), nil
}

// maxTTL is so long that nothing depends on it, and fits a time.Duration.
const maxTTL = 200 * 365 * 24 * time.Hour

// valueOf returns the value of a request, which is in the one field or the other.
func valueOf(p *tokenizer.Profile, value string, data []byte) (tokenizer.Value, error) {
	bad := func(why string) (tokenizer.Value, error) {
		return tokenizer.Value{}, &tokenizer.InputError{Kind: tokenizer.ErrInvalidValue, Reason: why}
	}
	switch binary := p.Binary(); {
	case binary && value != "":
		return bad("is to be given as data, since the profile is of the type bytes")
	case !binary && len(data) > 0:
		return bad("is to be given as value, since the profile is not of the type bytes")
	case binary:
		return tokenizer.NewValue(string(data)), nil
	}
	return tokenizer.NewValue(value), nil
}

// detokenize prepares what is revealed, values of at most room bytes together, and
// returns a response for each request that didn't fail.
func (t *tokenization) detokenize(ctx context.Context, c *call, reqs []*coatcheckv1.DetokenizeRequest, room int, deeds []deed) ([]*coatcheckv1.DetokenizeResponse, error) {
	c.event.Namespace = DefaultNamespace
	asked := make([]tokenizer.DetokenizeRequest, 0, len(reqs))
	at := make([]int, 0, len(reqs))
	c.grants = t.server.approvals.grants(c)
	for i, req := range reqs {
		if err := goOn(ctx, i); err != nil {
			return nil, err
		}
		if ask, ok := t.mayReveal(ctx, c, req, &deeds[i]); ok {
			asked, at = append(asked, ask), append(at, i)
		}
	}
	responses := make([]*coatcheckv1.DetokenizeResponse, len(reqs))
	if len(asked) == 0 {
		return responses, nil
	}
	results, err := t.tokenizer.DetokenizeAll(ctx, DefaultNamespace, asked, room, &c.unit)
	if err != nil {
		return nil, err
	}
	if t.server.suspendThieves && stolen(results, deeds) {
		// Who is about to be suspended gets nothing of the rest.
		for k, i := range at {
			deeds[i].Approval = ""
			deeds[i].fail(first(results[k].Err, errSuspended))
		}
		c.unit = tokenizer.Unit{}
		c.redraw()
		return responses, nil
	}
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	block := make([]coatcheckv1.DetokenizeResponse, len(asked))
	for k, i := range at {
		d := &deeds[i]
		d.Subject = results[k].Subject
		if d.fail(results[k].Err); d.err != nil {
			continue
		}
		d.Reveal = d.form.String()
		responses[i] = &block[k]
		responses[i].Reveal = revealMessages[d.form]
		if results[k].Binary {
			responses[i].Data = []byte(results[k].Value.Reveal())
		} else {
			responses[i].Value = results[k].Value.Reveal()
		}
	}
	return responses, nil
}

// goOn says, now and then, whether anybody still waits for a batch, of which an item may
// take long to decide about.
func goOn(ctx context.Context, item int) error {
	if item%32 == 31 {
		return ctx.Err()
	}
	return nil
}

// stolen says whether a honeytoken is among what was asked for.
func stolen(results []tokenizer.DetokenizeResult, deeds []deed) bool {
	return slices.ContainsFunc(results, func(r tokenizer.DetokenizeResult) bool {
		return r.Err != nil && errors.Is(r.Err, tokenizer.ErrHoneytoken)
	}) || slices.ContainsFunc(deeds, func(d deed) bool { return d.Alert == audit.AlertHoneytoken })
}

// mayReveal checks a request and asks policy, before anything is looked up.
func (t *tokenization) mayReveal(ctx context.Context, c *call, req *coatcheckv1.DetokenizeRequest, d *deed) (ask tokenizer.DetokenizeRequest, ok bool) {
	ref, err := t.tokenizer.Inspect(tokenizer.Token(req.GetToken()), req.GetProfile())
	if d.fail(err); err != nil {
		return ask, false
	}
	p := ref.Profile
	d.Profile = p.Name
	var unnamed error
	d.Token, unnamed = t.tokenizer.Digest(ctx, DefaultNamespace, p.Name, tokenizer.Token(req.GetToken()))
	d.stated(req.GetReason())
	purpose := req.GetPurpose()
	asked, known := reveals[req.GetReveal()]
	switch {
	case purpose == "":
		d.fail(errPurposeRequired)
	case !tokenizer.ValidPurpose(purpose):
		d.fail(errInvalidPurpose)
	case !known:
		d.fail(errInvalidReveal)
	}
	if d.err != nil {
		return ask, false
	}
	// As with profiles, only a purpose that is declared is recorded.
	for _, declared := range p.Purposes {
		if purpose == declared {
			d.Purpose = purpose
		}
	}
	request := c.request(p.Name)
	request.Purpose, request.Reveal, request.StatedReason = purpose, asked, d.StatedReason
	decision := d.decide(c, request)
	if d.err == nil && !decision.Pending {
		_, err := c.grants.ask(ctx, d) // which admit asks again
		d.fail(err)
	}
	if d.Decision == audit.Deny && t.trap(ctx, ref) {
		d.Alert = audit.AlertHoneytoken
	}
	d.fail(unnamed) // a denial is one whether there are keys or not
	ask = tokenizer.DetokenizeRequest{Reference: ref, Form: forms[decision.Reveal], RedemptionID: req.GetRedemptionId()}
	if decision.Pending {
		ask.Judge = t.judgeOf(ctx, c, d, request)
	}
	if decision.Pending || d.duties.Any() {
		ask.Admit = c.admit(ctx, d)
	}
	return ask, d.err == nil
}

// judgeOf returns who decides about a request once its token is found. It is apart from
// mayReveal so that only a request that waits for it is kept.
func (t *tokenization) judgeOf(ctx context.Context, c *call, d *deed, request policy.Request) func(*tokenizer.Facts) (tokenizer.Form, error) {
	return func(found *tokenizer.Facts) (tokenizer.Form, error) {
		token := &facts{Facts: found, ctx: ctx, consents: t.server.consents, shadow: c.shadow}
		decision, err := token.judge(c.policy, request)
		d.Shadow = token.shadowed
		d.decided(c, decision, err)
		return forms[decision.Reveal], d.err
	}
}

// reveals maps the API's forms to policy's, which have the same names.
var reveals, revealMessages = func() (map[coatcheckv1.Reveal]policy.Reveal, map[policy.Reveal]coatcheckv1.Reveal) {
	to := map[coatcheckv1.Reveal]policy.Reveal{coatcheckv1.Reveal_REVEAL_UNSPECIFIED: policy.Unspecified}
	from := make(map[policy.Reveal]coatcheckv1.Reveal)
	for number, name := range coatcheckv1.Reveal_name {
		if form, ok := policy.ParseReveal(name[len("REVEAL_"):]); ok {
			to[coatcheckv1.Reveal(number)] = form
			from[form] = coatcheckv1.Reveal(number)
		}
	}
	return to, from
}()

// forms maps policy's forms to the tokenizer's. One that is not here shows
// nothing.
var forms = func() map[policy.Reveal]tokenizer.Form {
	to := map[policy.Reveal]tokenizer.Form{policy.Masked: tokenizer.Masked, policy.Full: tokenizer.Full}
	for form := range revealMessages {
		if part, ok := format.ParsePart(form.String()); ok {
			to[form] = tokenizer.PartForm(part)
		}
	}
	return to
}()
