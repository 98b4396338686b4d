package keystore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

type secret = [keystore.SubjectSecretSize]byte

var alice, bob = secret{1}, secret{2}

// derivedKeys returns what is derived from a data key for a subject, as the
// standard library derives it: salt, PRK, key.
func derivedKeys(t testing.TB, data []byte, secret *secret) [][]byte {
	t.Helper()
	salt, err := hkdf.Expand(sha256.New, data, "coatcheck subject keys v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	prk, err := hkdf.Extract(sha256.New, secret[:], salt)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hkdf.Expand(sha256.New, prk, "coatcheck subject v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{salt, prk, key}
}

// dataKeys returns the bytes of the data keys of the vectors, by version.
func dataKeys(t *testing.T) map[uint32][]byte {
	t.Helper()
	keys := make(map[uint32][]byte)
	for _, k := range vectorKeys(t) {
		if k.Class != keystore.Data {
			continue
		}
		key, err := vectorBackend(t).Unwrap(t.Context(), k.Wrapped, k.Label())
		if err != nil {
			t.Fatal(err)
		}
		keys[k.Version] = key
	}
	return keys
}

// tryKey opens what was sealed under a key whose bytes are known.
func tryKey(t *testing.T, key, sealed, additional []byte) ([]byte, error) {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead.Open(nil, nil, sealed, additional)
}

func TestSealForOpenFor(t *testing.T) {
	ring := vectorRing(t)
	for name, plaintext := range map[string][]byte{"a value": []byte("4111111111111111"), "nothing": nil, "64 KiB": bytes.Repeat([]byte("v"), 64<<10)} {
		for _, dst := range [][]byte{nil, []byte("before")} {
			sealed, version, err := ring.SealFor(nil, slices.Clip(dst), plaintext, []byte("record 1"), &alice)
			if err != nil || version != 2 || len(sealed) != len(dst)+len(plaintext)+keystore.Overhead || !bytes.HasPrefix(sealed, dst) {
				t.Fatalf("%s: %d bytes, version %d, error %v", name, len(sealed), version, err)
			}
			opened, err := ring.OpenFor(slices.Clip(dst), version, sealed[len(dst):], []byte("record 1"), &alice)
			if err != nil || !bytes.Equal(opened, append(bytes.Clone(dst), plaintext...)) {
				t.Errorf("%s: opened to %d bytes, error %v", name, len(opened), err)
			}
		}
	}
}

func TestOpenForRefuses(t *testing.T) {
	ring := vectorRing(t)
	plaintext, additional := []byte("4111111111111111"), []byte("record 1")
	sealed, version, err := ring.SealFor(nil, nil, plaintext, additional, &alice)
	if err != nil {
		t.Fatal(err)
	}
	forNobody, _, err := ring.Seal(nil, nil, plaintext, additional)
	if err != nil {
		t.Fatal(err)
	}
	near := alice
	near[31] ^= 1
	type row struct {
		name       string
		version    uint32
		sealed     []byte
		additional []byte
		secret     secret
		wantErr    error
	}
	rows := []row{
		{"as it is", version, sealed, additional, alice, nil},
		{"another subject", version, sealed, additional, bob, keystore.ErrOpen},
		{"another bit", version, sealed, additional, near, keystore.ErrOpen},
		{"no secret", version, sealed, additional, secret{}, keystore.ErrOpen},
		{"another version", version - 1, sealed, additional, alice, keystore.ErrOpen},
		{"version 0", 0, sealed, additional, alice, keystore.ErrKeyVersion},
		{"a later version", version + 1, sealed, additional, alice, keystore.ErrKeyVersion},
		{"other additional data", version, sealed, []byte("record 2"), alice, keystore.ErrOpen},
		{"no additional data", version, sealed, nil, alice, keystore.ErrOpen},
		{"sealed for nobody", version, forNobody, additional, alice, keystore.ErrOpen},
		{"nothing", version, nil, additional, alice, keystore.ErrOpen},
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1 << (i % 8)
		rows = append(rows,
			row{"altered", version, altered, additional, alice, keystore.ErrOpen},
			row{"cut", version, sealed[:i], additional, alice, keystore.ErrOpen})
	}
	for _, r := range rows {
		dst := make([]byte, 0, 64)
		opened, err := ring.OpenFor(dst, r.version, r.sealed, r.additional, &r.secret)
		if !errors.Is(err, r.wantErr) || (err == nil) != bytes.Equal(opened, plaintext) {
			t.Errorf("%s: opened to %d bytes, error %v; want %v", r.name, len(opened), err, r.wantErr)
		}
		if err != nil && bytes.Contains(dst[:cap(dst)], plaintext[:4]) {
			t.Errorf("%s: dst holds plaintext", r.name)
		}
	}
	if _, err := ring.Open(nil, version, sealed, additional); !errors.Is(err, keystore.ErrOpen) {
		t.Errorf("without a subject: %v", err)
	}
}

// Whoever has all keys of the keyring, but not the secret, has nothing.
func TestShredded(t *testing.T) {
	ring, plaintext, additional := vectorRing(t), []byte("4111111111111111"), []byte("record 1")
	sealed, version, err := ring.SealFor(nil, nil, plaintext, additional, &alice)
	if err != nil {
		t.Fatal(err)
	}
	data := dataKeys(t)
	with := derivedKeys(t, data[version], &alice)
	if got, err := tryKey(t, with[2], sealed, additional); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("with the secret: %q, %v", got, err)
	}
	keys := [][]byte{alice[:], with[0], with[1]} // what is no key must not be one
	for _, k := range data {
		keys = append(keys, k)
		for _, other := range []secret{{}, bob, secret(k)} {
			keys = append(keys, derivedKeys(t, k, &other)...)
		}
	}
	for _, key := range keys {
		if got, err := tryKey(t, key, sealed, additional); err == nil {
			t.Errorf("opened to %q without the secret", got)
		}
	}
}

func TestSealForRefuses(t *testing.T) {
	shelf := sealedShelf{shelfOf(t, vectorKeys(t)...), keystore.MaxUses - 2}
	ring, err := keystore.New(vectorBackend(t), shelf, keystore.Options{}).Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if sealed, _, err := ring.SealFor(nil, nil, make([]byte, keystore.MaxPlaintext+1), nil, &alice); !errors.Is(err, keystore.ErrTooLarge) || sealed != nil {
		t.Errorf("too much: %v", err)
	}
	if sealed, _, err := ring.SealFor(nil, nil, []byte("value"), nil, new(secret)); err == nil || sealed != nil {
		t.Error("sealed for who has no secret")
	}
	// Each call is a use of the data key, whoever it is for.
	for _, who := range []*secret{&alice, &bob} {
		if _, _, err := ring.SealFor(nil, nil, []byte("value"), nil, who); err != nil {
			t.Fatal(err)
		}
	}
	if got := ring.Uses(2); got != keystore.MaxUses {
		t.Errorf("%d uses", got)
	}
	if sealed, _, err := ring.SealFor(nil, nil, []byte("value"), nil, &alice); !errors.Is(err, keystore.ErrKeySpent) || sealed != nil {
		t.Errorf("a spent key sealed: %v", err)
	}
}
