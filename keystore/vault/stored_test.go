package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

// vector is an entry of testdata/wrapped-v1.json.
type vector struct {
	Name       string   `json:"name"`
	Version    uint32   `json:"version"`
	Label      hexBytes `json:"label"`
	Key        hexBytes `json:"key"`
	Secret     hexBytes `json:"secret"`
	Ciphertext string   `json:"transit_ciphertext"`
	Wrapped    hexBytes `json:"wrapped"`
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// vectors are never regenerated: see testdata/README.md.
func vectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.ReadFile("testdata/wrapped-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 3 {
		t.Fatalf("%d vectors, want 3", len(all))
	}
	return all
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			s, err := parseStored(v.Wrapped)
			if err != nil {
				t.Fatal(err)
			}
			if version, err := new(Backend).RootVersion(v.Wrapped); version != v.Version || err != nil {
				t.Errorf("version %d, error %v; want %d", version, err, v.Version)
			}
			if got := string(s.ciphertext()); got != v.Ciphertext {
				t.Errorf("transit ciphertext %q, want %q", got, v.Ciphertext)
			}
			key, err := open(v.Secret, s.sealed, v.Label)
			if err != nil || !bytes.Equal(key, v.Key) {
				t.Errorf("opened to %x, error %v; want %x", key, err, v.Key)
			}
			if _, err := open(v.Secret, s.sealed, append(v.Label, 0)); !errors.Is(err, keystore.ErrUnwrap) {
				t.Errorf("with another label: error %v", err)
			}
			again, ok := parseCiphertext([]byte(v.Ciphertext))
			again.sealed = s.sealed
			if !ok || !bytes.Equal(again.build(), v.Wrapped) {
				t.Errorf("built %x, want %x", again.build(), v.Wrapped)
			}
		})
	}
}

func TestParseStoredRefuses(t *testing.T) {
	good := vectors(t)[0].Wrapped
	with := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	rows := map[string][]byte{
		"nothing":                        nil,
		"no transit ciphertext":          append(with(5, 0, 0)[:7], good[67:]...),
		"format 0":                       with(0, 0),
		"format 2":                       with(0, 2),
		"version 0":                      with(1, 0, 0, 0, 0),
		"version 2³¹":                    with(1, 0x80, 0, 0, 0),
		"a length that is one less":      with(5, 0, 59),
		"a length that is one more":      with(5, 0, 61),
		"a length as if the sealed part": with(5, 0, 120),
		"a byte less":                    good[:len(good)-1],
		"a byte more":                    append(bytes.Clone(good), 0),
		"as long as the limit, and one":  append(with(5, 0x0f, 0xbe), make([]byte, keystore.MaxWrapped+1-len(good))...),
	}
	for name, wrapped := range rows {
		t.Run(name, func(t *testing.T) {
			if s, err := parseStored(wrapped); !errors.Is(err, keystore.ErrUnwrap) {
				t.Errorf("parsed %d bytes to version %d, error %v", len(wrapped), s.version, err)
			}
		})
	}
}

func TestParseCiphertextRefuses(t *testing.T) {
	rows := map[string]string{
		"nothing":             "",
		"no prefix":           "v1:AAAA",
		"another prefix":      "vault:x1:AAAA",
		"version 0":           "vault:v0:AAAA",
		"no version":          "vault:v:AAAA",
		"a zero before":       "vault:v01:AAAA",
		"a sign":              "vault:v+1:AAAA",
		"version 2³¹":         "vault:v2147483648:AAAA",
		"nothing in it":       "vault:v1:",
		"no colon":            "vault:v1",
		"no base64":           "vault:v1:A*AA",
		"URL alphabet":        "vault:v1:__-_",
		"no padding":          "vault:v1:AAA",
		"bits that are spare": "vault:v1:AAB=",
		"a line feed":         "vault:v1:AAAA\n",
		"a line feed inside":  "vault:v1:AA\nAA",
		"too much":            "vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, maxTransit+1)),
	}
	for name, text := range rows {
		t.Run(name, func(t *testing.T) {
			if s, ok := parseCiphertext([]byte(text)); ok {
				t.Errorf("parsed to version %d and %d bytes", s.version, len(s.transit))
			}
		})
	}
	longest := "vault:v2147483647:" + base64.StdEncoding.EncodeToString(make([]byte, maxTransit))
	s, ok := parseCiphertext([]byte(longest))
	if s.sealed = make([]byte, storedSealed); !ok || len(s.build()) != keystore.MaxWrapped {
		t.Errorf("the longest is refused, or %d bytes when it is built", len(s.build()))
	}
}

// What parses builds back byte for byte.
func FuzzParseStored(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Wrapped))
	}
	f.Add([]byte(strings.Repeat("\x01", 200)))
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		s, err := parseStored(wrapped)
		if err != nil {
			if !errors.Is(err, keystore.ErrUnwrap) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := s.build(); !bytes.Equal(again, wrapped) {
			t.Fatalf("%x came back as %x", wrapped, again)
		}
		text, ok := parseCiphertext(s.ciphertext())
		if text.sealed = s.sealed; !ok || !bytes.Equal(text.build(), wrapped) {
			t.Fatalf("%x came back as %x by way of %q", wrapped, text.build(), s.ciphertext())
		}
	})
}

func FuzzParseCiphertext(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Ciphertext))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, ok := parseCiphertext(text); ok && !bytes.Equal(s.ciphertext(), text) {
			t.Fatalf("%q came back as %q", text, s.ciphertext())
		}
	})
}
