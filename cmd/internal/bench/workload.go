package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// Client is a server as seen by its callers.
type Client struct {
	conns      []*grpc.ClientConn
	Tokenize   []coatcheckv1.TokenizationServiceClient // as who may tokenize
	Detokenize []coatcheckv1.TokenizationServiceClient // as who may detokenize
}

// NewClient returns a client with several connections of either caller.
func NewClient(tokenize, detokenize []*grpc.ClientConn) *Client {
	c := &Client{conns: slices.Concat(tokenize, detokenize)}
	for _, conn := range tokenize {
		c.Tokenize = append(c.Tokenize, coatcheckv1.NewTokenizationServiceClient(conn))
	}
	for _, conn := range detokenize {
		c.Detokenize = append(c.Detokenize, coatcheckv1.NewTokenizationServiceClient(conn))
	}
	return c
}

// Close closes the connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Workload is a way of calling.
type Workload struct {
	Name     string // call and shape: "tokenize/unary"
	InFlight int    // calls, or items of a stream, at once
	do       func(context.Context, *worker) error
	workers  int // that do it at once
}

func (w Workload) String() string { return fmt.Sprintf("%s, %d in flight", w.Name, w.InFlight) }

// batchSize is how many items a batch has.
const batchSize = 1000

// Workloads returns those that there are: unary calls at several depths, batches, and
// a stream.
func Workloads() (all []Workload) {
	for _, call := range []struct {
		name                 string
		unary, batch, stream func(context.Context, *worker) error
	}{
		{"tokenize", tokenizeUnary, tokenizeBatch, tokenizeStream},
		{"detokenize", detokenizeUnary, detokenizeBatch, detokenizeStream},
	} {
		for _, n := range []int{1, 16, 64, 256} {
			all = append(all, Workload{call.name + "/unary", n, call.unary, n})
		}
		all = append(all, Workload{call.name + "/batch-1000", 4, call.batch, 4}, Workload{call.name + "/stream-100", 100, call.stream, 1})
	}
	return all
}

// load is what calls are made of.
type load struct {
	Options
	next   *atomic.Uint64 // number of the next new value
	values []string       // that have tokens
	tokens []string
}

// known is how many values have tokens before anything is measured.
const known = 10_000

// prepare fills a store, and remembers tokens of it.
func prepare(ctx context.Context, c *Client, o Options) (*load, error) {
	l := &load{Options: o, next: new(atomic.Uint64)}
	l.next.Store(uint64(time.Now().UnixNano()) / 1000 % 1e12) // new ones in a store that was used before, too
	for made, n := 0, max(o.Preload, known); made < n; {
		if made%1_000_000 == 0 && n > known {
			o.Progress("%d of %d tokens are made", made, n)
		}
		req := &coatcheckv1.BatchTokenizeRequest{}
		for range min(5*batchSize, n-made) {
			req.Items = append(req.Items, l.tokenizeRequest(l.newValue()))
		}
		resp, err := c.Tokenize[0].BatchTokenize(ctx, req)
		if err != nil {
			return nil, err
		}
		for i, r := range resp.GetResults() {
			if r.GetError() != nil {
				return nil, status.ErrorProto(r.GetError())
			}
			// From all over the store.
			if at := made + i; len(l.tokens) < known && at%(n/known) == 0 {
				l.tokens = append(l.tokens, r.GetResponse().GetToken())
				l.values = append(l.values, req.GetItems()[i].GetValue())
			}
		}
		made += len(req.GetItems())
	}
	return l, nil
}

// newValue returns a card number that no other call has.
func (l *load) newValue() string { return CardNumber(l.next.Add(1)) }

// CardNumber returns the n-th of the card numbers of 16 digits that begin with a 4.
func CardNumber(n uint64) string {
	digits := []byte("4000000000000000")
	for at := 14; n > 0 && at > 0; at, n = at-1, n/10 {
		digits[at] = byte('0' + n%10)
	}
	sum := 0
	for at, d := range digits[:15] {
		v := int(d - '0')
		if at%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	digits[15] = byte('0' + (10-sum%10)%10)
	return string(digits)
}

func (l *load) tokenizeRequest(value string) *coatcheckv1.TokenizeRequest {
	req := &coatcheckv1.TokenizeRequest{Profile: l.Profile, Value: value}
	if l.Subject {
		req.Subject = "customer-" + value[11:15] // one of ten thousand, another for each value
	}
	return req
}

// worker calls one after the other until the time is over.
type worker struct {
	*load
	tokenize, detokenize coatcheckv1.TokenizationServiceClient
	inFlight             int
	turn                 int
	until                time.Time
	samples
}

func (w *worker) value() string {
	if !w.Known {
		return w.newValue()
	}
	w.turn++
	return w.values[w.turn%len(w.values)]
}

func (w *worker) request() *coatcheckv1.DetokenizeRequest {
	w.turn++
	return &coatcheckv1.DetokenizeRequest{Token: w.tokens[w.turn%len(w.tokens)], Profile: w.Profile, Purpose: w.Purpose}
}

// run runs a workload for a time.
func (w Workload) run(ctx context.Context, c *Client, l *load, d time.Duration) (all samples, err error) {
	began := time.Now()
	workers := make([]*worker, w.workers)
	errs := make([]error, w.workers)
	var wait sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{
			load: l, inFlight: w.InFlight, turn: i * 7919, until: began.Add(d),
			tokenize: c.Tokenize[i%len(c.Tokenize)], detokenize: c.Detokenize[i%len(c.Detokenize)],
		}
		wait.Go(func() { errs[i] = w.do(ctx, workers[i]) })
	}
	wait.Wait()
	took := time.Since(began)
	for _, one := range workers {
		all.add(one.samples)
	}
	all.took = took
	for _, err := range errs {
		if err != nil {
			return all, err // others are most often the same
		}
	}
	return all, nil
}

