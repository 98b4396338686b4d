package server_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// Who is suspended is refused at the next call, and at the next group of a stream,
// until somebody lets it in again.
func TestSuspension(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewCallerServiceClient(in.As(t, "admin"))
	shop := checkout(t, in)
	stream, err := shop.StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	item := &coatcheckv1.StreamTokenizeRequest{Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a"}}
	if err := stream.Send(item); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	const name = "spiffe://coatcheck.example/checkout"
	for range 2 { // the second changes nothing
		resp, err := admin.SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: name, Reason: "INC-1"})
		if s := resp.GetSuspension(); err != nil || s.GetCaller() != name || s.GetReason() != "INC-1" || s.GetSuspendedBy() != "spiffe://coatcheck.example/admin" || s.GetSuspendTime().AsTime().IsZero() {
			t.Fatalf("%v, %v", s, err)
		}
	}
	ask := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "b"}
	if _, err := shop.Tokenize(deadline(t), ask); status.Code(err) != codes.PermissionDenied || reason(err) != "CALLER_SUSPENDED" {
		t.Fatal(err)
	}
	_ = stream.Send(item)
	if _, err := stream.Recv(); reason(err) != "CALLER_SUSPENDED" {
		t.Fatal(err)
	}
	list, err := admin.ListSuspensions(deadline(t), &coatcheckv1.ListSuspensionsRequest{})
	if err != nil || len(list.GetSuspensions()) != 1 || list.GetSuspensions()[0].GetCaller() != name || list.GetNextPageToken() != "" {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := admin.RestoreCaller(deadline(t), &coatcheckv1.RestoreCallerRequest{Caller: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Tokenize(deadline(t), ask); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RestoreCaller(deadline(t), &coatcheckv1.RestoreCallerRequest{Caller: name}); status.Code(err) != codes.NotFound || reason(err) != "NOT_SUSPENDED" {
		t.Fatal(err)
	}
	denied, about := 0, 0
	for _, e := range events(t, in) {
		if e["reason"] == "CALLER_SUSPENDED" && e["decision"] == "deny" && e["caller"] == name {
			denied++
		}
		if e["about_caller"] == name {
			about++
		}
	}
	if denied != 2 || about != 4 {
		t.Errorf("%d events of refusals, %d of changes", denied, about)
	}
}

// A suspension is there again after a restart, also of a caller with the longest name.
func TestSuspensionsStay(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewCallerServiceClient(in.As(t, "admin"))
	long := "spiffe://coatcheck.example/" + strings.Repeat("a", 2000)
	for _, caller := range []string{long, "dns:a.example", "cn:b", "cn:c", "spiffe://coatcheck.example/checkout"} {
		if _, err := admin.SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: caller}); err != nil {
			t.Fatal(err)
		}
	}
	found := make(map[string]bool)
	for page := ""; ; {
		resp, err := admin.ListSuspensions(deadline(t), &coatcheckv1.ListSuspensionsRequest{PageSize: 2, PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.GetSuspensions() {
			found[s.GetCaller()] = true
		}
		if page = resp.GetNextPageToken(); page == "" {
			break
		}
	}
	if len(found) != 5 || !found[long] {
		t.Errorf("found %v", found)
	}
	again := in.Restart(t)
	if _, err := checkout(t, again).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "b"}); reason(err) != "CALLER_SUSPENDED" {
		t.Fatal(err)
	}
}

func TestBadSuspensions(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewCallerServiceClient(in.As(t, "admin"))
	for want, req := range map[string]*coatcheckv1.SuspendCallerRequest{
		"INVALID_CALLER": {Caller: "*"},
		"INVALID_REASON": {Caller: "cn:x", Reason: strings.Repeat("x", 257)},
		"OWN_SUSPENSION": {Caller: "spiffe://coatcheck.example/admin"},
	} {
		if _, err := admin.SuspendCaller(deadline(t), req); reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
	for want, req := range map[string]*coatcheckv1.ListSuspensionsRequest{
		"INVALID_PAGE_SIZE":  {PageSize: -1},
		"INVALID_PAGE_TOKEN": {PageToken: "x"},
	} {
		if _, err := admin.ListSuspensions(deadline(t), req); reason(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
}
