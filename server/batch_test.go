package server_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func checkout(t *testing.T, in *servertest.Instance) coatcheckv1.TokenizationServiceClient {
	return coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
}

func auditor(t *testing.T, in *servertest.Instance) coatcheckv1.TokenizationServiceClient {
	return coatcheckv1.NewTokenizationServiceClient(in.As(t, "auditor"))
}

// Each item of a batch has a result in its place, one that is refused fails
// alone, and one event tells of all.
func TestBatch(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	resp, err := checkout(t, in).BatchTokenize(deadline(t), &coatcheckv1.BatchTokenizeRequest{Items: []*coatcheckv1.TokenizeRequest{
		{Profile: "card", Value: "4111111111111111"},
		{Profile: "card", Value: "4111111111111112"},
		{Profile: "nope", Value: "4111111111111111"},
		{Profile: "note", Value: "hello", Subject: "customer"},
		nil,
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "INVALID_VALUE", "UNKNOWN_PROFILE", "", "UNKNOWN_PROFILE"}
	for i, r := range resp.GetResults() {
		if got := reason(firstError(nil, r)); got != want[i] || (got == "") != (r.GetResponse().GetToken() != "") {
			t.Errorf("item %d: %v, want %q", i, r, want[i])
		}
	}
	if len(resp.GetResults()) != len(want) {
		t.Fatalf("%d results", len(resp.GetResults()))
	}
	card, note := resp.GetResults()[0].GetResponse().GetToken(), resp.GetResults()[3].GetResponse().GetToken()
	revealed, err := auditor(t, in).BatchDetokenize(deadline(t), &coatcheckv1.BatchDetokenizeRequest{Items: []*coatcheckv1.DetokenizeRequest{
		{Token: note, Purpose: "support", Reason: "TICKET-1"}, {Token: card, Purpose: "charge"}, {Token: card, Purpose: "support"}, {Token: card[:20], Purpose: "support"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	results := revealed.GetResults()
	if results[0].GetResponse().GetValue() != "hello" || results[2].GetResponse().GetValue() != "4111111111111111" ||
		reason(firstError(nil, results[1])) != "PURPOSE_NOT_ALLOWED" || reason(firstError(nil, results[3])) != "INVALID_TOKEN" {
		t.Errorf("results %v", results)
	}
	log := events(t, in)
	made, shown := log[len(log)-2], log[len(log)-1]
	items := func(e map[string]any) (items []map[string]any) {
		list, _ := e["items"].([]any)
		for _, item := range list {
			items = append(items, item.(map[string]any))
		}
		return items
	}
	if n := len(items(made)); n != 5 || made["code"] != "OK" || made["action"] != "tokenize" || items(made)[3]["subject"] == nil || items(made)[1]["reason"] != "INVALID_VALUE" || items(made)[0]["token"] == nil {
		t.Errorf("the event of the first batch: %v", made)
	}
	last := items(shown)
	if len(last) != 4 || last[0]["profile"] != "note" || last[0]["reveal"] != "FULL" || last[0]["stated_reason"] != "TICKET-1" || last[1]["decision"] != "deny" || last[1]["reveal"] != nil {
		t.Errorf("the event of the second batch: %v", shown)
	}
	if fmt.Sprint(last[2]["token"]) != fmt.Sprint(items(made)[0]["token"]) {
		t.Errorf("a token has two digests: %v, %v", last[2], items(made)[0])
	}
}

func TestBatchSize(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	for _, n := range []int{0, server.MaxBatch + 1} {
		_, err := checkout(t, in).BatchTokenize(deadline(t), &coatcheckv1.BatchTokenizeRequest{Items: make([]*coatcheckv1.TokenizeRequest, n)})
		if reason(err) != "BATCH_TOO_LARGE" {
			t.Errorf("%d items: %v", n, err)
		}
		_, err = auditor(t, in).BatchDetokenize(deadline(t), &coatcheckv1.BatchDetokenizeRequest{Items: make([]*coatcheckv1.DetokenizeRequest, n)})
		if reason(err) != "BATCH_TOO_LARGE" {
			t.Errorf("%d items: %v", n, err)
		}
	}
	req := new(coatcheckv1.BatchTokenizeRequest)
	for n := range server.MaxBatch {
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: fmt.Sprint("value ", n)})
	}
	resp, err := checkout(t, in).BatchTokenize(deadline(t), req)
	if err != nil || len(resp.GetResults()) != server.MaxBatch {
		t.Fatalf("%d results, %v", len(resp.GetResults()), err)
	}
	ask := new(coatcheckv1.BatchDetokenizeRequest)
	for _, r := range resp.GetResults() {
		ask.Items = append(ask.Items, &coatcheckv1.DetokenizeRequest{Token: r.GetResponse().GetToken(), Purpose: "support"})
	}
	shown, err := auditor(t, in).BatchDetokenize(deadline(t), ask)
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range shown.GetResults() {
		if r.GetResponse().GetValue() != fmt.Sprint("value ", n) {
			t.Fatalf("item %d: %v", n, r)
		}
	}
}

// What doesn't fit an answer is refused item by item, before the event says that
// it was given.
func TestBatchThatDoesNotFit(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	token := tokenize(t, in, "note", strings.Repeat("x", 60<<10))
	ask := new(coatcheckv1.BatchDetokenizeRequest)
	for range 100 {
		ask.Items = append(ask.Items, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
	}
	resp, err := auditor(t, in).BatchDetokenize(deadline(t), ask)
	if err != nil {
		t.Fatal(err)
	}
	given, refused := 0, 0
	for _, r := range resp.GetResults() {
		switch {
		case r.GetResponse() != nil:
			given++
		case reason(firstError(nil, r)) == "RESPONSE_TOO_LARGE":
			refused++
		}
	}
	if given < 50 || refused == 0 || given+refused != 100 {
		t.Errorf("%d given, %d refused", given, refused)
	}
}

// A stream answers everything that came before the half-close, in order, and each
// item by itself.
func TestStream(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	stream, err := checkout(t, in).StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	go func() {
		for i := range n {
			value := fmt.Sprint("value ", i)
			if i%100 == 7 {
				value = ""
			}
			_ = stream.Send(&coatcheckv1.StreamTokenizeRequest{CorrelationId: fmt.Sprint(i), Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: value}})
		}
		_ = stream.CloseSend()
	}()
	tokens := make([]string, 0, n)
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i := len(tokens)
		if resp.GetCorrelationId() != fmt.Sprint(i) || (i%100 == 7) != (reason(firstError(nil, resp.GetResult())) == "INVALID_VALUE") {
			t.Fatalf("answer %d is %v", i, resp)
		}
		tokens = append(tokens, resp.GetResult().GetResponse().GetToken())
	}
	if len(tokens) != n {
		t.Fatalf("%d answers", len(tokens))
	}
	back, err := auditor(t, in).StreamDetokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for _, token := range tokens {
			_ = back.Send(&coatcheckv1.StreamDetokenizeRequest{CorrelationId: "x", Request: &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}})
		}
		_ = back.CloseSend()
	}()
	for i := range tokens {
		resp, err := back.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("value ", i); i%100 != 7 && resp.GetResult().GetResponse().GetValue() != want {
			t.Fatalf("answer %d is %v", i, resp)
		}
	}
	if _, err := back.Recv(); err != io.EOF {
		t.Fatal(err)
	}
	groups := 0
	request := make(map[any]bool)
	for _, e := range events(t, in) {
		if e["method"] == coatcheckv1.TokenizationService_StreamTokenize_FullMethodName {
			request[e["request_id"]] = true
			groups++
		}
	}
	if len(request) != 1 || groups < 2 || groups > n {
		t.Errorf("%d events under %d request ids", groups, len(request))
	}
}

// No value of a stream leaves unless its event is durable.
func TestStreamRevealsNothingWithoutItsRecord(t *testing.T) {
	in, store, _ := startFaulty(t, server.Limits{})
	token := tokenize(t, in, "note", "secret")
	stream, err := auditor(t, in).StreamDetokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := &coatcheckv1.StreamDetokenizeRequest{Request: &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetResult().GetResponse().GetValue() != "secret" {
		t.Fatalf("%v, %v", resp, err)
	}
	store.commits.Store(true)
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	store.commits.Store(false)
	if status.Code(err) != codes.Unavailable || reason(err) != "AUDIT_UNAVAILABLE" || resp.GetResult() != nil {
		t.Fatalf("%v, %v", resp, err)
	}
}

// A client that sends and never reads is held up, and costs no more than a bound.
func TestStreamHoldsUpWhoDoesNotRead(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	stream, err := checkout(t, in).StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 32<<10)
	// The answers are as large as the windows of HTTP/2 are, after some.
	const n = 4000 // 128 MiB
	correlation := strings.Repeat("c", 100)
	var sent atomic.Int64
	go func() {
		for range n {
			if stream.Send(&coatcheckv1.StreamTokenizeRequest{CorrelationId: correlation, Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: big}}) != nil {
				return
			}
			sent.Add(1)
		}
		_ = stream.CloseSend()
	}()
	before := int64(-1)
	waitFor(t, "the client to be held up", func() bool {
		now := sent.Load()
		still := now == before && now > 0
		before = now
		time.Sleep(300 * time.Millisecond)
		return still && sent.Load() == now
	})
	if before == n {
		t.Fatal("the server took everything from a client that doesn't read")
	}
	for answers := 0; ; answers++ {
		_, err := stream.Recv()
		if err == io.EOF {
			if answers != n {
				t.Fatalf("%d answers", answers)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// When the server drains, a stream ends after the group at hand; what it has
// answered is durable.
func TestStreamEndsWhenTheServerDrains(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	stream, err := checkout(t, in).StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&coatcheckv1.StreamTokenizeRequest{Request: &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	in.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || reason(err) != "SHUTTING_DOWN" {
		t.Fatalf("%v, want SHUTTING_DOWN", err)
	}
	if err := in.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestStreamOfGarbage(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	conn := in.As(t, "checkout")
	stream, err := conn.NewStream(deadline(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		coatcheckv1.TokenizationService_StreamTokenize_FullMethodName, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	garbage := []byte{0xff, 0xff, 0xff}
	if err := stream.SendMsg(garbage); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); status.Code(err) != codes.InvalidArgument || reason(err) != "INVALID_REQUEST" {
		t.Fatalf("%v, want INVALID_REQUEST", err)
	}
}

// With many clients that bring the same values at once, each value has one token.
func TestConvergentOverTheWire(t *testing.T) {
	const clients, values = 16, 300
	in := servertest.Start(t, servertest.Options{Profiles: []tokenizer.Profile{
		{Name: "card", Type: "card-number", Purposes: []string{"support", "charge", "refund"}},
		{Name: "ssn", Type: "ssn", Purposes: []string{"support"}},
		{Name: "note", Type: "text", Mode: tokenizer.Convergent, Purposes: []string{"support"}},
	}})
	var mu sync.Mutex
	tokens := make(map[string]string)
	var wg sync.WaitGroup
	for c := range clients {
		client := checkout(t, in)
		wg.Go(func() {
			req := new(coatcheckv1.BatchTokenizeRequest)
			for n := range values {
				req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: fmt.Sprint((n + c*17) % values)})
			}
			resp, err := client.BatchTokenize(deadline(t), req)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for n, r := range resp.GetResults() {
				value, token := req.Items[n].GetValue(), r.GetResponse().GetToken()
				if first, ok := tokens[value]; ok && first != token || token == "" {
					t.Errorf("value %s has tokens %s and %s", value, first, token)
				}
				tokens[value] = token
			}
		})
	}
	wg.Wait()
	if len(tokens) != values {
		t.Errorf("%d values have tokens", len(tokens))
	}
}

// What wouldn't fit an answer is refused before anything is stored, or given in
// smaller parts.
func TestAnswersFit(t *testing.T) {
	const size = 128 << 10
	in := servertest.Start(t, servertest.Options{Limits: server.Limits{MessageSize: size}})
	req := new(coatcheckv1.BatchTokenizeRequest)
	for range 8000 {
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
	}
	if _, err := checkout(t, in).BatchTokenize(deadline(t), req); reason(err) != "RESPONSE_TOO_LARGE" {
		t.Errorf("a batch: %v", err)
	}
	if counts, err := in.Store.Profiles(t.Context(), server.DefaultNamespace); err != nil || counts["note"] != 0 {
		t.Errorf("a batch that was refused left %v, %v", counts, err)
	}
	labels := make(map[string]string)
	for i := range 15 {
		labels[fmt.Sprint("k", i)] = strings.Repeat("x", 256)
	}
	const n = 60
	for range n {
		if _, err := checkout(t, in).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: strings.Repeat("\x01", 40<<10), Metadata: labels}); err != nil {
			t.Fatal(err)
		}
	}
	admin := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	seen, page := 0, ""
	for more := true; more; more = page != "" {
		resp, err := admin.ListTokens(deadline(t), &coatcheckv1.ListTokensRequest{Profile: "note", PageSize: 1000, PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		seen, page = seen+len(resp.GetTokens()), resp.GetNextPageToken()
	}
	if seen != n {
		t.Errorf("%d tokens listed, want %d", seen, n)
	}
}

// What a caller states as its reason stands in the audit log as it is.
func TestStatedReasons(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	token := tokenize(t, in, "note", "x")
	for name, stated := range map[string]string{"long": strings.Repeat("x", 257), "control": "a\x00b", "line": "a\nb"} {
		_, err := auditor(t, in).Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support", Reason: stated})
		if reason(err) != "INVALID_REASON" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
