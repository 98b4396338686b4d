package main

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/cmd/internal/bench"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// limited makes an instance with limits.
func limited(t *testing.T, limits string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	edit(t, filepath.Join(dir, "coatcheck.yaml"), "store:\n", "  limits: "+limits+"\n\nstore:\n")
	return dir
}

// Many times more clients than there may be calls: who is let in is answered, the rest
// are told to come again, and when; no token that was acknowledged is lost, memory
// stays what it was, and once the load is over calls go through at once.
func TestOverload(t *testing.T) {
	clients, lasts := 1000, 1500*time.Millisecond
	if soak() {
		lasts = 30 * time.Second
	}
	dir := limited(t, "{in_flight: 100}")
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	tokens := &ledger{values: make(map[string]string)}
	var refused, slowest atomic.Int64
	ctx, end := context.WithTimeout(t.Context(), lasts)
	defer end()
	var conns []coatcheckv1.TokenizationServiceClient
	for range 8 {
		conns = append(conns, coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout")))
	}
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				profile, value := randomValue()
				began := time.Now()
				resp, err := conns[n%len(conns)].Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
				switch status.Code(err) {
				case codes.OK:
					tokens.add(t, resp.GetToken(), value)
					if took := int64(time.Since(began)); took > slowest.Load() {
						slowest.Store(took)
					}
				case codes.ResourceExhausted:
					refused.Add(1)
					wait := retryAfter(err)
					if wait <= 0 {
						t.Errorf("refused without saying when to come again: %v", err)
						return
					}
					time.Sleep(wait / 10) // sooner than we were told
				default:
					t.Errorf("neither answered nor told to come again: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	memory := bench.Resident(p.Process.Pid) >> 20
	if memory > 512 { // the race detector takes its part
		t.Errorf("%d MiB in memory", memory)
	}
	if refused.Load() == 0 || len(tokens.values) == 0 {
		t.Fatalf("%d calls refused, %d tokens: no overload", refused.Load(), len(tokens.values))
	}
	// It is over: calls go through again, without a retry.
	began := time.Now()
	for range 20 {
		if _, err := conns[0].Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "after"}); err != nil {
			t.Fatalf("after the load: %v", err)
		}
	}
	after := time.Since(began)
	if after > 10*time.Second { // it is some milliseconds
		t.Errorf("20 calls after the load took %v", after)
	}
	verifyTokens(t, p, dir, tokens, tokens.fresh)
	t.Logf("%d clients: %d tokens, the slowest after %v, and %d refusals; %d MiB; 20 calls after it took %v",
		clients, len(tokens.values), time.Duration(slowest.Load()).Round(time.Millisecond), refused.Load(), memory, after.Round(time.Millisecond))
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// retryAfter returns when a refusal says to come again, 0 if it doesn't.
func retryAfter(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// Clients that ask for large values on streams and never read them: what the server has
// in memory for each is bounded, and others are served meanwhile.
func TestClientsThatNeverRead(t *testing.T) {
	dir := limited(t, "{}")
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	c := p.callers(t, dir)
	large := strings.Repeat("x", 60_000)
	made, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: large})
	if err != nil {
		t.Fatal(err)
	}
	const streams, asked = 20, 3000 // 180 MB for each
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var wg sync.WaitGroup
	for range streams {
		stream, err := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments")).StreamDetokenize(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range asked { // until flow control holds it
				if stream.Send(&coatcheckv1.StreamDetokenizeRequest{
					Request: &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "support"},
				}) != nil {
					return
				}
			}
		})
	}
	most := int64(0)
	for range 20 {
		if _, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "meanwhile"}); err != nil {
			t.Fatalf("meanwhile: %v", err)
		}
		most = max(most, bench.Resident(p.Process.Pid)>>20)
		time.Sleep(100 * time.Millisecond)
	}
	if most == 0 && runtime.GOOS == "linux" {
		t.Error("no telling how much memory the server has")
	}
	t.Logf("%d streams that nobody reads: %d MiB", streams, most)
	if most > 1024 { // of 3,600 that they have asked for; the race detector takes its part
		t.Errorf("%d MiB for %d streams that nobody reads", most, streams)
	}
	end()
	wg.Wait()
}

// Headers that are too large end the call, not the server.
func TestHugeHeaders(t *testing.T) {
	dir := limited(t, "{}")
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	c := p.callers(t, dir)
	for range 20 {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("h", 1<<20))
		if _, err := c.checkout.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err == nil {
			t.Fatal("headers of a MiB are taken")
		}
	}
	if _, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// Many connections on which nothing happens: what the server has in memory for each is
// little, others are served meanwhile, and it is given back.
func TestIdleConnections(t *testing.T) {
	connections := 500
	if soak() {
		connections = 10_000 // of which each end needs a descriptor
	}
	dir := limited(t, "{}")
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	c := p.callers(t, dir)
	config := clientTLS(t, dir, "stranger")
	config.NextProtos = []string{"h2"}
	before := bench.Resident(p.Process.Pid)
	idle := make([]*tls.Conn, connections)
	var wg sync.WaitGroup
	at := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range at {
				conn, err := tls.Dial("tcp", p.address, config)
				if err == nil {
					_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // SETTINGS
				}
				if err == nil {
					_, err = conn.Read(make([]byte, 9)) // those of the server
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					continue
				}
				idle[i] = conn
			}
		})
	}
	for i := range idle {
		at <- i
	}
	close(at)
	wg.Wait()
	began := time.Now()
	for range 20 {
		if _, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "meanwhile"}); err != nil {
			t.Fatalf("beside idle connections: %v", err)
		}
	}
	took := time.Since(began)
	each := (bench.Resident(p.Process.Pid) - before) / int64(connections) >> 10
	t.Logf("%d idle connections, %d KiB each; 20 calls beside them took %v", connections, each, took.Round(time.Millisecond))
	if each > 1024 { // with the race detector it is some ten times what it is without
		t.Errorf("%d KiB for an idle connection", each)
	}
	for _, conn := range idle {
		if conn != nil {
			_ = conn.Close()
		}
	}
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
