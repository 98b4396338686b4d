//go:build !race

package server_test

import (
	"math"
	"testing"
)

// Ceilings of what calls allocate, those of the client and of gRPC included, of which
// Check has little else; the commit and what follows from it too. One that is passed is
// a reason to look, and one that is far away to be lowered.
func TestAllocationCeilings(t *testing.T) {
	calls := callsOf(t)
	for name, row := range map[string]struct {
		items, ceiling float64 // for each item
	}{
		"Check":                {1, 185},
		"Tokenize":             {1, 300},
		"Detokenize":           {1, 260},
		"BatchTokenize/1000":   {batchOf, 20},
		"BatchDetokenize/1000": {batchOf, 16},
	} {
		// What else the process does meanwhile, such as following the journal, counts
		// too; not in each of several runs.
		n := math.Inf(1)
		for range 5 {
			if n = min(n, testing.AllocsPerRun(10, func() {
				if err := calls[name](); err != nil {
					t.Fatal(err)
				}
			})); n/row.items <= row.ceiling {
				break
			}
		}
		t.Logf("%s: %.1f allocations for each item", name, n/row.items)
		if n/row.items > row.ceiling {
			t.Errorf("%s: %.1f allocations for each item, more than %v", name, n/row.items, row.ceiling)
		}
	}
}
