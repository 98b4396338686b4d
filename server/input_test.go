package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// rawCodec sends bytes as they are: what no generated client would send.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

func (rawCodec) Name() string { return "proto" }

// events returns the audit events of an instance that has stopped.
func events(t *testing.T, in *servertest.Instance) []map[string]any {
	t.Helper()
	in.Stop()
	if err := in.Wait(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(in.AuditDir(), "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no audit log: %v", err)
	}
	var all []map[string]any
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var parsed struct{ Event map[string]any }
			if err := json.Unmarshal([]byte(line), &parsed); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			all = append(all, parsed.Event)
		}
	}
	return all
}

func TestBadInput(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	checkout := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	auditor := coatcheckv1.NewTokenizationServiceClient(in.As(t, "auditor"))
	card := tokenize(t, in, "card", "4111111111111111")
	changed := []byte(card)
	changed[15] ^= 1
	put := func(profile, value string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := checkout.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
			return err
		}
	}
	get := func(req *coatcheckv1.DetokenizeRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := auditor.Detokenize(ctx, req)
			return err
		}
	}
	raw := func(caller, method string, message []byte) func(context.Context) error {
		conn := in.As(t, caller)
		return func(ctx context.Context) error {
			return conn.Invoke(ctx, method, message, new([]byte), grpc.ForceCodecV2(rawCodec{}))
		}
	}
	rows := []struct {
		name          string
		call          func(context.Context) error
		code          codes.Code
		reason, field string
	}{
		{"empty value", put("card", ""), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"12 digits", put("card", "411111111111"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"20 digits", put("card", "41111111111111111111"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"Luhn failure", put("card", "4111111111111112"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"letters", put("card", "4111x11111111111"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"SSN of area 000", put("ssn", "000-12-3456"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"SSN of area 666", put("ssn", "666123456"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"SSN of area 9xx", put("ssn", "987-65-4320"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"SSN of group 00", put("ssn", "536-00-8745"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"SSN of serial 0000", put("ssn", "536-22-0000"), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"65 KiB of text", put("note", strings.Repeat("x", 65<<10)), codes.InvalidArgument, "INVALID_VALUE", "value"},
		{"unknown profile", put("cart", "4111111111111111"), codes.InvalidArgument, "UNKNOWN_PROFILE", "profile"},
		{"no profile", put("", "4111111111111111"), codes.InvalidArgument, "UNKNOWN_PROFILE", "profile"},
		{"a value as the profile", put("4111111111111111", "card"), codes.InvalidArgument, "UNKNOWN_PROFILE", "profile"},
		{"broken UTF-8 in the value", raw("checkout", coatcheckv1.TokenizationService_Tokenize_FullMethodName,
			[]byte("\x0a\x04note\x12\x03a\xffb")), codes.InvalidArgument, "INVALID_REQUEST", "value"},
		{"broken UTF-8 in the token", raw("auditor", coatcheckv1.TokenizationService_Detokenize_FullMethodName,
			[]byte("\x0a\x03a\xffb")), codes.InvalidArgument, "INVALID_REQUEST", "token"},
		{"not protobuf", raw("checkout", coatcheckv1.TokenizationService_Tokenize_FullMethodName,
			[]byte("\x0a\x7fshort")), codes.InvalidArgument, "INVALID_REQUEST", ""},
		{"a 1-MiB metadata map", func(ctx context.Context) error {
			labels := make(map[string]string)
			for i := range 1024 {
				labels["k"+strings.Repeat("x", i%60)+string(rune('a'+i%26))+strings.Repeat("y", i/60)] = strings.Repeat("v", 1024)
			}
			_, err := checkout.Tokenize(ctx, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x", Metadata: labels})
			return err
		}, codes.InvalidArgument, "INVALID_METADATA", "metadata"},
		{"one character changed", get(&coatcheckv1.DetokenizeRequest{Token: string(changed), Purpose: "support"}), codes.InvalidArgument, "INVALID_TOKEN", "token"},
		{"no token", get(&coatcheckv1.DetokenizeRequest{Purpose: "support"}), codes.InvalidArgument, "INVALID_TOKEN", "token"},
		{"a value as the token", get(&coatcheckv1.DetokenizeRequest{Token: "4111111111111111", Purpose: "support"}), codes.InvalidArgument, "PROFILE_REQUIRED", "profile"},
		{"a token of another profile", get(&coatcheckv1.DetokenizeRequest{Token: card, Profile: "ssn", Purpose: "support"}), codes.NotFound, "TOKEN_NOT_FOUND", ""},
		{"an unknown profile expected", get(&coatcheckv1.DetokenizeRequest{Token: card, Profile: "cart", Purpose: "support"}), codes.InvalidArgument, "UNKNOWN_PROFILE", "profile"},
		{"an unknown method", raw("checkout", "/coatcheck.v1.TokenizationService/4111111111111111", nil), codes.Unimplemented, "UNKNOWN_METHOD", ""},
		{"an unknown service", raw("checkout", "/4111111111111111/Reveal", nil), codes.Unimplemented, "UNKNOWN_METHOD", ""},
		{"no purpose", get(&coatcheckv1.DetokenizeRequest{Token: card}), codes.InvalidArgument, "PURPOSE_REQUIRED", "purpose"},
	}
	before := nextID(t, in)
	for _, row := range rows {
		err := row.call(deadline(t))
		if status.Code(err) != row.code || reason(err) != row.reason || field(err) != row.field {
			t.Errorf("%s: code %v, reason %q, field %q (%v); want %v, %q, %q", row.name, status.Code(err), reason(err), field(err), err, row.code, row.reason, row.field)
		}
		if strings.Contains(err.Error(), "1111") {
			t.Errorf("%s: the error holds a part of the value: %v", row.name, err)
		}
	}
	for id, after := before, nextID(t, in); id < after; id++ {
		if found, err := in.Store.Records(t.Context(), id); err != nil || found[0].Err == nil {
			t.Errorf("a refused call left record %d", id)
		}
	}
	log := events(t, in)
	log = log[len(log)-len(rows):]
	for i, row := range rows {
		if log[i]["reason"] != row.reason || log[i]["code"] == "OK" || log[i]["caller"] == "" || log[i]["request_id"] == "" {
			t.Errorf("%s: its event is %v", row.name, log[i])
		}
		for _, random := range []string{"time", "request_id", "certificate", "policy", "peer"} {
			delete(log[i], random) // which may have these digits by chance
		}
		if text := fmt.Sprint(log[i]); strings.Contains(text, "1111") {
			t.Errorf("%s: its event holds a part of the value: %s", row.name, text)
		}
	}
}

// nextID returns an id above all that have been handed out.
func nextID(t *testing.T, in *servertest.Instance) uint64 {
	t.Helper()
	id, err := in.Store.ReserveIDs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// field returns the field that a status's BadRequest names.
func field(err error) string {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) == 1 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}
