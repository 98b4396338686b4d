package server_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// Old segments go, but not before the log says so, and what is left verifies.
func TestPrune(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Segments: audit.SegmentOptions{Size: 2000, Retention: time.Millisecond}})
	tokens := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	for range 30 {
		if _, err := tokens.Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}); err != nil {
			t.Fatal(err)
		}
	}
	dir := in.AuditDir()
	admin := coatcheckv1.NewAuditServiceClient(in.As(t, "admin"))
	before := timestamppb.New(time.Now())
	for range 200 { // until the segments have followed
		resp, err := admin.Prune(deadline(t), &coatcheckv1.PruneRequest{Before: before, ValidateOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetSegments() > 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if sum, err := audit.VerifyDir(dir); err != nil && sum.Pruned > 0 {
		t.Errorf("a dry run pruned: %+v, %v", sum, err)
	}
	resp, err := admin.Prune(deadline(t), &coatcheckv1.PruneRequest{Before: before, Reason: "INC-1"})
	if err != nil || resp.GetFirstEvent() != 1 || resp.GetSegments() < 4 {
		t.Fatalf("%v, %v", resp, err)
	}
	in.Stop()
	if err := in.Wait(); err != nil {
		t.Fatal(err)
	}
	sum, err := audit.VerifyDir(dir)
	if err != nil || sum.Pruned != resp.GetLastEvent() || sum.First != resp.GetLastEvent()+1 {
		t.Errorf("%+v, %v, pruned %v", sum, err, resp)
	}
	pruned, err := audit.ReadPruned(dir)
	if err != nil || pruned[0].By != "spiffe://coatcheck.example/admin" {
		t.Errorf("%+v, %v", pruned, err)
	}
}

func TestPruneRefuses(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewAuditServiceClient(in.As(t, "admin"))
	for want, req := range map[string]*coatcheckv1.PruneRequest{
		"INVALID_TIME":     {},
		"INVALID_REASON":   {Before: timestamppb.New(time.Unix(0, 0)), Reason: "a\nb"},
		"WITHIN_RETENTION": {Before: timestamppb.New(time.Now().Add(-399 * 24 * time.Hour))},
	} {
		code := codes.InvalidArgument
		if want == "WITHIN_RETENTION" {
			code = codes.FailedPrecondition
		}
		if _, err := admin.Prune(deadline(t), req); status.Code(err) != code || reason(err) != want {
			t.Errorf("%s: %v", fmt.Sprint(req), err)
		}
	}
	if resp, err := admin.Prune(deadline(t), &coatcheckv1.PruneRequest{Before: timestamppb.New(time.Now().Add(-401 * 24 * time.Hour))}); err != nil || resp.GetSegments() != 0 {
		t.Errorf("%v, %v", resp, err)
	}
}
