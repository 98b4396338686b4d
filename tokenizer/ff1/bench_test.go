package ff1

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Nothing is allocated while the halves fit into machine words, and a cipher for
// one use costs itself at most.
func TestAllocations(t *testing.T) {
	block := newBlock(t)
	c, hex := newCipher(t, 10), newCipher(t, 16)
	tweak := make([]byte, 64)
	for _, n := range []int{2, 9, 16, 19, 38, 39, 76} {
		digits := []byte(strings.Repeat("0123456789", 8)[:n])
		numerals := make([]uint16, min(n, 62))
		for _, call := range []struct {
			name  string
			limit float64
			run   func() error
		}{
			{"EncryptDigits", 0, func() error { return c.EncryptDigits(digits, digits, tweak) }},
			{"DecryptDigits", 0, func() error { return c.DecryptDigits(digits, digits, tweak[:8]) }},
			{"Encrypt", 0, func() error { return hex.Encrypt(numerals, numerals, nil) }},
			{"Decrypt", 0, func() error { return hex.Decrypt(numerals, numerals, tweak) }},
			{"New and EncryptDigits", 1, func() error {
				once, err := New(block, 10)
				if err != nil {
					return err
				}
				return once.EncryptDigits(digits, digits, tweak)
			}},
		} {
			allocs := testing.AllocsPerRun(1000, func() {
				if err := call.run(); err != nil {
					t.Fatal(err)
				}
			})
			if allocs > call.limit {
				t.Errorf("%s of %d: %v allocations, want %v", call.name, n, allocs, call.limit)
			}
		}
	}
}

// BenchmarkFF1 encrypts 16 digits under AES-256 and a tweak of 8 bytes, here and
// with the reference, which keeps to the standard step by step and was written
// to be read; an implementation with math/big that keeps its buffers and numbers
// from round to round is a few times faster than it. "x" is how many times
// faster this package is than the reference in the same run.
func BenchmarkFF1(b *testing.B) {
	c, reference := newCipher(b, 10), newReference(newBlock(b), 10)
	tweak := []byte("card-num")
	digits, numerals := []byte("4111111111111111"), make([]uint16, 16)
	for i, d := range digits {
		numerals[i] = uint16(d - '0')
	}
	var perRef float64
	b.Run("reference", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			numerals = reference.encrypt(numerals, tweak)
		}
		perRef = perCall(b)
	})
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := c.EncryptDigits(digits, digits, tweak); err != nil {
				b.Fatal(err)
			}
		}
		if perRef > 0 {
			b.ReportMetric(perRef/perCall(b), "x")
		}
	})
}

func perCall(b *testing.B) float64 {
	return float64(b.Elapsed()) / float64(time.Nanosecond) / float64(b.N)
}

// BenchmarkSizes shows what lengths and radices cost.
func BenchmarkSizes(b *testing.B) {
	for _, size := range []struct{ radix, n int }{
		{10, 9}, {10, 16}, {10, 19}, {10, 38}, {10, 76}, {10, 100}, {10, MaxLen},
		{16, 32}, {36, 19}, {62, 22}, {65536, 8},
	} {
		b.Run(fmt.Sprintf("radix=%d/n=%d", size.radix, size.n), func(b *testing.B) {
			b.ReportAllocs()
			c, x := newCipher(b, size.radix), make([]uint16, size.n)
			for b.Loop() {
				if err := c.Encrypt(x, x, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
