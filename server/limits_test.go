package server_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// testClock is a clock that tests move. It is safe for concurrent use.
type testClock struct{ now atomic.Int64 }

func newTestClock() *testClock {
	c := new(testClock)
	c.now.Store(time.Date(2026, 5, 4, 10, 30, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *testClock) Now() time.Time       { return time.Unix(0, c.now.Load()) }
func (c *testClock) pass(d time.Duration) { c.now.Add(int64(d)) }

// limitedPolicy has a rule by which everybody tokenizes, and more.
func limitedPolicy(more string) string {
	return `version: 1
rules:
  - name: takes-in
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [card, ssn, note]
` + more
}

// revealing is a rule that lets a caller see everything of a profile.
func revealing(name, caller, profile, limits string) string {
	return fmt.Sprintf(`  - name: %s
    callers: ["spiffe://coatcheck.example/%s"]
    actions: [detokenize]
    profiles: [%s]
    purposes: [support]
    reveal: FULL
    limits: {%s}
`, name, caller, profile, limits)
}

// detail returns a detail of an error.
func detail[D any](err error) (found D) {
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(D); ok {
			return d
		}
	}
	return found
}

// wantLimited fails unless an error says that the limit of a rule is reached.
func wantLimited(t *testing.T, err error, why, rule, limit string, retry time.Duration) {
	t.Helper()
	info := detail[*errdetails.ErrorInfo](err)
	if status.Code(err) != codes.ResourceExhausted || reason(err) != why || info.GetMetadata()["rule"] != rule || info.GetMetadata()["limit"] != limit {
		t.Fatalf("%v, %v; want %s of %s/%s", err, info, why, rule, limit)
	}
	if got := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); got != retry {
		t.Fatalf("%s: again in %v, want %v", limit, got, retry)
	}
}

// wantLeft compares what trailers say.
func wantLeft(t *testing.T, trailer metadata.MD, want ...string) {
	t.Helper()
	if got := trailer.Get("coatcheck-limits"); !slices.Equal(got, want) {
		t.Fatalf("the trailer says %q, want %q", got, want)
	}
}

// about returns tokens, each about the subject.
func about(t *testing.T, in *servertest.Instance, profile string, subjects ...string) (tokens []string) {
	t.Helper()
	req := new(coatcheckv1.BatchTokenizeRequest)
	for i, subject := range subjects {
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: profile, Value: fmt.Sprint("value ", i), Subject: subject})
	}
	resp, err := checkout(t, in).BatchTokenize(deadline(t), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.GetResults() {
		if r.GetError() != nil {
			t.Fatal(r)
		}
		tokens = append(tokens, r.GetResponse().GetToken())
	}
	return tokens
}

func batchOfTokens(tokens []string) *coatcheckv1.BatchDetokenizeRequest {
	req := new(coatcheckv1.BatchDetokenizeRequest)
	for _, token := range tokens {
		req.Items = append(req.Items, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
	}
	return req
}

// replacePolicy puts another policy to work.
func replacePolicy(t *testing.T, in *servertest.Instance, text string) {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(text), server.Vocabulary(servertest.Profiles()))
	if err != nil {
		t.Fatal(err)
	}
	in.Policy.Replace(p)
}

// revealStream reveals tokens in a stream, and counts those that were.
func revealStream(ctx context.Context, client coatcheckv1.TokenizationServiceClient, tokens []string, refused func(error)) (revealed int, err error) {
	stream, err := client.StreamDetokenize(ctx)
	if err != nil {
		return 0, err
	}
	for _, token := range tokens {
		if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}}); err != nil {
			return 0, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return revealed, nil
		}
		if err != nil {
			return revealed, err
		}
		if m.GetResult().GetError() != nil {
			refused(firstError(nil, m.GetResult()))
		} else {
			revealed++
		}
	}
}

