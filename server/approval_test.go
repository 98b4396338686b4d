package server_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// fourEyes is a policy by which "bot" and "robot" reveal what "privacy" and "legal" have
// approved. "bot" is an approver too, of others.
const fourEyes = `version: 1
rules:
  - name: checkout-tokenizes
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [card, note]
  - name: bots-reveal
    callers: ["spiffe://coatcheck.example/bot", "spiffe://coatcheck.example/robot"]
    actions: [detokenize]
    profiles: [card, note]
    purposes: [support]
    reveal: FULL
    approval: {approvers: ["spiffe://coatcheck.example/privacy", "spiffe://coatcheck.example/legal", "spiffe://coatcheck.example/bot"], for: 15m, max_items: 50}
  - name: bots-charge
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge, refund]
    reveal: [MASKED, LAST4]
    approval: {approvers: ["spiffe://coatcheck.example/privacy"], for: 1h, max_items: 10}
  - name: bots-export
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [export-tokens]
    profiles: [note]
    approval: {approvers: ["spiffe://coatcheck.example/privacy"], for: 1h, max_items: 1000}
  - name: bot-reads
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [export-tokens]
    profiles: [ssn]
  - name: privacy-plants
    callers: ["spiffe://coatcheck.example/privacy"]
    actions: [create-honeytoken]
    profiles: [note]
  - name: legal-suspends
    callers: ["spiffe://coatcheck.example/legal"]
    actions: [suspend-caller, restore-caller]
  - name: bots-ask
    callers: ["spiffe://coatcheck.example/bot", "spiffe://coatcheck.example/robot"]
    actions: [request-approval, list-approvals]
  - name: others-decide
    callers: ["spiffe://coatcheck.example/privacy", "spiffe://coatcheck.example/legal", "spiffe://coatcheck.example/outsider", "spiffe://coatcheck.example/bot"]
    actions: [list-approvals, decide-approval]
`

// office is an instance under fourEyes with a clock that is set.
type office struct {
	*servertest.Instance
	offset *atomic.Int64 // of the clock
}

func openOffice(t *testing.T) office { return openOfficeOn(t, nil) }

// openOfficeOn is openOffice with something between the server and its store.
func openOfficeOn(t *testing.T, wrap func(tokenizer.Store) tokenizer.Store) office {
	offset := new(atomic.Int64)
	return office{servertest.Start(t, servertest.Options{Policy: fourEyes, Wrap: wrap, Now: func() time.Time {
		return time.Now().Add(time.Duration(offset.Load()))
	}}), offset}
}

func (o office) pass(d time.Duration) { o.offset.Add(int64(d)) }

func (o office) service(t *testing.T, name string) coatcheckv1.ApprovalServiceClient {
	return coatcheckv1.NewApprovalServiceClient(o.As(t, name))
}

