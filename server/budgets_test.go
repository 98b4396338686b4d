package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// However many ask at once, and in whatever way, exactly the budget is revealed: also
// after a restart; and again in the next hour.
func TestBudgetIsExact(t *testing.T) {
	const budget, clients = 333, 64
	clock := newTestClock()
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: limitedPolicy(revealing("support-sees", "support", "note", fmt.Sprintf("values_per_hour: %d", budget)))})
	tokens := about(t, in, "note", make([]string, 16)...)
	for round := range 2 {
		support := coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
		var revealed, refused atomic.Int64
		refuse := func(err error) {
			if reason(err) != "BUDGET_SPENT" {
				t.Errorf("refused for %v", err)
			}
			refused.Add(1)
		}
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				if i%4 == 0 {
					n, err := revealStream(deadline(t), support, tokens, refuse)
					if err != nil {
						t.Error(err)
					}
					revealed.Add(int64(n))
				}
				for k := range 4 {
					_, err := support.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: tokens[k], Purpose: "support"})
					if err != nil {
						refuse(err)
					} else {
						revealed.Add(1)
					}
				}
				resp, err := support.BatchDetokenize(deadline(t), batchOfTokens(tokens[:5]))
				if err != nil {
					t.Error(err)
				}
				for _, r := range resp.GetResults() {
					if r.GetError() != nil {
						refuse(firstError(nil, r))
					} else {
						revealed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if asked := int64(clients*9 + clients/4*16); revealed.Load() != budget || refused.Load() != asked-budget {
			t.Fatalf("%d values were revealed, %d of %d refused; want %d", revealed.Load(), refused.Load(), asked, budget)
		}
		counts := in.Limited()
		if len(counts) != 1 || counts[0].Rule != "support-sees" || counts[0].Limit != "values_per_hour" || counts[0].Refused != uint64(refused.Load()) {
			t.Errorf("counted %v, want %d", counts, refused.Load())
		}
		in = in.Restart(t)
		support = coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
		ask := &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support"}
		_, err := support.Detokenize(deadline(t), ask)
		wantLimited(t, err, "BUDGET_SPENT", "support-sees", "values_per_hour", 30*time.Minute)
		masked := &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support", Reveal: coatcheckv1.Reveal_REVEAL_MASKED}
		if _, err := support.Detokenize(deadline(t), masked); err != nil {
			t.Errorf("masked: %v", err)
		}
		if round == 0 {
			in = in.Restart(t) // so that the counts begin anew
			clock.pass(time.Hour)
		}
	}
	shown := 0
	for _, e := range events(t, in) {
		if e["reason"] == "BUDGET_SPENT" && (e["decision"] != "allow" || e["rule"] != "support-sees" || e["reveal"] != nil) {
			t.Fatalf("an event: %v", e)
		}
		items, _ := e["items"].([]any)
		for _, item := range items {
			if item := item.(map[string]any); e["action"] == "detokenize" && (item["reveal"] == "FULL" || e["reveal"] == "FULL") {
				shown++
			}
		}
	}
	if shown != 2*budget {
		t.Errorf("events tell of %d values, want %d", shown, 2*budget)
	}
}

