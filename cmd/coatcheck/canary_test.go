package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// The canaries: values that stand nowhere but where these tests put them.
const (
	canaryCard   = "4929813547860136"
	canarySpaced = "4929 8135 4786 0136"
	canarySSN    = "536228745"
	canaryDashed = "536-22-8745"
	canaryNote   = "canary-note-7b1f0c: Grüße an Frau Muster"
	canaryLabel  = "canary-label-93ac"
	canaryBroken = "4929813547860132" // fails the Luhn check

	canaryMail    = "canary.person@mail.example"
	canarySubject = "canary-subject-51d0"
)

// TestCanary sends canaries through every RPC and every error path, kills the
// process, and looks for them in every file and everything that was printed.
func TestCanary(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	addRules(t, dir, canaryRules)
	rounds := 3
	if soak() {
		rounds = 50
	}
	var said strings.Builder // what clients were told when they were refused
	for round := range rounds {
		p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
		sendCanaries(t, p, dir, &said)
		sendMoreCanaries(t, p, dir, &said)
		requestCanaries(t, p, dir, &said)
		askCanaries(t, p, dir, &said)
		changeAllKeys(t, p, dir, &said)
		if round%2 == 0 {
			p.kill()
		} else if code := p.terminate(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		said.WriteString(p.stdout.String() + p.stderr.String())
	}
	find(t, "what was printed and told", []byte(said.String()))
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files++
		find(t, path, content)
		return err
	})
	if err != nil || files < 18 {
		t.Errorf("%d files searched, %v", files, err)
	}
	// The search itself must be able to find something.
	if found := search([]byte("x" + hex.EncodeToString([]byte(canaryCard)))); len(found) == 0 {
		t.Error("the search finds nothing")
	}
}

// sendCanaries puts canaries into every field of every RPC.
func sendCanaries(t *testing.T, p *process, dir string, said *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, caller := range []string{"checkout", "payments", "support", "stranger"} {
		client := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, caller))
		var tokens []string
		for _, profile := range []string{"card", "ssn", "note", canaryCard, ""} {
			for _, value := range []string{canaryCard, canarySpaced, canarySSN, canaryDashed, canaryNote, canaryBroken} {
				for _, labels := range []map[string]string{nil, {"order": canaryLabel}, {canaryCard: canaryNote}, {"big": strings.Repeat(canaryNote, 2000)}} {
					resp, err := client.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: profile, Value: value, Metadata: labels})
					note(said, err)
					if err == nil {
						tokens = append(tokens, resp.GetToken())
					}
				}
			}
		}
		if caller == "checkout" && len(tokens) < 20 {
			t.Errorf("only %d canaries were taken in", len(tokens))
		}
		reveal(t, p, dir, tokens)
		for _, token := range append(slices.Clip(tokens), canaryCard, "cc_card_"+canaryCard) {
			for _, purpose := range []string{"support", "charge", canaryCard, "canary-note", ""} {
				for _, expected := range []string{"", "card", canaryCard} {
					_, err := client.Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: purpose, Profile: expected})
					note(said, err)
				}
			}
		}
	}
}

