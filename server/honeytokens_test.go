package server_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// shapedPolicy is servertest.Policy for profiles beside its own.
var shapedPolicy = strings.ReplaceAll(servertest.Policy, "[card, ssn, note]", "[card, ssn, note, shaped]")

func withShaped() []tokenizer.Profile {
	return append(servertest.Profiles(), tokenizer.Profile{
		Name: "shaped", Type: "card-number", Format: "digits", Shape: format.ShapeOptions{KeepFirst: 6, KeepLast: 4}, Purposes: []string{"support"},
	})
}

// plant makes a honeytoken.
func plant(t *testing.T, in *servertest.Instance, profile string) string {
	t.Helper()
	resp, err := coatcheckv1.NewHoneytokenServiceClient(in.As(t, "admin")).
		CreateHoneytoken(deadline(t), &coatcheckv1.CreateHoneytokenRequest{Profile: profile, Note: "a note"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetHoneytoken().GetToken()
}

// uses are all ways to use a token. Those of batches and streams have it beside a
// good one.
var uses = map[string]func(ctx context.Context, in *servertest.Instance, t *testing.T, token, profile, good string) error{
	"Detokenize": func(ctx context.Context, in *servertest.Instance, t *testing.T, token, profile, _ string) error {
		_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "auditor")).
			Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Profile: profile, Purpose: "support"})
		return err
	},
	"BatchDetokenize": func(ctx context.Context, in *servertest.Instance, t *testing.T, token, profile, good string) error {
		resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "auditor")).
			BatchDetokenize(ctx, &coatcheckv1.BatchDetokenizeRequest{Items: []*coatcheckv1.DetokenizeRequest{
				{Token: good, Profile: profile, Purpose: "support"}, {Token: token, Profile: profile, Purpose: "support"},
			}})
		if err == nil && resp.GetResults()[0].GetResponse().GetValue() == "" {
			t.Errorf("the good item beside it: %v", resp.GetResults()[0])
		}
		return firstError(err, resp.GetResults()...)
	},
	"StreamDetokenize": func(ctx context.Context, in *servertest.Instance, t *testing.T, token, profile, _ string) error {
		stream, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "auditor")).StreamDetokenize(ctx)
		if err != nil {
			return err
		}
		resp, err := exchange(stream, &coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: token, Profile: profile, Purpose: "support"}})
		return firstError(err, resp.GetResult())
	},
	"GetToken": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		_, err := c.GetToken(ctx, &coatcheckv1.GetTokenRequest{Token: token, Profile: profile})
		return err
	}),
	"UpdateToken": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		_, err := c.UpdateToken(ctx, &coatcheckv1.UpdateTokenRequest{
			Token: token, Profile: profile, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata"}}, Metadata: map[string]string{"NOT A LABEL": ""},
		})
		return err
	}),
	"RevokeToken": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		_, err := c.RevokeToken(ctx, &coatcheckv1.RevokeTokenRequest{Token: token, Profile: profile})
		return err
	}),
	"RestoreToken": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		_, err := c.RestoreToken(ctx, &coatcheckv1.RestoreTokenRequest{Token: token, Profile: profile})
		return err
	}),
	"DeleteToken": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		_, err := c.DeleteToken(ctx, &coatcheckv1.DeleteTokenRequest{Token: token, Profile: profile})
		return err
	}),
	"ImportTokens": use(func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error {
		value := map[string]string{"ssn": "536228745"}[profile]
		if value == "" {
			value = "4111111111111111"
		}
		resp, err := c.ImportTokens(ctx, &coatcheckv1.ImportTokensRequest{Items: []*coatcheckv1.ImportedToken{
			{Token: token, Request: &coatcheckv1.TokenizeRequest{Profile: profile, Value: value}},
		}})
		return firstError(err, resp.GetResults()...)
	}),
}

// use is a use by the admin.
func use(call func(ctx context.Context, c coatcheckv1.TokenServiceClient, token, profile string) error) func(context.Context, *servertest.Instance, *testing.T, string, string, string) error {
	return func(ctx context.Context, in *servertest.Instance, t *testing.T, token, profile, _ string) error {
		return call(ctx, coatcheckv1.NewTokenServiceClient(in.As(t, "admin")), token, profile)
	}
}

// What a caller is told of a honeytoken is, byte by byte, what is told of a token that
// has been deleted.
func TestHoneytokensAreToldAsUnknown(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: shapedPolicy, Profiles: withShaped()})
	for profile, value := range map[string]string{"card": "4111111111111111", "ssn": "536228745", "note": "a note", "shaped": "5555555555554444"} {
		trap, gone, good := plant(t, in, profile), tokenize(t, in, profile, value), tokenize(t, in, profile, value)
		if _, err := coatcheckv1.NewTokenServiceClient(in.As(t, "admin")).DeleteToken(deadline(t), &coatcheckv1.DeleteTokenRequest{Token: gone, Profile: profile}); err != nil {
			t.Fatal(err)
		}
		for name, use := range uses {
			for range 2 {
				got, want := use(deadline(t), in, t, trap, profile, good), use(deadline(t), in, t, gone, profile, good)
				if !bytes.Equal(statusBytes(t, got), statusBytes(t, want)) {
					t.Errorf("%s of %s: %v, and of a deleted token %v", name, profile, got, want)
				}
				if name != "ImportTokens" && (status.Code(got) != codes.NotFound || reason(got) != "TOKEN_NOT_FOUND") {
					t.Errorf("%s of %s: %v", name, profile, got)
				}
			}
		}
	}
	if log := in.Log.String(); strings.Contains(log, "honeytoken") {
		t.Errorf("the log tells of it: %s", log)
	}
}

