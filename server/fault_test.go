package server_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// faultyStore is a store whose commits or reads can be made to fail, and whose
// commits can be held up.
type faultyStore struct {
	tokenizer.Store
	commits, reads, panics atomic.Bool
	spoils                 atomic.Bool // units that change something are against the rules
	hold                   atomic.Pointer[chan struct{}]
}

func (s *faultyStore) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	if s.commits.Load() {
		return tokenizer.Outcome{}, tokenizer.ErrUnavailable
	}
	if hold := s.hold.Load(); hold != nil {
		<-*hold
	}
	if s.spoils.Load() && !unit.Empty() {
		unit.States = []tokenizer.StateChange{{Key: ""}}
	}
	return s.Store.Commit(ctx, unit)
}

func (s *faultyStore) Records(ctx context.Context, ids ...uint64) ([]tokenizer.Found, error) {
	if s.panics.Load() {
		panic("4111111111111111")
	}
	if s.reads.Load() {
		return nil, tokenizer.ErrUnavailable
	}
	return s.Store.Records(ctx, ids...)
}

func (s *faultyStore) Check(ctx context.Context) error {
	if s.commits.Load() || s.reads.Load() {
		return tokenizer.ErrUnavailable
	}
	return s.Store.Check(ctx)
}

// faultyBackend is a keystore backend that can be away.
type faultyBackend struct {
	keystore.Backend
	away atomic.Bool
}

func (b *faultyBackend) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	if b.away.Load() {
		return nil, keystore.ErrUnavailable
	}
	return b.Backend.Unwrap(ctx, wrapped, label)
}

func (b *faultyBackend) Rewrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	if b.away.Load() {
		return nil, keystore.ErrUnavailable
	}
	return b.Backend.Rewrap(ctx, wrapped, label)
}

func (b *faultyBackend) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	if b.away.Load() {
		return nil, keystore.ErrUnavailable
	}
	return b.Backend.Wrap(ctx, key, label)
}

// waitFor waits until a condition holds, for as long as a slow machine may need.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func waitInFlight(t *testing.T, in *servertest.Instance, n int) {
	t.Helper()
	waitFor(t, "calls in flight", func() bool { return in.InFlight() >= n })
}

func startFaulty(t *testing.T, limits server.Limits) (*servertest.Instance, *faultyStore, *faultyBackend) {
	t.Helper()
	store, backend := new(faultyStore), new(faultyBackend)
	in := servertest.Start(t, servertest.Options{
		Limits: limits,
		Lease:  keystore.Options{Lease: 50 * time.Millisecond, MaxOffline: time.Hour},
		Wrap: func(s tokenizer.Store) tokenizer.Store {
			store.Store = s
			return store
		},
		WrapBackend: func(b keystore.Backend) keystore.Backend {
			backend.Backend = b
			return backend
		},
	})
	return in, store, backend
}

// No reveal without a record: with commits failing, neither values nor tokens
// leave.
func TestNothingLeavesWithoutItsRecord(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	token := tokenize(t, in, "card", "4111111111111111")
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	stranger := coatcheckv1.NewTokenizationServiceClient(in.As(t, "stranger"))
	store.commits.Store(true)
	get := &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"}
	for name, row := range map[string]struct {
		call func() (string, error)
		want string
	}{
		"reveal": {func() (string, error) {
			resp, err := payments.Detokenize(deadline(t), get)
			return resp.GetValue(), err
		}, "AUDIT_UNAVAILABLE"},
		"denial": {func() (string, error) {
			resp, err := stranger.Detokenize(deadline(t), get)
			return resp.GetValue(), err
		}, "AUDIT_UNAVAILABLE"},
		"tokenize": {func() (string, error) {
			resp, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "5555555555554444"})
			return resp.GetToken(), err
		}, "STORE_UNAVAILABLE"},
	} {
		if got, err := row.call(); got != "" || status.Code(err) != codes.Unavailable || reason(err) != row.want {
			t.Errorf("%s with commits failing: %q, %v (%s); want UNAVAILABLE, %s", name, got, err, reason(err), row.want)
		}
	}
	store.commits.Store(false)
	if resp, err := payments.Detokenize(deadline(t), get); err != nil || resp.GetValue() != "4111111111111111" {
		t.Errorf("once commits work again: %v, %v", resp, err)
	}
}

