package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// A request that nobody decides on and a grant end in time, and are forgotten later.
func TestApprovalsEnd(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	late := o.ask(t, "bot", 3).GetId()
	o.pass(24*time.Hour + time.Second)
	_, err := o.service(t, "privacy").Approve(deadline(t), &coatcheckv1.ApproveRequest{Id: late})
	wantReason(t, err, codes.FailedPrecondition, "APPROVAL_NOT_PENDING")
	_, err = o.service(t, "bot").WithdrawApproval(deadline(t), &coatcheckv1.WithdrawApprovalRequest{Id: late})
	wantReason(t, err, codes.FailedPrecondition, "APPROVAL_NOT_IN_FORCE")

	id := o.ask(t, "bot", 3).GetId()
	o.grant(t, id)
	o.pass(14 * time.Minute)
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	o.pass(time.Minute)
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
	got, err := o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: id})
	if err != nil || got.GetApproval().GetState() != coatcheckv1.ApprovalState_APPROVAL_STATE_ENDED || got.GetApproval().GetUsedItems() != 1 {
		t.Errorf("%v, %v", got, err)
	}
	o.pass(31 * 24 * time.Hour)
	o.ask(t, "bot", 1)
	for prefix, want := range map[string]int{"approval/": 1, "grant/": 0, "approval-pending/": 1} {
		if rows, err := o.Store.ListStates(t.Context(), prefix, "", 10); err != nil || len(rows) != want {
			t.Errorf("%d rows of %s, %v", len(rows), prefix, err)
		}
	}
}

// However many calls are made at once, no more items are revealed than were granted, and
// no fewer; also after a restart.
func TestApprovalIsExact(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	o.grant(t, o.ask(t, "bot", 20).GetId())
	o.grant(t, o.ask(t, "bot", 21).GetId())
	revealed := func(o office) int {
		conn := coatcheckv1.NewTokenizationServiceClient(o.As(t, "bot"))
		var n atomic.Int32
		var wg sync.WaitGroup
		for k := range 64 {
			wg.Go(func() {
				req := new(coatcheckv1.BatchDetokenizeRequest)
				for range k%3 + 1 {
					req.Items = append(req.Items, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
				}
				resp, err := conn.BatchDetokenize(deadline(t), req)
				if err != nil {
					t.Error(err)
				}
				for _, r := range resp.GetResults() {
					if r.GetResponse().GetValue() == "a" {
						n.Add(1)
					}
				}
			})
		}
		wg.Wait()
		return int(n.Load())
	}
	if n := revealed(o); n != 41 {
		t.Errorf("%d were revealed", n)
	}
	o.grant(t, o.ask(t, "bot", 9).GetId())
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	again := office{o.Restart(t), o.offset}
	if n := revealed(again); n != 8 {
		t.Errorf("%d were revealed after the restart", n)
	}
}

// A grant is good for what it is for and for nothing else.
func TestApprovalIsBound(t *testing.T) {
	o := openOffice(t)
	note, card := tokenize(t, o.Instance, "note", "a"), tokenize(t, o.Instance, "card", "4111111111111111")
	o.grant(t, o.ask(t, "bot", 10).GetId())
	const none = "APPROVAL_REQUIRED"
	wantReasons(t, o.reveal(t, "bot", "support", note, card), "", none)
	wantReasons(t, o.reveal(t, "robot", "support", note), none)
	wantReasons(t, o.reveal(t, "bot", "charge", card), none)
	file := func(req *coatcheckv1.RequestApprovalRequest) {
		t.Helper()
		resp, err := o.service(t, "bot").RequestApproval(deadline(t), req)
		if err != nil {
			t.Fatal(err)
		}
		o.grant(t, resp.GetApproval().GetId())
	}
	file(&coatcheckv1.RequestApprovalRequest{Profile: "card", Purpose: "charge", Reveal: coatcheckv1.Reveal_REVEAL_LAST4})
	wantReasons(t, o.reveal(t, "bot", "charge", card), "")
	wantReasons(t, o.reveal(t, "bot", "refund", card), none)
	wantReasons(t, o.reveal(t, "bot", "support", card), none)
	file(&coatcheckv1.RequestApprovalRequest{Rule: "bots-reveal"}) // for all of it
	wantReasons(t, o.reveal(t, "bot", "support", card, note), "", "")
	wantReasons(t, o.reveal(t, "bot", "refund", card), none)
}

// A grant that is ended stops a stream at its next group.
func TestEndedApprovalStopsStreams(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	for _, end := range []func(id string) error{
		func(id string) error {
			_, err := o.service(t, "legal").RevokeApproval(deadline(t), &coatcheckv1.RevokeApprovalRequest{Id: id, Reason: "enough"})
			return err
		},
		func(id string) error {
			_, err := o.service(t, "bot").WithdrawApproval(deadline(t), &coatcheckv1.WithdrawApprovalRequest{Id: id, Reason: "done"})
			return err
		},
	} {
		id := o.ask(t, "bot", 10).GetId()
		_, err := o.service(t, "privacy").RevokeApproval(deadline(t), &coatcheckv1.RevokeApprovalRequest{Id: id})
		wantReason(t, err, codes.FailedPrecondition, "APPROVAL_NOT_IN_FORCE")
		o.grant(t, id)
		stream, err := coatcheckv1.NewTokenizationServiceClient(o.As(t, "bot")).StreamDetokenize(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"", "", "APPROVAL_REQUIRED"} {
			if want != "" {
				if err := end(id); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.Send(&coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}}); err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err = firstError(err, resp.GetResult()); reason(err) != want {
				t.Fatalf("%v, want %q", err, want)
			}
		}
		got, err := o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: id})
		if a := got.GetApproval(); err != nil || a.GetState() != coatcheckv1.ApprovalState_APPROVAL_STATE_ENDED || a.GetUsedItems() != 2 || a.GetEndReason() == "" {
			t.Errorf("%v, %v", got, err)
		}
		if end(id) == nil {
			t.Error("ended twice")
		}
	}
}

