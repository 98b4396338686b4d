package server_test

import (
	"context"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

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
		{"payments", "charge", 7, "INVALID_REVEAL", 0},
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
