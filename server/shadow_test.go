package server_test

import (
	"fmt"
	"maps"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// shadowOf returns a shadow policy of these rules.
func shadowOf(t *testing.T, rules string) *server.Shadow {
	t.Helper()
	p, err := policy.Parse("shadow.yaml", []byte("version: 1\nrules:\n"+rules), server.Vocabulary(servertest.Profiles()))
	if err != nil {
		t.Fatal(err)
	}
	s := new(server.Shadow)
	s.Replace(p)
	return s
}

// TestShadow has a shadow policy beside the one at work: calls are answered as without
// it, and what it would have said otherwise is counted and recorded.
func TestShadow(t *testing.T) {
	s := shadowOf(t, `
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card]}
  - {name: marked, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [note], metadata: {from: web}}
  - {name: out, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: LAST4}
  - name: four-eyes
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [refund]
    reveal: FULL
    approval: {approvers: ["spiffe://coatcheck.example/admin"], for: 1h, max_items: 10}
  - {name: eu, callers: ["spiffe://coatcheck.example/auditor"], actions: [detokenize], profiles: [card], purposes: [support], reveal: FULL, metadata: {region: eu}}
  - {name: more, callers: ["spiffe://coatcheck.example/stranger"], actions: [tokenize], profiles: [card]}
  - {name: keys, callers: ["spiffe://coatcheck.example/support"], actions: [list-keys]}
  - {name: admin, callers: ["spiffe://coatcheck.example/admin"], actions: [export-tokens], profiles: [note]}
`)
	in := servertest.Start(t, servertest.Options{Shadow: s})
	ctx := t.Context()
	in1 := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	card := tokenize(t, in, "card", "4111111111111111") // the same
	answers := func(what string, err error, want codes.Code) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := in1.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}) // without the label
	answers("a note", err, codes.OK)
	_, err = in1.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Metadata: map[string]string{"from": "web"}}) // with it: pending all the same
	answers("a note with a label", err, codes.OK)
	batch, err := in1.BatchTokenize(ctx, &coatcheckv1.BatchTokenizeRequest{Items: []*coatcheckv1.TokenizeRequest{
		{Profile: "card", Value: "4111111111111111"}, {Profile: "ssn", Value: "123-45-6789"},
	}})
	answers("a batch", err, codes.OK)
	for _, item := range batch.GetResults() {
		if item.GetError() != nil {
			t.Errorf("an item: %v", item.GetError())
		}
	}
	reveal := func(caller, purpose string) (*coatcheckv1.DetokenizeResponse, error) {
		return coatcheckv1.NewTokenizationServiceClient(in.As(t, caller)).Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: card, Purpose: purpose})
	}
	for caller, purpose := range map[string]string{"payments": "charge", "auditor": "support"} {
		if got, err := reveal(caller, purpose); err != nil || got.GetValue() != "4111111111111111" {
			t.Errorf("%s: %v, %v", caller, got, err)
		}
	}
	_, err = reveal("payments", "refund")
	answers("a refund", err, codes.OK)
	_, err = reveal("payments", "support") // denied by both
	answers("support", err, codes.PermissionDenied)
	_, err = coatcheckv1.NewTokenizationServiceClient(in.As(t, "stranger")).Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	answers("a stranger", err, codes.PermissionDenied)
	_, err = coatcheckv1.NewKeyServiceClient(in.As(t, "support")).ListKeys(ctx, &coatcheckv1.ListKeysRequest{})
	answers("keys to support", err, codes.PermissionDenied)
	_, err = coatcheckv1.NewKeyServiceClient(in.As(t, "admin")).ListKeys(ctx, &coatcheckv1.ListKeysRequest{})
	answers("keys to admin", err, codes.OK)

	want := map[server.Difference]uint64{
		{Action: "tokenize", Live: "allow", Shadow: "pending"}:    2,
		{Action: "tokenize", Live: "allow", Shadow: "NO_RULE"}:    1,
		{Action: "tokenize", Live: "NO_RULE", Shadow: "pending"}:  1,
		{Action: "detokenize", Live: "allow", Shadow: "allow"}:    1,
		{Action: "detokenize", Live: "allow", Shadow: "approval"}: 1,
		{Action: "detokenize", Live: "allow", Shadow: "pending"}:  1,
		{Action: "list-keys", Live: "NO_RULE", Shadow: "allow"}:   1,
		{Action: "list-keys", Live: "allow", Shadow: "NO_RULE"}:   1,
	}
	if got := s.Differences(); !maps.Equal(got, want) {
		t.Errorf("differences: %v", got)
	}
	notes := make(map[string]int)
	for _, e := range events(t, in) {
		if note := e["shadow"]; note != nil {
			notes[fmt.Sprint(e["action"], ": ", note)]++
		}
		items, _ := e["items"].([]any)
		for _, i := range items {
			if note := i.(map[string]any)["shadow"]; note != nil {
				notes[fmt.Sprint(e["action"], " item: ", note)]++
			}
		}
	}
	if want := map[string]int{
		"tokenize: pending": 3, "tokenize item: deny NO_RULE": 1,
		"detokenize: allow out LAST4": 1, "detokenize: allow four-eyes FULL after approval": 1, "detokenize: pending": 1,
		"list-keys: allow keys": 1, "list-keys: deny NO_RULE": 1,
	}; !maps.Equal(notes, want) {
		t.Errorf("events say %v", notes)
	}
}