// sendMoreCanaries puts canaries into what is about tokens, into batches and into
// streams.
func sendMoreCanaries(t *testing.T, p *process, dir string, said *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := p.callers(t, dir)
	batch := new(coatcheckv1.BatchTokenizeRequest)
	for _, profile := range []string{"card", "pan", "cvv", "email", "note", canaryCard} {
		for _, value := range []string{canaryCard, canaryMail, canaryNote, canaryBroken} {
			for _, subject := range []string{"", canarySubject, strings.Repeat(canaryNote, 50)} {
				batch.Items = append(batch.Items, &coatcheckv1.TokenizeRequest{
					Profile: profile, Value: value, Subject: subject, IdempotencyKey: canaryLabel + profile + value + subject, Metadata: map[string]string{"order": canaryLabel},
				})
			}
		}
	}
	resp, err := c.checkout.BatchTokenize(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.checkout.StreamTokenize(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range batch.GetItems() {
		if err := stream.Send(&coatcheckv1.StreamTokenizeRequest{CorrelationId: canaryLabel, Request: item}); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.CloseSend()
	for range batch.GetItems() {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		note(said, status.FromProto(answer.GetResult().GetError()).Err())
	}
	taken := 0
	for i, r := range resp.GetResults() {
		note(said, status.FromProto(r.GetError()).Err())
		token, profile := r.GetResponse().GetToken(), batch.GetItems()[i].GetProfile()
		if token == "" {
			token = batch.GetItems()[i].GetValue()
		} else {
			taken++
		}
		_, err := c.payments.Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Profile: profile, Purpose: "support", RedemptionId: canaryLabel})
		note(said, err)
		_, err = c.tokens.GetToken(ctx, &coatcheckv1.GetTokenRequest{Token: token, Profile: profile})
		note(said, err)
		_, err = c.tokens.LookupToken(ctx, &coatcheckv1.LookupTokenRequest{Profile: profile, Value: batch.GetItems()[i].GetValue()})
		note(said, err)
		_, err = c.tokens.ListTokens(ctx, &coatcheckv1.ListTokensRequest{Profile: profile, Subject: canarySubject, PageToken: []string{"", canaryCard}[i%2]})
		note(said, err)
		_, err = c.tokens.UpdateToken(ctx, &coatcheckv1.UpdateTokenRequest{
			Token: token, Profile: profile, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata", canaryCard}[:1+i%2]}, Metadata: map[string]string{"order": canaryLabel + "2"},
		})
		note(said, err)
		if i%5 == 0 {
			_, err = c.tokens.DeleteToken(ctx, &coatcheckv1.DeleteTokenRequest{Token: token, Profile: profile})
			note(said, err)
		}
	}
	if taken < 10 {
		t.Errorf("only %d canaries were taken in", taken)
	}
}

// canaryRules are rules that need an approval.
const canaryRules = `
  - name: after-approval
    callers: ["spiffe://coatcheck.example/privacy"]
    actions: [detokenize]
    profiles: [card, note]
    purposes: [support]
    reveal: FULL
    approval: {approvers: ["spiffe://coatcheck.example/admin"], for: 1h, max_items: 10}
  - name: export-after-approval
    callers: ["spiffe://coatcheck.example/privacy"]
    actions: [export-tokens]
    profiles: [note]
    approval: {approvers: ["spiffe://coatcheck.example/admin"], for: 1h, max_items: 10}
  - name: approvals
    callers: ["spiffe://coatcheck.example/privacy", "spiffe://coatcheck.example/admin"]
    actions: [request-approval, list-approvals, decide-approval]
  - name: canaries-of-admins
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [explain-policy, suspend-caller, restore-caller, list-suspensions, query-audit, report-exposure, report-exposure-subjects]
  - name: canaries-planted
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [create-honeytoken, list-honeytokens, delete-honeytoken, import-tokens]
    profiles: [card, note]
`

// addRules appends rules to the policy of setPolicy.
func addRules(t *testing.T, dir, rules string) {
	t.Helper()
	path := filepath.Join(dir, "policy.yaml")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, rules...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// requestCanaries puts canaries into what names something in requests for approval, and
// where an id or a page is named. Reasons are recorded as they are stated.
func requestCanaries(t *testing.T, p *process, dir string, said *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	asks := coatcheckv1.NewApprovalServiceClient(p.dial(t, dir, "privacy"))
	decides := coatcheckv1.NewApprovalServiceClient(p.dial(t, dir, "admin"))
	filed := 0
	for _, action := range []string{"", "detokenize", "export-tokens", canaryCard, "tokenize"} {
		for _, profile := range []string{"", "note", canaryCard, "canary-note"} {
			for _, purpose := range []string{"", "support", "canary-note", canaryCard, "\n" + canaryCard, "p" + canaryCard, strings.Repeat(canaryNote, 3000)} {
				for _, rule := range []string{"", "after-approval", "export-after-approval", canaryCard, "canary-note"} {
					resp, err := asks.RequestApproval(ctx, &coatcheckv1.RequestApprovalRequest{Action: action, Profile: profile, Purpose: purpose, Rule: rule})
					if note(said, err); err != nil {
						continue
					}
					filed++
					_, err = decides.Approve(ctx, &coatcheckv1.ApproveRequest{Id: resp.GetApproval().GetId()})
					note(said, err)
				}
			}
		}
	}
	if filed < 5 {
		t.Errorf("only %d requests were filed", filed)
	}
	for _, id := range []string{canaryCard, canaryCard + canaryCard, "canary"} {
		_, err := asks.GetApproval(ctx, &coatcheckv1.GetApprovalRequest{Id: id})
		note(said, err)
		_, err = asks.ListApprovals(ctx, &coatcheckv1.ListApprovalsRequest{PageToken: id})
		note(said, err)
		_, err = decides.Approve(ctx, &coatcheckv1.ApproveRequest{Id: id})
		note(said, err)
		_, err = decides.Deny(ctx, &coatcheckv1.DenyRequest{Id: id})
		note(said, err)
		_, err = asks.WithdrawApproval(ctx, &coatcheckv1.WithdrawApprovalRequest{Id: id})
		note(said, err)
		_, err = decides.RevokeApproval(ctx, &coatcheckv1.RevokeApprovalRequest{Id: id})
		note(said, err)
	}
}

// askCanaries puts canaries into what operators and privacy officers ask.
func askCanaries(t *testing.T, p *process, dir string, said *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn := p.dial(t, dir, "admin")
	rules, callers := coatcheckv1.NewPolicyServiceClient(conn), coatcheckv1.NewCallerServiceClient(conn)
	traps, tokens := coatcheckv1.NewHoneytokenServiceClient(conn), coatcheckv1.NewTokenServiceClient(conn)
	log, privacy := coatcheckv1.NewAuditServiceClient(conn), coatcheckv1.NewPrivacyServiceClient(conn)
	planted, err := traps.CreateHoneytoken(ctx, &coatcheckv1.CreateHoneytokenRequest{Profile: "note", Note: canaryNote})
	if note(said, err); err != nil {
		t.Error(err) // the note is kept, sealed
	}
	_, err = traps.DeleteHoneytoken(ctx, &coatcheckv1.DeleteHoneytokenRequest{Token: planted.GetHoneytoken().GetToken()})
	note(said, err)
	for _, name := range []string{canaryCard, canarySpaced, canaryNote, canaryMail, canarySubject} {
		_, err := rules.Explain(ctx, &coatcheckv1.ExplainRequest{Caller: name, Action: name, Profile: name, Purpose: name})
		note(said, err)
		_, err = rules.Explain(ctx, &coatcheckv1.ExplainRequest{Caller: "dns:a.example", Action: "detokenize", Profile: "card", Purpose: name, StatedReason: name})
		note(said, err)
		_, err = callers.SuspendCaller(ctx, &coatcheckv1.SuspendCallerRequest{Caller: name})
		note(said, err)
		_, err = callers.RestoreCaller(ctx, &coatcheckv1.RestoreCallerRequest{Caller: name})
		note(said, err)
		_, err = callers.ListSuspensions(ctx, &coatcheckv1.ListSuspensionsRequest{PageToken: name})
		note(said, err)
		_, err = traps.CreateHoneytoken(ctx, &coatcheckv1.CreateHoneytokenRequest{Profile: name, Note: name})
		note(said, err)
		_, err = traps.ListHoneytokens(ctx, &coatcheckv1.ListHoneytokensRequest{Profile: "card", PageToken: name})
		note(said, err)
		_, err = traps.DeleteHoneytoken(ctx, &coatcheckv1.DeleteHoneytokenRequest{Token: name, Profile: "card"})
		note(said, err)
		_, err = tokens.ImportTokens(ctx, &coatcheckv1.ImportTokensRequest{Items: []*coatcheckv1.ImportedToken{
			{Token: name, Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: name}},
		}})
		note(said, err)
		_, err = log.QueryEvents(ctx, &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Subject: name}, PageToken: name})
		note(said, err)
		_, err = log.QueryEvents(ctx, &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Profile: name, Purpose: name, Caller: name}})
		note(said, err)
		report, err := privacy.ReportExposure(ctx, &coatcheckv1.ReportExposureRequest{
			Since: timestamppb.New(time.Now().Add(-time.Hour)), Subject: name, Profile: []string{"", name}[len(name)%2],
		})
		for err == nil {
			_, err = report.Recv()
		}
		if !errors.Is(err, io.EOF) {
			note(said, err)
		}
	}
}

