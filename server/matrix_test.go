package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// callers are all callers of servertest.Policy, and one whom no rule names.
var callers = []string{"checkout", "payments", "support", "auditor", "admin", "stranger"}

// matrix says for each method which callers get through, and how to call it.
// A method that the server has and this table hasn't fails the test.
var matrix = map[string]struct {
	allowed []string
	call    func(ctx context.Context, conn *grpc.ClientConn, token string) error
}{
	coatcheckv1.CallerService_SuspendCaller_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewCallerServiceClient(conn).SuspendCaller(ctx, &coatcheckv1.SuspendCallerRequest{Caller: "cn:x"})
			return err
		},
	},
	coatcheckv1.CallerService_ListSuspensions_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewCallerServiceClient(conn).ListSuspensions(ctx, &coatcheckv1.ListSuspensionsRequest{})
			return err
		},
	},
	coatcheckv1.CallerService_RestoreCaller_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			callers := coatcheckv1.NewCallerServiceClient(conn)
			_, _ = callers.SuspendCaller(ctx, &coatcheckv1.SuspendCallerRequest{Caller: "cn:y"})
			_, err := callers.RestoreCaller(ctx, &coatcheckv1.RestoreCallerRequest{Caller: "cn:y"})
			return err
		},
	},
	coatcheckv1.ApprovalService_RequestApproval_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).RequestApproval(ctx, &coatcheckv1.RequestApprovalRequest{Action: "export-tokens", Profile: "card"})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_ListApprovals_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).ListApprovals(ctx, &coatcheckv1.ListApprovalsRequest{})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_GetApproval_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).GetApproval(ctx, &coatcheckv1.GetApprovalRequest{Id: "x"})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_Approve_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).Approve(ctx, &coatcheckv1.ApproveRequest{Id: "x"})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_Deny_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).Deny(ctx, &coatcheckv1.DenyRequest{Id: "x"})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_WithdrawApproval_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).WithdrawApproval(ctx, &coatcheckv1.WithdrawApprovalRequest{Id: "x"})
			return policyOnly(err)
		},
	},
	coatcheckv1.ApprovalService_RevokeApproval_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewApprovalServiceClient(conn).RevokeApproval(ctx, &coatcheckv1.RevokeApprovalRequest{Id: "x"})
			return policyOnly(err)
		},
	},
	coatcheckv1.AuditService_QueryEvents_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewAuditServiceClient(conn).QueryEvents(ctx, &coatcheckv1.QueryEventsRequest{})
			return err
		},
	},
	coatcheckv1.AuditService_WatchEvents_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := coatcheckv1.NewAuditServiceClient(conn).WatchEvents(ctx, &coatcheckv1.WatchEventsRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
	},
	coatcheckv1.AuditService_Prune_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewAuditServiceClient(conn).Prune(ctx, &coatcheckv1.PruneRequest{Before: timestamppb.New(time.Unix(0, 0))})
			return err
		},
	},
	coatcheckv1.AuditService_GetCheckpoint_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewAuditServiceClient(conn).GetCheckpoint(ctx, &coatcheckv1.GetCheckpointRequest{})
			if reason(err) == "NO_CHECKPOINT" {
				return nil
			}
			return err
		},
	},
	coatcheckv1.AuditService_GetProof_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewAuditServiceClient(conn).GetProof(ctx, &coatcheckv1.GetProofRequest{Sequence: 1})
			if reason(err) == "NO_CHECKPOINT" {
				return nil
			}
			return err
		},
	},
	coatcheckv1.PrivacyService_ReportExposure_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			stream, err := coatcheckv1.NewPrivacyServiceClient(conn).ReportExposure(ctx, &coatcheckv1.ReportExposureRequest{Since: timestamppb.New(time.Unix(0, 0))})
			for err == nil {
				_, err = stream.Recv()
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		},
	},
	coatcheckv1.PolicyService_GetPolicy_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewPolicyServiceClient(conn).GetPolicy(ctx, &coatcheckv1.GetPolicyRequest{})
			return err
		},
	},
	coatcheckv1.PolicyService_Explain_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewPolicyServiceClient(conn).Explain(ctx, &coatcheckv1.ExplainRequest{Caller: "cn:x", Action: "reflect"})
			return err
		},
	},
	coatcheckv1.TokenizationService_Tokenize_FullMethodName: {
		allowed: []string{"checkout"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewTokenizationServiceClient(conn).Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
			return err
		},
	},
	coatcheckv1.TokenizationService_Detokenize_FullMethodName: {
		allowed: []string{"support", "auditor"}, // payments may, but not for this purpose
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			_, err := coatcheckv1.NewTokenizationServiceClient(conn).Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
			return err
		},
	},
	coatcheckv1.TokenizationService_BatchTokenize_FullMethodName: {
		allowed: []string{"checkout"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			resp, err := coatcheckv1.NewTokenizationServiceClient(conn).BatchTokenize(ctx, &coatcheckv1.BatchTokenizeRequest{Items: []*coatcheckv1.TokenizeRequest{{Profile: "card", Value: "4111111111111111"}}})
			return firstError(err, resp.GetResults()...)
		},
	},
	coatcheckv1.TokenizationService_BatchDetokenize_FullMethodName: {
		allowed: []string{"support", "auditor"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			resp, err := coatcheckv1.NewTokenizationServiceClient(conn).BatchDetokenize(ctx, &coatcheckv1.BatchDetokenizeRequest{Items: []*coatcheckv1.DetokenizeRequest{{Token: token, Purpose: "support"}}})
			return firstError(err, resp.GetResults()...)
		},
	},
	coatcheckv1.TokenizationService_StreamTokenize_FullMethodName: {
		allowed: []string{"checkout"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			stream, err := coatcheckv1.NewTokenizationServiceClient(conn).StreamTokenize(ctx)
			if err != nil {
				return err
			}
			resp, err := exchange(stream, &coatcheckv1.StreamTokenizeRequest{Request: &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}})
			return firstError(err, resp.GetResult())
		},
	},
	coatcheckv1.TokenizationService_StreamDetokenize_FullMethodName: {
		allowed: []string{"support", "auditor"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			stream, err := coatcheckv1.NewTokenizationServiceClient(conn).StreamDetokenize(ctx)
			if err != nil {
				return err
			}
			resp, err := exchange(stream, &coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}})
			return firstError(err, resp.GetResult())
		},
	},
	coatcheckv1.TokenService_GetToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).GetToken(ctx, &coatcheckv1.GetTokenRequest{Token: token})
			return err
		},
	},
	coatcheckv1.TokenService_ListTokens_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).ListTokens(ctx, &coatcheckv1.ListTokensRequest{Profile: "card"})
			return err
		},
	},
	coatcheckv1.TokenService_LookupToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).LookupToken(ctx, &coatcheckv1.LookupTokenRequest{Profile: "note", Value: "x"})
			return err
		},
	},
	coatcheckv1.TokenService_UpdateToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).UpdateToken(ctx, &coatcheckv1.UpdateTokenRequest{
				Token: token, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata"}}, Metadata: map[string]string{"a": "b"},
			})
			return err
		},
	},
	coatcheckv1.TokenService_RevokeToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).RevokeToken(ctx, &coatcheckv1.RevokeTokenRequest{Token: token})
			if err == nil { // methods are called in any order
				_, err = coatcheckv1.NewTokenServiceClient(conn).RestoreToken(ctx, &coatcheckv1.RestoreTokenRequest{Token: token})
			}
			return err
		},
	},
	coatcheckv1.TokenService_RestoreToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			_, err := coatcheckv1.NewTokenServiceClient(conn).RestoreToken(ctx, &coatcheckv1.RestoreTokenRequest{Token: token})
			return err
		},
	},
	coatcheckv1.TokenService_DeleteToken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			// The token is needed by other methods: one that was never made will do.
			_, err := coatcheckv1.NewTokenServiceClient(conn).DeleteToken(ctx, &coatcheckv1.DeleteTokenRequest{Token: "no such token", Profile: "card"})
			if reason(err) == "TOKEN_NOT_FOUND" {
				return nil
			}
			return err
		},
	},
	coatcheckv1.TokenService_ImportTokens_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			resp, err := coatcheckv1.NewTokenServiceClient(conn).ImportTokens(ctx, &coatcheckv1.ImportTokensRequest{Items: []*coatcheckv1.ImportedToken{
				{Request: &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}, Token: "from elsewhere"},
			}})
			return firstError(err, resp.GetResults()...)
		},
	},
	coatcheckv1.TokenService_ExportTokens_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			stream, err := coatcheckv1.NewTokenServiceClient(conn).ExportTokens(ctx, &coatcheckv1.ExportTokensRequest{
				Profile: "card", Recipient: "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
			})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
	},
	coatcheckv1.HoneytokenService_CreateHoneytoken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewHoneytokenServiceClient(conn).CreateHoneytoken(ctx, &coatcheckv1.CreateHoneytokenRequest{Profile: "card"})
			return err
		},
	},
	coatcheckv1.HoneytokenService_ListHoneytokens_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewHoneytokenServiceClient(conn).ListHoneytokens(ctx, &coatcheckv1.ListHoneytokensRequest{Profile: "card"})
			return err
		},
	},
	coatcheckv1.HoneytokenService_DeleteHoneytoken_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, token string) error {
			// The token is none, so that it stays.
			_, err := coatcheckv1.NewHoneytokenServiceClient(conn).DeleteHoneytoken(ctx, &coatcheckv1.DeleteHoneytokenRequest{Token: token})
			if reason(err) == "TOKEN_NOT_FOUND" {
				return nil
			}
			return err
		},
	},
	coatcheckv1.KeyService_ListKeys_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewKeyServiceClient(conn).ListKeys(ctx, &coatcheckv1.ListKeysRequest{})
			return err
		},
	},
	coatcheckv1.KeyService_RotateKey_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewKeyServiceClient(conn).RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_INDEX})
			return err
		},
	},
	coatcheckv1.KeyService_Rewrap_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := coatcheckv1.NewKeyServiceClient(conn).Rewrap(ctx, &coatcheckv1.RewrapRequest{})
			return err
		},
	},
	coatcheckv1.KeyService_RetireKey_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			// Methods are called in the order of their names, so this comes before
			// RotateKey; what matters is that policy lets it through.
			_, err := coatcheckv1.NewKeyServiceClient(conn).RetireKey(ctx, &coatcheckv1.RetireKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_INDEX, Version: 1, ValidateOnly: true})
			if reason(err) == "KEY_IN_USE" {
				return nil
			}
			return err
		},
	},
	grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName: {
		allowed: []string{"admin"},
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil && err != io.EOF { // then Recv says why
				return err
			}
			_, err = stream.Recv()
			return err
		},
	},
	grpc_health_v1.Health_Check_FullMethodName: {
		allowed: callers,
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			return err
		},
	},
	grpc_health_v1.Health_List_FullMethodName: {
		allowed: callers,
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			_, err := grpc_health_v1.NewHealthClient(conn).List(ctx, &grpc_health_v1.HealthListRequest{})
			return err
		},
	},
	grpc_health_v1.Health_Watch_FullMethodName: {
		allowed: callers,
		call: func(ctx context.Context, conn *grpc.ClientConn, _ string) error {
			stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
	},
}