// calls makes calls of a number of items each.
func (w *worker) calls(ctx context.Context, items int, call func() error) error {
	for now := time.Now(); now.Before(w.until); {
		if err := call(); err != nil {
			return err
		}
		after := time.Now()
		w.each = append(w.each, after.Sub(now))
		w.items += int64(items)
		now = after
	}
	return ctx.Err()
}

func tokenizeUnary(ctx context.Context, w *worker) error {
	return w.calls(ctx, 1, func() error {
		_, err := w.tokenize.Tokenize(ctx, w.tokenizeRequest(w.value()))
		return err
	})
}

func detokenizeUnary(ctx context.Context, w *worker) error {
	return w.calls(ctx, 1, func() error {
		_, err := w.detokenize.Detokenize(ctx, w.request())
		return err
	})
}

func tokenizeBatch(ctx context.Context, w *worker) error {
	return w.calls(ctx, batchSize, func() error {
		req := &coatcheckv1.BatchTokenizeRequest{Items: make([]*coatcheckv1.TokenizeRequest, batchSize)}
		for i := range req.Items {
			req.Items[i] = w.tokenizeRequest(w.value())
		}
		resp, err := w.tokenize.BatchTokenize(ctx, req)
		for _, r := range resp.GetResults() {
			if r.GetError() != nil {
				return status.ErrorProto(r.GetError())
			}
		}
		return err
	})
}

func detokenizeBatch(ctx context.Context, w *worker) error {
	return w.calls(ctx, batchSize, func() error {
		req := &coatcheckv1.BatchDetokenizeRequest{Items: make([]*coatcheckv1.DetokenizeRequest, batchSize)}
		for i := range req.Items {
			req.Items[i] = w.request()
		}
		resp, err := w.detokenize.BatchDetokenize(ctx, req)
		for _, r := range resp.GetResults() {
			if r.GetError() != nil {
				return status.ErrorProto(r.GetError())
			}
		}
		return err
	})
}

func tokenizeStream(ctx context.Context, w *worker) error {
	stream, err := w.tokenize.StreamTokenize(ctx)
	if err != nil {
		return err
	}
	return w.stream(stream, func(id string) error {
		return stream.Send(&coatcheckv1.StreamTokenizeRequest{CorrelationId: id, Request: w.tokenizeRequest(w.value())})
	}, func() (string, error) {
		m, err := stream.Recv()
		if err == nil && m.GetResult().GetError() != nil {
			err = status.ErrorProto(m.GetResult().GetError())
		}
		return m.GetCorrelationId(), err
	})
}

func detokenizeStream(ctx context.Context, w *worker) error {
	stream, err := w.detokenize.StreamDetokenize(ctx)
	if err != nil {
		return err
	}
	return w.stream(stream, func(id string) error {
		return stream.Send(&coatcheckv1.StreamDetokenizeRequest{CorrelationId: id, Request: w.request()})
	}, func() (string, error) {
		m, err := stream.Recv()
		if err == nil && m.GetResult().GetError() != nil {
			err = status.ErrorProto(m.GetResult().GetError())
		}
		return m.GetCorrelationId(), err
	})
}

// stream keeps a number of items of a stream in flight. The id of an item is its
// place among those.
func (w *worker) stream(stream grpc.ClientStream, send func(id string) error, receive func() (string, error)) error {
	free := make(chan int, w.inFlight)
	ids := make([]string, w.inFlight)
	sent := make([]atomic.Int64, w.inFlight) // when, in Unix nanoseconds
	for i := range w.inFlight {
		ids[i] = strconv.Itoa(i)
		free <- i
	}
	ended := make(chan error, 1)
	go func() {
		for time.Now().Before(w.until) {
			i, ok := <-free
			if !ok {
				return // receive has failed, and says why
			}
			sent[i].Store(time.Now().UnixNano())
			if send(ids[i]) != nil {
				break // receive says why
			}
		}
		ended <- stream.CloseSend()
	}()
	for {
		id, err := receive()
		if errors.Is(err, io.EOF) {
			return <-ended
		}
		if err != nil {
			close(free)
			return err
		}
		i, err := strconv.Atoi(id)
		if err != nil || i < 0 || i >= w.inFlight {
			return fmt.Errorf("an answer to %q", id)
		}
		w.each = append(w.each, time.Duration(time.Now().UnixNano()-sent[i].Load()))
		w.items++
		free <- i
	}
}