// ask files a request as a caller for so many notes.
func (o office) ask(t *testing.T, name string, items uint64) *coatcheckv1.Approval {
	t.Helper()
	resp, err := o.service(t, name).RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{
		Profile: "note", Purpose: "support", Items: items, Reason: "INC-7",
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetApproval()
}

// grant has privacy grant a request.
func (o office) grant(t *testing.T, id string) *coatcheckv1.Approval {
	t.Helper()
	resp, err := o.service(t, "privacy").Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetApproval()
}

// reveal reveals tokens of a batch as a caller, and returns the reason of each refusal.
func (o office) reveal(t *testing.T, name, purpose string, tokens ...string) (reasons []string) {
	t.Helper()
	req := new(coatcheckv1.BatchDetokenizeRequest)
	for _, token := range tokens {
		req.Items = append(req.Items, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: purpose})
	}
	resp, err := coatcheckv1.NewTokenizationServiceClient(o.As(t, name)).BatchDetokenize(deadline(t), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.GetResults() {
		if err := r.GetError(); err != nil {
			reasons = append(reasons, reason(status.FromProto(err).Err()))
		} else {
			reasons = append(reasons, "")
		}
	}
	return reasons
}

func wantReasons(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func wantReason(t *testing.T, err error, code codes.Code, want string) {
	t.Helper()
	if status.Code(err) != code || reason(err) != want {
		t.Errorf("%v, want %v %s", err, code, want)
	}
}

const bot, privacy = "spiffe://coatcheck.example/bot", "spiffe://coatcheck.example/privacy"

// A request is filed, seen by whom it concerns, granted by another, used up, and all of it
// is on record.
func TestApproval(t *testing.T) {
	o := openOffice(t)
	a, b := tokenize(t, o.Instance, "note", "a"), tokenize(t, o.Instance, "note", "b")
	wantReasons(t, o.reveal(t, "bot", "support", a), "APPROVAL_REQUIRED")
	asked := o.ask(t, "bot", 4)
	if asked.GetState() != coatcheckv1.ApprovalState_APPROVAL_STATE_PENDING || asked.GetRequester() != bot || asked.GetRule() != "bots-reveal" ||
		asked.GetAction() != "detokenize" || asked.GetItems() != 4 || asked.GetReason() != "INC-7" {
		t.Errorf("filed %v", asked)
	}
	wantReasons(t, o.reveal(t, "bot", "support", a), "APPROVAL_REQUIRED")
	for name, sees := range map[string]bool{"bot": true, "privacy": true, "legal": true, "robot": false, "outsider": false} {
		list, err := o.service(t, name).ListApprovals(deadline(t), &coatcheckv1.ListApprovalsRequest{State: coatcheckv1.ApprovalState_APPROVAL_STATE_PENDING})
		if err != nil || (len(list.GetApprovals()) == 1) != sees {
			t.Errorf("%s sees %v, %v", name, list, err)
		}
		if _, err := o.service(t, name).GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: asked.GetId()}); (reason(err) == "APPROVAL_NOT_FOUND") == sees {
			t.Errorf("%s: %v", name, err)
		}
	}
	given, err := o.service(t, "privacy").Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: asked.GetId(), Items: 3, Ttl: durationpb.New(time.Minute), Reason: "fine"})
	if g := given.GetApproval(); err != nil || g.GetState() != coatcheckv1.ApprovalState_APPROVAL_STATE_GRANTED || g.GetGrantedItems() != 3 || g.GetDecidedBy() != privacy || g.GetDecideReason() != "fine" {
		t.Fatalf("%v, %v", given, err)
	}
	// An item that fails uses nothing.
	wantReasons(t, o.reveal(t, "bot", "support", "cc_note_x", b), "INVALID_TOKEN", "")
	one, err := coatcheckv1.NewTokenizationServiceClient(o.As(t, "bot")).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: a, Purpose: "support", Reveal: coatcheckv1.Reveal_REVEAL_MASKED})
	if err != nil || one.GetReveal() != coatcheckv1.Reveal_REVEAL_MASKED {
		t.Errorf("%v, %v", one, err)
	}
	wantReasons(t, o.reveal(t, "bot", "support", a, b, a), "", "APPROVAL_REQUIRED", "APPROVAL_REQUIRED")
	_, err = coatcheckv1.NewTokenizationServiceClient(o.As(t, "bot")).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: a, Purpose: "support"})
	if wantReason(t, err, codes.PermissionDenied, "APPROVAL_REQUIRED"); !strings.Contains(err.Error(), "used up") {
		t.Error(err)
	}
	got, err := o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: asked.GetId()})
	if err != nil || got.GetApproval().GetUsedItems() != 3 || got.GetApproval().GetState() != coatcheckv1.ApprovalState_APPROVAL_STATE_GRANTED {
		t.Errorf("%v, %v", got, err)
	}
	var filed, decided, revealed, refused int
	for _, e := range events(t, o.Instance) {
		about := e["approval"] == asked.GetId() && e["approval_rule"] == "bots-reveal" && e["approval_action"] == "detokenize" && e["about_caller"] == bot && e["profile"] == "note" && e["purpose"] == "support"
		switch {
		case e["action"] == "request-approval" && about && e["records"] == 4.0 && e["stated_reason"] == "INC-7" && e["approval_ends"] != nil:
			filed++
		case e["action"] == "decide-approval" && about && e["records"] == 3.0 && e["caller"] == privacy && e["approval_ends"] != nil:
			decided++
		case e["action"] == "detokenize":
			for _, is := range append([]any{e}, items(e)...) {
				if i := is.(map[string]any); i["approval"] == asked.GetId() {
					revealed++
				} else if i["reason"] == "APPROVAL_REQUIRED" {
					refused++
				}
			}
		}
	}
	if filed != 1 || decided != 1 || revealed != 3 || refused != 5 {
		t.Errorf("events: %d filed, %d decided, %d revealed, %d refused", filed, decided, revealed, refused)
	}
}