// policyOnly returns the error of a call about approvals, of which there are none, unless
// it comes after policy has let the call through.
func policyOnly(err error) error {
	if r := reason(err); r == "APPROVAL_NOT_NEEDED" || r == "APPROVAL_NOT_FOUND" {
		return nil
	}
	return err
}

// firstError returns the error of a call, or else of the first of its results
// that has one.
func firstError[R interface{ GetError() *statuspb.Status }](err error, results ...R) error {
	if err != nil {
		return err
	}
	for _, r := range results {
		if st := r.GetError(); st != nil {
			return status.FromProto(st).Err()
		}
	}
	return nil
}

// exchange sends one message on a stream, half-closes, and returns the answer.
func exchange[Req, Resp any](stream grpc.BidiStreamingClient[Req, Resp], req *Req) (*Resp, error) {
	if err := stream.Send(req); err != nil && err != io.EOF { // then Recv says why
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return nil, fmt.Errorf("after the answer: %w", err)
	}
	return resp, nil
}

// deadline returns a context that ends before a test does.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// tokenize returns a token for the value.
func tokenize(t *testing.T, in *servertest.Instance, profile, value string) string {
	t.Helper()
	resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).
		Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetToken()
}

// reason returns the reason in a status's ErrorInfo.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "coatcheck" {
			return info.GetReason()
		}
	}
	return ""
}

