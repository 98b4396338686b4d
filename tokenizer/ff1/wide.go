package ff1

// roundsWide is roundsWord with 128-bit numbers.
func (f *feistel) roundsWide(modU, modV, a, b uint128) (uint128, uint128) {
	state := newMAC()
	defer state.free()
	size := byteLen(modV.sub(uint128{lo: 1}).bitLen()) // 8 to 16
	state.start(f.c, f.n, f.tweak, size)

	mod := [2]uint128{modU, modV}
	var start uint128
	start.hi, start.lo = state.words()
	if f.decrypt {
		a, b = b, a
	}
	for k := range rounds {
		i := f.round(k)
		modulus := mod[i&1] // 6.v
		y := rem192(f.drawWide(state, start, size, uint64(i), b), modulus)
		if f.decrypt {
			y = modulus.sub(y) // 1 to modulus, which addMod allows
		}
		a, b = b, a.addMod(y, modulus) // 6.vi to 6.ix
	}
	if f.decrypt {
		a, b = b, a
	}
	return a, b
}

// drawWide does 6.i to 6.iv: it returns y, a number of 12, 16 or 20 bytes, the
// most significant word first.
func (f *feistel) drawWide(state *mac, start uint128, size int, round uint64, b uint128) [3]uint64 {
	block := f.c.block
	if size < blockSize {
		state.setWords(start.hi^round<<(8*size-64)^b.hi, start.lo^b.lo)
		state.encrypt(block)
	} else { // NUM(B) fills the last block, and the round ends the one before
		state.setWords(start.hi, start.lo^round)
		state.encrypt(block)
		hi, lo := state.words()
		state.setWords(hi^b.hi, lo^b.lo)
		state.encrypt(block)
	}
	hi, lo := state.words()
	switch outputSize(size) {
	case 12:
		return [3]uint64{0, hi >> 32, hi<<32 | lo>>32}
	case 16:
		return [3]uint64{0, hi, lo}
	}
	state[blockSize-1] ^= 1 // S = R ‖ CIPH(R ⊕ 1)
	state.encrypt(block)
	more, _ := state.words()
	return [3]uint64{hi >> 32, hi<<32 | lo>>32, lo<<32 | more>>32}
}