// Which limits apply is up to the rules that allow and oblige; each is of one caller.
// The trailer says what is left, whether the call is refused or not.
func TestWhoseLimits(t *testing.T) {
	clock := newTestClock()
	rules := limitedPolicy(revealing("support-sees-notes", "support", "note", "values_per_hour: 3") +
		revealing("support-sees-ssn", "support", "ssn", "values_per_day: 2, items_per_minute: 60") +
		revealing("auditor-sees-notes", "auditor", "note", "values_per_hour: 3") + `  - name: all-together
    effect: oblige
    actions: [detokenize]
    limits: {values_per_day: 4}
`)
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: rules})
	note, ssn := tokenize(t, in, "note", "hello"), tokenize(t, in, "ssn", "536-22-8726")
	clients := map[string]coatcheckv1.TokenizationServiceClient{
		"support": coatcheckv1.NewTokenizationServiceClient(in.As(t, "support")), "auditor": auditor(t, in),
	}
	for i, row := range []struct {
		caller, token string
		limit         string // that it is refused for
		left          []string
	}{
		{"support", note, "", []string{`"support-sees-notes/values_per_hour";r=2;t=1800`, `"all-together/values_per_day";r=3;t=48600`}},
		{"support", note, "", []string{`"support-sees-notes/values_per_hour";r=1;t=1800`, `"all-together/values_per_day";r=2;t=48600`}},
		{"support", ssn, "", []string{`"support-sees-ssn/values_per_day";r=1;t=48600`, `"all-together/values_per_day";r=1;t=48600`, `"support-sees-ssn/items_per_minute";r=59;t=1`}},
		{"auditor", note, "", []string{`"auditor-sees-notes/values_per_hour";r=2;t=1800`, `"all-together/values_per_day";r=3;t=48600`}},
		{"support", note, "", []string{`"support-sees-notes/values_per_hour";r=0;t=1800`, `"all-together/values_per_day";r=0;t=48600`}},
		{"support", ssn, "all-together", []string{`"all-together/values_per_day";r=0;t=48600`, `"support-sees-ssn/values_per_day";r=1;t=48600`, `"support-sees-ssn/items_per_minute";r=58;t=2`}},
	} {
		var trailer metadata.MD
		_, err := clients[row.caller].Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: row.token, Purpose: "support"}, grpc.Trailer(&trailer))
		if row.limit == "" && err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if row.limit != "" {
			wantLimited(t, err, "BUDGET_SPENT", row.limit, "values_per_day", 13*time.Hour+30*time.Minute)
		}
		wantLeft(t, trailer, row.left...)
	}
	var trailer metadata.MD
	if _, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, trailer) // no limit applied

	// A policy with other numbers goes on with what has been spent.
	replacePolicy(t, in, strings.ReplaceAll(strings.Replace(rules, "values_per_day: 4", "values_per_day: 5", 1), "values_per_hour: 3", "values_per_hour: 4"))
	ask := &coatcheckv1.DetokenizeRequest{Token: note, Purpose: "support"}
	if _, err := clients["support"].Detokenize(deadline(t), ask, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, trailer, `"support-sees-notes/values_per_hour";r=0;t=1800`, `"all-together/values_per_day";r=0;t=48600`)
	replacePolicy(t, in, limitedPolicy(revealing("another", "support", "note", "values_per_hour: 1")))
	if _, err := clients["support"].Detokenize(deadline(t), ask); err != nil {
		t.Fatal(err)
	}
}

// A rate counts every item that is allowed, of whatever action: those that fit are
// served, the others refused one by one.
func TestRatesOfCalls(t *testing.T) {
	clock := newTestClock()
	rules := strings.Replace(limitedPolicy(revealing("support-sees", "support", "note", "items_per_minute: 6, items_per_second: 5")),
		"profiles: [card, ssn, note]\n", "profiles: [card, ssn, note]\n    limits: {items_per_second: 4}\n", 1) + `  - name: admin-looks
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [list-keys, get-policy]
    limits: {items_per_minute: 2}
`
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: rules})
	shop := checkout(t, in)
	req := new(coatcheckv1.BatchTokenizeRequest)
	for i := range 6 {
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: []string{"note", "nope"}[i%2], Value: "x"})
	}
	req.Items = append(req.Items, req.Items...)
	var trailer metadata.MD
	resp, err := shop.BatchTokenize(deadline(t), req, grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	var tokens []string
	for i, r := range resp.GetResults() {
		err := firstError(nil, r)
		switch {
		case i%2 == 1: // not allowed, so it doesn't count
			if reason(err) != "UNKNOWN_PROFILE" {
				t.Fatal(err)
			}
		case i < 8:
			tokens = append(tokens, r.GetResponse().GetToken())
		default:
			wantLimited(t, err, "RATE_LIMITED", "takes-in", "items_per_second", 250*time.Millisecond)
		}
	}
	wantLeft(t, trailer, `"takes-in/items_per_second";r=0;t=1`)
	_, err = shop.Tokenize(deadline(t), req.Items[0], grpc.Trailer(&trailer))
	wantLimited(t, err, "RATE_LIMITED", "takes-in", "items_per_second", 250*time.Millisecond)
	wantLeft(t, trailer, `"takes-in/items_per_second";r=0;t=1`)
	clock.pass(250 * time.Millisecond)
	if _, err = shop.Tokenize(deadline(t), req.Items[0]); err != nil {
		t.Fatal(err)
	}

	// Two streams, and what is refused in the middle of one.
	support := coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
	refused := 0
	refuse := func(err error) {
		refused++
		wantLimited(t, err, "RATE_LIMITED", "support-sees", "items_per_minute", 10*time.Second)
	}
	if n, err := revealStream(deadline(t), support, tokens[:3], refuse); n != 3 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	clock.pass(time.Second) // 0.1 of the minute's
	stream, err := support.StreamDetokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		ask := &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support"}
		if i == 2 {
			ask.Purpose = "charge" // denied
		}
		if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: ask}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if want := map[int]string{2: "PURPOSE_NOT_ALLOWED"}[i]; err != nil || reason(firstError(nil, m.GetResult())) != want {
			t.Fatalf("item %d: %v, %v", i, m, err)
		}
	}
	if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support"}}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	wantLimited(t, firstError(nil, m.GetResult()), "RATE_LIMITED", "support-sees", "items_per_minute", 9*time.Second)
	_ = stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatal(err)
	}
	wantLeft(t, stream.Trailer(), `"support-sees/items_per_minute";r=0;t=59`, `"support-sees/items_per_second";r=2;t=1`)

	// The same numbers in another policy go on, others begin anew.
	ask := &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support"}
	replacePolicy(t, in, rules+"# the same\n")
	_, err = support.Detokenize(deadline(t), ask)
	wantLimited(t, err, "RATE_LIMITED", "support-sees", "items_per_minute", 9*time.Second)
	replacePolicy(t, in, strings.Replace(rules, "items_per_minute: 6", "items_per_minute: 7", 1))
	if _, err := support.Detokenize(deadline(t), ask); err != nil {
		t.Fatal(err)
	}

	keys, policies := coatcheckv1.NewKeyServiceClient(in.As(t, "admin")), coatcheckv1.NewPolicyServiceClient(in.As(t, "admin"))
	if _, err := keys.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{}, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, trailer, `"admin-looks/items_per_minute";r=1;t=30`)
	if _, err := policies.GetPolicy(deadline(t), &coatcheckv1.GetPolicyRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = keys.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{})
	wantLimited(t, err, "RATE_LIMITED", "admin-looks", "items_per_minute", 30*time.Second)
}

