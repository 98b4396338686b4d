package ff1

import (
	"math/big"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// randomWord returns numbers of all sizes and those near the borders.
func randomWord(random *rand.Rand) uint64 {
	x := random.Uint64() >> random.IntN(64)
	switch random.IntN(6) {
	case 0:
		x = 1 << random.IntN(64)
	case 1:
		x = 1<<random.IntN(64) - 1
	case 2:
		x = ^x
	}
	return x
}

func bigOf(words ...uint64) *big.Int {
	x := new(big.Int)
	for _, w := range words {
		x.Lsh(x, 64).Add(x, new(big.Int).SetUint64(w))
	}
	return x
}

func TestArithmetic(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	z, q := new(big.Int), new(big.Int)
	for range 300_000 {
		x, y := uint128{randomWord(random), randomWord(random)}, uint128{randomWord(random), randomWord(random)}
		m, a := randomWord(random)|1, randomWord(random)
		bigX, bigY, bigM := bigOf(x.hi, x.lo), bigOf(y.hi, y.lo), bigOf(m)

		if product, carry := x.mulAdd(m, a); bigOf(carry, product.hi, product.lo).Cmp(z.Add(z.Mul(bigX, bigM), bigOf(a))) != 0 {
			t.Fatalf("%v * %d + %d", x, m, a)
		}
		quotient, remainder := x.divMod(m)
		q.QuoRem(bigX, bigM, z)
		if bigOf(quotient.hi, quotient.lo).Cmp(q) != 0 || bigOf(remainder).Cmp(z) != 0 {
			t.Fatalf("%v divMod %d", x, m)
		}
		if bigX.BitLen() != x.bitLen() {
			t.Fatalf("bitLen of %v", x)
		}
		top := randomWord(random)
		if y != (uint128{}) {
			r := rem192([3]uint64{top, x.hi, x.lo}, y)
			if q.QuoRem(bigOf(top, x.hi, x.lo), bigY, z); bigOf(r.hi, r.lo).Cmp(z) != 0 {
				t.Fatalf("%d,%v mod %v = %v", top, x, y, r)
			}
			// r < y and y itself are what addMod allows.
			sum := r.addMod(y.sub(uint128{lo: min(1, y.lo)}), y)
			z.Sub(z.Add(z, bigY), bigOf(min(1, y.lo)))
			if z.Mod(z, bigY); bigOf(sum.hi, sum.lo).Cmp(z) != 0 {
				t.Fatalf("%v + %v mod itself = %v", r, y, sum)
			}
		}
		r := rem96(uint32(top), x.lo, m)
		if q.QuoRem(bigOf(uint64(uint32(top)), x.lo), bigM, z); bigOf(r).Cmp(z) != 0 {
			t.Fatalf("%d,%d mod %d = %d", uint32(top), x.lo, m, r)
		}
		short := m>>32 + 1 // 1 to 2^32
		shortM, reciprocal := bigOf(short), ^uint64(0)/short
		if sum := addShort(top%short, a, short, reciprocal, false); z.Mod(z.Add(bigOf(top%short), bigOf(a)), shortM).Uint64() != sum {
			t.Fatalf("%d + %d mod %d = %d", top%short, a, short, sum)
		}
		if sum := addShort(top%short, a, short, reciprocal, true); z.Mod(z.Sub(bigOf(top%short), bigOf(a)), shortM).Uint64() != sum {
			t.Fatalf("%d - %d mod %d = %d", top%short, a, short, sum)
		}
		sum, n := addMod(r, a%m+a&1, m), new(big.Int)
		if n.Mod(n.Add(bigOf(r), bigOf(a%m+a&1)), bigM); bigOf(sum).Cmp(n) != 0 {
			t.Fatalf("%d + %d mod %d = %d", r, a%m+a&1, m, sum)
		}
	}
}

// The remainders that take a correction of the first guess of a quotient are
// rare among random numbers: these are made of the largest and smallest words.
func TestRem192Borders(t *testing.T) {
	words := []uint64{0, 1, 2, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<63 + 1, ^uint64(0) - 1, ^uint64(0)}
	z, q := new(big.Int), new(big.Int)
	for i := range len(words) * len(words) * len(words) * len(words) * len(words) {
		var w [5]uint64
		for k, rest := 0, i; k < len(w); k, rest = k+1, rest/len(words) {
			w[k] = words[rest%len(words)]
		}
		m := uint128{w[3], w[4]}
		if m == (uint128{}) {
			continue
		}
		r := rem192([3]uint64(w[:3]), m)
		if q.QuoRem(bigOf(w[:3]...), bigOf(m.hi, m.lo), z); bigOf(r.hi, r.lo).Cmp(z) != 0 {
			t.Fatalf("%v mod %v = %v", w[:3], m, r)
		}
	}
}

func TestPower(t *testing.T) {
	for _, radix := range []uint64{2, 3, 10, 16, 62, 255, 256, 65535, 65536} {
		for n := range 140 {
			want := new(big.Int).Exp(bigOf(radix), bigOf(uint64(n)), nil)
			p, ok := power(radix, n)
			if ok != (want.BitLen() <= 128) || ok && bigOf(p.hi, p.lo).Cmp(want) != 0 {
				t.Errorf("%d^%d = %v, %v", radix, n, p, ok)
			}
			u, v := n/2, n-n/2
			modU, modV, ok := moduli(radix, u, v)
			wantU, wantV := new(big.Int).Exp(bigOf(radix), bigOf(uint64(u)), nil), new(big.Int).Exp(bigOf(radix), bigOf(uint64(v)), nil)
			if ok != (wantV.BitLen() <= 128) ||
				ok && (bigOf(modU.hi, modU.lo).Cmp(wantU) != 0 || bigOf(modV.hi, modV.lo).Cmp(wantV) != 0) {
				t.Errorf("moduli of %d numerals below %d: %v, %v, %v", n, radix, modU, modV, ok)
			}
		}
		n, unit := wordful(radix)
		if p, _ := power(radix, n); p != (uint128{lo: unit}) {
			t.Errorf("wordful(%d) = %d, %d", radix, n, unit)
		}
		if over, _ := bits.Mul64(unit, radix); over == 0 {
			t.Errorf("wordful(%d) = %d, which is too small", radix, n)
		}
	}
}
