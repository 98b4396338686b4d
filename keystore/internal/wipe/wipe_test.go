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
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
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

// The key is in what is found, so that there is something to wipe.
func TestRegions(t *testing.T) {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, region := range wipe.Regions(block) {
		found = found || bytes.Contains(region, key[:16])
	}
	if !found {
		t.Skip("key schedules don't begin with the key here")
	}
	if regions := wipe.Regions(nil); regions != nil {
		t.Errorf("%d regions of nothing", len(regions))
	}
}