func items(e map[string]any) []any {
	list, _ := e["items"].([]any)
	return list
}

// Nobody decides on their own request, nor does who isn't an approver, or isn't any more.
func TestWhoApproves(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	own := o.ask(t, "bot", 1).GetId()
	decide := func(name, id string) error {
		_, err := o.service(t, name).Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: id})
		_, other := o.service(t, name).Deny(deadline(t), &coatcheckv1.DenyRequest{Id: id})
		if reason(err) != reason(other) {
			t.Errorf("%v, but %v", err, other)
		}
		return err
	}
	wantReason(t, decide("bot", own), codes.PermissionDenied, "OWN_APPROVAL")
	wantReason(t, decide("outsider", own), codes.PermissionDenied, "NOT_AN_APPROVER")
	wantReason(t, decide("robot", own), codes.PermissionDenied, "NO_RULE")
	wantReason(t, decide("privacy", strings.Repeat("0", 32)), codes.NotFound, "APPROVAL_NOT_FOUND")
	wantReason(t, decide("privacy", "x"), codes.NotFound, "APPROVAL_NOT_FOUND")

	// Of somebody else's request bot is an approver.
	others := o.ask(t, "robot", 1).GetId()
	if _, err := o.service(t, "bot").Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: others}); err != nil {
		t.Error(err)
	}

	// The same certificate under another name is the same caller.
	key := "approval/" + own
	row, err := o.Store.State(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	var kept map[string]any
	if err := json.Unmarshal(row, &kept); err != nil {
		t.Fatal(err)
	}
	kept["requester"] = "cn:bot"
	changed, _ := json.Marshal(kept)
	cert := o.Authority.Caller(t, "legal")
	setState(t, o.Instance, key, row, []byte(strings.Replace(string(changed), kept["certificate"].(string), fmt.Sprintf("%x", sha256.Sum256(cert.Leaf.Raw)), 1)))
	_, err = coatcheckv1.NewApprovalServiceClient(o.Dial(t, &cert)).Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: own})
	wantReason(t, err, codes.PermissionDenied, "OWN_APPROVAL")

	// Who is no approver any more can't grant, and what was granted by then isn't good
	// any more.
	granted, open := o.ask(t, "bot", 5).GetId(), o.ask(t, "bot", 5).GetId()
	o.grant(t, granted)
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	o.replacePolicy(t, `"spiffe://coatcheck.example/privacy", "spiffe://coatcheck.example/legal", `, `"spiffe://coatcheck.example/legal", `)
	wantReason(t, decide("privacy", open), codes.PermissionDenied, "NOT_AN_APPROVER")
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
	if _, err := o.service(t, "legal").Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: open}); err != nil {
		t.Error(err)
	}
	wantReasons(t, o.reveal(t, "bot", "support", token), "")

	// A policy that became stricter holds for what was granted before.
	o.replacePolicy(t, "max_items: 50", "max_items: 2")
	wantReasons(t, o.reveal(t, "bot", "support", token, token, token), "", "", "APPROVAL_REQUIRED") // one of each grant
	o.replacePolicy(t, "for: 15m", "for: 1m")
	o.pass(2 * time.Minute)
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
}

