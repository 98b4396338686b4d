package ff1

import "math/bits"

// A uint128 is an unsigned number of 128 bits.
type uint128 struct{ hi, lo uint64 }

func (x uint128) bitLen() int {
	if x.hi != 0 {
		return 64 + bits.Len64(x.hi)
	}
	return bits.Len64(x.lo)
}

// sub returns x-y mod 2^128.
func (x uint128) sub(y uint128) uint128 {
	lo, borrow := bits.Sub64(x.lo, y.lo, 0)
	hi, _ := bits.Sub64(x.hi, y.hi, borrow)
	return uint128{hi, lo}
}

// mulAdd returns x·m + a, for m and a below 2^64, and what goes beyond 128 bits.
func (x uint128) mulAdd(m, a uint64) (z uint128, carry uint64) {
	mid, lo := bits.Mul64(x.lo, m)
	carry, hi := bits.Mul64(x.hi, m)
	var c uint64
	z.lo, c = bits.Add64(lo, a, 0)
	z.hi, c = bits.Add64(hi, mid, c)
	return z, carry + c
}

// divMod returns the quotient and the remainder of x by m.
func (x uint128) divMod(m uint64) (q uint128, r uint64) {
	q.hi, r = x.hi/m, x.hi%m
	q.lo, r = bits.Div64(r, x.lo, m)
	return q, r
}

// addMod returns x+y mod modulus, for x < modulus and y <= modulus, without a
// branch.
func (x uint128) addMod(y, modulus uint128) uint128 {
	lo, c := bits.Add64(x.lo, y.lo, 0)
	hi, carry := bits.Add64(x.hi, y.hi, c)
	lo, c = bits.Sub64(lo, modulus.lo, 0)
	hi, c = bits.Sub64(hi, modulus.hi, c)
	_, less := bits.Sub64(carry, 0, c) // 1 if x+y < modulus
	lo, c = bits.Add64(lo, modulus.lo&-less, 0)
	hi, _ = bits.Add64(hi, modulus.hi&-less, c)
	return uint128{hi, lo}
}

// power returns radix^n; ok is false if that is not below 2^128.
func power(radix uint64, n int) (p uint128, ok bool) {
	p.lo = 1
	for range n {
		var carry uint64
		if p, carry = p.mulAdd(radix, 0); carry != 0 {
			return p, false
		}
	}
	return p, true
}

// rem192 returns the remainder of y, most significant word first, by modulus.
func rem192(y [3]uint64, modulus uint128) uint128 {
	if modulus.hi == 0 {
		_, r := bits.Div64(y[0]%modulus.lo, y[1], modulus.lo)
		_, r = bits.Div64(r, y[2], modulus.lo)
		return uint128{lo: r}
	}
	// Algorithm D of Knuth, TAOCP volume 2, section 4.3.1, on words of 64 bits:
	// with the modulus shifted until its first bit is set, two words of quotient
	// follow from four words of dividend, the first of which is smaller than
	// the first of the modulus.
	s := bits.LeadingZeros64(modulus.hi)
	m := uint128{modulus.hi<<s | modulus.lo>>(64-s), modulus.lo << s}
	r := uint128{y[0] >> (64 - s), y[0]<<s | y[1]>>(64-s)}
	r = rem3by2(r, y[1]<<s|y[2]>>(64-s), m)
	r = rem3by2(r, y[2]<<s, m)
	return uint128{r.hi >> s, r.lo>>s | r.hi<<(64-s)}
}

// rem3by2 returns the remainder of x·2^64 + next by m, for x < m and the first
// bit of m set.
func rem3by2(x uint128, next uint64, m uint128) uint128 {
	// The words of x over the first word of m make a quotient that is too large
	// by 2 at most.
	q := ^uint64(0)
	if x.hi < m.hi {
		q, _ = bits.Div64(x.hi, x.lo, m.hi)
	}
	product, carry := m.mulAdd(q, 0)
	lo, c := bits.Sub64(next, product.lo, 0)
	mid, c := bits.Sub64(x.lo, product.hi, c)
	top, _ := bits.Sub64(x.hi, carry, c)
	for top != 0 { // negative
		lo, c = bits.Add64(lo, m.lo, 0)
		mid, c = bits.Add64(mid, m.hi, c)
		top += c
	}
	return uint128{mid, lo}
}
