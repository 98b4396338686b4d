package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// asksAudit returns a client that may ask.
func asksAudit(t *testing.T, in *servertest.Instance) coatcheckv1.AuditServiceClient {
	return coatcheckv1.NewAuditServiceClient(in.As(t, "admin"))
}

// query returns all events that a filter finds, and checks that they are those of the
// store, byte for byte.
func query(t *testing.T, in *servertest.Instance, req *coatcheckv1.QueryEventsRequest) (found []audit.Event) {
	t.Helper()
	for {
		resp, err := asksAudit(t, in).QueryEvents(deadline(t), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEvents() {
			found = append(found, parseEvent(t, in, e))
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return found
		}
	}
}

func parseEvent(t *testing.T, in *servertest.Instance, e *coatcheckv1.AuditEvent) (parsed audit.Event) {
	t.Helper()
	entries, err := in.Store.Entries(t.Context(), e.GetSequence()-1, 1)
	if err != nil || len(entries) != 1 {
		t.Fatalf("event %d: %v", e.GetSequence(), err)
	}
	hash := entries[0].Hash()
	if e.GetEvent() != string(entries[0].Body) || string(e.GetHash()) != string(hash[:]) || int(e.GetSize()) != len(e.GetEvent()) {
		t.Fatalf("event %d is %v, in the store %s", e.GetSequence(), e, entries[0].Body)
	}
	if err := json.Unmarshal(entries[0].Body, &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

// tokenizeAbout makes a token about somebody.
func tokenizeAbout(t *testing.T, in *servertest.Instance, subject string) string {
	t.Helper()
	resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111", Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetToken()
}

func actions(events []audit.Event) (list []string) {
	for _, e := range events {
		list = append(list, e.Action)
	}
	return list
}

// A subject and a token are found under the key that their events were recorded with.
func TestQueryAcrossAuditKeys(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	var tokens []string
	for range 3 {
		tokens = append(tokens, tokenizeAbout(t, in, "customer-7"))
		tokenizeAbout(t, in, "customer-8")
		reveal(t, in, tokens[0])
		_, err := coatcheckv1.NewKeyServiceClient(in.As(t, "admin")).RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_AUDIT})
		if err != nil {
			t.Fatal(err)
		}
	}
	about := &coatcheckv1.AuditFilter{Subject: "customer-7"}
	for _, row := range []struct {
		name   string
		filter *coatcheckv1.AuditFilter
		want   []string
	}{
		{"subject", &coatcheckv1.AuditFilter{Subject: "customer-7", Action: "tokenize"}, []string{"tokenize", "tokenize", "tokenize"}},
		{"subject, with what was asked about it", about, []string{"tokenize", "detokenize", "tokenize", "detokenize", "tokenize", "detokenize", "query-audit"}},
		{"token", &coatcheckv1.AuditFilter{Token: tokens[0]}, []string{"tokenize", "detokenize", "detokenize", "detokenize"}},
		{"nobody", &coatcheckv1.AuditFilter{Subject: "customer-9"}, nil},
	} {
		if got := actions(query(t, in, &coatcheckv1.QueryEventsRequest{Filter: row.filter})); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	// By the digest that an event has, only those under that key.
	digest := query(t, in, &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Token: tokens[2], Action: "tokenize"}})[0].Items[0].Subject
	if got := query(t, in, &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{SubjectDigest: digest, Action: "tokenize"}}); len(got) != 1 {
		t.Errorf("%d events with the digest", len(got))
	}
	for _, e := range query(t, in, &coatcheckv1.QueryEventsRequest{}) {
		if body := string(e.Body()); strings.Contains(body, "customer-") || strings.Contains(body, tokens[0]) {
			t.Errorf("in clear: %s", body)
		}
	}
}

// reveal reveals a token.
func reveal(t *testing.T, in *servertest.Instance, token string) {
	t.Helper()
	_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
	if err != nil {
		t.Fatal(err)
	}
}

func TestQueryPages(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	for range 25 {
		tokenizeAbout(t, in, "x")
	}
	for _, newest := range []bool{false, true} {
		req := &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Caller: "spiffe://coatcheck.example/checkout"}, NewestFirst: newest, PageSize: 10}
		var numbers []uint64
		pages := 0
		for {
			resp, err := asksAudit(t, in).QueryEvents(deadline(t), req)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, e := range resp.GetEvents() {
				numbers = append(numbers, e.GetSequence())
			}
			tokenizeAbout(t, in, "between the pages")
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if newest {
			slices.Reverse(numbers)
		}
		if !slices.IsSorted(numbers) || len(slices.Compact(slices.Clone(numbers))) != len(numbers) || len(numbers) < 25 || pages < 3 {
			t.Errorf("newest first %v: %d pages with %v", newest, pages, numbers)
		}
	}
}

