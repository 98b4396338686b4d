package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
)

// What the wire answers: as long as what a server does.
const (
	wireToken  = "cc_random_11y2OhY9FJROAggbyeswg0e0T9ipg"
	wireMasked = "************1111"
	wireValue  = "4111111111111111"
)

// ServeWire answers every call with a constant, until ctx ends.
func ServeWire(ctx context.Context, listener net.Listener, config *tls.Config, limits server.Limits) error {
	s := grpc.NewServer(append(server.TransportOptions(limits), grpc.Creds(credentials.NewTLS(config)))...)
	coatcheckv1.RegisterTokenizationServiceServer(s, wire{})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	err := s.Serve(listener)
	if errors.Is(err, grpc.ErrServerStopped) || ctx.Err() != nil {
		return nil
	}
	return err
}

// wire is TokenizationService, as far as it is but messages.
type wire struct {
	coatcheckv1.UnimplementedTokenizationServiceServer
}

func tokenized() *coatcheckv1.TokenizeResponse {
	return &coatcheckv1.TokenizeResponse{Token: wireToken, Masked: wireMasked}
}

func revealed() *coatcheckv1.DetokenizeResponse {
	return &coatcheckv1.DetokenizeResponse{Value: wireValue, Reveal: coatcheckv1.Reveal_REVEAL_FULL}
}

func tokenizeResult() *coatcheckv1.TokenizeResult {
	return &coatcheckv1.TokenizeResult{Result: &coatcheckv1.TokenizeResult_Response{Response: tokenized()}}
}

func detokenizeResult() *coatcheckv1.DetokenizeResult {
	return &coatcheckv1.DetokenizeResult{Result: &coatcheckv1.DetokenizeResult_Response{Response: revealed()}}
}

func (wire) Tokenize(context.Context, *coatcheckv1.TokenizeRequest) (*coatcheckv1.TokenizeResponse, error) {
	return tokenized(), nil
}

func (wire) Detokenize(context.Context, *coatcheckv1.DetokenizeRequest) (*coatcheckv1.DetokenizeResponse, error) {
	return revealed(), nil
}

func (wire) BatchTokenize(_ context.Context, req *coatcheckv1.BatchTokenizeRequest) (*coatcheckv1.BatchTokenizeResponse, error) {
	resp := &coatcheckv1.BatchTokenizeResponse{Results: make([]*coatcheckv1.TokenizeResult, len(req.GetItems()))}
	for i := range resp.Results {
		resp.Results[i] = tokenizeResult()
	}
	return resp, nil
}

func (wire) BatchDetokenize(_ context.Context, req *coatcheckv1.BatchDetokenizeRequest) (*coatcheckv1.BatchDetokenizeResponse, error) {
	resp := &coatcheckv1.BatchDetokenizeResponse{Results: make([]*coatcheckv1.DetokenizeResult, len(req.GetItems()))}
	for i := range resp.Results {
		resp.Results[i] = detokenizeResult()
	}
	return resp, nil
}

func (wire) StreamTokenize(stream grpc.BidiStreamingServer[coatcheckv1.StreamTokenizeRequest, coatcheckv1.StreamTokenizeResponse]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(&coatcheckv1.StreamTokenizeResponse{CorrelationId: m.GetCorrelationId(), Result: tokenizeResult()})
		}
		if err != nil {
			return err
		}
	}
}

func (wire) StreamDetokenize(stream grpc.BidiStreamingServer[coatcheckv1.StreamDetokenizeRequest, coatcheckv1.StreamDetokenizeResponse]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(&coatcheckv1.StreamDetokenizeResponse{CorrelationId: m.GetCorrelationId(), Result: detokenizeResult()})
		}
		if err != nil {
			return err
		}
	}
}
