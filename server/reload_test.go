package server_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// While the policy is replaced again and again, each call is judged by one: by its
// rules, and under its hash.
func TestNoCallIsJudgedByTwoPolicies(t *testing.T) {
	const reloads = 10_000
	file := func(rule, purpose string) []byte {
		return fmt.Appendf(nil, `version: 1
rules:
  - {name: %s-in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card]}
  - {name: %s-out, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card], purposes: [%s], reveal: FULL}
`, rule, rule, purpose)
	}
	var policies [2]*policy.Policy
	rules := make(map[string]string) // by hash
	for i, text := range [][]byte{file("even", "charge"), file("odd", "refund")} {
		p, err := policy.Parse("policy.yaml", text, server.Vocabulary(servertest.Profiles()))
		if err != nil {
			t.Fatal(err)
		}
		policies[i] = p
		rules[p.Hash()] = []string{"even", "odd"}[i]
	}
	in := servertest.Start(t, servertest.Options{Policy: string(file("even", "charge"))})
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	made, err := checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			batch := &coatcheckv1.BatchDetokenizeRequest{}
			for range 20 {
				for _, purpose := range []string{"charge", "refund"} {
					batch.Items = append(batch.Items, &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: purpose})
				}
			}
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := payments.BatchDetokenize(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				allowed := 0
				for i, r := range resp.GetResults() {
					if r.GetResponse() != nil {
						allowed++
					} else if codes.Code(r.GetError().GetCode()) != codes.PermissionDenied {
						t.Errorf("item %d: %v", i, r)
					}
				}
				if allowed != 20 { // those of the one purpose, or those of the other
					t.Errorf("%d of 40 items are allowed", allowed)
				}
				if _, err := payments.Detokenize(t.Context(), batch.Items[0]); err != nil && status.Code(err) != codes.PermissionDenied {
					t.Error(err)
				}
			}
		})
	}
	for i := range reloads {
		in.Policy.Replace(policies[i%2])
		time.Sleep(20 * time.Microsecond)
	}
	close(done)
	wg.Wait()
	judged := make(map[string]int)
	for _, e := range events(t, in) {
		hash, _ := e["policy"].(string)
		told := []any{e["rule"]}
		items, _ := e["items"].([]any)
		for _, item := range items {
			told = append(told, item.(map[string]any)["rule"])
		}
		for _, rule := range told {
			if rule, ok := rule.(string); ok && rule != "" {
				judged[rules[hash]]++
				if rule != rules[hash]+"-in" && rule != rules[hash]+"-out" {
					t.Errorf("event of the policy %q names the rule %q", rules[hash], rule)
				}
			}
		}
	}
	if judged["even"] == 0 || judged["odd"] == 0 {
		t.Errorf("judged by %v: there was no reload under load", judged)
	}
}