func TestMethodsTimesCallers(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	token := tokenize(t, in, "card", "4111111111111111")
	for _, name := range server.Methods() {
		row, ok := matrix[name]
		if !ok {
			t.Errorf("%s has no expectations", name)
			continue
		}
		for _, caller := range callers {
			err := row.call(deadline(t), in.As(t, caller), token)
			if allowed := slices.Contains(row.allowed, caller); allowed && err != nil {
				t.Errorf("%s as %s: %v, want OK", name, caller, err)
			} else if !allowed && (status.Code(err) != codes.PermissionDenied || reason(err) == "") {
				t.Errorf("%s as %s: %v, want PERMISSION_DENIED with a reason", name, caller, err)
			}
		}
	}
	if unknown := len(matrix) - len(server.Methods()); unknown != 0 {
		t.Errorf("the matrix has %d methods too many: %v", unknown, slices.Sorted(maps.Keys(matrix)))
	}
}

func TestPurposesTimesReveals(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	token := tokenize(t, in, "card", "4111111111111111")
	const full, masked = "4111111111111111", "************1111"
	const none, asFull, asMasked = coatcheckv1.Reveal_REVEAL_UNSPECIFIED, coatcheckv1.Reveal_REVEAL_FULL, coatcheckv1.Reveal_REVEAL_MASKED
	for _, row := range []struct {
		caller, purpose string
		reveal          coatcheckv1.Reveal
		want            string // a value, or the reason of a refusal
		given           coatcheckv1.Reveal
	}{
		{"payments", "charge", none, full, asFull},
		{"payments", "refund", asFull, full, asFull},
		{"payments", "charge", asMasked, masked, asMasked},
		{"payments", "support", none, "PURPOSE_NOT_ALLOWED", 0},
		{"payments", "marketing", none, "PURPOSE_NOT_ALLOWED", 0},
		{"payments", "", none, "PURPOSE_REQUIRED", 0},
		{"payments", "4111111111111111", none, "INVALID_PURPOSE", 0},
		{"payments", "charge", 99, "INVALID_REVEAL", 0},
		{"payments", "charge", coatcheckv1.Reveal_REVEAL_LAST4, "1111", coatcheckv1.Reveal_REVEAL_LAST4},
		{"payments", "charge", coatcheckv1.Reveal_REVEAL_BIN, "41111111", coatcheckv1.Reveal_REVEAL_BIN},
		{"payments", "charge", coatcheckv1.Reveal_REVEAL_BRAND, "visa", coatcheckv1.Reveal_REVEAL_BRAND},
		{"payments", "charge", coatcheckv1.Reveal_REVEAL_YEAR, "REVEAL_NOT_APPLICABLE", 0},
		{"support", "support", coatcheckv1.Reveal_REVEAL_LAST4, "REVEAL_NOT_ALLOWED", 0},
		{"support", "support", none, masked, asMasked},
		{"support", "support", asMasked, masked, asMasked},
		{"support", "support", asFull, "REVEAL_NOT_ALLOWED", 0},
		{"support", "charge", none, "PURPOSE_NOT_ALLOWED", 0},
		{"checkout", "charge", none, "NO_RULE", 0},
		{"admin", "support", none, "NO_RULE", 0},
		{"stranger", "charge", none, "NO_RULE", 0},
	} {
		resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, row.caller)).
			Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: row.purpose, Reveal: row.reveal})
		got := resp.GetValue()
		if err != nil {
			got = reason(err)
		}
		if got != row.want || resp.GetReveal() != row.given {
			t.Errorf("%s for %q, %v: %q (%v), %v; want %q, %v", row.caller, row.purpose, row.reveal, got, resp.GetReveal(), err, row.want, row.given)
		}
	}
}
