package server_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"filippo.io/age"
	"google.golang.org/grpc/codes"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

const shop = "spiffe://coatcheck.example/checkout"

func suspensionKey(caller string) string {
	return fmt.Sprintf("suspension/%x", sha256.Sum256([]byte(caller)))
}

// A suspension that is damaged keeps its caller out, and no other from being followed,
// listed, suspended or restored, nor the server from starting; it can be repaired.
func TestDamagedSuspension(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewCallerServiceClient(in.As(t, "admin"))
	ask := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a"}
	refused := func(in *servertest.Instance, name string) func() bool {
		client := coatcheckv1.NewTokenizationServiceClient(in.As(t, name))
		return func() bool {
			_, err := client.Tokenize(deadline(t), ask)
			return reason(err) == "CALLER_SUSPENDED"
		}
	}
	// As another server of the store would have written them, one not as it was; all at
	// once, so that who follows the store sees all of them or none.
	const other = "spiffe://coatcheck.example/payments"
	_, err := in.Store.Commit(t.Context(), tokenizer.Unit{
		States: []tokenizer.StateChange{
			{Key: suspensionKey(shop), New: []byte(`{"caller":`)},
			{Key: suspensionKey(other), New: fmt.Appendf(nil, `{"caller":%q}`, other)},
			{Key: suspensionKey("cn:x"), New: fmt.Appendf(nil, `{"caller":%q}`, "cn:y")},
		},
		Event: func(tokenizer.Outcome) []byte { return []byte("{}") },
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the suspension that is damaged", refused(in, "checkout"))
	waitFor(t, "the one that is not", refused(in, "payments"))
	list := func(admin coatcheckv1.CallerServiceClient, want int) {
		t.Helper()
		resp, err := admin.ListSuspensions(deadline(t), &coatcheckv1.ListSuspensionsRequest{})
		if err != nil || len(resp.GetSuspensions()) != want {
			t.Errorf("%v, %v", resp, err)
		}
	}
	list(admin, 1)
	if log := in.Log.String(); strings.Count(log, "suspensions are damaged") != 1 || !strings.Contains(log, "2 suspensions are left out of a list") {
		t.Errorf("the log says %s", log)
	}

	again := in.Restart(t)
	admin = coatcheckv1.NewCallerServiceClient(again.As(t, "admin"))
	if !refused(again, "checkout")() || !refused(again, "payments")() {
		t.Error("not refused after a restart")
	}
	if _, err := admin.RestoreCaller(deadline(t), &coatcheckv1.RestoreCallerRequest{Caller: shop}); err != nil {
		t.Fatal(err)
	}
	if refused(again, "checkout")() {
		t.Error("refused still")
	}
	resp, err := admin.SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: "cn:x", Reason: "anew"})
	if err != nil || resp.GetSuspension().GetCaller() != "cn:x" || resp.GetSuspension().GetReason() != "anew" {
		t.Errorf("%v, %v", resp, err)
	}
	list(admin, 2)
}

// lookedStore lets a test act once a suspension has been looked up, or when the records
// of an export are.
type lookedStore struct {
	tokenizer.Store
	looked, scanned atomic.Pointer[func()]
}

func (s *lookedStore) State(ctx context.Context, key string) ([]byte, error) {
	row, err := s.Store.State(ctx, key)
	if strings.HasPrefix(key, "suspension/") {
		if f := s.looked.Swap(nil); f != nil {
			(*f)()
		}
	}
	return row, err
}

func (s *lookedStore) Scan(ctx context.Context, namespace, profile string, after uint64, limit int) (tokenizer.Scanned, error) {
	if f := s.scanned.Swap(nil); f != nil {
		(*f)()
	}
	return s.Store.Scan(ctx, namespace, profile, after, limit)
}

func startLooked(t *testing.T) (*servertest.Instance, *lookedStore) {
	store := new(lookedStore)
	const others = `
  - name: auditor-suspends
    callers: ["spiffe://coatcheck.example/auditor"]
    actions: [suspend-caller]
`
	return servertest.Start(t, servertest.Options{Policy: servertest.Policy + others, Wrap: func(s tokenizer.Store) tokenizer.Store {
		store.Store = s
		return store
	}}), store
}

// Who is told that a caller is suspended can rely on it, though it was restored meanwhile.
func TestSuspendedWhileRestored(t *testing.T) {
	in, store := startLooked(t)
	admin := coatcheckv1.NewCallerServiceClient(in.As(t, "admin"))
	suspend := func(why string) string {
		t.Helper()
		resp, err := admin.SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: shop, Reason: why})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSuspension().GetReason()
	}
	suspend("first")
	if why := suspend("second"); why != "first" {
		t.Errorf("suspended for %q", why)
	}
	restore := func() {
		if _, err := admin.RestoreCaller(deadline(t), &coatcheckv1.RestoreCallerRequest{Caller: shop}); err != nil {
			t.Error(err)
		}
	}
	store.looked.Store(&restore)
	if why := suspend("third"); why != "third" {
		t.Errorf("suspended for %q", why)
	}
	if row, err := in.Store.State(t.Context(), suspensionKey(shop)); err != nil || row == nil {
		t.Errorf("nothing is kept, %v", err)
	}
}

// A page of an export that is refused since its caller is suspended isn't recorded as
// denied by the rule that has allowed the export.
func TestSuspendedBetweenPages(t *testing.T) {
	in, store := startLooked(t)
	batch := new(coatcheckv1.BatchTokenizeRequest)
	for i := range 501 { // a page has 500
		batch.Items = append(batch.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: fmt.Sprint(i)})
	}
	if _, err := checkout(t, in).BatchTokenize(deadline(t), batch); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	const exporter = "spiffe://coatcheck.example/admin"
	suspend := func() {
		_, err := coatcheckv1.NewCallerServiceClient(in.As(t, "auditor")).SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: exporter})
		if err != nil {
			t.Error(err)
		}
	}
	store.scanned.Store(&suspend)
	stream, err := coatcheckv1.NewTokenServiceClient(in.As(t, "admin")).
		ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{Profile: "note", Recipient: identity.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := stream.Recv(); err != nil || page.GetTokenCount() != 500 {
		t.Fatalf("%d tokens, %v", page.GetTokenCount(), err)
	}
	_, err = stream.Recv()
	wantReason(t, err, codes.PermissionDenied, "CALLER_SUSPENDED")
	denied := 0
	for _, e := range events(t, in) {
		if e["caller"] == exporter && e["reason"] == "CALLER_SUSPENDED" && e["records"] == nil { // not the call as a whole
			if denied++; e["decision"] != "deny" || e["rule"] != nil {
				t.Errorf("recorded as %v", e)
			}
		}
	}
	if denied == 0 {
		t.Error("not recorded")
	}
}
