package ff1

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

func newBlock(tb testing.TB) cipher.Block {
	tb.Helper()
	block, err := aes.NewCipher([]byte("a key of the tests: 32 bytes ..."))
	if err != nil {
		tb.Fatal(err)
	}
	return block
}

func newCipher(tb testing.TB, radix int) *Cipher {
	tb.Helper()
	c, err := New(newBlock(tb), radix)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// randomNumerals returns n numerals, now and then all of them the smallest or
// the largest.
func randomNumerals(random *rand.Rand, radix, n int) []uint16 {
	x := make([]uint16, n)
	kind := random.IntN(16)
	for i := range x {
		switch kind {
		case 0:
		case 1:
			x[i] = uint16(radix - 1)
		default:
			x[i] = uint16(random.IntN(radix))
		}
	}
	return x
}

func randomBytes(random *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// sizes are strings on both sides of every border: between arithmetics, between
// numbers of bytes, and between numbers of blocks.
func sizes(yield func(radix, n int)) {
	for _, radix := range []int{2, 3, 7, 10, 16, 26, 36, 62, 85, 255, 256, 257, 1000, 65535, 65536} {
		shortest := 2
		for size := radix * radix; size < 100; size *= radix {
			shortest++
		}
		bits := new(big.Int).SetUint64(uint64(radix - 1)).BitLen()
		for n := shortest; n <= 2*140/bits+2; n++ {
			yield(radix, n)
		}
	}
	for _, n := range []int{255, 256, 511, 512, 513, 1000, MaxLen} {
		yield(10, n)
		yield(2, n)
	}
	yield(65536, MaxLen)
}

func TestAgainstReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	block := newBlock(t)
	tweaks := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 64, 100, 300}
	sizes(func(radix, n int) {
		c, reference := newCipher(t, radix), newReference(block, radix)
		for range 4 {
			x := randomNumerals(random, radix, n)
			tweak := randomBytes(random, tweaks[random.IntN(len(tweaks))])
			got := slices.Clone(x)
			if err := c.Encrypt(got, got, tweak); err != nil {
				t.Fatal(err)
			}
			if n <= 1000 && !slices.Equal(got, reference.encrypt(x, tweak)) {
				t.Errorf("radix %d, length %d, tweak %d: encryption differs", radix, n, len(tweak))
			}
			if err := c.Decrypt(got, got, tweak); err != nil || !slices.Equal(got, x) {
				t.Errorf("radix %d, length %d, tweak %d: not decrypted: %v", radix, n, len(tweak), err)
			}
			if n > 1000 {
				break // the reference takes seconds
			}
			if err := c.Decrypt(got, x, tweak); err != nil || !slices.Equal(got, reference.decrypt(x, tweak)) {
				t.Errorf("radix %d, length %d, tweak %d: decryption differs: %v", radix, n, len(tweak), err)
			}
		}
	})
}

func TestReferenceLongest(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	x, tweak := randomNumerals(random, 10, MaxLen), randomBytes(random, MaxTweak)
	got := slices.Clone(x)
	if err := newCipher(t, 10).Encrypt(got, got, tweak); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, newReference(newBlock(t), 10).encrypt(x, tweak)) {
		t.Error("encryption differs")
	}
}

// Digits are numerals: both ways give the same.
func TestDigitsAreNumerals(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	c := newCipher(t, 10)
	for n := 2; n < 200; n++ {
		x, tweak := randomNumerals(random, 10, n), randomBytes(random, n%40)
		digits := make([]byte, n)
		for i := range x {
			digits[i] = '0' + byte(x[i])
		}
		plain := string(digits)
		if err := errors.Join(c.Encrypt(x, x, tweak), c.EncryptDigits(digits, digits, tweak)); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			if digits[i] != '0'+byte(x[i]) {
				t.Fatalf("%d digits differ from %d numerals", n, n)
			}
		}
		if err := c.DecryptDigits(digits, digits, tweak); err != nil || string(digits) != plain {
			t.Errorf("%d digits: not decrypted: %v", n, err)
		}
	}
}