// replacePolicy puts fourEyes to work with something replaced.
func (o office) replacePolicy(t *testing.T, old, next string) {
	t.Helper()
	text := strings.Replace(fourEyes, old, next, 1)
	p, err := policy.Parse("policy.yaml", []byte(text), server.Vocabulary(servertest.Profiles()))
	if err != nil || text == fourEyes {
		t.Fatal(err)
	}
	o.Policy.Replace(p)
}

func setState(t *testing.T, in *servertest.Instance, key string, old, next []byte) {
	t.Helper()
	_, err := in.Store.Commit(t.Context(), tokenizer.Unit{
		States: []tokenizer.StateChange{{Key: key, Old: old, New: next}}, Event: func(tokenizer.Outcome) []byte { return []byte("{}") },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of approvers who decide at once one does, and the others are told.
func TestApproversAtOnce(t *testing.T) {
	o := openOffice(t)
	for range 10 {
		id := o.ask(t, "bot", 3).GetId()
		var granted, denied, late atomic.Int32
		var wg sync.WaitGroup
		for _, name := range []string{"privacy", "legal"} {
			service := o.service(t, name)
			for k := range 4 {
				wg.Go(func() {
					var err error
					did := &granted
					if k%2 == 0 {
						_, err = service.Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: id})
					} else {
						did = &denied
						_, err = service.Deny(deadline(t), &coatcheckv1.DenyRequest{Id: id})
					}
					if err != nil {
						did = &late
						wantReason(t, err, codes.FailedPrecondition, "APPROVAL_NOT_PENDING")
					}
					did.Add(1)
				})
			}
		}
		wg.Wait()
		if granted.Load()+denied.Load() != 1 || late.Load() != 7 {
			t.Fatalf("%d granted, %d denied, %d were late", granted.Load(), denied.Load(), late.Load())
		}
		rows, err := o.Store.ListStates(t.Context(), "grant/", "", 10)
		if err != nil || len(rows) != int(granted.Load()) {
			t.Fatalf("%d grants, %v", len(rows), err)
		}
		if granted.Load() == 1 {
			if _, err := o.service(t, "privacy").RevokeApproval(deadline(t), &coatcheckv1.RevokeApprovalRequest{Id: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestBadApprovals(t *testing.T) {
	o := openOffice(t)
	service := o.service(t, "bot")
	for want, req := range map[string]*coatcheckv1.RequestApprovalRequest{
		"UNKNOWN_ACTION":      {Action: "fly"},
		"UNKNOWN_PROFILE":     {Purpose: "support"},
		"INVALID_PURPOSE":     {Profile: "note", Purpose: "4929 8135"},
		"PURPOSE_REQUIRED":    {Profile: "note"},
		"INVALID_REVEAL":      {Profile: "note", Purpose: "support", Reveal: 99},
		"INVALID_ITEMS":       {Profile: "note", Purpose: "support", Items: 51},
		"INVALID_REASON":      {Profile: "note", Purpose: "support", Reason: "a\nb"},
		"UNKNOWN_RULE":        {Rule: "checkout-tokenizes"},
		"PURPOSE_NOT_ALLOWED": {Profile: "note", Purpose: "charge"},
		"REVEAL_NOT_ALLOWED":  {Profile: "card", Purpose: "charge", Reveal: coatcheckv1.Reveal_REVEAL_FULL},
		"NO_RULE":             {Action: "tokenize", Profile: "note"},
		"APPROVAL_NOT_NEEDED": {Action: "export-tokens", Profile: "ssn"},
	} {
		if _, err := service.RequestApproval(deadline(t), req); reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
	for want, req := range map[string]*coatcheckv1.ListApprovalsRequest{
		"INVALID_STATE": {State: 99}, "INVALID_PAGE_SIZE": {PageSize: -1}, "INVALID_PAGE_TOKEN": {PageToken: "x"},
	} {
		if _, err := service.ListApprovals(deadline(t), req); reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
	id := o.ask(t, "bot", 5).GetId()
	for want, req := range map[string]*coatcheckv1.ApproveRequest{
		"INVALID_ITEMS": {Id: id, Items: 6}, "INVALID_TTL": {Id: id, Ttl: durationpb.New(16 * time.Minute)}, "INVALID_REASON": {Id: id, Reason: strings.Repeat("x", 257)},
	} {
		if _, err := o.service(t, "privacy").Approve(deadline(t), req); reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
	// So many are pending at once; one that is withdrawn makes room, and pages have all.
	for range 19 {
		o.ask(t, "bot", 1)
	}
	_, err := service.RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{Rule: "bots-reveal"})
	wantReason(t, err, codes.ResourceExhausted, "TOO_MANY_APPROVALS")
	o.ask(t, "robot", 1)
	if _, err := service.WithdrawApproval(deadline(t), &coatcheckv1.WithdrawApprovalRequest{Id: id}); err != nil {
		t.Error(err)
	}
	o.ask(t, "bot", 1)
	found := make(map[string]bool)
	for req := new(coatcheckv1.ListApprovalsRequest); ; {
		req.PageSize = 6
		resp, err := service.ListApprovals(deadline(t), req)
		if err != nil || len(resp.GetApprovals()) > 6 {
			t.Fatal(err)
		}
		for _, a := range resp.GetApprovals() {
			found[a.GetId()] = true
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(found) != 22 { // bot may decide on robot's
		t.Errorf("%d are listed", len(found))
	}
	_, err = o.service(t, "robot").WithdrawApproval(deadline(t), &coatcheckv1.WithdrawApprovalRequest{Id: id})
	wantReason(t, err, codes.NotFound, "APPROVAL_NOT_FOUND")
}

// Only names that are declared are kept: a request that has something else where a name
// belongs is refused, and nothing of it is recorded.
func TestApprovalNamesAreDeclared(t *testing.T) {
	o := openOffice(t)
	service := o.service(t, "bot")
	const card = "4929813547860136"
	for _, text := range []string{card, "support\n" + card, "p" + card, strings.Repeat("x"+card, 6000)} {
		for _, req := range []*coatcheckv1.RequestApprovalRequest{
			{Action: text, Profile: "note", Purpose: "support"},
			{Action: "export-tokens", Profile: text},
			{Action: "export-tokens", Profile: text, Rule: "bots-export"},
			{Action: "export-tokens", Profile: "note", Rule: text},
			{Action: "export-tokens", Profile: "note", Purpose: text},
			{Action: "export-tokens", Purpose: text, Rule: "bots-export"},
			{Profile: text, Purpose: "support"},
			{Profile: text, Rule: "bots-reveal"},
			{Profile: "note", Purpose: text},
			{Profile: "note", Purpose: text, Rule: "bots-reveal"},
			{Purpose: text, Rule: "bots-reveal"},
			{Rule: text},
		} {
			resp, err := service.RequestApproval(deadline(t), req)
			if code := status.Code(err); code != codes.InvalidArgument && code != codes.PermissionDenied {
				t.Errorf("%.100v: %.100v, %v", req, resp, err)
			}
			if strings.Contains(fmt.Sprint(err), card) {
				t.Errorf("%.100v: it is repeated", req)
			}
		}
	}
	// Nor has an export a purpose that would be good for another action.
	_, err := service.RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{Action: "export-tokens", Profile: "note", Purpose: "support"})
	wantReason(t, err, codes.InvalidArgument, "INVALID_PURPOSE")
	if text := fmt.Sprint(events(t, o.Instance)); strings.Contains(text, card) {
		t.Error("it is recorded")
	}
	if rows, err := o.Store.ListStates(t.Context(), "", "", 10); err != nil || len(rows) > 0 {
		t.Errorf("%d rows are kept, %v", len(rows), err)
	}
}

// Where it isn't known yet which rule will decide, the request has to name it: a grant by
// another would be good for nothing.
func TestRuleRequired(t *testing.T) {
	o := openOffice(t)
	o.replacePolicy(t, "  - name: bots-charge\n", `  - name: bots-reveal-eu
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    metadata: {region: [eu]}
    approval: {approvers: ["spiffe://coatcheck.example/legal"], for: 15m, max_items: 5}
  - name: bots-charge
`)
	token := tokenize(t, o.Instance, "note", "a")
	// The first decides, wherever the token is from.
	if a := o.ask(t, "bot", 1); a.GetRule() != "bots-reveal" {
		t.Errorf("found %s", a.GetRule())
	}
	o.replacePolicy(t, "  - name: bots-reveal\n", `  - name: bots-reveal-eu
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    metadata: {region: [eu]}
    approval: {approvers: ["spiffe://coatcheck.example/legal"], for: 15m, max_items: 5}
  - name: bots-reveal
`)
	req := &coatcheckv1.RequestApprovalRequest{Profile: "note", Purpose: "support"}
	_, err := o.service(t, "bot").RequestApproval(deadline(t), req)
	if wantReason(t, err, codes.InvalidArgument, "RULE_REQUIRED"); !strings.Contains(err.Error(), "bots-reveal-eu, bots-reveal") {
		t.Error(err)
	}
	req.Rule = "bots-reveal"
	resp, err := o.service(t, "bot").RequestApproval(deadline(t), req)
	if err != nil {
		t.Fatal(err)
	}
	o.grant(t, resp.GetApproval().GetId())
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	// Of one only it is taken for granted that the call will meet its conditions.
	o.replacePolicy(t, "    approval: {approvers: [\"spiffe://coatcheck.example/privacy\", \"spiffe", "    metadata: {region: [us]}\n    approval: {approvers: [\"spiffe://coatcheck.example/privacy\", \"spiffe")
	if a := o.ask(t, "bot", 1); a.GetRule() != "bots-reveal" {
		t.Errorf("found %s", a.GetRule())
	}
}

// A request that is damaged is left out of lists, and doesn't keep others out.
func TestDamagedApproval(t *testing.T) {
	o := openOffice(t)
	o.ask(t, "bot", 1)
	id := strings.Repeat("0", 32)
	setState(t, o.Instance, "approval/"+id, nil, []byte(`{"id":`))
	resp, err := o.service(t, "bot").ListApprovals(deadline(t), &coatcheckv1.ListApprovalsRequest{})
	if err != nil || len(resp.GetApprovals()) != 1 {
		t.Errorf("%v, %v", resp, err)
	}
	if !strings.Contains(o.Log.String(), "1 approvals are left out of a list") {
		t.Error("the log doesn't tell")
	}
	_, err = o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: id})
	wantReason(t, err, codes.DataLoss, "RECORD_DAMAGED")
	o.ask(t, "bot", 1)
}

// Whether an approval is needed is found for as many items as are asked for.
func TestApprovalOfMany(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: `version: 1
rules:
  - {name: few, callers: ["spiffe://coatcheck.example/bot"], actions: [detokenize], profiles: [note], purposes: [support], reveal: FULL, when: request.items <= 10}
  - name: many
    callers: ["spiffe://coatcheck.example/bot"]
    actions: [detokenize]
    profiles: [note]
    purposes: [support]
    reveal: FULL
    approval: {approvers: ["spiffe://coatcheck.example/privacy"], for: 15m, max_items: 50}
  - {name: asks, callers: ["spiffe://coatcheck.example/bot"], actions: [request-approval]}
`})
	service := coatcheckv1.NewApprovalServiceClient(in.As(t, "bot"))
	for items, want := range map[uint64]string{10: "APPROVAL_NOT_NEEDED", 11: "", 0: "", 51: "INVALID_ITEMS"} {
		resp, err := service.RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{Profile: "note", Purpose: "support", Items: items})
		if reason(err) != want || err == nil && resp.GetApproval().GetRule() != "many" {
			t.Errorf("%d items: %v, %v", items, resp, err)
		}
	}
}
