//go:build !race

package tokenizer_test

import (
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Ceilings of what the hot path allocates, gRPC and the commit apart. One that is
// passed is a reason to look, and one that is far away to be lowered. (The race
// detector makes pools forget at random, so this runs without it.)
func TestAllocationCeilings(t *testing.T) {
	k := newKit(t)
	made := k.tokenize(t, "card", "4111111111111111")
	ref, err := k.Inspect(made.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	owned := k.tokenizeFor(t, "customer-4711", "card", "4111111111111111")
	ofSubject, err := k.Inspect(owned.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	const batch = 1000
	reqs := make([]tokenizer.TokenizeRequest, batch)
	reveals := make([]tokenizer.DetokenizeRequest, batch)
	for i := range batch {
		reqs[i] = request("card", "4111111111111111")
		reveals[i] = tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full}
	}
	for _, row := range []struct {
		name    string
		items   float64
		ceiling float64 // for each item
		do      func() error
	}{
		{"Tokenize", 1, 14, func() error {
			var unit tokenizer.Unit
			_, err := k.Tokenize(t.Context(), namespace, reqs[0], &unit)
			return err
		}},
		{"TokenizeAll", batch, 7.5, func() error {
			var unit tokenizer.Unit
			_, err := k.TokenizeAll(t.Context(), namespace, reqs, &unit)
			return err
		}},
		{"Detokenize", 1, 14, func() error {
			var unit tokenizer.Unit
			_, err := k.Detokenize(t.Context(), namespace, reveals[0], &unit)
			return err
		}},
		{"DetokenizeAll", batch, 8.5, func() error {
			var unit tokenizer.Unit
			_, err := k.DetokenizeAll(t.Context(), namespace, reveals, 1<<20, &unit)
			return err
		}},
		{"Detokenize of a subject", 1, 27, func() error {
			var unit tokenizer.Unit
			_, err := k.Detokenize(t.Context(), namespace, tokenizer.DetokenizeRequest{Reference: ofSubject, Form: tokenizer.Full}, &unit)
			return err
		}},
		{"Digest", 1, 2, func() error {
			_, err := k.Digest(t.Context(), namespace, "card", made.Token)
			return err
		}},
	} {
		n := testing.AllocsPerRun(20, func() {
			if err := row.do(); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %.1f allocations for each item", row.name, n/row.items)
		if n/row.items > row.ceiling {
			t.Errorf("%s: %.1f allocations for each item, more than %v", row.name, n/row.items, row.ceiling)
		}
	}
}