func TestAStoreThatCanNotBeReadIsUnavailable(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	token := tokenize(t, in, "card", "4111111111111111")
	store.reads.Store(true)
	_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
	if status.Code(err) != codes.Unavailable || reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("Detokenize: %v (%s)", err, reason(err))
	}
	if !strings.Contains(in.Log.String(), "store unavailable") {
		t.Error("the log doesn't say why")
	}
}

// Of a batch that fails as a whole it is recorded all the same what was denied.
func TestDenialsOfABatchThatFailsAreRecorded(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	token := tokenize(t, in, "card", "4111111111111111")
	store.reads.Store(true)
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	items := []*coatcheckv1.DetokenizeRequest{{Token: token, Purpose: "charge"}, {Token: token, Purpose: "support"}}
	if _, err := payments.BatchDetokenize(deadline(t), &coatcheckv1.BatchDetokenizeRequest{Items: items}); reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("BatchDetokenize: %v", err)
	}
	stream, err := payments.StreamDetokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	// The one that is denied comes first: it may be answered in a group of its own, and
	// the group that fails ends the stream.
	for _, item := range []*coatcheckv1.DetokenizeRequest{items[1], items[0]} {
		if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: item}); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if reason(err) != "STORE_UNAVAILABLE" {
		t.Errorf("StreamDetokenize: %v", err)
	}
	denied := map[any]int{}
	for _, event := range events(t, in) {
		list, _ := event["items"].([]any)
		for _, item := range list {
			if item := item.(map[string]any); item["decision"] == "deny" && item["token"] != nil && item["reveal"] == nil {
				denied[event["method"]]++
			}
		}
		if event["decision"] == "deny" && event["profile"] == "card" { // a group of one
			denied[event["method"]]++
		}
	}
	if len(denied) != 2 {
		t.Errorf("denials recorded: %v, want some of both methods", denied)
	}
}

// A panic is answered, recorded, and tells nothing of what was thrown.
func TestAPanicIsRecorded(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	token := tokenize(t, in, "card", "4111111111111111")
	store.panics.Store(true)
	_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
	if status.Code(err) != codes.Internal || reason(err) != "INTERNAL" {
		t.Errorf("Detokenize: %v (%s)", err, reason(err))
	}
	log := events(t, in)
	if last := log[len(log)-1]; last["code"] != "INTERNAL" || last["caller"] != "spiffe://coatcheck.example/payments" {
		t.Errorf("the event of the panic is %v", last)
	}
	if printed := in.Log.String(); strings.Contains(printed, "4111111111111111") || !strings.Contains(printed, "panic") {
		t.Errorf("the log says %s", printed)
	}
}

// A unit that the store can't take is a defect; the call is recorded all the same.
func TestABadUnitIsRecorded(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	store.spoils.Store(true)
	_, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a"})
	if status.Code(err) != codes.Internal || reason(err) != "INTERNAL" {
		t.Errorf("Tokenize: %v (%s)", err, reason(err))
	}
	log := events(t, in)
	if last := log[len(log)-1]; last["code"] != "INTERNAL" || last["action"] != "tokenize" || last["profile"] != "note" {
		t.Errorf("the event is %v", last)
	}
	if printed := in.Log.String(); !strings.Contains(printed, "the key of a state is empty") {
		t.Errorf("the log says %s", printed)
	}
}

func TestHealthTellsOfItsParts(t *testing.T) {
	in, store, backend := startFaulty(t, server.Limits{})
	client := grpc_health_v1.NewHealthClient(in.As(t, "stranger"))
	want := func(states map[string]bool) {
		t.Helper()
		for name, serving := range states {
			// Health follows within its period.
			var got grpc_health_v1.HealthCheckResponse_ServingStatus
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				resp, err := client.Check(deadline(t), &grpc_health_v1.HealthCheckRequest{Service: name})
				if err != nil {
					t.Fatalf("Check(%q): %v", name, err)
				}
				if got = resp.GetStatus(); (got == grpc_health_v1.HealthCheckResponse_SERVING) == serving {
					break
				}
			}
			if (got == grpc_health_v1.HealthCheckResponse_SERVING) != serving {
				t.Errorf("%q is %v", name, got)
			}
		}
	}
	want(map[string]bool{"": true, "coatcheck.v1.TokenizationService": true, "store": true, "keystore": true, "keys": true, "audit": true, "coatcheck.v1.KeyService": true})
	store.reads.Store(true)
	want(map[string]bool{"": false, "coatcheck.v1.TokenizationService": false, "store": false, "keystore": true})
	store.reads.Store(false)
	backend.away.Store(true)
	want(map[string]bool{"keystore": false, "": true, "keys": true, "store": true}) // for a while
	backend.away.Store(false)
	want(map[string]bool{"": true, "keystore": true})
	if _, err := client.Check(deadline(t), &grpc_health_v1.HealthCheckRequest{Service: "nope"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: %v", err)
	}
}

