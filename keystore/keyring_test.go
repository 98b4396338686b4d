package keystore_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

func TestSealOpen(t *testing.T) {
	ring := vectorRing(t)
	rows := []struct {
		name                       string
		dst, plaintext, additional []byte
	}{
		{"a value", nil, []byte("4111111111111111"), []byte("record 1")},
		{"nothing", nil, nil, nil},
		{"no additional data", nil, []byte("value"), nil},
		{"behind something", []byte("before"), []byte("value"), []byte("record 1")},
		{"64 KiB", nil, bytes.Repeat([]byte("v"), 64<<10), []byte("record 1")},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			sealed, version, err := ring.Seal(nil, slices.Clip(r.dst), r.plaintext, r.additional)
			if err != nil || version != 2 {
				t.Fatalf("version %d, error %v; want version 2", version, err)
			}
			if !bytes.HasPrefix(sealed, r.dst) || len(sealed) != len(r.dst)+len(r.plaintext)+keystore.Overhead {
				t.Fatalf("sealed to %d bytes", len(sealed))
			}
			if len(r.plaintext) > 4 && bytes.Contains(sealed, r.plaintext[:5]) {
				t.Error("the plaintext shows")
			}
			opened, err := ring.Open(slices.Clip(r.dst), version, sealed[len(r.dst):], r.additional)
			if err != nil || !bytes.Equal(opened, append(bytes.Clone(r.dst), r.plaintext...)) {
				t.Errorf("opened to %d bytes, error %v", len(opened), err)
			}
		})
	}
}

func TestSealIsRandom(t *testing.T) {
	ring := vectorRing(t)
	seen := make(map[string]bool)
	for range 1000 {
		sealed, _, err := ring.Seal(nil, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(sealed[:12])] {
			t.Fatal("a nonce came twice")
		}
		seen[string(sealed[:12])] = true
	}
}

func TestSealTooLarge(t *testing.T) {
	ring, plaintext := vectorRing(t), make([]byte, keystore.MaxPlaintext+1)
	if sealed, _, err := ring.Seal(nil, nil, plaintext, nil); !errors.Is(err, keystore.ErrTooLarge) || sealed != nil {
		t.Errorf("sealed to %d bytes, error %v; want ErrTooLarge", len(sealed), err)
	}
	if _, _, err := ring.Seal(nil, nil, plaintext[1:], nil); err != nil {
		t.Errorf("MaxPlaintext bytes: error %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	ring := vectorRing(t)
	plaintext, additional := []byte("4111111111111111"), []byte("record 1")
	sealed, version, err := ring.Seal(nil, nil, plaintext, additional)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		name       string
		version    uint32
		sealed     []byte
		additional []byte
		wantErr    error
	}
	rows := []row{
		{"version 0", 0, sealed, additional, keystore.ErrKeyVersion},
		{"a later version", version + 1, sealed, additional, keystore.ErrKeyVersion},
		{"the largest version", 1<<32 - 1, sealed, additional, keystore.ErrKeyVersion},
		{"another version", version - 1, sealed, additional, keystore.ErrOpen},
		{"no additional data", version, sealed, nil, keystore.ErrOpen},
		{"other additional data", version, sealed, []byte("record 2"), keystore.ErrOpen},
		{"more additional data", version, sealed, []byte("record 10"), keystore.ErrOpen},
		{"nothing", version, nil, additional, keystore.ErrOpen},
		{"a byte more", version, append(bytes.Clone(sealed), 0), additional, keystore.ErrOpen},
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1 << (i % 8)
		rows = append(rows,
			row{"altered", version, altered, additional, keystore.ErrOpen},
			row{"cut", version, sealed[:i], additional, keystore.ErrOpen})
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dst := make([]byte, 0, 64)
			opened, err := ring.Open(dst, r.version, r.sealed, r.additional)
			if !errors.Is(err, r.wantErr) || opened != nil {
				t.Errorf("opened to %d bytes, error %v; want %v", len(opened), err, r.wantErr)
			}
			if bytes.Contains(dst[:cap(dst)], plaintext[:4]) {
				t.Error("dst holds plaintext")
			}
		})
	}
}

