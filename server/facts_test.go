package server_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
)

const regional = servertest.Policy + `
  - name: support-of-a-region
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    metadata: {region: [eu, uk]}
  - name: masked-otherwise
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: MASKED
    when: '"tier" in token.metadata && token.metadata.tier == "basic"'
  - name: region-looks-after-its-own
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [get-token, revoke-token]
    profiles: [note]
    metadata: {region: eu}
  - name: checkout-takes-in-what-has-a-region
    effect: deny
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    when: '!("region" in token.metadata) && token.has_subject'
`

// What depends on labels is decided once the token is found: before that it is
// NOT_FOUND, and what is refused is no use of the token.
func TestConditionsOnTokens(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: regional})
	shop, payments := checkout(t, in), coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	tokens := coatcheckv1.NewTokenServiceClient(in.As(t, "payments"))
	made := func(labels map[string]string) string {
		t.Helper()
		req := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "secret", Metadata: labels, MaxUses: 1}
		resp, err := shop.Tokenize(deadline(t), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetToken()
	}
	ask := func(token string) (*coatcheckv1.DetokenizeResponse, error) {
		return payments.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
	}
	for _, region := range []string{"eu", "uk"} {
		if resp, err := ask(made(map[string]string{"region": region})); err != nil || resp.GetValue() != "secret" || resp.GetReveal() != coatcheckv1.Reveal_REVEAL_FULL {
			t.Errorf("%v, %v", resp, err)
		}
	}
	american := made(map[string]string{"region": "us"})
	if _, err := ask(american); status.Code(err) != codes.PermissionDenied || reason(err) != "CONDITION_NOT_MET" {
		t.Error(err)
	}
	if resp, err := auditor(t, in).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: american, Purpose: "support"}); err != nil || resp.GetValue() != "secret" {
		t.Errorf("what was refused was a use of the token: %v, %v", resp, err)
	}
	basic := made(map[string]string{"region": "us", "tier": "basic"})
	if resp, err := ask(basic); err != nil || resp.GetReveal() != coatcheckv1.Reveal_REVEAL_MASKED || resp.GetValue() == "secret" {
		t.Errorf("%v, %v", resp, err)
	}
	if _, err := payments.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: basic, Purpose: "support", Reveal: coatcheckv1.Reveal_REVEAL_FULL}); reason(err) != "CONDITION_NOT_MET" {
		t.Error(err)
	}
	gone := tokenize(t, in, "note", "x")
	if _, err := coatcheckv1.NewTokenServiceClient(in.As(t, "admin")).DeleteToken(deadline(t), &coatcheckv1.DeleteTokenRequest{Token: gone}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(gone); reason(err) != "TOKEN_NOT_FOUND" {
		t.Error(err)
	}
	batch, err := payments.BatchDetokenize(deadline(t), &coatcheckv1.BatchDetokenizeRequest{Items: []*coatcheckv1.DetokenizeRequest{
		{Token: made(map[string]string{"region": "eu"}), Purpose: "support"}, {Token: american, Purpose: "support"}, {Token: basic, Purpose: "support"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r := batch.GetResults(); r[0].GetResponse().GetValue() != "secret" || reason(firstError(nil, r[1])) != "CONDITION_NOT_MET" || r[2].GetResponse().GetReveal() != coatcheckv1.Reveal_REVEAL_MASKED {
		t.Errorf("%v", r)
	}
	european := made(map[string]string{"region": "eu"})
	if resp, err := tokens.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: european}); err != nil || resp.GetToken().GetMetadata()["region"] != "eu" {
		t.Errorf("%v, %v", resp, err)
	}
	if _, err := tokens.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: basic}); reason(err) != "CONDITION_NOT_MET" {
		t.Error(err)
	}
	if _, err := tokens.RevokeToken(deadline(t), &coatcheckv1.RevokeTokenRequest{Token: basic}); reason(err) != "CONDITION_NOT_MET" {
		t.Error(err)
	}
	if _, err := tokens.RevokeToken(deadline(t), &coatcheckv1.RevokeTokenRequest{Token: european}); err != nil {
		t.Error(err)
	}
	if _, err := shop.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Subject: "a"}); reason(err) != "DENIED_BY_RULE" {
		t.Error(err)
	}
	if _, err := shop.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Subject: "a", Metadata: map[string]string{"region": "eu"}}); err != nil {
		t.Error(err)
	}
	var rules []any
	for _, e := range events(t, in) {
		if e["caller"] == "spiffe://coatcheck.example/payments" && e["action"] != "detokenize" || e["rule"] == "checkout-takes-in-what-has-a-region" {
			rules = append(rules, e["decision"], e["rule"])
		}
	}
	if want := []any{"allow", "region-looks-after-its-own", "deny", nil, "deny", nil, "allow", "region-looks-after-its-own", "deny", "checkout-takes-in-what-has-a-region"}; !slices.Equal(rules, want) {
		t.Errorf("events say %v, want %v", rules, want)
	}
}

