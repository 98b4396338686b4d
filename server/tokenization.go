package server

import (
	"context"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// DefaultNamespace is the namespace of a call that names none.
const DefaultNamespace = "default"

// tokenization is coatcheck.v1.TokenizationService. Its methods prepare, and the
// chain commits what they have prepared before it leaves.
type tokenization struct {
	coatcheckv1.UnimplementedTokenizationServiceServer
	tokenizer *tokenizer.Tokenizer
	server    *Server
}

// Tokenize prepares a token.
func (t *tokenization) Tokenize(ctx context.Context, req *coatcheckv1.TokenizeRequest) (*coatcheckv1.TokenizeResponse, error) {
	c := callFrom(ctx)
	deeds := c.newDeeds(1)
	responses, err := t.tokenize(ctx, c, []*coatcheckv1.TokenizeRequest{req}, deeds)
	if err = c.tell(&deeds[0], err); err != nil {
		return nil, err
	}
	return responses[0], nil
}

// Detokenize asks policy, then opens the record.
func (t *tokenization) Detokenize(ctx context.Context, req *coatcheckv1.DetokenizeRequest) (*coatcheckv1.DetokenizeResponse, error) {
	c := callFrom(ctx)
	deeds := c.newDeeds(1)
	responses, err := t.detokenize(ctx, c, []*coatcheckv1.DetokenizeRequest{req}, tokenizer.MaxValue, deeds)
	if err = c.tell(&deeds[0], err); err != nil {
		return nil, err
	}
	return responses[0], nil
}

// BatchTokenize prepares many tokens in one unit.
func (t *tokenization) BatchTokenize(ctx context.Context, req *coatcheckv1.BatchTokenizeRequest) (*coatcheckv1.BatchTokenizeResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if n := len(req.GetItems()); n == 0 || n > MaxBatch {
		return nil, errBatchSize
	}
	deeds := c.newDeeds(len(req.GetItems()))
	responses, err := t.tokenize(ctx, c, req.GetItems(), deeds)
	c.tellAll(deeds) // also of what was denied, if all fail
	if err != nil {
		return nil, err
	}
	resp := &coatcheckv1.BatchTokenizeResponse{Results: tokenizeResults(responses, deeds)}
	most := roomFor(deeds, func(i int) int { return len(responses[i].GetToken()) + len(responses[i].GetMasked()) })
	if most <= t.server.limits.MessageSize {
		return resp, nil
	}
	return resp, t.fits(resp)
}

// roomFor returns more bytes than the results of deeds can have, which is found out
// more quickly than how many they have; of refusals, which say more, too many. size is
// that of what a response holds.
func roomFor(deeds []deed, size func(i int) int) (most int) {
	const about = 64 // a time, and what stands before fields
	for i := range deeds {
		if deeds[i].err != nil {
			return math.MaxInt
		}
		most += about + size(i)
	}
	return most
}

// fits refuses an answer that is larger than a message may be: grpc would, after
// its call had been committed.
func (t *tokenization) fits(m proto.Message) error {
	if proto.Size(m) > t.server.limits.MessageSize {
		return errTooLarge
	}
	return nil
}

// tokenizeResults returns the results of deeds.
func tokenizeResults(responses []*coatcheckv1.TokenizeResponse, deeds []deed) []*coatcheckv1.TokenizeResult {
	results := make([]*coatcheckv1.TokenizeResult, len(deeds))
	block := make([]struct {
		result coatcheckv1.TokenizeResult
		given  coatcheckv1.TokenizeResult_Response
	}, len(deeds))
	for i := range deeds {
		b := &block[i]
		results[i] = &b.result
		if deeds[i].err != nil {
			b.result.Result = &coatcheckv1.TokenizeResult_Error{Error: itemError(deeds[i].err)}
		} else {
			b.given.Response = responses[i]
			b.result.Result = &b.given
		}
	}
	return results
}

// BatchDetokenize opens many records.
func (t *tokenization) BatchDetokenize(ctx context.Context, req *coatcheckv1.BatchDetokenizeRequest) (*coatcheckv1.BatchDetokenizeResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if n := len(req.GetItems()); n == 0 || n > MaxBatch {
		return nil, errBatchSize
	}
	// An answer that doesn't fit would be refused by grpc after the event has said
	// that it was given. How much room refusals take shows in the end only.
	for room := max(t.server.limits.MessageSize-responseReserve*len(req.GetItems()), 0); ; room /= 2 {
		deeds := c.newDeeds(len(req.GetItems()))
		c.unit = tokenizer.Unit{}
		c.remeasure()
		responses, err := t.detokenize(ctx, c, req.GetItems(), room, deeds)
		c.tellAll(deeds)
		if err != nil {
			return nil, err
		}
		resp := &coatcheckv1.BatchDetokenizeResponse{Results: detokenizeResults(responses, deeds)}
		most := roomFor(deeds, func(i int) int { return len(responses[i].GetValue()) + len(responses[i].GetData()) })
		if most <= t.server.limits.MessageSize {
			return resp, nil
		}
		if err := t.fits(resp); err == nil || room == 0 {
			return resp, err
		}
	}
}

// responseReserve is what a result takes in an answer beside its value, in bytes.
const responseReserve = 24

// detokenizeResults returns the results of deeds.
func detokenizeResults(responses []*coatcheckv1.DetokenizeResponse, deeds []deed) []*coatcheckv1.DetokenizeResult {
	results := make([]*coatcheckv1.DetokenizeResult, len(deeds))
	block := make([]struct {
		result coatcheckv1.DetokenizeResult
		given  coatcheckv1.DetokenizeResult_Response
	}, len(deeds))
	for i := range deeds {
		b := &block[i]
		results[i] = &b.result
		if deeds[i].err != nil {
			b.result.Result = &coatcheckv1.DetokenizeResult_Error{Error: itemError(deeds[i].err)}
		} else {
			b.given.Response = responses[i]
			b.result.Result = &b.given
		}
	}
	return results
}

// timestamp returns a time as the API has it, nil for zero.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
