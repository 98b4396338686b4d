package server_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
)

func TestLifeOfAToken(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	made, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{
		Profile: "note", Value: "hello", Subject: "customer-7", Metadata: map[string]string{"order": "42"}, Ttl: durationpb.New(time.Hour), MaxUses: 9,
	})
	if err != nil || made.GetExpireTime() == nil {
		t.Fatal(made, err)
	}
	token := made.GetToken()
	got, err := admin.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if m := got.GetToken(); m.GetState() != coatcheckv1.TokenState_TOKEN_STATE_ACTIVE || m.GetSubject() != "customer-7" || m.GetMetadata()["order"] != "42" || m.GetMaxUses() != 9 || m.GetProfile() != "note" {
		t.Errorf("GetToken: %v", m)
	}
	updated, err := admin.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{
		Token: token, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"metadata", "ttl"}}, Metadata: map[string]string{"a": "b"},
	})
	if err != nil || updated.GetToken().GetExpireTime() != nil || updated.GetToken().GetMetadata()["a"] != "b" {
		t.Errorf("UpdateToken: %v, %v", updated, err)
	}
	reveal := func() (string, error) {
		resp, err := auditor(t, in).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
		return resp.GetValue(), err
	}
	if _, err := admin.RevokeToken(deadline(t), &coatcheckv1.RevokeTokenRequest{Token: token, Reason: "lost"}); err != nil {
		t.Fatal(err)
	}
	if _, err := reveal(); status.Code(err) != codes.FailedPrecondition || reason(err) != "TOKEN_REVOKED" {
		t.Errorf("revoked: %v", err)
	}
	if _, err := admin.RestoreToken(deadline(t), &coatcheckv1.RestoreTokenRequest{Token: token}); err != nil {
		t.Fatal(err)
	}
	if value, err := reveal(); err != nil || value != "hello" {
		t.Errorf("restored: %q, %v", value, err)
	}
	found, err := admin.LookupToken(deadline(t), &coatcheckv1.LookupTokenRequest{Profile: "note", Value: "hello"})
	if err != nil || len(found.GetTokens()) != 1 || found.GetTokens()[0].GetToken() != token {
		t.Errorf("LookupToken: %v, %v", found, err)
	}
	if _, err := admin.LookupToken(deadline(t), &coatcheckv1.LookupTokenRequest{Profile: "card", Value: "4111111111111111"}); reason(err) != "LOOKUP_NOT_DECLARED" {
		t.Errorf("LookupToken of a profile without: %v", err)
	}
	listed, err := admin.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note", Subject: "customer-7"})
	if err != nil || len(listed.GetTokens()) != 1 {
		t.Errorf("ListTokens: %v, %v", listed, err)
	}
	if _, err := admin.DeleteToken(deadline(t), &coatcheckv1.DeleteTokenRequest{Token: token, Reason: "asked for"}); err != nil {
		t.Fatal(err)
	}
	if _, err := reveal(); reason(err) != "TOKEN_NOT_FOUND" {
		t.Errorf("deleted: %v", err)
	}
	log := events(t, in)
	actions := make(map[any]map[string]any)
	for _, e := range log {
		actions[e["action"]] = e
		if text := fmt.Sprint(e); strings.Contains(text, "customer-7") || strings.Contains(text, "hello") || strings.Contains(text, token) {
			t.Errorf("an event holds what it must not: %v", e)
		}
	}
	for action, stated := range map[string]any{
		"get-token": nil, "update-token": nil, "revoke-token": "lost", "restore-token": nil, "lookup-token": nil, "list-tokens": nil, "delete-token": "asked for",
	} {
		e := actions[action]
		if e == nil || e["profile"] == nil || e["stated_reason"] != stated {
			t.Errorf("the event of %s: %v", action, e)
		}
	}
}