// A page token is of one filter and one order, whatever was rotated since.
func TestQueryPageToken(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	for range 3 {
		tokenizeAbout(t, in, "x")
	}
	filter := &coatcheckv1.AuditFilter{Subject: "x"}
	resp, err := asksAudit(t, in).QueryEvents(deadline(t), &coatcheckv1.QueryEventsRequest{Filter: filter, PageSize: 1})
	if err != nil || resp.GetNextPageToken() == "" {
		t.Fatal(resp, err)
	}
	page := resp.GetNextPageToken()
	if _, err := coatcheckv1.NewKeyServiceClient(in.As(t, "admin")).RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_AUDIT}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		req  *coatcheckv1.QueryEventsRequest
		want string
	}{
		{&coatcheckv1.QueryEventsRequest{Filter: filter, PageToken: page}, ""},
		{&coatcheckv1.QueryEventsRequest{Filter: filter, PageToken: page, NewestFirst: true}, "INVALID_PAGE_TOKEN"},
		{&coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Subject: "y"}, PageToken: page}, "INVALID_PAGE_TOKEN"},
		{&coatcheckv1.QueryEventsRequest{PageToken: page}, "INVALID_PAGE_TOKEN"},
		{&coatcheckv1.QueryEventsRequest{PageToken: "zz"}, "INVALID_PAGE_TOKEN"},
		{&coatcheckv1.QueryEventsRequest{PageSize: -1}, "INVALID_PAGE_SIZE"},
	} {
		if _, err := asksAudit(t, in).QueryEvents(deadline(t), row.req); reason(err) != row.want {
			t.Errorf("%v: %v, want %s", row.req, err, row.want)
		}
	}
}

func TestQueryRefusesFilters(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	for _, row := range []struct {
		filter *coatcheckv1.AuditFilter
		want   string
	}{
		{&coatcheckv1.AuditFilter{Since: &timestamppb.Timestamp{Nanos: -1}}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Caller: strings.Repeat("x", 1025)}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Certificate: "ab"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Decision: "maybe"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Alert: "FIRE"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{SubjectDigest: "customer-7"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{TokenDigest: "a1:00"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Subject: "x", SubjectDigest: "a1:00112233445566778899aabbccddeeff"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Token: "cc_x", TokenDigest: "a1:00112233445566778899aabbccddeeff"}, "INVALID_FILTER"},
		{&coatcheckv1.AuditFilter{Token: "cc_x"}, "INVALID_TOKEN"},
		{&coatcheckv1.AuditFilter{Token: "4111"}, "PROFILE_REQUIRED"},
		{&coatcheckv1.AuditFilter{Token: "4111", Profile: "forgotten"}, ""},
		{&coatcheckv1.AuditFilter{Subject: strings.Repeat("x", 257)}, "INVALID_SUBJECT"},
		{&coatcheckv1.AuditFilter{Certificate: strings.Repeat("AB", 32), Decision: "deny", Alert: "ANY"}, ""},
	} {
		if _, err := asksAudit(t, in).QueryEvents(deadline(t), &coatcheckv1.QueryEventsRequest{Filter: row.filter}); reason(err) != row.want {
			t.Errorf("query %v: %v, want %s", row.filter, err, row.want)
		}
		stream, err := asksAudit(t, in).WatchEvents(deadline(t), &coatcheckv1.WatchEventsRequest{Filter: row.filter})
		if err == nil {
			_, err = stream.Recv()
		}
		if reason(err) != row.want {
			t.Errorf("watch %v: %v, want %s", row.filter, err, row.want)
		}
	}
}

