package ff1

import (
	"slices"
	"testing"
)

// FuzzReference compares with the reference what takes a form at all, and
// otherwise sees that nothing panics and nothing is changed.
func FuzzReference(f *testing.F) {
	f.Add(uint32(10), []byte{4, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}, []byte("tweak"))
	f.Add(uint32(2), make([]byte, 300), []byte{})
	f.Add(uint32(65536), []byte{0xFF, 0xFF, 0xFF, 0xFF}, make([]byte, 40))
	f.Add(uint32(62), []byte{61, 0, 62, 0}, []byte(nil))
	block := newBlock(f)
	f.Fuzz(func(t *testing.T, radix uint32, raw, tweak []byte) {
		c, err := New(block, int(radix))
		if (err == nil) != (radix >= 2 && radix <= MaxRadix) {
			t.Fatalf("New with radix %d: %v", radix, err)
		}
		if err != nil {
			return
		}
		src := make([]uint16, min(len(raw)/2, 600))
		valid := len(src) >= 2 && len(tweak) <= MaxTweak && c.hundred(len(src))
		for i := range src {
			src[i] = uint16(raw[2*i]) | uint16(raw[2*i+1])<<8
			valid = valid && uint32(src[i]) < radix
		}
		got := slices.Clone(src)
		err = c.Encrypt(got, got, tweak)
		if (err == nil) != valid {
			t.Fatalf("err = %v, valid = %v", err, valid)
		}
		if err != nil {
			if !slices.Equal(got, src) {
				t.Fatal("an error changed dst")
			}
			return
		}
		if !slices.Equal(got, newReference(block, int(radix)).encrypt(src, tweak)) {
			t.Fatal("encryption differs")
		}
		if err := c.Decrypt(got, got, tweak); err != nil || !slices.Equal(got, src) {
			t.Fatalf("not decrypted: %v", err)
		}
	})
}