// Subjects count once, and values about nobody not at all.
func TestSubjectBudget(t *testing.T) {
	clock := newTestClock()
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: limitedPolicy(revealing("support-sees", "support", "note", "subjects_per_day: 3"))})
	tokens := about(t, in, "note", "ann", "bob", "ann", "", "cid", "dan", "bob", "", "eve", "cid")
	want := []bool{true, true, true, true, true, false, true, true, false, true}
	support := coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
	for range 2 {
		var trailer metadata.MD
		resp, err := support.BatchDetokenize(deadline(t), batchOfTokens(tokens), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range resp.GetResults() {
			if (r.GetError() == nil) != want[i] {
				t.Errorf("item %d: %v", i, r)
			}
			if !want[i] {
				wantLimited(t, firstError(nil, r), "BUDGET_SPENT", "support-sees", "subjects_per_day", 13*time.Hour+30*time.Minute)
			}
		}
		wantLeft(t, trailer, `"support-sees/subjects_per_day";r=0;t=48600`)
		in = in.Restart(t)
		support = coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
	}
	clock.pass(24 * time.Hour)
	if n, err := revealStream(deadline(t), support, tokens[4:6], func(err error) { t.Error(err) }); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

// An export ends where its budget does, and goes on from there when there is another.
func TestExportBudget(t *testing.T) {
	clock := newTestClock()
	rules := limitedPolicy(`  - name: admin-exports
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [export-tokens]
    profiles: [note]
    limits: {values_per_hour: 700, items_per_minute: 10}
`)
	limits := server.Limits{MessageSize: 60 << 10} // so a page is made anew, of fewer
	in := servertest.Start(t, servertest.Options{Now: clock.Now, Policy: rules, Limits: limits})
	about(t, in, "note", make([]string, 1000)...)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	admin := coatcheckv1.NewTokenServiceClient(in.As(t, "admin"))
	export := func(from string) (tokens uint32, next string, trailer metadata.MD, err error) {
		stream, err := admin.ExportTokens(deadline(t), &coatcheckv1.ExportTokensRequest{Profile: "note", Recipient: identity.Recipient().String(), PageToken: from})
		if err != nil {
			return 0, "", nil, err
		}
		for next = from; ; {
			page, err := stream.Recv()
			if err == io.EOF {
				return tokens, next, stream.Trailer(), nil
			}
			if err != nil {
				return tokens, next, stream.Trailer(), err
			}
			tokens, next = tokens+page.GetTokenCount(), page.GetNextPageToken()
		}
	}
	n, next, trailer, err := export("")
	if n != 700 || next == "" {
		t.Fatalf("%d tokens, next %q", n, next)
	}
	wantLimited(t, err, "BUDGET_SPENT", "admin-exports", "values_per_hour", 30*time.Minute)
	wantLeft(t, trailer, `"admin-exports/values_per_hour";r=0;t=1800`, `"admin-exports/items_per_minute";r=9;t=6`)
	n, _, _, err = export(next)
	if n != 0 {
		t.Fatalf("%d tokens", n)
	}
	wantLimited(t, err, "BUDGET_SPENT", "admin-exports", "values_per_hour", 30*time.Minute)
	clock.pass(time.Hour)
	if n, next, trailer, err = export(next); n != 300 || next != "" || err != nil {
		t.Fatalf("%d tokens, next %q, %v", n, next, err)
	}
	wantLeft(t, trailer, `"admin-exports/items_per_minute";r=9;t=6`, `"admin-exports/values_per_hour";r=400;t=1800`)
}

// moodyStore can't read budgets, or is in conflict, when it is told.
type moodyStore struct {
	tokenizer.Store
	away      atomic.Bool
	conflicts atomic.Int64 // that are to come
}

func (s *moodyStore) Spent(ctx context.Context, budgets ...tokenizer.Budget) ([]uint64, error) {
	if s.away.Load() {
		return nil, tokenizer.ErrUnavailable
	}
	return s.Store.Spent(ctx, budgets...)
}

func (s *moodyStore) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	if s.conflicts.Add(-1) >= 0 {
		return tokenizer.Outcome{}, tokenizer.ErrConflict
	}
	return s.Store.Commit(ctx, unit)
}

// What can't be counted isn't revealed, and what is done again counts once.
func TestLimitsFailClosed(t *testing.T) {
	clock := newTestClock()
	store := new(moodyStore)
	in := servertest.Start(t, servertest.Options{Now: clock.Now,
		Policy: limitedPolicy(revealing("support-sees", "support", "note", "items_per_minute: 20, values_per_hour: 9")),
		Wrap:   func(s tokenizer.Store) tokenizer.Store { store.Store = s; return store }})
	tokens := about(t, in, "note", "", "", "")
	support := coatcheckv1.NewTokenizationServiceClient(in.As(t, "support"))
	ask := &coatcheckv1.DetokenizeRequest{Token: tokens[0], Purpose: "support"}
	store.away.Store(true)
	_, one := support.Detokenize(deadline(t), ask)
	_, many := support.BatchDetokenize(deadline(t), batchOfTokens(tokens))
	_, streamed := revealStream(deadline(t), support, tokens[:1], func(err error) { t.Error(err) })
	for _, err := range []error{one, many, streamed} {
		if status.Code(err) != codes.Unavailable || reason(err) != "STORE_UNAVAILABLE" {
			t.Errorf("%v, want STORE_UNAVAILABLE", err)
		}
	}
	store.away.Store(false)
	var trailer metadata.MD
	for _, call := range []func() error{
		func() error {
			_, err := support.Detokenize(deadline(t), ask, grpc.Trailer(&trailer))
			return err
		},
		func() error {
			resp, err := support.BatchDetokenize(deadline(t), batchOfTokens(tokens), grpc.Trailer(&trailer))
			return errors.Join(err, firstError(nil, resp.GetResults()...))
		},
		func() error {
			n, err := revealStream(deadline(t), support, tokens[:1], func(err error) { t.Error(err) })
			if n != 1 {
				t.Errorf("%d of a stream", n)
			}
			return err
		},
	} {
		store.conflicts.Store(3)
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := support.Detokenize(deadline(t), ask, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, trailer, `"support-sees/values_per_hour";r=3;t=1800`, `"support-sees/items_per_minute";r=9;t=33`)
}