// What was refused is found by why, and events that are too large are told of.
func TestQueryOfRefusalsAndLargeEvents(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Limits: server.Limits{MessageSize: 128 << 10}})
	_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "stranger")).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	if reason(err) != "NO_RULE" {
		t.Fatal(err)
	}
	refused := query(t, in, &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Decision: "deny", Reason: "NO_RULE", Code: "PERMISSION_DENIED"}})
	if len(refused) != 1 || !strings.HasSuffix(refused[0].Caller, "/stranger") {
		t.Errorf("%+v", refused)
	}
	batch := new(coatcheckv1.BatchTokenizeRequest)
	for range 1500 {
		batch.Items = append(batch.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Subject: "y"})
	}
	for range 3 {
		if _, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).BatchTokenize(deadline(t), batch); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := asksAudit(t, in).QueryEvents(deadline(t), &coatcheckv1.QueryEventsRequest{Filter: &coatcheckv1.AuditFilter{Action: "tokenize", Profile: "note"}})
	if err != nil || len(resp.GetEvents()) != 1 || resp.GetNextPageToken() == "" {
		t.Fatalf("%d events: %v", len(resp.GetEvents()), err)
	}
	if e := resp.GetEvents()[0]; e.GetEvent() != "" || e.GetSize() < 128<<10 {
		t.Errorf("an event of %d bytes, said to have %d", len(e.GetEvent()), e.GetSize())
	}
}

// watchAudit watches, and returns once that has begun.
func watchAudit(t *testing.T, in *servertest.Instance, req *coatcheckv1.WatchEventsRequest) (next func() (*coatcheckv1.WatchEventsResponse, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := asksAudit(t, in).WatchEvents(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if req.GetFromSequence() == 0 {
		first, err := stream.Recv()
		if err != nil || first.GetEvent() != nil || first.GetNextSequence() == 0 {
			t.Fatalf("%v, %v", first, err)
		}
	}
	return stream.Recv
}

// Each event comes once, whatever is committed at the same time and wherever the segments
// are cut.
func TestWatchSeesEachEventOnce(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Segments: audit.SegmentOptions{Size: 4000}})
	filter := &coatcheckv1.AuditFilter{Action: "tokenize"}
	live := watchAudit(t, in, &coatcheckv1.WatchEventsRequest{Filter: filter})
	const callers, each = 4, 50
	done := make(chan error, callers)
	for range callers {
		go func() {
			client := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
			for range each {
				if _, err := client.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	receive := func(name string, next func() (*coatcheckv1.WatchEventsResponse, error)) {
		seen, last := 0, uint64(0)
		for seen < callers*each {
			m, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetEvent() == nil {
				continue
			}
			if e := parseEvent(t, in, m.GetEvent()); e.Action != "tokenize" || m.GetEvent().GetSequence() <= last || m.GetNextSequence() != m.GetEvent().GetSequence()+1 {
				t.Fatalf("%s: %v after %d", name, m, last)
			}
			seen, last = seen+1, m.GetEvent().GetSequence()
		}
	}
	receive("live", live)
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	receive("from the beginning", watchAudit(t, in, &coatcheckv1.WatchEventsRequest{Filter: filter, FromSequence: 1}))
}

// Somebody who doesn't read holds nobody up, and loses nothing.
func TestWatchBySlowReader(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	next := watchAudit(t, in, &coatcheckv1.WatchEventsRequest{Filter: &coatcheckv1.AuditFilter{Action: "tokenize"}})
	batch := new(coatcheckv1.BatchTokenizeRequest)
	for range 2000 {
		batch.Items = append(batch.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Subject: "y"})
	}
	const batches = 20 // more than flow control lets through
	for range batches {
		if _, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).BatchTokenize(deadline(t), batch); err != nil {
			t.Fatal(err)
		}
	}
	for seen := 0; seen < batches; {
		m, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetEvent() != nil {
			seen++
		}
	}
}

func TestWatchEnds(t *testing.T) {
	t.Run("at a drain", func(t *testing.T) {
		in := servertest.Start(t, servertest.Options{})
		next := watchAudit(t, in, &coatcheckv1.WatchEventsRequest{})
		in.Stop()
		for {
			if _, err := next(); err != nil {
				if reason(err) != "SHUTTING_DOWN" {
					t.Error(err)
				}
				return
			}
		}
	})
	t.Run("when the caller is suspended", func(t *testing.T) {
		in := servertest.Start(t, servertest.Options{Policy: servertest.Policy + `  - name: watcher
    callers: ["spiffe://coatcheck.example/auditor"]
    actions: [watch-audit]
`})
		stream, err := coatcheckv1.NewAuditServiceClient(in.As(t, "auditor")).WatchEvents(deadline(t), &coatcheckv1.WatchEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		_, err = coatcheckv1.NewCallerServiceClient(in.As(t, "admin")).SuspendCaller(deadline(t), &coatcheckv1.SuspendCallerRequest{Caller: "spiffe://coatcheck.example/auditor"})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied || reason(err) != "CALLER_SUSPENDED" || errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}
