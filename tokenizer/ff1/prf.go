package ff1

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"
)

const (
	blockSize = 16
	rounds    = 10
)

// A mac is the state of PRF, which is CBC-MAC without padding: algorithm 6 of SP
// 800-38G. It is on the heap in any case, since a block cipher is called through
// an interface.
type mac [blockSize]byte

// macs holds mac values, all zero. What they are used for leaves nothing behind.
var macs = sync.Pool{New: func() any { return new(mac) }}

func newMAC() *mac { return macs.Get().(*mac) }

func (m *mac) free() {
	*m = mac{}
	macs.Put(m)
}

func (m *mac) encrypt(block cipher.Block) { block.Encrypt(m[:], m[:]) }

// words returns the state as two big-endian numbers.
func (m *mac) words() (hi, lo uint64) {
	return binary.BigEndian.Uint64(m[:8]), binary.BigEndian.Uint64(m[8:])
}

func (m *mac) setWords(hi, lo uint64) {
	binary.BigEndian.PutUint64(m[:8], hi)
	binary.BigEndian.PutUint64(m[8:], lo)
}

// xor adds p to the beginning of the state.
func (m *mac) xor(p []byte) {
	for i, x := range p {
		m[i] ^= x
	}
}

// start takes in P and as much of Q as is the same in every round, for strings
// of n numerals, of which a half takes b bytes as a number (step 3).
//
//	P = 1 ‖ 2 ‖ 1 ‖ radix (3 bytes) ‖ 10 ‖ u mod 256 ‖ n (4) ‖ t (4)     step 5
//	Q = tweak (t) ‖ zeros ‖ round (1) ‖ NUM(B) (b)                      step 6.i
//
// Q is a whole number of blocks. Only the last tailSize(b) bytes change between
// rounds, and of these all before the round are tweak and zeros: start has added
// them already, so that a round adds its number and NUM(B) and goes on.
func (m *mac) start(c *Cipher, n int, tweak []byte, b int) {
	t := len(tweak)
	m.setWords(0x010201<<40|c.radix<<16|rounds<<8|uint64(n/2%256), uint64(n)<<32|uint64(t))
	m.encrypt(c.block)
	for fixed := blocks(t+b+1)*blockSize - tailSize(b); fixed > 0; fixed -= blockSize {
		next := min(len(tweak), blockSize)
		m.xor(tweak[:next])
		m.encrypt(c.block)
		tweak = tweak[next:]
	}
	m.xor(tweak)
}

// tailSize is how many bytes at the end of Q differ between rounds, in whole
// blocks.
func tailSize(b int) int { return blocks(b+1) * blockSize }

// blocks returns how many blocks n bytes take.
func blocks(n int) int { return (n + blockSize - 1) / blockSize }

// outputSize is d, the number of bytes that a round draws (step 4).
func outputSize(b int) int { return (b+3)/4*4 + 4 }

// byteLen returns how many bytes a number of so many bits takes.
func byteLen(bits int) int { return (bits + 7) / 8 }