// consents are those of a test.
type consents map[string]policy.Consent

func (c consents) Consent(_ context.Context, namespace, subject, purpose string) (policy.Consent, error) {
	if subject == "unknown" {
		return policy.NoConsent, errors.New("the register is away")
	}
	return c[namespace+"/"+subject+"/"+purpose], nil
}

// Where consents are kept, nothing of somebody who has withdrawn theirs is revealed.
func TestConsent(t *testing.T) {
	register := consents{"default/given/support": policy.ConsentGiven, "default/withdrawn/support": policy.ConsentWithdrawn}
	in := servertest.Start(t, servertest.Options{Consents: register, Policy: servertest.Policy + `
  - name: only-with-consent
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    consent: require
  - name: by-law
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    consent: ignore
`})
	for subject, want := range map[string]map[string]string{
		"given":     {"auditor": "", "payments": "", "admin": ""},
		"withdrawn": {"auditor": "CONSENT_WITHDRAWN", "payments": "CONSENT_WITHDRAWN", "admin": ""},
		"other":     {"auditor": "", "payments": "CONSENT_MISSING", "admin": ""},
		"":          {"auditor": "", "payments": "CONSENT_MISSING", "admin": ""},
		"unknown":   {"auditor": "CONDITION_FAILED", "payments": "CONDITION_FAILED", "admin": ""},
	} {
		made, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "secret", Subject: subject})
		if err != nil {
			t.Fatal(err)
		}
		for caller, want := range want {
			resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, caller)).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "support"})
			if reason(err) != want || (want == "") != (resp.GetValue() == "secret") {
				t.Errorf("%q to %s: %v, %v, want %q", subject, caller, resp, err, want)
			}
		}
	}
}

// Each use of a honeytoken is in the audit log with an alert, denied or not, and only
// then.
func TestHoneytokenAlerts(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	trap, good := plant(t, in, "note"), tokenize(t, in, "note", "x")
	n := 0
	for name, use := range uses {
		if name == "ImportTokens" {
			continue
		}
		_ = use(deadline(t), in, t, trap, "note", good)
		n++
	}
	// payments may detokenize, but no notes.
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	for _, token := range []string{trap, good} {
		if _, err := payments.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}); reason(err) != "NO_RULE" {
			t.Error(err)
		}
	}
	n++
	found := 0
	for _, e := range events(t, in) {
		if alerts, _ := e["alerts"].([]any); slices.Contains(alerts, any("HONEYTOKEN")) {
			found++
		}
		if e["about_caller"] != nil {
			t.Errorf("somebody is suspended: %v", e)
		}
	}
	if found != n {
		t.Errorf("%d events with alerts of %d uses", found, n)
	}
}

