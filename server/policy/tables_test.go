package policy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// However many callers come whom only patterns are about, few are remembered, and each is
// decided about as if none had come before.
func TestManyCallersAreMet(t *testing.T) {
	var file strings.Builder
	file.WriteString(head)
	for i := range 50 {
		fmt.Fprintf(&file, "- {name: r%d, callers: [\"spiffe://x/*/s%d\", \"spiffe://x/n%d/*\"], actions: [detokenize], classes: [pii], purposes: [support], reveal: MASKED}\n", i, i, i)
	}
	p, err := Parse("p", []byte(file.String()), rich)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100_000 {
		rule := min(i%100, i/100%100)
		d := p.Decide(ask(fmt.Sprintf("spiffe://x/n%d/s%d", i/100%100, i%100)+strings.Repeat("/x", i%2), "detokenize", "card", "support", Masked))
		if want := i%2 == 0 && rule < 50; d.Allowed != want || want && d.Rule != fmt.Sprintf("r%d", rule) {
			t.Fatalf("caller %d: %+v", i, d)
		}
		p.Decide(ask(fmt.Sprintf("dns:stranger-%d.a", i), "detokenize", "card", "support", Masked))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(p.tables.met) > maxMet || p.tables.size > maxGrants || len(p.tables.shared) > maxMet {
		t.Errorf("%d callers with %d tables of the size %d are remembered", len(p.tables.met), len(p.tables.shared), p.tables.size)
	}
	if kept := int64(after.HeapAlloc-before.HeapAlloc) >> 20; kept > 64 {
		t.Errorf("%d MiB are kept", kept)
	}
	runtime.KeepAlive(p)
}

// What a pattern comes to by itself is found when the file is read; what several come to
// together for a caller whom all of them match, when there is one: it is told so.
func TestTooMuchForACallerAllowsNothing(t *testing.T) {
	rules := func(caller string) string {
		var file strings.Builder
		file.WriteString(head)
		for i := range maxAllowing + 1 {
			fmt.Fprintf(&file, "- {name: r%d, callers: [%q], actions: [keys], networks: [\"10.0.0.1\"]}\n", i, strings.ReplaceAll(caller, "N", fmt.Sprint(i)))
		}
		return file.String()
	}
	if _, err := Parse("p", []byte(rules("spiffe://x/all/*")), rich); err == nil || !strings.Contains(err.Error(), "more than 256 rules with conditions") {
		t.Error(err)
	}
	text := rules("spiffe://x/*/N")
	for i := range maxAllowing + 1 {
		text = strings.Replace(text, fmt.Sprintf("x/*/%d\"", i), fmt.Sprintf("x/%s\"", pathOf(i+1)), 1)
	}
	p, err := Parse("p", []byte(text), rich)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		q := ask("spiffe://x/a/a/a/a/a/a/a/a/a", "keys", "", "", Unspecified)
		if d := p.Decide(q); d.Allowed || d.Reason != TooManyRules {
			t.Errorf("%+v", d)
		}
		if _, ok := p.May(q.Caller, DefaultNamespace, "keys"); ok {
			t.Error("it may")
		}
	}
}

// pathOf returns a path of nine segments, each "a" or "*", of which no two numbers have
// the same.
func pathOf(n int) string {
	segments := make([]string, 9)
	for i := range segments {
		segments[i] = "a"
		if n>>i&1 == 1 {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}

// Callers who are named, and such who aren't, are decided about by many at once as by
// one.
func TestConcurrentDecisions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 6))
	p, err := Parse("p", randomPolicy(rng), rich)
	if err != nil {
		t.Fatal(err)
	}
	var requests []Request
	for i := range 2000 {
		q := randomRequest(rng)
		if i%2 == 0 {
			q.Caller = fmt.Sprintf("spiffe://x/n%d/pay", i)
		}
		requests = append(requests, q)
	}
	var want []outcome
	for _, q := range requests {
		want = append(want, outcomeOf(p.Decide(q)))
	}
	p.tables.mu.Lock()
	clear(p.tables.met)
	clear(p.tables.shared)
	p.tables.mu.Unlock()
	var group sync.WaitGroup
	for k := range 8 {
		group.Go(func() {
			order := rand.New(rand.NewPCG(uint64(k), 1)).Perm(len(requests))
			for _, i := range slices.Concat(order, order) {
				if got := outcomeOf(p.Decide(requests[i])); got != want[i] {
					t.Errorf("%+v: %+v, want %+v", requests[i], got, want[i])
					return
				}
				p.May(requests[i].Caller, DefaultNamespace, requests[i].Action)
			}
		})
	}
	group.Wait()
}
