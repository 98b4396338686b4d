package server_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

func TestPolicyService(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewPolicyServiceClient(in.As(t, "admin"))
	got, err := admin.GetPolicy(t.Context(), &coatcheckv1.GetPolicyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetHash() != in.Policy.Hash() || len(got.GetRules()) != in.Policy.Current().Count() {
		t.Errorf("%d rules of %s", len(got.GetRules()), got.GetHash())
	}
	r := got.GetRules()[1]
	if r.GetName() != "payments-uses-cards" || r.GetLine() != 7 || !slices.Equal(r.GetCallers(), []string{"spiffe://coatcheck.example/payments"}) ||
		!slices.Equal(r.GetActions(), []string{"detokenize"}) || !slices.Equal(r.GetProfiles(), []string{"card"}) ||
		!slices.Equal(r.GetPurposes(), []string{"charge", "refund"}) || !slices.Equal(r.GetReveal(), []coatcheckv1.Reveal{coatcheckv1.Reveal_REVEAL_FULL}) {
		t.Errorf("a rule is %v", r)
	}

	ask := &coatcheckv1.ExplainRequest{Caller: "spiffe://coatcheck.example/payments", Action: "detokenize", Profile: "card", Purpose: "charge"}
	e, err := admin.Explain(t.Context(), ask)
	if err != nil || !e.GetAllowed() || e.GetRule() != "payments-uses-cards" || e.GetLine() != 7 || e.GetReveal() != coatcheckv1.Reveal_REVEAL_FULL ||
		e.GetReason() != "" || len(e.GetNear()) != 0 || e.GetHash() != in.Policy.Hash() {
		t.Errorf("%v, %v", e, err)
	}
	ask.Purpose = "marketing"
	e, err = admin.Explain(t.Context(), ask)
	if err != nil || e.GetAllowed() || e.GetReason() != "PURPOSE_NOT_ALLOWED" || len(e.GetNear()) != 1 || e.GetNear()[0].GetName() != "payments-uses-cards" ||
		!slices.Equal(e.GetNear()[0].GetLacks(), []string{"purpose"}) || e.GetNear()[0].GetHas() != "purpose is one of charge, refund" {
		t.Errorf("%v, %v", e, err)
	}
	for want, req := range map[string]*coatcheckv1.ExplainRequest{
		"INVALID_CALLER":  {Caller: "*", Action: "detokenize"},
		"UNKNOWN_ACTION":  {Caller: "cn:x", Action: "fly"},
		"UNKNOWN_PROFILE": {Caller: "cn:x", Action: "detokenize", Profile: "crad"},
		"INVALID_REVEAL":  {Caller: "cn:x", Action: "detokenize", Reveal: 99},
	} {
		_, err := admin.Explain(t.Context(), req)
		if status.Code(err) != codes.InvalidArgument || reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
	for _, event := range events(t, in) {
		if event["action"] == "explain-policy" && (event["profile"] != nil || event["purpose"] != nil) {
			t.Errorf("an event says what was asked about: %v", event)
		}
	}
}
