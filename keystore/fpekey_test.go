package keystore_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

func TestFPE(t *testing.T) {
	ring := vectorRing(t)
	plain := []byte("one block of AES")
	seen := make(map[string]uint32)
	for _, version := range ring.Versions(keystore.FPE) {
		block, err := ring.FPE(version)
		if err != nil {
			t.Fatal(err)
		}
		if block.BlockSize() != 16 {
			t.Errorf("blocks of %d bytes", block.BlockSize())
		}
		out, inPlace := make([]byte, 16), bytes.Clone(plain)
		block.Encrypt(out, plain)
		block.Encrypt(inPlace, inPlace)
		if !bytes.Equal(out, inPlace) || bytes.Equal(out, plain) {
			t.Errorf("version %d: encrypted to %x, in place to %x", version, out, inPlace)
		}
		if other, ok := seen[string(out)]; ok {
			t.Errorf("versions %d and %d encrypt to the same", version, other)
		}
		seen[string(out)] = version
	}
}

func TestFPERefuses(t *testing.T) {
	ring := vectorRing(t)
	for _, version := range []uint32{0, 3, 1<<32 - 1} {
		if block, err := ring.FPE(version); !errors.Is(err, keystore.ErrKeyVersion) || block != nil {
			t.Errorf("version %d: %v, error %v; want ErrKeyVersion", version, block, err)
		}
	}
	block, err := ring.FPE(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("it decrypts")
		}
	}()
	block.Decrypt(make([]byte, 16), make([]byte, 16))
}

func TestFPEConcurrently(t *testing.T) {
	ring := vectorRing(t)
	block, err := ring.FPE(2)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 16)
	block.Encrypt(want, want)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				got := make([]byte, 16)
				if block.Encrypt(got, got); !bytes.Equal(got, want) {
					t.Errorf("encrypted to %x, want %x", got, want)
					return
				}
			}
		})
	}
	group.Wait()
}
