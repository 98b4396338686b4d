package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func testLog(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	for i := range 3 {
		for j := range 3 {
			o := commit(t, s, tokenizer.Unit{Event: event(fmt.Sprint(i, j))})
			if want := uint64(3*i + j + 1); o.Sequence != want {
				t.Fatalf("sequence %d, want %d", o.Sequence, want)
			}
		}
		s = reopen()
	}
	entries := readLog(t, s)
	if len(entries) != 9 || string(entries[4].Body) != "1 1" {
		t.Fatalf("log = %v", entries)
	}
}

func testLogRace(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const clients, each = 16, 25
	sequences := make(chan uint64, clients*each)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				var told uint64
				o, err := s.Commit(ctx, tokenizer.Unit{Event: func(o tokenizer.Outcome) []byte {
					told = o.Sequence
					return fmt.Appendf(nil, "%d.%d", c, i)
				}})
				if err != nil || o.Sequence != told {
					t.Errorf("Commit = %+v, %v; the event was told %d", o, err, told)
				}
				sequences <- o.Sequence
			}
		})
	}
	wg.Wait()
	close(sequences)
	var all []uint64
	for n := range sequences {
		all = append(all, n)
	}
	slices.Sort(all)
	for i, n := range all {
		if n != uint64(i)+1 {
			t.Fatalf("sequence numbers have a gap or a double at %d: %d", i+1, n)
		}
	}
	if e := readLog(t, reopen()); len(e) != clients*each {
		t.Fatalf("log has %d entries, want %d", len(e), clients*each)
	}
}

func testLogPages(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for range 7 {
		commit(t, s, tokenizer.Unit{Event: event("x")})
	}
	var after uint64
	for _, want := range []int{3, 3, 1, 0} {
		page, err := s.Entries(ctx, after, 3)
		if err != nil || len(page) != want {
			t.Fatalf("Entries(%d, 3) has %d entries, %v; want %d", after, len(page), err, want)
		}
		if want > 0 {
			after = page[want-1].Sequence
		}
	}
	if page, err := s.Entries(ctx, 100, 3); err != nil || len(page) != 0 {
		t.Fatalf("Entries beyond the end: %d, %v", len(page), err)
	}
}
