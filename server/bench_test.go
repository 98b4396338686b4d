package server_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/burst"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// callsOf returns calls of each kind, with which a server is measured: Check goes
// through the chain and no further.
func callsOf(tb testing.TB) map[string]func() error {
	in := servertest.Start(tb, servertest.Options{
		Alerts: alert.NewDispatcher(slog.New(slog.DiscardHandler)),
		Bursts: burst.NewCounter(burst.DefaultRule, time.Now()),
	})
	conn := in.As(tb, "checkout")
	checkout, health := coatcheckv1.NewTokenizationServiceClient(conn), grpc_health_v1.NewHealthClient(conn)
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(tb, "payments"))
	tokenize := &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"}
	made, err := checkout.Tokenize(tb.Context(), tokenize)
	if err != nil {
		tb.Fatal(err)
	}
	detokenize := &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "charge"}
	var tokenizeMany coatcheckv1.BatchTokenizeRequest
	var detokenizeMany coatcheckv1.BatchDetokenizeRequest
	for range batchOf {
		tokenizeMany.Items = append(tokenizeMany.Items, tokenize)
		detokenizeMany.Items = append(detokenizeMany.Items, detokenize)
	}
	return map[string]func() error{
		"Check": func() error {
			_, err := health.Check(tb.Context(), &grpc_health_v1.HealthCheckRequest{})
			return err
		},
		"Tokenize": func() error {
			_, err := checkout.Tokenize(tb.Context(), tokenize)
			return err
		},
		"Detokenize": func() error {
			_, err := payments.Detokenize(tb.Context(), detokenize)
			return err
		},
		fmt.Sprintf("BatchTokenize/%d", batchOf): func() error {
			_, err := checkout.BatchTokenize(tb.Context(), &tokenizeMany)
			return err
		},
		fmt.Sprintf("BatchDetokenize/%d", batchOf): func() error {
			_, err := payments.BatchDetokenize(tb.Context(), &detokenizeMany)
			return err
		},
	}
}

// batchOf is how many items a batch has.
const batchOf = 1000

// BenchmarkCalls measures whole calls, client included, many of them at a time.
func BenchmarkCalls(b *testing.B) {
	for name, call := range callsOf(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := call(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
