package wipe_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

var key = []byte("0123456789abcdefghijklmnopqrstuv")

// What a cipher or a hash has of its key is found, and gone afterwards: a cipher
// works as it would with another key.
func TestValue(t *testing.T) {
	block := newBlock(t, key)
	aead := newAEAD(t, block)
	sealed := aead.Seal(nil, nil, []byte("value"), nil)
	var before, after [16]byte
	block.Encrypt(before[:], before[:])
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("value"))
	mac.Reset()

	wipe.Value(block, aead, mac)
	if _, err := aead.Open(nil, nil, sealed, nil); err == nil {
		t.Error("the AEAD still opens")
	}
	if block.Encrypt(after[:], after[:]); before == after {
		t.Error("the block cipher still has its key")
	}
	for _, v := range []any{block, aead, mac} {
		for _, region := range wipe.Regions(v) {
			if !bytes.Equal(region, make([]byte, len(region))) {
				t.Errorf("%T: %x is left", v, region)
			}
		}
	}
}

// What depends on the key is in what is found, so that there is something to
// wipe, however this architecture lays out its key schedules.
func TestRegions(t *testing.T) {
	other := bytes.ToUpper(key)
	for name, keyed := range map[string]func(key []byte) any{
		"block": func(key []byte) any { return newBlock(t, key) },
		"aead":  func(key []byte) any { return newAEAD(t, newBlock(t, key)) },
		"mac":   func(key []byte) any { return hmac.New(sha256.New, key) },
	} {
		found := bytes.Join(wipe.Regions(keyed(key)), nil)
		if again := bytes.Join(wipe.Regions(keyed(key)), nil); !bytes.Equal(found, again) {
			t.Errorf("%s: what is found differs with the same key", name)
		}
		if with := bytes.Join(wipe.Regions(keyed(other)), nil); len(with) != len(found) || differing(found, with) < 16 {
			t.Errorf("%s: what is found doesn't depend on the key", name)
		}
	}
	if regions := wipe.Regions(nil); regions != nil {
		t.Errorf("%d regions of nothing", len(regions))
	}
}

// differing counts the bytes in which a and b, of one length, differ.
func differing(a, b []byte) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func newBlock(t *testing.T, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func newAEAD(t *testing.T, block cipher.Block) cipher.AEAD {
	t.Helper()
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}