// Where it is to be, whoever uses a honeytoken is kept out from then on, in the same
// commit.
func TestThievesAreSuspended(t *testing.T) {
	in := servertest.Start(t, servertest.Options{SuspendThieves: true})
	trap, good := plant(t, in, "note"), tokenize(t, in, "note", "x")
	if resp, err := auditor(t, in).BatchDetokenize(deadline(t), &coatcheckv1.BatchDetokenizeRequest{Items: []*coatcheckv1.DetokenizeRequest{
		{Token: good, Purpose: "support"}, {Token: trap, Purpose: "support"},
	}}); err != nil || reason(firstError(nil, resp.GetResults()[1])) != "TOKEN_NOT_FOUND" || reason(firstError(nil, resp.GetResults()[0])) != "CALLER_SUSPENDED" {
		t.Fatalf("%v, %v", resp, err)
	}
	again := in.Restart(t)
	if _, err := auditor(t, again).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: good, Purpose: "support"}); reason(err) != "CALLER_SUSPENDED" {
		t.Fatal(err)
	}
	resp, err := coatcheckv1.NewCallerServiceClient(again.As(t, "admin")).ListSuspensions(deadline(t), &coatcheckv1.ListSuspensionsRequest{})
	if err != nil || len(resp.GetSuspensions()) != 1 || resp.GetSuspensions()[0].GetReason() != "HONEYTOKEN" || resp.GetSuspensions()[0].GetSuspendedBy() != "" {
		t.Fatalf("%v, %v", resp, err)
	}
	for _, e := range events(t, again) {
		if e["request_id"] == resp.GetSuspensions()[0].GetRequestId() && (e["about_caller"] != "spiffe://coatcheck.example/auditor" || e["alerts"] == nil) {
			t.Errorf("the event is %v", e)
		}
	}
}

// Whoever may change labels can't have another rule apply by that.
func TestNewLabelsAreJudged(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: servertest.Policy + `
  - name: america-keeps-its-labels
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [update-token]
    profiles: [note]
    metadata: {region: us}
`})
	made, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "secret", Metadata: map[string]string{"region": "us"}})
	if err != nil {
		t.Fatal(err)
	}
	tokens := coatcheckv1.NewTokenServiceClient(in.As(t, "payments"))
	for want, labels := range map[string]map[string]string{
		"CONDITION_NOT_MET": {"region": "eu"},
		"":                  {"region": "us", "tier": "basic"},
	} {
		_, err := tokens.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{
			Token: made.GetToken(), Metadata: labels, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata"}},
		})
		if reason(err) != want {
			t.Errorf("%v: %v, want %q", labels, err, want)
		}
	}
}

// An import that finds a honeytoken in its way is a use of it.
func TestImportOfHoneytokenAlerts(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: shapedPolicy, Profiles: withShaped()})
	trap := plant(t, in, "shaped")
	_ = uses["ImportTokens"](deadline(t), in, t, trap, "shaped", "")
	found := 0
	for _, e := range events(t, in) {
		if alerts, _ := e["alerts"].([]any); slices.Contains(alerts, any("HONEYTOKEN")) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d events with alerts", found)
	}
}

// A list has no gaps where honeytokens are.
func TestListsDoNotTellOfHoneytokens(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	want := []string{tokenize(t, in, "note", "a")}
	plant(t, in, "note")
	plant(t, in, "note")
	want = append(want, tokenize(t, in, "note", "b"), tokenize(t, in, "note", "c"))
	plant(t, in, "note")
	client := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	var got []string
	for page := ""; ; {
		resp, err := client.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note", PageSize: 1, PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(resp.GetTokens()); n != 1 && resp.GetNextPageToken() != "" {
			t.Errorf("a page has %d tokens", n)
		}
		for _, token := range resp.GetTokens() {
			got = append(got, token.GetToken())
		}
		if page = resp.GetNextPageToken(); page == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

// However many uses of a honeytoken come at once, each is on record as one.
func TestEachUseOfManyAlerts(t *testing.T) {
	in := servertest.Start(t, servertest.Options{SuspendThieves: true})
	trap := plant(t, in, "note")
	client := auditor(t, in)
	const n = 16
	reasons := make(chan string, n)
	for range n {
		go func() {
			_, err := client.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: trap, Purpose: "support"})
			reasons <- reason(err)
		}()
	}
	used := 0
	for range n {
		switch <-reasons {
		case "TOKEN_NOT_FOUND":
			used++
		case "CALLER_SUSPENDED":
		default:
			t.Error("answered otherwise")
		}
	}
	alerts := 0
	for _, e := range events(t, in) {
		if e["alerts"] != nil {
			alerts++
		}
	}
	if used == 0 || alerts != used {
		t.Errorf("%d uses, %d alerts", used, alerts)
	}
}