// watchedStore lets a test act when grants are looked up.
type watchedStore struct {
	tokenizer.Store
	looked atomic.Pointer[func() error] // before what has been used of grants is read
}

func (w *watchedStore) Spent(ctx context.Context, budgets ...tokenizer.Budget) ([]uint64, error) {
	if f := w.looked.Swap(nil); f != nil {
		if err := (*f)(); err != nil {
			return nil, err
		}
	}
	return w.Store.Spent(ctx, budgets...)
}

// A call that is on its way when its grant is ended, or used up by others, or whose grant
// can't be looked up, reveals nothing.
func TestGrantGoesMeanwhile(t *testing.T) {
	w := new(watchedStore)
	o := openOfficeOn(t, func(s tokenizer.Store) tokenizer.Store {
		w.Store = s
		return w
	})
	token := tokenize(t, o.Instance, "note", "a")
	id := o.ask(t, "bot", 2).GetId()
	o.grant(t, id)
	meanwhile := func(f func() error, want string) {
		t.Helper()
		w.looked.Store(&f)
		wantReasons(t, o.reveal(t, "bot", "support", token), want)
		if w.looked.Load() != nil {
			t.Error("nothing was looked up")
		}
	}
	meanwhile(func() error { return tokenizer.ErrUnavailable }, "STORE_UNAVAILABLE")
	meanwhile(func() error { return tokenizer.ErrDamaged }, "RECORD_DAMAGED")
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	meanwhile(func() error {
		_, err := o.service(t, "legal").RevokeApproval(deadline(t), &coatcheckv1.RevokeApprovalRequest{Id: id})
		return err
	}, "APPROVAL_REQUIRED")
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
}

// A grant is no good while who has granted it is suspended.
func TestGrantOfTheSuspended(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	o.grant(t, o.ask(t, "bot", 5).GetId())
	legal := coatcheckv1.NewCallerServiceClient(o.As(t, "legal"))
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	if _, err := legal.SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: privacy}); err != nil {
		t.Fatal(err)
	}
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
	if _, err := legal.RestoreCaller(deadline(t), &coatcheckv1.RestoreCallerRequest{Caller: privacy}); err != nil {
		t.Fatal(err)
	}
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
}

// An export takes as many tokens as were approved.
func TestApprovedExport(t *testing.T) {
	o := openOffice(t)
	for i := range 12 {
		tokenize(t, o.Instance, "note", fmt.Sprint(i))
	}
	export := func() (n int, err error) {
		stream, err := coatcheckv1.NewTokenServiceClient(o.As(t, "bot")).ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{
			Profile: "note", Recipient: "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
		})
		for err == nil {
			var page *coatcheckv1.ExportTokensResponse
			if page, err = stream.Recv(); err == nil {
				n += int(page.GetTokenCount())
			}
		}
		return n, err
	}
	approve := func(items uint64) {
		resp, err := o.service(t, "bot").RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{Action: "export-tokens", Profile: "note", Items: items})
		if err != nil {
			t.Fatal(err)
		}
		o.grant(t, resp.GetApproval().GetId())
	}
	n, err := export()
	if wantReason(t, err, codes.PermissionDenied, "APPROVAL_REQUIRED"); n != 0 {
		t.Errorf("%d exported", n)
	}
	approve(10)
	n, err = export()
	if wantReason(t, err, codes.PermissionDenied, "APPROVAL_REQUIRED"); n != 10 {
		t.Errorf("%d exported", n)
	}
	approve(5)
	approve(8) // together
	if n, err = export(); n != 12 || status.Code(err) == codes.PermissionDenied {
		t.Errorf("%d exported, %v", n, err)
	}
	for _, e := range events(t, o.Instance) {
		if e["action"] == "export-tokens" && (e["items"] != nil) != (e["approval"] != nil) {
			t.Errorf("an event of an export: %v", e)
		}
	}
}