// changeAllKeys has records sealed anew, so that canaries pass through that too.
func changeAllKeys(t *testing.T, p *process, dir string, said *strings.Builder) {
	t.Helper()
	for _, args := range [][]string{
		{"rotate", "data"}, {"rotate", "token"}, {"rotate", "audit"}, {"rotate", "index"}, {"rotate", "subject"}, {"rewrap", "--rate", "1000000"}, {"list"}, {"retire", "data", "1", "--yes"}, {"retire", "data", canaryCard},
	} {
		stdout, stderr, _ := keysCommand(p, dir, args...)
		if !slices.Contains(args, canaryCard) { // what is typed is repeated
			said.WriteString(stdout + stderr)
		}
	}
}

// reveal has payments reveal the tokens, so that plaintext passes through.
func reveal(t *testing.T, p *process, dir string, tokens []string) {
	t.Helper()
	client := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments"))
	for _, token := range tokens {
		resp, err := client.Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
		if err != nil || len(search([]byte(resp.GetValue()))) == 0 {
			t.Errorf("a canary came back as %q, %v", resp.GetValue(), err)
		}
	}
}

// note keeps all that a refusal says, details included.
func note(said *strings.Builder, err error) {
	if err == nil {
		return
	}
	st := status.Convert(err)
	fmt.Fprintln(said, st.Message())
	for _, d := range st.Proto().GetDetails() {
		text, _ := protojson.Marshal(d)
		fmt.Fprintf(said, "%s %x %s\n", d.GetTypeUrl(), d.GetValue(), text)
		said.Write(d.GetValue())
	}
}