func statusBytes(t *testing.T, err error) []byte {
	t.Helper()
	b, failed := proto.MarshalOptions{Deterministic: true}.Marshal(status.Convert(err).Proto())
	if failed != nil {
		t.Fatal(failed)
	}
	return b
}

func TestHoneytokenService(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Policy: shapedPolicy, Profiles: withShaped()})
	conn := in.As(t, "admin")
	client, others := coatcheckv1.NewHoneytokenServiceClient(conn), coatcheckv1.NewTokenServiceClient(conn)
	var planted []*coatcheckv1.Honeytoken
	for n := range 5 {
		req := &coatcheckv1.CreateHoneytokenRequest{Profile: "note", Note: fmt.Sprint("row ", n)}
		if n == 3 {
			req.Ttl = durationpb.New(time.Hour)
		}
		resp, err := client.CreateHoneytoken(deadline(t), req)
		if err != nil {
			t.Fatal(err)
		}
		h := resp.GetHoneytoken()
		if h.GetNote() != req.GetNote() || h.GetProfile() != "note" || h.GetCreator() != "spiffe://coatcheck.example/admin" || h.GetCreateTime() == nil || h.GetDigest() == "" || (h.GetExpireTime() != nil) != (n == 3) {
			t.Errorf("%v", h)
		}
		planted = append(planted, h)
	}
	list := func() (all []*coatcheckv1.Honeytoken) {
		t.Helper()
		req := &coatcheckv1.ListHoneytokensRequest{Profile: "note", PageSize: 2}
		for {
			resp, err := client.ListHoneytokens(deadline(t), req)
			if err != nil || len(resp.GetHoneytokens()) > 2 {
				t.Fatalf("%v, %v", resp, err)
			}
			all = append(all, resp.GetHoneytokens()...)
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return all
			}
		}
	}
	same := func(a, b *coatcheckv1.Honeytoken) bool { return proto.Equal(a, b) }
	if got := list(); !slices.EqualFunc(got, planted, same) {
		t.Errorf("%v, want %v", got, planted)
	}
	if _, err := client.DeleteHoneytoken(deadline(t), &coatcheckv1.DeleteHoneytokenRequest{Token: planted[1].GetToken(), Reason: "found"}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.EqualFunc(got, slices.Delete(slices.Clone(planted), 1, 2), same) {
		t.Errorf("%v, after the second of %v was deleted", got, planted)
	}
	if resp, err := others.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note"}); err != nil || len(resp.GetTokens()) > 0 {
		t.Errorf("%v, %v", resp, err)
	}
	good := tokenize(t, in, "note", "x")
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"none":      {errOf(client.CreateHoneytoken(deadline(t), &coatcheckv1.CreateHoneytokenRequest{Profile: "none"})), "UNKNOWN_PROFILE"},
		"note":      {errOf(client.CreateHoneytoken(deadline(t), &coatcheckv1.CreateHoneytokenRequest{Profile: "note", Note: "a\x00"})), "INVALID_NOTE"},
		"ttl":       {errOf(client.CreateHoneytoken(deadline(t), &coatcheckv1.CreateHoneytokenRequest{Profile: "note", Ttl: durationpb.New(-1)})), "INVALID_TTL"},
		"page size": {errOf(client.ListHoneytokens(deadline(t), &coatcheckv1.ListHoneytokensRequest{Profile: "note", PageSize: -1})), "INVALID_PAGE_SIZE"},
		"page":      {errOf(client.ListHoneytokens(deadline(t), &coatcheckv1.ListHoneytokensRequest{Profile: "note", PageToken: "x"})), "INVALID_PAGE_TOKEN"},
		"again":     {errOf(client.DeleteHoneytoken(deadline(t), &coatcheckv1.DeleteHoneytokenRequest{Token: planted[1].GetToken()})), "TOKEN_NOT_FOUND"},
		"no trap":   {errOf(client.DeleteHoneytoken(deadline(t), &coatcheckv1.DeleteHoneytokenRequest{Token: good})), "TOKEN_NOT_FOUND"},
		"no token":  {errOf(client.DeleteHoneytoken(deadline(t), &coatcheckv1.DeleteHoneytokenRequest{Token: "cc_note_x"})), "INVALID_TOKEN"},
		"reason":    {errOf(client.DeleteHoneytoken(deadline(t), &coatcheckv1.DeleteHoneytokenRequest{Token: good, Reason: "a\nb"})), "INVALID_REASON"},
	} {
		if reason(row.err) != row.want {
			t.Errorf("%s: %v, want %s", name, row.err, row.want)
		}
	}
}

// errOf returns the error of a call.
func errOf[R any](_ R, err error) error { return err }