// Where the token decides which rule allows, its limits apply, and no others; a token
// that is not there is none of the items.
func TestLimitsOfJudged(t *testing.T) {
	clock := newTestClock()
	rules := limitedPolicy(revealing("support-sees-eu", "support", "note", "items_per_minute: 3, values_per_hour: 2")+"    metadata: {region: eu}\n"+
		revealing("support-sees-us", "support", "note", "values_per_hour: 2")+"    metadata: {region: us}\n") + `  - name: support-looks
    callers: ["spiffe://coatcheck.example/support"]
    actions: [get-token]
    profiles: [note]
    metadata: {region: eu}
    limits: {items_per_minute: 1}
`
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: rules})
	tokens := make(map[string]string)
	for _, region := range []string{"eu", "us"} {
		made, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Metadata: map[string]string{"region": region}})
		if err != nil {
			t.Fatal(err)
		}
		tokens[region] = made.GetToken()
	}
	support := coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
	var trailer metadata.MD
	resp, err := support.BatchDetokenize(deadline(t), batchOfTokens([]string{tokens["us"], tokens["eu"], tokens["us"], tokens["eu"], tokens["us"], tokens["eu"], tokens["eu"]}), grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	results := resp.GetResults()
	for i := range 4 {
		if results[i].GetError() != nil {
			t.Errorf("item %d: %v", i, results[i])
		}
	}
	wantLimited(t, firstError(nil, results[4]), "BUDGET_SPENT", "support-sees-us", "values_per_hour", 30*time.Minute)
	wantLimited(t, firstError(nil, results[5]), "BUDGET_SPENT", "support-sees-eu", "values_per_hour", 30*time.Minute)
	wantLimited(t, firstError(nil, results[6]), "RATE_LIMITED", "support-sees-eu", "items_per_minute", 20*time.Second)
	wantLeft(t, trailer, `"support-sees-us/values_per_hour";r=0;t=1800`, `"support-sees-eu/values_per_hour";r=0;t=1800`, `"support-sees-eu/items_per_minute";r=0;t=60`)
	_, err = support.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: tokens["eu"], Purpose: "support"}, grpc.Trailer(&trailer))
	wantLimited(t, err, "RATE_LIMITED", "support-sees-eu", "items_per_minute", 20*time.Second)

	looks := coatcheckv1.NewTokenServiceClient(in.As(t, "support"))
	if _, err := looks.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: tokens["us"]}); reason(err) != "CONDITION_NOT_MET" {
		t.Fatal(err)
	}
	if _, err := looks.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: tokens["eu"]}, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, trailer, `"support-looks/items_per_minute";r=0;t=60`)
	_, err = looks.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: tokens["eu"]})
	wantLimited(t, err, "RATE_LIMITED", "support-looks", "items_per_minute", time.Minute)
}