// find reports canaries in content.
func find(t *testing.T, where string, content []byte) {
	t.Helper()
	for _, canary := range search(content) {
		t.Errorf("%s: holds %s", where, canary)
	}
}

// search returns the canaries in content, plain or in a usual encoding, whole
// or in a part that is enough to tell.
func search(content []byte) (found []string) {
	for _, canary := range []string{
		canaryCard, canarySpaced, canarySSN, canaryDashed, canaryNote, canaryLabel, canaryBroken,
		canaryCard[:12], canaryCard[4:], "canary", "Muster",
	} {
		raw := []byte(canary)
		reversed := slices.Clone(raw)
		slices.Reverse(reversed)
		for form, needle := range map[string][]byte{
			"plain": raw, "reversed": reversed,
			"hex": []byte(hex.EncodeToString(raw)), "HEX": bytes.ToUpper([]byte(hex.EncodeToString(raw))),
			// Base64 of the middle, whatever the alignment of the whole.
			"base64":   []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(raw[:len(raw)/3*3]), "=")),
			"base64+1": []byte(base64.StdEncoding.EncodeToString(raw[1 : 1+(len(raw)-1)/3*3])),
			"base64+2": []byte(base64.StdEncoding.EncodeToString(raw[2 : 2+(len(raw)-2)/3*3])),
		} {
			if bytes.Contains(content, needle) {
				found = append(found, fmt.Sprintf("%q (%s)", canary, form))
			}
		}
	}
	return found
}