// TestShadowOfTokens has a shadow policy that sees the labels of tokens, as the policy at
// work does.
func TestShadowOfTokens(t *testing.T) {
	s := new(server.Shadow)
	in := servertest.Start(t, servertest.Options{Shadow: s, Policy: `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card]}
  - {name: reveal, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, metadata: {region: eu}}
  - {name: get, callers: ["spiffe://coatcheck.example/admin"], actions: [get-token], profiles: [card], metadata: {region: eu}}
`})
	ctx := t.Context()
	made, err := checkout(t, in).Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111", Metadata: map[string]string{"region": "eu"}})
	if err != nil || len(s.Differences()) != 0 { // while there is none
		t.Fatal(err, s.Differences())
	}
	s.Replace(shadowOf(t, `
  - {name: reveal, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, metadata: {region: us}}
  - {name: get, callers: ["spiffe://coatcheck.example/admin"], actions: [get-token], profiles: [card], metadata: {region: us}}
`).Current())
	if _, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "charge"}); err != nil {
		t.Error(err)
	}
	if _, err := coatcheckv1.NewTokenServiceClient(in.As(t, "admin")).GetToken(ctx, &coatcheckv1.GetTokenRequest{Token: made.GetToken()}); err != nil {
		t.Error(err)
	}
	if got, want := s.Differences(), (map[server.Difference]uint64{
		{Action: "detokenize", Live: "allow", Shadow: "CONDITION_NOT_MET"}: 1,
		{Action: "get-token", Live: "allow", Shadow: "CONDITION_NOT_MET"}:  1,
	}); !maps.Equal(got, want) {
		t.Errorf("differences: %v", got)
	}
	told := 0
	for _, e := range events(t, in) {
		if e["shadow"] == "deny CONDITION_NOT_MET" {
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d events tell of it", told)
	}
}

// TestShadowFails has a shadow policy that panics whenever it is asked.
func TestShadowFails(t *testing.T) {
	s := new(server.Shadow)
	s.Replace(new(policy.Policy))
	in := servertest.Start(t, servertest.Options{Shadow: s})
	_ = tokenize(t, in, "card", "4111111111111111")
	if got := s.Differences(); got[server.Difference{Action: "tokenize", Live: "allow", Shadow: "failed"}] != 1 {
		t.Errorf("differences: %v", got)
	}
	stranger := coatcheckv1.NewTokenizationServiceClient(in.As(t, "stranger"))
	if _, err := stranger.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}); reason(err) != "NO_RULE" {
		t.Error(err)
	}
}
