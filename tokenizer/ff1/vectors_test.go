package ff1

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// vector is a known answer. Those to be refused have no ciphertext but a reason.
type vector struct {
	Source     string `json:"source"`
	Radix      int    `json:"radix"`
	Alphabet   string `json:"alphabet"`
	Key        string `json:"key_hex"`
	Tweak      string `json:"tweak_hex"`
	Plaintext  string `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
	Why        string `json:"why"`
}

// cipher returns the cipher, the tweak, and an error if the key has no length
// of AES.
func (v *vector) cipher(t *testing.T) (*Cipher, []byte, error) {
	t.Helper()
	key, err := hex.DecodeString(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	tweak, err := hex.DecodeString(v.Tweak)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	c, err := New(block, v.Radix)
	if err != nil {
		t.Fatal(err)
	}
	return c, tweak, nil
}

// numerals returns the places of the characters of s in the alphabet. A stranger
// is a numeral that the radix doesn't have.
func (v *vector) numerals(s string) []uint16 {
	x := []uint16{}
	for _, r := range s {
		if i := strings.IndexRune(v.Alphabet, r); i >= 0 {
			x = append(x, uint16(i))
		} else {
			x = append(x, uint16(v.Radix))
		}
	}
	return x
}

func (v *vector) check(t *testing.T) {
	t.Helper()
	c, tweak, err := v.cipher(t)
	if err != nil {
		t.Fatalf("%s: %v", v.Source, err)
	}
	plaintext, ciphertext := v.numerals(v.Plaintext), v.numerals(v.Ciphertext)
	got := make([]uint16, len(plaintext))
	if err := c.Encrypt(got, plaintext, tweak); err != nil || !slices.Equal(got, ciphertext) {
		t.Errorf("%s: encrypted to %v, want %v, err %v", v.Source, got, ciphertext, err)
	}
	if err := c.Decrypt(got, ciphertext, tweak); err != nil || !slices.Equal(got, plaintext) {
		t.Errorf("%s: decrypted to %v, want %v, err %v", v.Source, got, plaintext, err)
	}
	if v.Alphabet != "0123456789" {
		return
	}
	digits := []byte(v.Plaintext)
	if err := c.EncryptDigits(digits, digits, tweak); err != nil || string(digits) != v.Ciphertext {
		t.Errorf("%s: encrypted to %s, want %s, err %v", v.Source, digits, v.Ciphertext, err)
	}
	if err := c.DecryptDigits(digits, digits, tweak); err != nil || string(digits) != v.Plaintext {
		t.Errorf("%s: decrypted to %s, want %s, err %v", v.Source, digits, v.Plaintext, err)
	}
}

func readVectors(t *testing.T, name string) []vector {
	t.Helper()
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "..") {
		t.Skipf("%s does not stand beside the repository", strings.TrimLeft(name, "./"))
	}
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// The samples that NIST publishes for SP 800-38G.
func TestSamples(t *testing.T) {
	vectors := readVectors(t, "testdata/nist.json")
	if len(vectors) != 9 {
		t.Fatalf("%d samples, want 9", len(vectors))
	}
	for _, v := range vectors {
		v.check(t)
	}
}

func TestVectors(t *testing.T) {
	vectors := readVectors(t, "../../../shared/vectors/ff1.json")
	if len(vectors) < 9725 {
		t.Errorf("%d vectors, want 9725 or more", len(vectors))
	}
	for _, v := range vectors {
		v.check(t)
	}
}

func TestInvalidVectors(t *testing.T) {
	wantErr := map[string]error{"InvalidPlaintext": ErrNumeral, "InvalidMessageSize": ErrLength}
	vectors := readVectors(t, "../../../shared/vectors/ff1_invalid.json")
	if len(vectors) < 322 {
		t.Errorf("%d vectors, want 322 or more", len(vectors))
	}
	for _, v := range vectors {
		c, tweak, err := v.cipher(t)
		if v.Why == "InvalidKeySize" {
			if err == nil {
				t.Errorf("%s: a key of %d bytes was taken", v.Source, len(v.Key)/2)
			}
			continue
		}
		want, ok := wantErr[v.Why]
		if err != nil || !ok {
			t.Errorf("%s: %s: %v", v.Source, v.Why, err)
			continue
		}
		x := v.numerals(v.Plaintext)
		before := slices.Clone(x)
		if err := c.Encrypt(x, x, tweak); !errors.Is(err, want) || !slices.Equal(x, before) {
			t.Errorf("%s: encrypt: %v, want %v", v.Source, err, want)
		}
		if err := c.Decrypt(x, x, tweak); !errors.Is(err, want) || !slices.Equal(x, before) {
			t.Errorf("%s: decrypt: %v, want %v", v.Source, err, want)
		}
		if v.Alphabet != "0123456789" {
			continue
		}
		digits := []byte(v.Plaintext)
		if err := c.EncryptDigits(digits, digits, tweak); !errors.Is(err, want) || !bytes.Equal(digits, []byte(v.Plaintext)) {
			t.Errorf("%s: encrypt digits: %v, want %v", v.Source, err, want)
		}
	}
}