func TestMAC(t *testing.T) {
	ring := vectorRing(t)
	sum := func(class keystore.Class, version uint32, label, data string) [32]byte {
		t.Helper()
		sum, err := ring.MACVersion(class, version, label, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	base := sum(keystore.Index, 2, "label", "data")
	if again := sum(keystore.Index, 2, "label", "data"); again != base {
		t.Error("the same call gave another sum")
	}
	active, version, err := ring.MAC(keystore.Index, "label", []byte("data"))
	if err != nil || version != 2 || active != base {
		t.Errorf("MAC gave version %d, error %v, or another sum than MACVersion", version, err)
	}
	for name, other := range map[string][32]byte{
		"class":                         sum(keystore.Subject, 1, "label", "data"),
		"version":                       sum(keystore.Index, 1, "label", "data"),
		"label":                         sum(keystore.Index, 2, "Label", "data"),
		"data":                          sum(keystore.Index, 2, "label", "Data"),
		"border between label and data": sum(keystore.Index, 2, "labeld", "ata"),
		"label as data":                 sum(keystore.Index, 2, "", "labeldata"),
		"no data":                       sum(keystore.Index, 2, "label", ""),
	} {
		if other == base {
			t.Errorf("another %s gave the same sum", name)
		}
	}
}

func TestMACRefuses(t *testing.T) {
	ring := vectorRing(t)
	rows := []struct {
		name    string
		class   keystore.Class
		version uint32
		wantErr error
	}{
		{"data key", keystore.Data, 1, keystore.ErrClass},
		{"token key", keystore.Token, 1, keystore.ErrClass},
		{"no class", 0, 1, keystore.ErrClass},
		{"fpe key", keystore.FPE, 1, keystore.ErrClass},
		{"unknown class", 7, 1, keystore.ErrClass},
		{"version 0", keystore.Index, 0, keystore.ErrKeyVersion},
		{"later version", keystore.Index, 3, keystore.ErrKeyVersion},
		{"version of another class", keystore.Subject, 2, keystore.ErrKeyVersion},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			sum, err := ring.MACVersion(r.class, r.version, "label", []byte("data"))
			if !errors.Is(err, r.wantErr) || sum != [32]byte{} {
				t.Errorf("MACVersion: sum %x, error %v; want %v", sum, err, r.wantErr)
			}
			if r.wantErr != keystore.ErrClass {
				return
			}
			sum, _, err = ring.MAC(r.class, "label", []byte("data"))
			if !errors.Is(err, r.wantErr) || sum != [32]byte{} {
				t.Errorf("MAC: sum %x, error %v; want %v", sum, err, r.wantErr)
			}
		})
	}
}

func TestPermute(t *testing.T) {
	ring := vectorRing(t)
	seen := make(map[[16]byte]bool)
	for i := range 1000 {
		id := [16]byte{15: byte(i), 14: byte(i >> 8)}
		block := id
		version := ring.Permute(&block)
		if version != 2 || block == id || seen[block] {
			t.Fatalf("%x gave %x under version %d", id, block, version)
		}
		seen[block] = true
		if err := ring.Unpermute(version, &block); err != nil || block != id {
			t.Fatalf("came back as %x, error %v; want %x", block, err, id)
		}
	}
}

func TestUnpermuteRefuses(t *testing.T) {
	ring := vectorRing(t)
	for _, version := range []uint32{0, 3, 1<<32 - 1} {
		block := [16]byte{1}
		if err := ring.Unpermute(version, &block); !errors.Is(err, keystore.ErrKeyVersion) || block != [16]byte{1} {
			t.Errorf("version %d: error %v, block %x; want ErrKeyVersion and the block as it was", version, err, block)
		}
	}
}