// Every string of a small domain is the ciphertext of exactly one.
func TestPermutation(t *testing.T) {
	for _, c := range []struct{ radix, n int }{{10, 2}, {10, 3}, {10, 4}, {2, 7}, {2, 12}, {3, 5}, {100, 2}, {251, 2}} {
		t.Run(fmt.Sprintf("radix %d, length %d", c.radix, c.n), func(t *testing.T) {
			ff1 := newCipher(t, c.radix)
			size, _ := power(uint64(c.radix), c.n)
			seen := make([]bool, size.lo)
			x := make([]uint16, c.n)
			for i := range size.lo {
				writeWord(x, 0, uint64(c.radix), i)
				if err := ff1.Encrypt(x, x, []byte("tweak")); err != nil {
					t.Fatal(err)
				}
				j := readWord(x, 0, uint64(c.radix))
				if seen[j] {
					t.Fatalf("%d is the ciphertext of two strings", j)
				}
				seen[j] = true
				if err := ff1.Decrypt(x, x, []byte("tweak")); err != nil || readWord(x, 0, uint64(c.radix)) != i {
					t.Fatalf("%d was not decrypted: %v", i, err)
				}
			}
		})
	}
}

// All that the result depends on changes it.
func TestTweakAndKeyMatter(t *testing.T) {
	other, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, block := range map[string]cipher.Block{"a key": newBlock(t), "another key": other} {
		c, err := New(block, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, tweak := range []string{"", "\x00", "\x00\x00", "a", "b", strings.Repeat("a", 16), strings.Repeat("a", 17)} {
			digits := []byte("41111111111111114111")
			if err := c.EncryptDigits(digits, digits, []byte(tweak)); err != nil {
				t.Fatal(err)
			}
			use := fmt.Sprintf("%s, tweak %q", name, tweak)
			if before, ok := seen[string(digits)]; ok {
				t.Errorf("%s and %s give the same", before, use)
			}
			seen[string(digits)] = use
		}
	}
}

// dst may overlap src in any way.
func TestOverlap(t *testing.T) {
	for _, n := range []int{16, 60, 120} {
		c, plain := newCipher(t, 10), []byte(strings.Repeat("0123456789", 12)[:n])
		want := make([]byte, n)
		if err := c.EncryptDigits(want, plain, nil); err != nil {
			t.Fatal(err)
		}
		for shift := -3; shift <= 3; shift++ {
			buf := make([]byte, n+6)
			src, dst := buf[3:3+n], buf[3+shift:3+shift+n]
			copy(src, plain)
			if err := c.EncryptDigits(dst, src, nil); err != nil || !bytes.Equal(dst, want) {
				t.Errorf("%d digits, shifted by %d: %v", n, shift, err)
			}
		}
	}
}

func TestConcurrent(t *testing.T) {
	c := newCipher(t, 10)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(worker)))
			reference := newReference(newBlock(t), 10)
			for range 200 {
				x := randomNumerals(random, 10, 2+random.IntN(90))
				tweak := randomBytes(random, random.IntN(40))
				got := make([]uint16, len(x))
				if err := c.Encrypt(got, x, tweak); err != nil || !slices.Equal(got, reference.encrypt(x, tweak)) {
					t.Errorf("encryption differs: %v", err)
				}
				if err := c.Decrypt(got, got, tweak); err != nil || !slices.Equal(got, x) {
					t.Errorf("not decrypted: %v", err)
				}
			}
		})
	}
	group.Wait()
}

// What is given back for the next user holds nothing of the last.
func TestScratchIsWiped(t *testing.T) {
	state := newMAC()
	state.start(newCipher(t, 10), 16, nil, 4)
	state.free()
	if *state != (mac{}) {
		t.Error("free left something")
	}
	x := new(big.Int).SetBytes([]byte("a number of some words of which we keep hold"))
	words := x.Bits()
	wipe(x)
	if x.Sign() != 0 || slices.ContainsFunc(words, func(w big.Word) bool { return w != 0 }) {
		t.Error("wipe left something")
	}
}
