package server_test

import (
	"testing"

	"google.golang.org/grpc/metadata"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// An event names the trace that its call belongs to, and nothing else of what a client
// puts into the header.
func TestTraceID(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	headers := map[string]any{
		"00-" + id + "-00f067aa0ba902b7-01":                       id,
		"cc-" + id + "-00f067aa0ba902b7-01-more":                  id,
		"ff-" + id + "-00f067aa0ba902b7-01":                       nil,
		"00-" + id + "-00f067aa0ba902b7":                          nil,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": nil,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": nil,
		"00-4111111111111111 is no trace id!-00f067aa0ba902b7-01": nil,
		"": nil,
	}
	var want []any
	for header, id := range headers {
		ctx := metadata.AppendToOutgoingContext(deadline(t), "traceparent", header)
		if _, err := checkout(t, in).Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a"}); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	n := 0
	for _, e := range events(t, in) {
		if e["action"] != "tokenize" {
			continue
		}
		if e["trace_id"] != want[n] {
			t.Errorf("event %d has %v, want %v", n, e["trace_id"], want[n])
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d events", n)
	}
}
