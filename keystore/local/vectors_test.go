package local_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/coatcheck/coatcheck/keystore/local"
)

const vectorPassphrase = "correct horse battery staple"

// vectorFile copies a root key file from testdata, where modes are not kept.
func vectorFile(t *testing.T, name string) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, file, 0o600)
}

// writeFile writes a file of exactly that mode.
func writeFile(t *testing.T, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// The vectors are never regenerated: see testdata/README.md.
func TestVectors(t *testing.T) {
	file, err := os.ReadFile("testdata/wrapped-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var vector struct {
		RootKeyID string `json:"root_key_id"`
		Label     string `json:"label"`
		Key       string `json:"key"`
		Wrapped   string `json:"wrapped"`
	}
	if err := json.Unmarshal(file, &vector); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) == 0 {
			t.Fatalf("vector %q, error %v", s, err)
		}
		return b
	}
	rows := []struct {
		name, file string
		passphrase []byte
	}{
		{"plain", "plain-v1.rootkey", nil},
		{"encrypted", "encrypted-v1.rootkey", []byte(vectorPassphrase)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			backend, err := local.Open(vectorFile(t, r.file), r.passphrase)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := backend.String(), "local root key "+vector.RootKeyID; got != want {
				t.Errorf("it is %q, want %q", got, want)
			}
			key, err := backend.Unwrap(t.Context(), unhex(vector.Wrapped), unhex(vector.Label))
			if err != nil || !bytes.Equal(key, unhex(vector.Key)) {
				t.Errorf("unwrapped to %x, error %v; want %s", key, err, vector.Key)
			}
		})
	}
}
