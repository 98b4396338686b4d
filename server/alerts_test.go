package server_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/burst"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// usual returns a Counter to whom the caller payments is known: one value a minute, for
// twenty minutes until now.
func usual() *burst.Counter {
	now := time.Now()
	c := burst.NewCounter(burst.DefaultRule, now.Add(-20*time.Minute))
	for m := 20; m > 0; m-- {
		c.Count("spiffe://coatcheck.example/payments", 1, now.Add(-time.Duration(m)*time.Minute))
	}
	return c
}

// dispatch runs a Dispatcher until the test ends.
func dispatch(t *testing.T, sinks ...alert.Sink) *alert.Dispatcher {
	t.Helper()
	d := alert.NewDispatcher(slog.New(slog.DiscardHandler), sinks...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

// reveals returns a batch that reveals a card so many times.
func reveals(t *testing.T, in *servertest.Instance, n int) *coatcheckv1.BatchDetokenizeRequest {
	t.Helper()
	made, err := checkout(t, in).Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	if err != nil {
		t.Fatal(err)
	}
	batch := new(coatcheckv1.BatchDetokenizeRequest)
	for range n {
		batch.Items = append(batch.Items, &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "charge"})
	}
	return batch
}

// alerted returns the events that carry alerts, with what they say.
func alerted(t *testing.T, in *servertest.Instance) (found []map[string]any) {
	t.Helper()
	for _, e := range events(t, in) {
		if _, ok := e["alerts"]; ok {
			found = append(found, e)
		}
	}
	return found
}

// A burst is told of once, with the event as it stands in the log.
func TestABurstIsAlerted(t *testing.T) {
	got := make(chan []byte, 10)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- body
	}))
	defer srv.Close()
	dir := t.TempDir()
	ca, secret := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "secret")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("a secret of 32 bytes, or a few more"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := servertest.Start(t, servertest.Options{
		Alerts: dispatch(t, alert.Webhook{URL: srv.URL, CAFile: ca, SecretFile: secret}),
		Bursts: usual(),
	})
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	batch := reveals(t, in, 60)
	for range 5 {
		if _, err := payments.BatchDetokenize(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	var sent struct {
		Log   string
		Seq   uint64
		Event json.RawMessage
	}
	select {
	case body := <-got:
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no alert is delivered")
	}
	entries, err := in.Store.Entries(t.Context(), sent.Seq-1, 1)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if string(entries[0].Body) != string(sent.Event) || sent.Log != in.Store.LogID().String() {
		t.Errorf("sent %s of log %s, the log has %s", sent.Event, sent.Log, entries[0].Body)
	}
	found := alerted(t, in)
	if len(found) != 1 || len(found[0]["alerts"].([]any)) != 1 || found[0]["alerts"].([]any)[0] != "BURST" || found[0]["action"] != "detokenize" {
		t.Errorf("events with alerts: %v", found)
	}
	if len(got) > 0 {
		t.Errorf("another alert: %s", <-got)
	}
}

func TestMaskedValuesAreNoBurst(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Bursts: usual()})
	batch := reveals(t, in, 500)
	for _, item := range batch.GetItems() {
		item.Reveal = coatcheckv1.Reveal_REVEAL_MASKED
	}
	if _, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).BatchDetokenize(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if found := alerted(t, in); found != nil {
		t.Errorf("events with alerts: %v", found)
	}
}

// The groups of a stream count like calls.
func TestABurstOfAStreamIsAlerted(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Bursts: usual()})
	batch := reveals(t, in, 300)
	stream, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).StreamDetokenize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range batch.GetItems() {
		if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: item}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if found := alerted(t, in); len(found) != 1 {
		t.Errorf("events with alerts: %v", found)
	}
}

// Values whose event can't be committed are not revealed, and neither count nor use the
// alert up.
func TestABurstThatFailsIsAlertedLater(t *testing.T) {
	store := new(faultyStore)
	in := servertest.Start(t, servertest.Options{
		Bursts: usual(), Alerts: dispatch(t),
		Wrap: func(s tokenizer.Store) tokenizer.Store { store.Store = s; return store },
	})
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	batch := reveals(t, in, 200)
	store.commits.Store(true)
	if _, err := payments.BatchDetokenize(t.Context(), batch); status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	store.commits.Store(false)
	batch.Items = batch.Items[:50]
	for range 3 {
		if _, err := payments.BatchDetokenize(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	found := alerted(t, in)
	if len(found) != 1 {
		t.Fatalf("events with alerts: %v", found)
	}
	if n := len(found[0]["items"].([]any)); n != 50 {
		t.Errorf("the alert is of an event with %d items", n)
	}
}

// A rule with notify is told of each time that it is at work, and only then.
func TestRulesNotify(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card]}
  - {name: out, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL}
  - {name: rare, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [refund], reveal: FULL, notify: true}
  - {name: keys, callers: ["spiffe://coatcheck.example/admin"], actions: [list-keys], notify: true}
`})
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	batch := reveals(t, in, 3)
	one := func(purpose string) *coatcheckv1.DetokenizeRequest {
		return &coatcheckv1.DetokenizeRequest{Token: batch.GetItems()[0].GetToken(), Purpose: purpose}
	}
	batch.Items[1] = one("refund")
	if _, err := payments.BatchDetokenize(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for purpose, want := range map[string]codes.Code{"charge": codes.OK, "refund": codes.OK, "support": codes.PermissionDenied} {
		if _, err := payments.Detokenize(t.Context(), one(purpose)); status.Code(err) != want {
			t.Errorf("%s: %v", purpose, err)
		}
	}
	if _, err := coatcheckv1.NewKeyServiceClient(in.As(t, "admin")).ListKeys(t.Context(), &coatcheckv1.ListKeysRequest{}); err != nil {
		t.Fatal(err)
	}
	found := alerted(t, in)
	if len(found) != 3 {
		t.Fatalf("events with alerts: %v", found)
	}
	for i, want := range []string{"/coatcheck.v1.TokenizationService/BatchDetokenize", "/coatcheck.v1.TokenizationService/Detokenize", "/coatcheck.v1.KeyService/ListKeys"} {
		if kinds := found[i]["alerts"].([]any); found[i]["method"] != want || len(kinds) != 1 || kinds[0] != "NOTIFY" {
			t.Errorf("event %d: %v", i, found[i])
		}
	}
	for i, item := range found[0]["items"].([]any) {
		if _, ok := item.(map[string]any)["alert"]; ok != (i == 1) {
			t.Errorf("item %d: %v", i, item)
		}
	}
}
