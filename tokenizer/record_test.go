package tokenizer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// legacy is the record whose stored form and additional data are pinned in
// testdata/record-v1.txt, golden that of record-v2.txt.
var (
	legacy = Record{
		ID: 0x0102030405060708, Namespace: "default", Profile: "card",
		Created: time.Unix(1_764_000_000, 0).UTC(), KeyVersion: 300, TokenVersion: 5,
		Check: [4]byte{0xde, 0xad, 0xbe, 0xef}, Value: []byte("sealed value"), Details: []byte("sealed labels"), Legacy: true,
	}
	golden = Record{
		ID: 0x0102030405060708, Namespace: "default", Profile: "cvv",
		Created: time.Unix(1_764_000_000, 0).UTC(), Expires: time.Unix(1_764_000_900, 0).UTC(), KeyVersion: 300, TokenVersion: 5,
		Check: [4]byte{0xde, 0xad, 0xbe, 0xef}, State: Spent, Imported: true, Subject: 0x1122334455, MaxUses: 200, Uses: 199,
		Value: []byte("sealed value"), Details: []byte("sealed details"), Token: []byte("sealed token"),
	}
)

func TestRecordVectors(t *testing.T) {
	t.Run("v1", func(t *testing.T) { testRecordVector(t, legacy, "testdata/record-v1.txt", "metadata") })
	t.Run("v2", func(t *testing.T) { testRecordVector(t, golden, "testdata/record-v2.txt", "details") })
}

func testRecordVector(t *testing.T, golden Record, path, sealed string) {
	vectors := readVectors(t, path)
	stored, err := golden.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	pairs := mustMetadata(t, map[string]string{"order": "42", "channel": "web"})
	if !golden.Legacy {
		pairs = (details{
			redemptions: []redemption{{"attempt-1", time.Unix(1_764_000_600, 0)}}, labels: pairs,
		}).append(nil)
	}
	got := map[string][]byte{
		"stored":                 stored,
		"additional value":       golden.additionalData(nil, partValue),
		"additional " + sealed:   golden.additionalData(nil, partDetails),
		sealed + " of two pairs": pairs,
	}
	if !golden.Legacy {
		got["additional token"] = golden.additionalData(nil, partToken)
	}
	for name, got := range got {
		if want := vectors[name]; !bytes.Equal(got, want) {
			t.Errorf("%s is %x, want %x", name, got, want)
		}
	}
	parsed, err := ParseRecord(golden.ID, vectors["stored"])
	if err != nil {
		t.Fatal(err)
	}
	again, err := parsed.AppendBinary(nil)
	if err != nil || !bytes.Equal(again, stored) {
		t.Errorf("what was parsed marshals to %x, %v", again, err)
	}
}

func mustMetadata(t *testing.T, labels map[string]string) []byte {
	t.Helper()
	b, err := appendMetadata(nil, labels)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readVectors reads lines of the form name: hex.
func readVectors(t *testing.T, path string) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	vectors := make(map[string][]byte)
	for line := range strings.Lines(string(data)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if vectors[name], err = hex.DecodeString(digits); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return vectors
}

func TestRecordsOfOtherFormsAreDamaged(t *testing.T) {
	stored, err := golden.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"a later format":     append([]byte{3}, stored[1:]...),
		"a byte more":        append(bytes.Clone(stored), 0),
		"a padded length":    bytes.Replace(stored, []byte("\x07default"), []byte("\x87\x00default"), 1),
		"two flags":          bytes.Replace(stored, []byte{byte(Spent), imported}, []byte{byte(Spent), imported | honeytoken}, 1),
		"a length too large": bytes.Replace(stored, []byte("\x03cvv"), []byte("\xffcvv"), 1),
	} {
		if _, err := ParseRecord(1, b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	for n := range stored {
		if _, err := ParseRecord(1, stored[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v, want ErrDamaged", n, err)
		}
	}
}

// The flag of a honeytoken is bound to what is sealed, and no imported record has it.
func TestHoneytokenFlag(t *testing.T) {
	r := golden
	r.Imported, r.Honeytoken = false, true
	stored, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(stored, []byte{byte(Spent), 2}) { // for ever
		t.Errorf("the flag is another: %x", stored)
	}
	if parsed, err := ParseRecord(r.ID, stored); err != nil || !parsed.Equal(r) || parsed.Imported {
		t.Errorf("%+v, %v", parsed, err)
	}
	plain := r
	plain.Honeytoken = false
	if r.Equal(plain) || bytes.Equal(r.additionalData(nil, partDetails), plain.additionalData(nil, partDetails)) {
		t.Error("the flag is not bound")
	}
	r.Imported = true
	if _, err := r.AppendBinary(nil); err == nil {
		t.Error("imported, and a honeytoken")
	}
	plain.Legacy, plain.Honeytoken = true, true
	if _, err := plain.AppendBinary(nil); err == nil {
		t.Error("a honeytoken of the legacy form")
	}
}

func FuzzRecord(f *testing.F) {
	stored, _ := golden.AppendBinary(nil)
	f.Add(stored)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(7, b)
		if err != nil {
			return
		}
		again, err := r.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x parses, but marshals to %x, %v", b, again, err)
		}
	})
}
