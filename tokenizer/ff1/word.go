package ff1

import "math/bits"

// roundsWord is step 6 with 64-bit numbers for A and B. Decryption differs from
// encryption in the order of the rounds, in that y is taken away, and in that A
// and B change places: it is run on (B, A).
func (f *feistel) roundsWord(modU, modV, a, b uint64) (uint64, uint64) {
	state := newMAC()
	defer state.free()
	size := byteLen(bits.Len64(modV - 1)) // 1 to 8
	state.start(f.c, f.n, f.tweak, size)
	startHi, startLo := state.words()

	mod := [2]uint64{modU, modV}
	reciprocal := [2]uint64{^uint64(0) / modU, ^uint64(0) / modV}
	if f.decrypt {
		a, b = b, a
	}
	for k := range rounds {
		i := f.round(k)
		// 6.i, 6.ii: round ‖ NUM(B) has up to 9 bytes. A shift by 64 gives 0.
		state.setWords(startHi^uint64(i)>>(64-8*size), startLo^uint64(i)<<(8*size)^b)
		state.encrypt(f.c.block)
		// 6.iii to 6.ix: y is the first 8 or 12 bytes, as a number.
		hi, lo := state.words()
		modulus := mod[i&1]
		if size <= 4 {
			a, b = b, addShort(a, hi, modulus, reciprocal[i&1], f.decrypt)
			continue
		}
		y := rem96(uint32(hi>>32), hi<<32|lo>>32, modulus)
		if f.decrypt {
			y = modulus - y // 1 to modulus, which addMod allows
		}
		a, b = b, addMod(a, y, modulus)
	}
	if f.decrypt {
		a, b = b, a
	}
	return a, b
}

// addShort returns x+y mod modulus, or x-y if decrypt is set, for x < modulus <=
// 2^32 and any y. It takes a reciprocal, (2^64-1)/modulus, instead of a division,
// for the next round waits for the result: the quotient y/modulus found with it
// is right or too small by 1, and so the sum is off by modulus twice at most.
func addShort(x, y, modulus, reciprocal uint64, decrypt bool) uint64 {
	q, _ := bits.Mul64(y, reciprocal)
	q *= modulus
	sum := x + y - q // below 3·modulus
	if decrypt {
		sum = x + 2*modulus - y + q
	}
	once := uint64(int64(sum-modulus) >> 63) // all ones if sum < modulus
	twice := uint64(int64(sum-2*modulus) >> 63)
	return sum - modulus&^once - modulus&^twice
}

// addMod returns x+y mod modulus, for x < modulus and y <= modulus. It has no
// branch, for a processor couldn't guess which way it went.
func addMod(x, y, modulus uint64) uint64 {
	sum, carry := bits.Add64(x, y, 0)
	diff, borrow := bits.Sub64(sum, modulus, 0)
	_, less := bits.Sub64(carry, 0, borrow) // 1 if x+y < modulus
	return diff + modulus&-less
}

// rem96 returns the remainder of hi·2^64 + lo by modulus.
func rem96(hi uint32, lo, modulus uint64) uint64 {
	top := uint64(hi)
	if top >= modulus {
		top %= modulus
	}
	_, rem := bits.Div64(top, lo, modulus)
	return rem
}
