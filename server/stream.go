package server

import (
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Bounds of a group: what is taken from a stream at once, and committed together.
const (
	maxGroup      = 1024
	maxGroupBytes = 1 << 20

	// maxGroupValues is how much may be revealed to a group at most, in bytes.
	maxGroupValues = 2 << 20

	// maxAhead is how much of a stream is in memory at most, in bytes as they come
	// over the wire, beside the message that is just being read.
	maxAhead = 2 * maxGroupBytes

	// messageOverhead is what a message takes beside that.
	messageOverhead = 256
)

// maxCorrelation is the longest correlation id in bytes.
const maxCorrelation = 128

// message is what a stream is made of.
type message interface {
	GetCorrelationId() string
}

// StreamTokenize answers values in groups.
func (t *tokenization) StreamTokenize(stream grpc.BidiStreamingServer[coatcheckv1.StreamTokenizeRequest, coatcheckv1.StreamTokenizeResponse]) error {
	weight := func(*coatcheckv1.StreamTokenizeRequest) int64 { return 0 } // the request is larger than what comes back
	return serveGroups(t.server, stream, weight, func(ctx context.Context, c *call, group []*coatcheckv1.StreamTokenizeRequest) ([]*coatcheckv1.StreamTokenizeResponse, error) {
		reqs := make([]*coatcheckv1.TokenizeRequest, len(group))
		deeds := c.newDeeds(len(group))
		for i, m := range group {
			reqs[i] = m.GetRequest()
			deeds[i].fail(checkCorrelation(m))
		}
		responses, err := t.tokenize(ctx, c, reqs, deeds)
		c.tellAll(deeds)
		if err != nil {
			return nil, err
		}
		answers := make([]*coatcheckv1.StreamTokenizeResponse, len(group))
		for i, result := range tokenizeResults(responses, deeds) {
			answers[i] = &coatcheckv1.StreamTokenizeResponse{CorrelationId: correlation(group[i]), Result: result}
		}
		return answers, nil
	})
}

// StreamDetokenize answers tokens in groups.
func (t *tokenization) StreamDetokenize(stream grpc.BidiStreamingServer[coatcheckv1.StreamDetokenizeRequest, coatcheckv1.StreamDetokenizeResponse]) error {
	weight := func(m *coatcheckv1.StreamDetokenizeRequest) int64 {
		ref, err := t.tokenizer.Inspect(tokenizer.Token(m.GetRequest().GetToken()), m.GetRequest().GetProfile())
		if err != nil {
			return 0
		}
		return int64(ref.Profile.LargestValue())
	}
	return serveGroups(t.server, stream, weight, func(ctx context.Context, c *call, group []*coatcheckv1.StreamDetokenizeRequest) ([]*coatcheckv1.StreamDetokenizeResponse, error) {
		reqs := make([]*coatcheckv1.DetokenizeRequest, len(group))
		deeds := c.newDeeds(len(group))
		for i, m := range group {
			reqs[i] = m.GetRequest()
			deeds[i].fail(checkCorrelation(m))
		}
		responses, err := t.detokenize(ctx, c, reqs, 2*maxGroupValues, deeds)
		c.tellAll(deeds)
		if err != nil {
			return nil, err
		}
		answers := make([]*coatcheckv1.StreamDetokenizeResponse, len(group))
		for i, result := range detokenizeResults(responses, deeds) {
			answers[i] = &coatcheckv1.StreamDetokenizeResponse{CorrelationId: correlation(group[i]), Result: result}
		}
		return answers, nil
	})
}

func checkCorrelation(m message) error {
	if len(m.GetCorrelationId()) > maxCorrelation {
		return errCorrelation
	}
	return nil
}

// correlation returns the correlation id that a message is answered under: one
// that is too long is not given back.
func correlation(m message) string {
	if checkCorrelation(m) != nil {
		return strings.ToValidUTF8(m.GetCorrelationId()[:maxCorrelation], "")
	}
	return m.GetCorrelationId()
}

// serveGroups answers the messages of a stream. What has arrived while a group
// was answered is the next group. Only so much is read ahead: a client that
// doesn't read its answers, or sends faster than the store writes, is held up by
// the flow control of HTTP/2.
//
// It ends when the client half-closes and everything is answered, or after the
// group at hand when the server drains.
func serveGroups[In message, Req, Out any](s *Server, stream grpc.BidiStreamingServer[Req, Out], weight func(In) int64, answer func(context.Context, *call, []In) ([]*Out, error)) error {
	ctx := stream.Context()
	whole := callFrom(ctx)
	whole.event.Namespace = DefaultNamespace
	arrived := make(chan received[In], maxGroup)
	ahead := semaphore.NewWeighted(maxAhead)
	recvCtx, stop := context.WithCancel(ctx)
	defer stop()
	go receive(recvCtx, stream, arrived, ahead)
	for {
		var next received[In]
		select {
		case next = <-arrived:
		case <-s.draining:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		}
		group, size, last := gather(next, arrived, weight)
		if len(group) > 0 {
			part := whole.group(s.policy.Current())
			var answers []*Out
			err := s.commitGroup(ctx, part, func() (err error) {
				if err := part.stillNamed(ctx); err != nil {
					return err
				}
				answers, err = answer(ctx, part, group)
				return err
			})
			whole.meter = part.meter
			if err != nil {
				return err
			}
			whole.event.Records += uint64(len(group))
			for _, m := range answers {
				if err := stream.Send(m); err != nil {
					return first(ctx.Err(), receiveError(err))
				}
			}
			ahead.Release(size)
		}
		if errors.Is(last, io.EOF) {
			return nil
		}
		if last != nil {
			return last
		}
	}
}

// received is a message of a stream, or why there are no more.
type received[In any] struct {
	message In
	size    int64
	err     error
}

// receive reads messages until the stream or its handler has ended. It reads no
// further ahead than there is room. What is in a message it doesn't look at: nothing
// catches a panic here.
func receive[In message, Req, Out any](ctx context.Context, stream grpc.BidiStreamingServer[Req, Out], arrived chan<- received[In], ahead *semaphore.Weighted) {
	for {
		m, err := stream.Recv()
		r := received[In]{err: receiveError(err)}
		if err == nil {
			r.message = any(m).(In)
			r.size = min(int64(proto.Size(any(m).(proto.Message)))+messageOverhead, maxAhead)
			if ahead.Acquire(ctx, r.size) != nil {
				return
			}
		}
		select {
		case arrived <- r:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// first returns the first error that there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// receiveError gives an error of grpc a name of ours.
func receiveError(err error) error {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return errMessageSize
	case codes.Canceled:
		return context.Canceled
	}
	return err
}

// gather returns a group: the message at hand and those that have arrived behind
// it; and why there are no more, if there aren't. weight says how large the answer
// to a message can be, in bytes.
func gather[In any](next received[In], arrived <-chan received[In], weight func(In) int64) (group []In, size int64, last error) {
	heavy := int64(0)
	for {
		if next.err != nil {
			return group, size, next.err
		}
		group = append(group, next.message)
		size, heavy = size+next.size, heavy+weight(next.message)
		if len(group) == maxGroup || size >= maxGroupBytes || heavy >= maxGroupValues {
			return group, size, nil
		}
		select {
		case next = <-arrived:
		default:
			return group, size, nil
		}
	}
}
