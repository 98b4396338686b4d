package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"google.golang.org/protobuf/types/known/timestamppb"

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
	ask.Purpose = "support"
	e, err = admin.Explain(t.Context(), ask)
	if err != nil || e.GetAllowed() || e.GetReason() != "PURPOSE_NOT_ALLOWED" || len(e.GetNear()) != 3 || e.GetNear()[0].GetName() != "payments-uses-cards" ||
		!slices.Equal(e.GetNear()[0].GetLacks(), []string{"purpose"}) || e.GetNear()[0].GetHas() != "purpose is one of charge, refund" {
		t.Errorf("%v, %v", e, err)
	}
	for want, req := range map[string]*coatcheckv1.ExplainRequest{
		"INVALID_CALLER":   {Caller: "*", Action: "detokenize"},
		"UNKNOWN_ACTION":   {Caller: "cn:x", Action: "fly"},
		"UNKNOWN_PROFILE":  {Caller: "cn:x", Action: "detokenize", Profile: "crad", Purpose: "charge"},
		"PURPOSE_REQUIRED": {Caller: "cn:x", Action: "detokenize", Profile: "card"},
		"UNKNOWN_PURPOSE":  {Caller: "cn:x", Action: "detokenize", Profile: "card", Purpose: "chargee"},
		"INVALID_REVEAL":   {Caller: "cn:x", Action: "detokenize", Reveal: 99},
		"INVALID_ADDRESS":  {Caller: "cn:x", Action: "detokenize", Purpose: "charge", Address: "10.0.0.1:80"},
		"INVALID_TIME":     {Caller: "cn:x", Action: "detokenize", Purpose: "charge", Time: &timestamppb.Timestamp{Nanos: -1}},
		"INVALID_CONSENT":  {Caller: "cn:x", Action: "detokenize", Purpose: "charge", Token: &coatcheckv1.AssumedToken{Consent: 99}},
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

// TestPolicyServiceLanguage asks about rules that say all that a rule can.
func TestPolicyServiceLanguage(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: `version: 1
groups:
  payments: ["spiffe://coatcheck.example/payments", "spiffe://coatcheck.example/*/payments"]
rules:
  - name: out # for Alice
    description: Bob needs it
    callers: ["group:payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge]
    reveal: FULL
    networks: [10.0.0.0/8]
    metadata: {region: eu}
    consent: require
    limits: {values_per_day: 5}
    approval: {approvers: ["spiffe://coatcheck.example/admin"], for: 15m, max_items: 7}
  - name: not-at-night
    effect: deny
    callers: ["group:payments"]
    when: time.now.getHours() < 6
  - name: tickets
    effect: oblige
    actions: [detokenize]
    reason: "INC-[0-9]+"
    at_most: [MASKED, LAST4]
    notify: true
  - name: admin
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [get-policy, explain-policy]
`})
	admin := coatcheckv1.NewPolicyServiceClient(in.As(t, "admin"))
	got, err := admin.GetPolicy(t.Context(), &coatcheckv1.GetPolicyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if g := got.GetGroups(); len(g) != 1 || g[0].GetName() != "payments" || len(g[0].GetCallers()) != 2 {
		t.Errorf("groups: %v", g)
	}
	if text := got.GetText(); strings.Contains(text, "Alice") || strings.Contains(text, "Bob") || !strings.Contains(text, "not-at-night") {
		t.Errorf("the text is\n%s", text)
	}
	out, deny, oblige := got.GetRules()[0], got.GetRules()[1], got.GetRules()[2]
	if out.GetEffect() != "allow" || !slices.Equal(out.GetNamespaces(), []string{"default"}) || out.GetLimits().GetValuesPerDay() != 5 ||
		out.GetApproval().GetMaxItems() != 7 || out.GetApproval().GetDuration().AsDuration() != 15*time.Minute || len(out.GetApproval().GetApprovers()) != 1 ||
		!slices.Contains(out.GetConditions(), "network is 10.0.0.0/8") || !slices.Contains(out.GetConditions(), "metadata has region: eu") {
		t.Errorf("the rule that allows is %v", out)
	}
	if deny.GetEffect() != "deny" || deny.GetLimits() != nil || deny.GetApproval() != nil || !slices.Equal(deny.GetConditions(), []string{"when time.now.getHours() < 6"}) {
		t.Errorf("the rule that denies is %v", deny)
	}
	if oblige.GetEffect() != "oblige" || !oblige.GetNotify() || len(oblige.GetAtMost()) != 2 {
		t.Errorf("the rule that obliges is %v", oblige)
	}

	noon, night := timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)), timestamppb.New(time.Date(2026, 5, 1, 3, 0, 0, 0, time.UTC))
	ask := &coatcheckv1.ExplainRequest{
		Caller: "spiffe://coatcheck.example/eu/payments", Action: "detokenize", Profile: "card", Purpose: "charge", Reveal: coatcheckv1.Reveal_REVEAL_LAST4,
		StatedReason: "INC-7", Address: "10.1.2.3", Time: noon,
	}
	explain := func() *coatcheckv1.ExplainResponse {
		t.Helper()
		e, err := admin.Explain(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := explain(); !e.GetPending() || !e.GetAllowed() || e.GetRule() != "" {
		t.Errorf("of a token that isn't known: %v", e)
	}
	ask.Token = &coatcheckv1.AssumedToken{Metadata: map[string]string{"region": "eu"}, HasSubject: true, Consent: coatcheckv1.AssumedConsent_ASSUMED_CONSENT_GIVEN}
	if e := explain(); e.GetPending() || e.GetRule() != "out" || e.GetReveal() != coatcheckv1.Reveal_REVEAL_LAST4 || len(e.GetDemands()) != 3 {
		t.Errorf("of one that is: %v", e)
	}
	ask.Token.Consent = coatcheckv1.AssumedConsent_ASSUMED_CONSENT_WITHDRAWN
	if e := explain(); e.GetReason() != "CONSENT_WITHDRAWN" {
		t.Errorf("without consent: %v", e)
	}
	ask.Time = night
	if e := explain(); e.GetReason() != "DENIED_BY_RULE" || e.GetRule() != "not-at-night" || e.GetLine() != 17 {
		t.Errorf("at night: %v", e)
	}
	ask.Time, ask.StatedReason = noon, ""
	if e := explain(); e.GetReason() != "REASON_REQUIRED" || e.GetRule() != "tickets" {
		t.Errorf("without a reason: %v", e)
	}
}