// A rule that depends on the token demands its approval once the token is known, and only
// of what it allows; a honeytoken uses nothing, and is told of whether there is a grant or
// not.
func TestApprovalOnceTheTokenIsKnown(t *testing.T) {
	o := openOffice(t)
	o.replacePolicy(t, "    reveal: FULL\n", "    reveal: FULL\n    metadata: {kind: open}\n")
	make := func(kind string) string {
		resp, err := checkout(t, o.Instance).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a", Metadata: map[string]string{"kind": kind}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetToken()
	}
	open, closed := make("open"), make("closed")
	wantReasons(t, o.reveal(t, "bot", "support", open, closed), "APPROVAL_REQUIRED", "CONDITION_NOT_MET")
	o.grant(t, o.ask(t, "bot", 2).GetId())
	wantReasons(t, o.reveal(t, "bot", "support", closed, open, closed, open, open), "CONDITION_NOT_MET", "", "CONDITION_NOT_MET", "", "APPROVAL_REQUIRED")
}

// Limits of the rule hold too, and what they refuse uses nothing of a grant, nor the other
// way round.
func TestApprovalsAndLimits(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	o.replacePolicy(t, "    reveal: FULL\n", "    reveal: FULL\n    limits: {values_per_day: 30}\n")
	first, second := o.ask(t, "bot", 20).GetId(), o.ask(t, "bot", 20).GetId()
	o.grant(t, first)
	conn := coatcheckv1.NewTokenizationServiceClient(o.As(t, "bot"))
	revealed := func(calls int, full string) (n, refused int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				_, err := conn.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
				mu.Lock()
				defer mu.Unlock()
				switch reason(err) {
				case "":
					n++
				case full:
					refused++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return n, refused
	}
	if n, refused := revealed(32, "APPROVAL_REQUIRED"); n != 20 || refused != 12 {
		t.Errorf("%d revealed, %d refused for the first grant", n, refused)
	}
	o.grant(t, second)
	if n, refused := revealed(32, "BUDGET_SPENT"); n != 10 || refused != 22 {
		t.Errorf("%d revealed, %d refused for the budget", n, refused)
	}
	got, err := o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: second})
	if err != nil || got.GetApproval().GetUsedItems() != 10 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHoneytokensAndApprovals(t *testing.T) {
	o := openOffice(t)
	note := tokenize(t, o.Instance, "note", "a")
	made, err := coatcheckv1.NewHoneytokenServiceClient(o.As(t, "privacy")).CreateHoneytoken(deadline(t), &coatcheckv1.CreateHoneytokenRequest{Profile: "note"})
	if err != nil {
		t.Fatal(err)
	}
	trap := made.GetHoneytoken().GetToken()
	wantReasons(t, o.reveal(t, "bot", "support", trap, note), "APPROVAL_REQUIRED", "APPROVAL_REQUIRED")
	id := o.ask(t, "bot", 1).GetId()
	o.grant(t, id)
	wantReasons(t, o.reveal(t, "bot", "support", trap, note), "TOKEN_NOT_FOUND", "")
	got, err := o.service(t, "bot").GetApproval(deadline(t), &coatcheckv1.GetApprovalRequest{Id: id})
	if err != nil || got.GetApproval().GetUsedItems() != 1 {
		t.Errorf("%v, %v", got, err)
	}
	alerts := 0
	for _, e := range events(t, o.Instance) {
		if e["action"] == "detokenize" && strings.Contains(fmt.Sprint(e["alerts"]), "HONEYTOKEN") {
			alerts++
		}
	}
	if alerts != 2 {
		t.Errorf("%d alerts", alerts)
	}
}

// However many requests are filed at once, so many are pending.
func TestPendingApprovalsAreCounted(t *testing.T) {
	o := openOffice(t)
	service := o.service(t, "bot")
	var filed atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, err := service.RequestApproval(deadline(t), &coatcheckv1.RequestApprovalRequest{Rule: "bots-reveal"})
			if err == nil {
				filed.Add(1)
			} else {
				wantReason(t, err, codes.ResourceExhausted, "TOO_MANY_APPROVALS")
			}
		})
	}
	wg.Wait()
	if filed.Load() != 20 {
		t.Errorf("%d are pending", filed.Load())
	}
	o.pass(25 * time.Hour) // they are over
	o.ask(t, "bot", 1)
}

// Nor while who has granted it may not decide at all any more.
func TestGrantOfOneWhoMayDecideNoMore(t *testing.T) {
	o := openOffice(t)
	token := tokenize(t, o.Instance, "note", "a")
	o.grant(t, o.ask(t, "bot", 5).GetId())
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
	before := o.Policy.Current()
	o.replacePolicy(t, `"spiffe://coatcheck.example/privacy", "spiffe://coatcheck.example/legal", "spiffe://coatcheck.example/outsider"`, `"spiffe://coatcheck.example/legal"`)
	wantReasons(t, o.reveal(t, "bot", "support", token), "APPROVAL_REQUIRED")
	o.Policy.Replace(before)
	wantReasons(t, o.reveal(t, "bot", "support", token), "")
}
