package audit_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

var indexEvents = flag.Int("index.events", 200_000, "events in the log of BenchmarkIndex")

// BenchmarkIndex measures what docs/audit.md says of the index, over a log in a real store:
// how long it takes to make, how large it is, and what queries take with it and without.
func BenchmarkIndex(b *testing.B) {
	dir := b.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	bodies := fillLog(b, store, *indexEvents)

	log := slog.New(slog.DiscardHandler)
	index := audit.NewIndex(dir, store, log)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(done)
		index.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	for index.Last() < uint64(*indexEvents-audit.BlockEvents) {
		time.Sleep(time.Millisecond)
	}
	made := time.Since(begin)
	size := int64(0)
	files, _ := filepath.Glob(filepath.Join(dir, "audit-*.idx"))
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			size += info.Size()
		}
	}
	b.Logf("%d events, %d MB of bodies: index of %.1f MB in %d files, %.2f bytes an event, made in %v: %.0f events/s", *indexEvents, bodies>>20,
		float64(size)/(1<<20), len(files), float64(size)/float64(*indexEvents), made.Round(time.Millisecond), float64(*indexEvents)/made.Seconds())

	queries := []struct {
		name  string
		query audit.Query
	}{
		{"rare-subject", audit.Query{Subjects: []string{digest("b", 7)}}},
		{"rare-caller", audit.Query{Caller: "spiffe://example.org/rare"}},
		{"request", audit.Query{RequestID: fmt.Sprintf("%016x", *indexEvents/2)}},
		{"nobody", audit.Query{Subjects: []string{digest("b", math.MaxInt32)}}},
	}
	for _, q := range queries {
		for _, with := range []struct {
			name  string
			index *audit.Index
		}{{"index", index}, {"scan", audit.NewIndex(dir, store, log)}} {
			b.Run(q.name+"/"+with.name, func(b *testing.B) {
				for b.Loop() {
					before := with.index.Looked()
					hits := 0
					filter := audit.NewFilter(q.query)
					for from := uint64(1); ; {
						found, err := with.index.Find(b.Context(), filter, from, false, audit.Bounds{Events: 1000, Bytes: 4 << 20, Look: 1 << 15})
						if err != nil {
							b.Fatal(err)
						}
						hits += len(found.Entries)
						if found.End {
							break
						}
						from = found.Next
					}
					b.ReportMetric(float64(hits), "hits")
					b.ReportMetric(float64(with.index.Looked()-before), "events-read")
				}
			})
		}
	}
}

func digest(kind string, n int) string { return fmt.Sprintf("a1:%s%031x", kind, n) }

// fillLog commits events of 50 callers about 100,000 subjects, and returns how many bytes
// they have.
func fillLog(b *testing.B, store tokenizer.Store, n int) (bytes int) {
	const group = 512
	for from := 0; from < n; from += group {
		errs := make(chan error, group)
		count := min(group, n-from)
		for i := from; i < from+count; i++ {
			e := &audit.Event{
				Time: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 10 * time.Millisecond), RequestID: fmt.Sprintf("%016x", i),
				Caller: fmt.Sprintf("spiffe://example.org/service-%d", i%50), Certificate: strings.Repeat(fmt.Sprintf("%02x", i%50), 32), Peer: "192.0.2.7:40123",
				Method: "/coatcheck.v1.TokenizationService/Detokenize", Action: "detokenize", Namespace: "default", Profile: "card", Purpose: "charge", Reveal: "FULL",
				Decision: audit.Allow, Rule: "payments-charge", Policy: strings.Repeat("ab", 32), Code: "OK",
				Items: []audit.Item{{Token: digest("a", i), Subject: digest("b", i*7919%100_000)}},
			}
			if i%(n/5) == 77 {
				e.Caller = "spiffe://example.org/rare"
			}
			body := e.Body()
			bytes += len(body)
			go func() {
				_, err := store.Commit(context.Background(), tokenizer.Unit{Event: func(tokenizer.Outcome) []byte { return body }})
				errs <- err
			}()
		}
		for range count {
			if err := <-errs; err != nil {
				b.Fatal(err)
			}
		}
	}
	return bytes
}
