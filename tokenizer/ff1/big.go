package ff1

import "math/big"

// roundsBig is roundsWord with big numbers. It overwrites a and b.
func (f *feistel) roundsBig(u, v int, a, b *big.Int) (*big.Int, *big.Int) {
	radix := new(big.Int).SetUint64(f.c.radix)
	mod := [2]*big.Int{
		new(big.Int).Exp(radix, big.NewInt(int64(u)), nil),
		new(big.Int).Exp(radix, big.NewInt(int64(v)), nil),
	}
	one := big.NewInt(1)
	size := byteLen(new(big.Int).Sub(mod[1], one).BitLen())
	state := newMAC()
	defer state.free()
	state.start(f.c, f.n, f.tweak, size)
	d := drawBig{c: f.c, state: state, start: *state,
		tail: make([]byte, tailSize(size)), size: size,
		out: make([]byte, blocks(outputSize(size))*blockSize)}
	defer d.wipe()

	y, quotient := new(big.Int), new(big.Int)
	defer wipe(y, quotient)
	if f.decrypt {
		a, b = b, a
	}
	for k := range rounds {
		i := f.round(k)
		modulus := mod[i&1] // 6.v
		y.SetBytes(d.draw(i, b))
		quotient.QuoRem(y, modulus, y)
		if f.decrypt {
			y.Sub(modulus, y)
		}
		a.Add(a, y) // 6.vi to 6.ix
		if a.Cmp(modulus) >= 0 {
			a.Sub(a, modulus)
		}
		a, b = b, a
	}
	if f.decrypt {
		a, b = b, a
	}
	return a, b
}

// drawBig does 6.i to 6.iv for numbers of any size.
type drawBig struct {
	c     *Cipher
	state *mac
	start mac    // the state before each round
	tail  []byte // of Q: zeros ‖ round ‖ NUM(B)
	size  int    // of NUM(B), in bytes
	out   []byte // S, in whole blocks
}

// draw returns the bytes of y. They are overwritten by the next call.
func (d *drawBig) draw(round int, b *big.Int) []byte {
	block, numB := d.c.block, len(d.tail)-d.size
	d.tail[numB-1] = byte(round)
	b.FillBytes(d.tail[numB:])
	*d.state = d.start
	for q := d.tail; len(q) > 0; q = q[blockSize:] {
		d.state.xor(q[:blockSize])
		d.state.encrypt(block)
	}
	// S = R ‖ CIPH(R ⊕ 1) ‖ CIPH(R ⊕ 2) ‖ …
	r := *d.state
	copy(d.out, r[:])
	for j := 1; j*blockSize < len(d.out); j++ {
		*d.state = r
		d.state[blockSize-2] ^= byte(j >> 8)
		d.state[blockSize-1] ^= byte(j)
		d.state.encrypt(block)
		copy(d.out[j*blockSize:], d.state[:])
	}
	return d.out[:outputSize(d.size)]
}

func (d *drawBig) wipe() {
	clear(d.tail)
	clear(d.out)
}

// readBig is readWord for numbers of any size.
func readBig[T numeral](s []T, zero T, radix uint64) *big.Int {
	n, unit := wordful(radix)
	x, part, scale := new(big.Int), new(big.Int), new(big.Int)
	defer wipe(part)
	// The first part has what is left over, so that all others have n numerals.
	first := len(s) % n
	x.SetUint64(readWord(s[:first], zero, radix))
	scale.SetUint64(unit)
	for s = s[first:]; len(s) > 0; s = s[n:] {
		part.SetUint64(readWord(s[:n], zero, radix))
		x.Mul(x, scale)
		x.Add(x, part)
	}
	return x
}

// writeBig is writeWord for numbers of any size. It wipes x.
func writeBig[T numeral](s []T, zero T, radix uint64, x *big.Int) {
	n, unit := wordful(radix)
	low, scale := new(big.Int), new(big.Int).SetUint64(unit)
	defer wipe(x, low)
	for len(s) > n {
		x.QuoRem(x, scale, low)
		writeWord(s[len(s)-n:], zero, radix, low.Uint64())
		s = s[:len(s)-n]
	}
	writeWord(s, zero, radix, x.Uint64())
}

// wipe overwrites what numbers hold. It doesn't reach the copies that math/big
// makes when a number grows and when it divides.
func wipe(numbers ...*big.Int) {
	for _, x := range numbers {
		words := x.Bits()
		clear(words[:cap(words)])
		x.SetUint64(0)
	}
}