// A drain says NOT_SERVING first, lets calls in flight finish, and ends
// streams that would never end.
func TestDrain(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{Notice: 200 * time.Millisecond})
	watch, err := grpc_health_v1.NewHealthClient(in.As(t, "stranger")).Watch(deadline(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("Watch: %v, %v", resp, err)
	}
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	hold := make(chan struct{})
	store.hold.Store(&hold)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "in flight"}); err != nil {
				t.Errorf("a call in flight: %v", err)
			}
		})
	}
	waitInFlight(t, in, 8)
	in.Stop()
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("Watch during the drain: %v, %v", resp, err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable || reason(err) != "SHUTTING_DOWN" {
		t.Errorf("the end of Watch: %v", err)
	}
	close(hold)
	wg.Wait()
	if err := in.Wait(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// What doesn't finish within the bound is cut off.
func TestDrainIsBounded(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{Drain: 50 * time.Millisecond})
	hold := make(chan struct{})
	defer close(hold)
	store.hold.Store(&hold)
	failed := make(chan error, 1)
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	go func() {
		_, err := checkout.Tokenize(context.Background(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "stuck"})
		failed <- err
	}()
	waitInFlight(t, in, 1)
	in.Stop()
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("a call that was cut off: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- in.Wait() }()
	select {
	case err := <-served: // while the handler is still stuck
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Serve waits for a handler that is stuck")
	}
}

// However a stream meets a drain, it has one event with its caller.
func TestStreamsMeetADrain(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	conn := in.As(t, "admin")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				err := matrix[grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName].call(ctx, conn, "")
				cancel()
				if err != nil {
					return
				}
			}
		})
	}
	waitFor(t, "streams", func() bool {
		entries, err := in.Store.Entries(t.Context(), 0, 100)
		return err != nil || len(entries) > 50
	})
	log := events(t, in)
	wg.Wait()
	seen := make(map[any]bool)
	for _, event := range log {
		if event["action"] != "reflect" {
			continue
		}
		if id := event["request_id"]; seen[id] || event["caller"] != "spiffe://coatcheck.example/admin" {
			t.Fatalf("a stream left %v", event)
		} else {
			seen[id] = true
		}
	}
}

func TestCallsBeyondTheLimitAreRefused(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{InFlight: 2})
	hold := make(chan struct{})
	store.hold.Store(&hold)
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
				t.Error(err)
			}
		})
	}
	waitInFlight(t, in, 2)
	_, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
	if status.Code(err) != codes.ResourceExhausted || reason(err) != "OVERLOADED" {
		t.Errorf("the third call: %v (%s)", err, reason(err))
	}
	if resp, err := grpc_health_v1.NewHealthClient(in.As(t, "stranger")).Check(deadline(t), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health under load: %v, %v", resp, err)
	}
	store.hold.Store(nil)
	close(hold)
	wg.Wait()
	if _, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
		t.Errorf("after the load: %v", err)
	}
	waitFor(t, "refused calls to be logged", func() bool { return strings.Contains(in.Log.String(), "calls refused") })
}

// Streams that wait for their clients keep no call out.
func TestIdleStreamsKeepNoCallOut(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Limits: server.Limits{InFlight: 2}})
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	for range 2 {
		stream, err := checkout.StreamTokenize(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&coatcheckv1.StreamTokenizeRequest{Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := checkout.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
		t.Errorf("a call beside two idle streams: %v", err)
	}
	third, err := checkout.StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := third.Recv(); reason(err) != "OVERLOADED" {
		t.Errorf("a third stream: %v", err)
	}
}

// A client that gives up doesn't take its event with it.
func TestACallWhoseClientGivesUpIsRecorded(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{Commit: 5 * time.Second})
	token := tokenize(t, in, "card", "4111111111111111")
	hold := make(chan struct{})
	store.hold.Store(&hold)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	go func() {
		_, err := payments.Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
		failed <- err
	}()
	waitInFlight(t, in, 1)
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v", err)
	}
	store.hold.Store(nil)
	close(hold)
	log := events(t, in)
	if last := log[len(log)-1]; last["action"] != "detokenize" {
		t.Errorf("the last event is %v", last)
	}
}
