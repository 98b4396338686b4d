package ff1

import (
	"crypto/cipher"
	"math/big"
)

// reference is FF1 as the standard writes it, step by step and with numbers of
// any size. It is what this package is compared with, in its results and in its
// speed, and it shares no code with it.
type reference struct {
	cbc   cipher.Block
	radix *big.Int
}

func newReference(block cipher.Block, radix int) *reference {
	return &reference{cbc: block, radix: big.NewInt(int64(radix))}
}

// num is algorithm 1, NUM_radix(X).
func (r *reference) num(x []uint16) *big.Int {
	z, d := new(big.Int), new(big.Int)
	for _, numeral := range x {
		z.Mul(z, r.radix)
		z.Add(z, d.SetUint64(uint64(numeral)))
	}
	return z
}

// str is algorithm 3, STR^m_radix(X).
func (r *reference) str(x *big.Int, m int) []uint16 {
	s := make([]uint16, m)
	rest, d := new(big.Int).Set(x), new(big.Int)
	for i := m - 1; i >= 0; i-- {
		rest.QuoRem(rest, r.radix, d)
		s[i] = uint16(d.Uint64())
	}
	return s
}

// prf is algorithm 6: CBC-MAC.
func (r *reference) prf(x []byte) []byte {
	y := make([]byte, 16)
	for ; len(x) > 0; x = x[16:] {
		for i := range y {
			y[i] ^= x[i]
		}
		r.cbc.Encrypt(y, y)
	}
	return y
}

// params are what steps 1 to 5 of algorithms 7 and 8 compute.
type params struct {
	u, v, b, d int
	p          []byte
}

func (r *reference) params(n, t int) params {
	u := n / 2
	v := n - u
	// ceil(v * LOG(radix)) is the number of bits of radix^v - 1.
	largest := new(big.Int).Exp(r.radix, big.NewInt(int64(v)), nil)
	largest.Sub(largest, big.NewInt(1))
	b := (largest.BitLen() + 7) / 8
	d := 4*((b+3)/4) + 4
	radix := r.radix.Uint64()
	p := []byte{1, 2, 1, byte(radix >> 16), byte(radix >> 8), byte(radix), 10, byte(u % 256),
		byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), byte(t >> 24), byte(t >> 16), byte(t >> 8), byte(t)}
	return params{u, v, b, d, p}
}

// y is steps 6.i to 6.iv.
func (r *reference) y(p params, tweak []byte, i int, half *big.Int) *big.Int {
	pad := (16 - (len(tweak)+p.b+1)%16) % 16
	pq := make([]byte, 0, 16+len(tweak)+pad+1+p.b)
	pq = append(pq, p.p...)
	pq = append(pq, tweak...)
	pq = append(pq, make([]byte, pad)...)
	pq = append(pq, byte(i))
	pq = append(pq, half.FillBytes(make([]byte, p.b))...)
	output := r.prf(pq)
	s := output
	for j := 1; len(s) < p.d; j++ {
		block := make([]byte, 16)
		block[14], block[15] = byte(j>>8), byte(j)
		for k := range block {
			block[k] ^= output[k]
		}
		r.cbc.Encrypt(block, block)
		s = append(s[:len(s):len(s)], block...)
	}
	return new(big.Int).SetBytes(s[:p.d])
}

// encrypt is algorithm 7, FF1.Encrypt.
func (r *reference) encrypt(x []uint16, tweak []byte) []uint16 {
	p := r.params(len(x), len(tweak))
	a, b := x[:p.u], x[p.u:]
	for i := range 10 {
		y := r.y(p, tweak, i, r.num(b))
		m := p.u
		if i%2 == 1 {
			m = p.v
		}
		c := r.num(a)
		c.Add(c, y)
		c.Mod(c, new(big.Int).Exp(r.radix, big.NewInt(int64(m)), nil))
		a, b = b, r.str(c, m)
	}
	return append(append([]uint16{}, a...), b...)
}

// decrypt is algorithm 8, FF1.Decrypt.
func (r *reference) decrypt(x []uint16, tweak []byte) []uint16 {
	p := r.params(len(x), len(tweak))
	a, b := x[:p.u], x[p.u:]
	for i := 9; i >= 0; i-- {
		y := r.y(p, tweak, i, r.num(a))
		m := p.u
		if i%2 == 1 {
			m = p.v
		}
		c := r.num(b)
		c.Sub(c, y)
		c.Mod(c, new(big.Int).Exp(r.radix, big.NewInt(int64(m)), nil))
		a, b = r.str(c, m), a
	}
	return append(append([]uint16{}, a...), b...)
}
