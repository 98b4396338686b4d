package keystore_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

var (
	benchValue      = []byte("4111111111111111")
	benchAdditional = []byte("coatcheck record, 64 bytes or so of header that is bound to it..")
)

// hotPath are the calls that every tokenization makes, each with what it needs
// made beforehand.
func hotPath(t testing.TB) map[string]func() {
	keys := keystore.New(vectorBackend(t), shelfOf(t, vectorKeys(t)...), keystore.Options{})
	ctx := t.Context()
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	sealed, version, err := ring.Seal(nil, nil, benchValue, benchAdditional)
	if err != nil {
		t.Fatal(err)
	}
	old := readVectors(t).Sealed[0] // under version 1
	secret := [keystore.SubjectSecretSize]byte{1}
	sealedFor, _, err := ring.SealFor(nil, nil, benchValue, benchAdditional, &secret)
	if err != nil {
		t.Fatal(err)
	}
	// As a batch draws them: enough for all runs of a test.
	nonces, _ := keystore.NewNonces(10_000, 0)
	fpe := make([]byte, 16)
	dst := make([]byte, 0, 128)
	return map[string]func(){
		"Keyring": func() { _, _ = keys.Keyring(ctx, "default") },
		"Seal":    func() { _, _, _ = ring.Seal(&nonces, dst, benchValue, benchAdditional) },
		"Open":    func() { _, _ = ring.Open(dst, version, sealed, benchAdditional) },
		"OpenOld": func() { _, _ = ring.Open(dst, old.Version, old.Sealed, old.Additional) },
		"SealFor": func() { _, _, _ = ring.SealFor(&nonces, dst, benchValue, benchAdditional, &secret) },
		"OpenFor": func() { _, _ = ring.OpenFor(dst, version, sealedFor, benchAdditional, &secret) },
		"FPE": func() {
			block, _ := ring.FPE(1)
			block.Encrypt(fpe, fpe)
		},
		"MAC":     func() { _, _, _ = ring.MAC(keystore.Index, "value", benchValue) },
		"Permute": func() { block := [16]byte{1}; ring.Permute(&block) },
		"Unpermute": func() {
			block := [16]byte{1}
			_ = ring.Unpermute(version, &block)
		},
	}
}

func BenchmarkKeyring(b *testing.B) {
	for name, f := range hotPath(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

// BenchmarkSealForUncached derives a key for each call, and drops another.
func BenchmarkSealForUncached(b *testing.B) {
	ring, dst := vectorRing(b), make([]byte, 0, 128)
	var secret [keystore.SubjectSecretSize]byte
	b.ReportAllocs()
	for n := uint64(1); b.Loop(); n++ {
		binary.BigEndian.PutUint64(secret[:], n)
		_, _, _ = ring.SealFor(nil, dst, benchValue, benchAdditional, &secret)
	}
}

func BenchmarkKeyringParallel(b *testing.B) {
	ring := vectorRing(b)
	b.Run("MAC", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _, _ = ring.MAC(keystore.Index, "value", benchValue)
			}
		})
	})
	b.Run("SealFor", func(b *testing.B) {
		b.ReportAllocs()
		var subjects atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			secret, dst := [keystore.SubjectSecretSize]byte{byte(subjects.Add(1))}, make([]byte, 0, 128)
			for pb.Next() {
				_, _, _ = ring.SealFor(nil, dst, benchValue, benchAdditional, &secret)
			}
		})
	})
	b.Run("Permute", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			block := [16]byte{1}
			for pb.Next() {
				ring.Permute(&block)
			}
		})
	})
}

func BenchmarkSealSizes(b *testing.B) {
	ring := vectorRing(b)
	for _, size := range []int{16, 256, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			plaintext, dst := make([]byte, size), make([]byte, 0, size+keystore.Overhead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = ring.Seal(nil, dst, plaintext, benchAdditional)
			}
		})
	}
}
