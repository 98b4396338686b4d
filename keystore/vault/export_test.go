package vault

import "testing"

// WithCiphertext returns a wrapped key with another transit ciphertext in it.
func WithCiphertext(t *testing.T, wrapped []byte, text string) []byte {
	t.Helper()
	old, err := parseStored(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := parseCiphertext([]byte(text))
	if !ok {
		t.Fatalf("%q is no ciphertext", text)
	}
	s.sealed = old.sealed
	return s.build()
}
