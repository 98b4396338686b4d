package ff1

// numeral is the type of what a string consists of. What stands for the numeral
// 0 is called zero: 0 itself, or the digit '0'.
type numeral interface{ byte | uint16 }

// pow10 holds the powers of ten below 2^64.
var pow10 = [20]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
	1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// firstInvalid returns where in s the first is that is no numeral of the radix,
// or -1. What is below zero wraps around and is beyond the radix, too.
func firstInvalid[T numeral](s []T, zero T, radix uint64) int {
	for i, x := range s {
		if uint64(x-zero) >= radix {
			return i
		}
	}
	return -1
}

// readWord returns the number that s stands for, NUM_radix(s) in SP 800-38G
// algorithm 1, which has to be below 2^64.
func readWord[T numeral](s []T, zero T, radix uint64) uint64 {
	var x uint64
	for _, d := range s {
		x = x*radix + uint64(d-zero)
	}
	return x
}

// writeWord makes s stand for x, STR_radix(x) in SP 800-38G algorithm 3, for x
// below radix^len(s).
func writeWord[T numeral](s []T, zero T, radix, x uint64) {
	if radix == 10 {
		writeDecimal(s, zero, x)
		return
	}
	for i := len(s) - 1; i >= 0; i-- {
		s[i] = T(x%radix) + zero
		x /= radix
	}
}

// writeDecimal is writeWord for radix 10. Dividing by a constant takes no
// division, and of four digits at a time only one step waits for the last.
func writeDecimal[T numeral](s []T, zero T, x uint64) {
	for len(s) >= 4 {
		four := s[len(s)-4:]
		s = s[:len(s)-4]
		rest := x / 10_000
		high, low := (x-rest*10_000)/100, (x-rest*10_000)%100
		four[0], four[1] = T(high/10)+zero, T(high%10)+zero
		four[2], four[3] = T(low/10)+zero, T(low%10)+zero
		x = rest
	}
	for i := len(s) - 1; i >= 0; i-- {
		s[i] = T(x%10) + zero
		x /= 10
	}
}

// readWide is readWord for numbers below 2^128.
func readWide[T numeral](s []T, zero T, radix uint64) uint128 {
	var x uint128
	for _, d := range s {
		x, _ = x.mulAdd(radix, uint64(d-zero))
	}
	return x
}

// writeWide is writeWord for numbers below 2^128.
func writeWide[T numeral](s []T, zero T, radix uint64, x uint128) {
	n, unit := wordful(radix)
	for len(s) > n {
		var low uint64
		x, low = x.divMod(unit)
		writeWord(s[len(s)-n:], zero, radix, low)
		s = s[:len(s)-n]
	}
	writeWord(s, zero, radix, x.lo)
}

// wordful returns the largest n for which radix^n is below 2^64, and radix^n.
func wordful(radix uint64) (n int, unit uint64) {
	if radix == 10 {
		return len(pow10) - 1, pow10[len(pow10)-1]
	}
	for unit = 1; unit <= ^uint64(0)/radix; n++ {
		unit *= radix
	}
	return n, unit
}