func TestVersions(t *testing.T) {
	ring := vectorRing(t)
	rows := []struct {
		class keystore.Class
		want  []uint32
	}{
		{keystore.Data, []uint32{2, 1}},
		{keystore.Token, []uint32{2, 1}},
		{keystore.Index, []uint32{2, 1}},
		{keystore.Subject, []uint32{1}},
		{0, nil},
		{keystore.Audit, []uint32{1}},
		{keystore.FPE, []uint32{2, 1}},
		{7, nil},
		{255, nil},
	}
	for _, r := range rows {
		t.Run(r.class.String(), func(t *testing.T) {
			got := ring.Versions(r.class)
			if !slices.Equal(got, r.want) {
				t.Fatalf("versions %v, want %v", got, r.want)
			}
			var active uint32
			if len(got) > 0 {
				active = got[0]
				got[0] = 99 // ours: the keyring must not notice
			}
			if a := ring.ActiveVersion(r.class); a != active {
				t.Errorf("active version %d, want %d", a, active)
			}
		})
	}
	if ring.Namespace() != "default" {
		t.Errorf("namespace %q", ring.Namespace())
	}
}

// A keyring is used by many calls at once, and the pools inside it with it.
func TestKeyringConcurrently(t *testing.T) {
	ring := vectorRing(t)
	want, _, err := ring.MAC(keystore.Index, "label", []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("group", func(t *testing.T) {
		for range 8 {
			t.Run("caller", func(t *testing.T) {
				t.Parallel()
				for i := range 500 {
					sum, _, err := ring.MAC(keystore.Index, "label", []byte("data"))
					if err != nil || sum != want {
						t.Fatalf("sum %x, error %v; want %x", sum, err, want)
					}
					_, _, _ = ring.MAC(keystore.Index, strings.Repeat("l", i%200), []byte("other data"))
					block := [16]byte{byte(i)}
					if err := ring.Unpermute(ring.Permute(&block), &block); err != nil || block != [16]byte{byte(i)} {
						t.Fatalf("block came back as %x, error %v", block, err)
					}
					sealed, version, err := ring.Seal(nil, nil, []byte("value"), nil)
					if err != nil {
						t.Fatal(err)
					}
					if opened, err := ring.Open(nil, version, sealed, nil); err != nil || string(opened) != "value" {
						t.Fatalf("opened to %q, error %v", opened, err)
					}
				}
			})
		}
	})
}

// Nonces that are drawn together are used once each, and more are drawn when there are
// none left; what is sealed with them opens like any other.
func TestNonces(t *testing.T) {
	ring := vectorRing(t)
	nonces, random := keystore.NewNonces(3, 5)
	if len(random) != 5 {
		t.Fatalf("%d random bytes, want 5", len(random))
	}
	seen := make(map[string]bool)
	for range 10 {
		sealed, version, err := ring.Seal(&nonces, []byte("dst"), []byte("value"), []byte("additional"))
		if err != nil {
			t.Fatal(err)
		}
		if string(sealed[:3]) != "dst" || len(sealed) != 3+keystore.Overhead+5 {
			t.Fatalf("sealed as %x", sealed)
		}
		if seen[string(sealed[3:15])] {
			t.Fatal("a nonce is used twice")
		}
		seen[string(sealed[3:15])] = true
		if plain, err := ring.Open(nil, version, sealed[3:], []byte("additional")); err != nil || string(plain) != "value" {
			t.Fatalf("opened %q, %v", plain, err)
		}
	}
	var secret [keystore.SubjectSecretSize]byte
	secret[0] = 1
	var none keystore.Nonces
	sealed, version, err := ring.SealFor(&none, nil, []byte("value"), nil, &secret)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := ring.OpenFor(nil, version, sealed, nil, &secret); err != nil || string(plain) != "value" {
		t.Fatalf("opened %q, %v", plain, err)
	}
}
