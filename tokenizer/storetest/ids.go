package storetest

import (
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func testIDs(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	take := func(s tokenizer.Store, n int) {
		first, err := s.ReserveIDs(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || first == 0 {
			t.Errorf("ReserveIDs(%d) = %d, %v", n, first, err)
			return
		}
		for id := first; id < first+uint64(n); id++ {
			if seen[id] {
				t.Errorf("id %d handed out twice", id)
				return
			}
			seen[id] = true
		}
	}
	for range 3 {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 50 {
					take(s, 1+(i*j)%7)
				}
				take(s, tokenizer.MaxReserve/8)
			})
		}
		wg.Wait()
		s = reopen()
	}
}

func testIDBounds(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	for _, n := range []int{0, -1, tokenizer.MaxReserve + 1} {
		if _, err := s.ReserveIDs(ctx, n); err == nil {
			t.Errorf("ReserveIDs(%d) is accepted", n)
		}
	}
	reserve(t, s, tokenizer.MaxReserve)
}