func TestBadTokenRequests(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	token := tokenize(t, in, "note", "x")
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	for name, row := range map[string]struct {
		call func() error
		want string
	}{
		"no token": {func() error {
			_, err := admin.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{})
			return err
		}, "INVALID_TOKEN"},
		"no profile": {func() error {
			_, err := admin.GetToken(deadline(t), &coatcheckv1.GetTokenRequest{Token: "1234"})
			return err
		}, "PROFILE_REQUIRED"},
		"page size": {func() error {
			_, err := admin.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note", PageSize: -1})
			return err
		}, "INVALID_PAGE_SIZE"},
		"page token": {func() error {
			_, err := admin.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note", PageToken: "x"})
			return err
		}, "INVALID_PAGE_TOKEN"},
		"no mask": {func() error {
			_, err := admin.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{Token: token})
			return err
		}, "INVALID_UPDATE_MASK"},
		"another mask": {func() error {
			_, err := admin.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{Token: token, UpdateMask: mask("subject")})
			return err
		}, "INVALID_UPDATE_MASK"},
		"mask twice": {func() error {
			_, err := admin.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{Token: token, UpdateMask: mask("ttl", "ttl")})
			return err
		}, "INVALID_UPDATE_MASK"},
		"ttl": {func() error {
			_, err := admin.UpdateToken(deadline(t), &coatcheckv1.UpdateTokenRequest{Token: token, UpdateMask: mask("ttl"), Ttl: &durationpb.Duration{Nanos: 5}})
			return err
		}, "INVALID_TTL"},
		"reason": {func() error {
			_, err := admin.RevokeToken(deadline(t), &coatcheckv1.RevokeTokenRequest{Token: token, Reason: strings.Repeat("x", 257)})
			return err
		}, "INVALID_REASON"},
		"recipient": {func() error {
			stream, err := admin.ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{Profile: "note", Recipient: "age1x"})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, "INVALID_RECIPIENT"},
		"no items": {func() error {
			_, err := admin.ImportTokens(deadline(t), &coatcheckv1.ImportTokensRequest{})
			return err
		}, "BATCH_TOO_LARGE"},
	} {
		if err := row.call(); reason(err) != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

// What is exported can be read by the recipient alone, is signed, and can be
// imported elsewhere.
func TestExportAndImport(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	admin := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	want := make(map[string]string)
	const n = 1200 // some pages
	req := new(coatcheckv1.BatchTokenizeRequest)
	for i := range n {
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: fmt.Sprint("value ", i), Subject: fmt.Sprint("s", i%3)})
	}
	resp, err := checkout(t, in).BatchTokenize(deadline(t), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range resp.GetResults() {
		want[r.GetResponse().GetToken()] = fmt.Sprint("value ", i)
	}
	// Many of another profile in between, and one more behind them.
	others := new(coatcheckv1.BatchTokenizeRequest)
	for range 9_000 {
		others.Items = append(others.Items, &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	}
	if _, err := checkout(t, in).BatchTokenize(deadline(t), others); err != nil {
		t.Fatal(err)
	}
	last, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "last", Subject: "s"})
	if err != nil {
		t.Fatal(err)
	}
	want[last.GetToken()] = "last"
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := admin.ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{Profile: "note", Recipient: identity.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	pages, from, asked := 0, "", ""
	items := new(coatcheckv1.ImportTokensRequest)
	for {
		page, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if page.GetTokenCount() == 0 && page.GetNextPageToken() != "" {
			t.Error("a page is empty, and not the last")
		}
		if !ed25519.Verify(page.GetPublicKey(), server.ExportMessage("note", asked, page), page.GetSignature()) {
			t.Fatal("the signature of a page is not good")
		}
		asked = page.GetNextPageToken()
		if bytes.Contains(page.GetSealed(), []byte("value")) {
			t.Fatal("a page is not encrypted")
		}
		if from == "" {
			from = page.GetNextPageToken()
		}
		plain, err := age.Decrypt(bytes.NewReader(page.GetSealed()), identity)
		if err != nil {
			t.Fatal(err)
		}
		lines := json.NewDecoder(plain)
		for lines.More() {
			var e server.ExportedToken
			if err := lines.Decode(&e); err != nil {
				t.Fatal(err)
			}
			if want[e.Token] != e.Value || e.Subject == "" || e.State != "active" {
				t.Fatalf("exported %+v", e)
			}
			delete(want, e.Token)
			items.Items = append(items.Items, &coatcheckv1.ImportedToken{
				Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: e.Value}, Token: "moved-" + e.Token,
			})
		}
	}
	if len(want) != 0 || pages < 3 {
		t.Fatalf("%d tokens are missing, %d pages", len(want), pages)
	}
	again, err := admin.ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{Profile: "note", Recipient: identity.Recipient().String(), PageToken: from})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := again.Recv(); err != nil || page.GetTokenCount() == 0 {
		t.Fatalf("going on: %v, %v", page, err)
	}
	imported, err := admin.ImportTokens(deadline(t), items)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range imported.GetResults() {
		if r.GetResponse().GetToken() == "" {
			t.Fatal(r)
		}
	}
	value, err := auditor(t, in).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Profile: "note", Token: items.Items[5].GetToken(), Purpose: "support"})
	if err != nil || value.GetValue() != items.Items[5].GetRequest().GetValue() {
		t.Fatalf("%v, %v", value, err)
	}
}
