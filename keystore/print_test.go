package keystore_test

import (
	"bytes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
)

// printSecret is the secret of a subject whose keys are in the keyring that is
// printed.
var printSecret = [keystore.SubjectSecretSize]byte([]byte("a secret of a subject, 32 bytes."))

// traces returns how the keys of the vectors would show up in a print, whole
// or as part of a cipher's or an HMAC's inner state.
func traces(t *testing.T) (traces []string) {
	t.Helper()
	backend := vectorBackend(t)
	var keys [][]byte
	for _, k := range vectorKeys(t) {
		key, err := backend.Unwrap(t.Context(), k.Wrapped, k.Label())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		if k.Class == keystore.Data {
			keys = append(keys, derivedKeys(t, key, &printSecret)...)
		}
	}
	for _, key := range append(keys, printSecret[:]) {
		for _, pad := range []byte{0, 0x36, 0x5c} { // HMAC's
			part := bytes.Clone(key[:6])
			for i := range part {
				part[i] ^= pad
			}
			traces = append(traces,
				string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
				fmt.Sprint(binary.LittleEndian.Uint32(part)), fmt.Sprint(binary.BigEndian.Uint32(part)), // in a key schedule
				base64.StdEncoding.EncodeToString(part), strings.Trim(fmt.Sprint(part), "[]"),
				strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"))
		}
	}
	return traces
}

func TestKeyringPrintsNoKey(t *testing.T) {
	ring := vectorRing(t)
	keys := keystore.New(vectorBackend(t), shelfOf(t, vectorKeys(t)...), keystore.Options{})
	if _, err := keys.Keyring(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ring.SealFor(nil, nil, []byte("value"), nil, &printSecret); err != nil {
		t.Fatal(err)
	}
	fpe, err := ring.FPE(1)
	if err != nil {
		t.Fatal(err)
	}
	type block struct{ cipher.Block }
	type hiddenBlock struct{ block cipher.Block }
	type exported struct{ Ring *keystore.Keyring }
	type unexported struct{ ring *keystore.Keyring }
	type byValue struct{ Ring keystore.Keyring }
	type hidden struct{ ring keystore.Keyring }
	type embedded struct{ *keystore.Keyring }
	type embeddedValue struct{ keystore.Keyring }
	values := map[string]any{
		"keyring":        ring,
		"value":          *ring,
		"exported":       exported{ring},
		"unexported":     unexported{ring},
		"by value":       byValue{*ring},
		"hidden":         hidden{*ring},
		"embedded":       embedded{ring},
		"embedded value": embeddedValue{*ring},
		"pointer":        &hidden{*ring},
		"slice":          []*keystore.Keyring{ring},
		"map":            map[string]any{"ring": *ring},
		"keystore":       keys,
		"keystore value": fmt.Sprintf("%+v", keys),
		"fpe key":        fpe,
		"fpe embedded":   block{fpe},
		"fpe hidden":     hiddenBlock{fpe},
		"fpe pointer":    &hiddenBlock{fpe},
		"fpe slice":      []cipher.Block{fpe},
		"nil":            (*keystore.Keyring)(nil),
	}
	traces := traces(t)
	check := func(t *testing.T, how, printed string) {
		t.Helper()
		for _, trace := range traces {
			if strings.Contains(printed, trace) {
				t.Errorf("%s shows a key: %q is in %q", how, trace, printed)
			}
		}
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%c", "%U", "%t", "%20.3v", "%p", "%T"} {
				check(t, format, fmt.Sprintf(format, v))
			}
			if encoded, err := json.Marshal(v); err == nil {
				check(t, "JSON", string(encoded))
			}
			var out bytes.Buffer
			slog.New(slog.NewTextHandler(&out, nil)).Info("", "v", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
			check(t, "slog", out.String())
		})
	}
}

func TestKeyringPrintsMetadata(t *testing.T) {
	ring := vectorRing(t)
	const want = `keyring of namespace "default" (data 2, token 2, index 2, subject 1, audit 1, fpe 2)`
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(format, ring); got != want {
			t.Errorf("%s printed %q, want %q", format, got, want)
		}
	}
	if got := fmt.Sprintf("%+v", struct{ Ring *keystore.Keyring }{ring}); got != "{Ring:"+want+"}" {
		t.Errorf("in a struct it printed %q", got)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("", "ring", ring)
	if !strings.Contains(out.String(), "ring.namespace=default ring.data=2 ring.token=2 ring.index=2 ring.subject=1 ring.audit=1 ring.fpe=2") {
		t.Errorf("logged %q", out.String())
	}
}

func TestFPEPrintsWhatItIs(t *testing.T) {
	block, err := vectorRing(t).FPE(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(format, block); got != "fpe key" {
			t.Errorf("%s printed %q", format, got)
		}
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("", "block", block)
	if !strings.Contains(out.String(), `block="fpe key"`) {
		t.Errorf("logged %q", out.String())
	}
}

// An error of a failed load says which key it was, and nothing of any key.
func TestErrorsShowNoKey(t *testing.T) {
	shelf := shelfOf(t, vectorKeys(t)...)
	other := &keystoretest.FaultyBackend{
		Backend: vectorBackend(t),
		After:   keystoretest.On(keystoretest.OpUnwrap, keystoretest.Nth(3, keystoretest.Always(keystore.ErrUnwrap))),
	}
	_, err := keystore.New(other, shelf, keystore.Options{}).Keyring(t.Context(), "default")
	if err == nil || !strings.Contains(err.Error(), `of namespace "default"`) {
		t.Fatalf("error %v", err)
	}
	for _, trace := range traces(t) {
		if strings.Contains(err.Error(), trace) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}
