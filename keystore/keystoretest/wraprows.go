package keystoretest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// wrapRows are the clauses about what is wrapped.
func wrapRows() []row {
	return []row{
		{"what is wrapped unwraps", checkRoundTrip},
		{"the label is bound", checkLabel},
		{"altered wrapped bytes are refused", checkAltered},
		{"wrapped bytes of another length are refused", checkLength},
		{"another root key doesn't unwrap", checkOtherRoot},
		{"wrapped bytes outlive the backend", checkReopen},
		{"wrapped bytes don't show the key", checkHidden},
		{"wrapping twice gives two results", checkFresh},
		{"a key of another size is refused", checkKeySize},
	}
}

// testLabel is the label of a real key.
var testLabel = keystore.WrappedKey{
	Namespace: "default",
	Class:     keystore.Data,
	Version:   1,
	Created:   time.Unix(1_700_000_000, 0).UTC(),
}.Label()

func checkRoundTrip(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	labels := map[string][]byte{
		"a key's label": testLabel,
		"no label":      nil,
		"empty":         {},
		"binary":        {0, 0xff, '\n', 0x80, 0},
		"long":          bytes.Repeat([]byte("label "), 100),
	}
	keys := map[string][]byte{
		"a key":      testKey(1),
		"zeros":      make([]byte, keystore.KeySize),
		"all ones":   bytes.Repeat([]byte{0xff}, keystore.KeySize),
		"line feeds": bytes.Repeat([]byte{'\n'}, keystore.KeySize),
	}
	for name, label := range labels {
		for keyName, key := range keys {
			wrapped, err := b.Wrap(ctx, key, label)
			if err != nil {
				return fmt.Errorf("wrap %s, label %s: %w", keyName, name, err)
			}
			if len(wrapped) == 0 || len(wrapped) > keystore.MaxWrapped {
				return fmt.Errorf("wrapped bytes number %d, want 1 to %d", len(wrapped), keystore.MaxWrapped)
			}
			if err := wantUnwrap(ctx, b, wrapped, label, key); err != nil {
				return fmt.Errorf("%s, label %s: %w", keyName, name, err)
			}
		}
	}
	return nil
}

func checkLabel(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	var errs []error
	refuse := func(what string, label []byte) {
		errs = append(errs, wantNoUnwrap(ctx, what, b, wrapped, label))
	}
	for i := range testLabel {
		label := bytes.Clone(testLabel)
		label[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("byte %d of the label altered", i), label)
	}
	refuse("no label", nil)
	refuse("label cut", testLabel[:len(testLabel)-1])
	refuse("label begun late", testLabel[1:])
	refuse("label with a byte more", append(bytes.Clone(testLabel), 0))
	refuse("label twice", append(bytes.Clone(testLabel), testLabel...))

	unlabelled, err := b.Wrap(ctx, testKey(1), nil)
	if err != nil {
		return err
	}
	errs = append(errs, wantNoUnwrap(ctx, "a label where there was none", b, unlabelled, testLabel))
	return errors.Join(errs...)
}

func checkAltered(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	var errs []error
	for i := range wrapped {
		// Several bits of each byte, since what is wrapped may be text: a lenient
		// decoder ignores the case of letters, or bits of the last digit.
		for _, mask := range []byte{0x01, 0x02, 0x20, 0x80} {
			altered := bytes.Clone(wrapped)
			altered[i] ^= mask
			what := fmt.Sprintf("byte %d of %d altered by %#x", i, len(wrapped), mask)
			errs = append(errs, wantNoUnwrap(ctx, what, b, altered, testLabel))
		}
	}
	return errors.Join(errs...)
}

func checkLength(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	var errs []error
	for n := range wrapped {
		errs = append(errs, wantNoUnwrap(ctx, fmt.Sprintf("cut to %d of %d bytes", n, len(wrapped)), b, wrapped[:n], testLabel))
	}
	rows := []struct {
		name    string
		wrapped []byte
	}{
		{"nil", nil},
		{"begun late", wrapped[1:]},
		{"a zero byte more", append(bytes.Clone(wrapped), 0)},
		{"a line feed more", append(bytes.Clone(wrapped), '\n')},
		{"a line feed before", append([]byte{'\n'}, wrapped...)},
		{"a padding sign more", append(bytes.Clone(wrapped), '=')},
		{"twice", append(bytes.Clone(wrapped), wrapped...)},
		{"one byte over the limit", bytes.Repeat([]byte{wrapped[0]}, keystore.MaxWrapped+1)},
		{"1 MiB behind it", append(bytes.Clone(wrapped), make([]byte, 1<<20)...)},
		{"the key itself", testKey(1)},
	}
	for _, r := range rows {
		errs = append(errs, wantNoUnwrap(ctx, r.name, b, r.wrapped, testLabel))
	}
	return errors.Join(errs...)
}

func checkOtherRoot(t *testing.T, h Harness) error {
	ctx, b, other := t.Context(), h.newBackend(t), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	return wantNoUnwrap(ctx, "another root key", other, wrapped, testLabel)
}

func checkReopen(t *testing.T, h Harness) error {
	ctx, root := t.Context(), h.NewRoot(t)
	wrapped, err := root.Open(t).Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	return wantUnwrap(ctx, root.Open(t), wrapped, testLabel, testKey(1))
}

func checkHidden(t *testing.T, h Harness) error {
	ctx, b, key := t.Context(), h.newBackend(t), testKey(1)
	wrapped, err := b.Wrap(ctx, key, testLabel)
	if err != nil {
		return err
	}
	// Six bytes in a row don't come about by chance.
	const window = 6
	decoded := [][]byte{wrapped}
	for _, part := range bytes.Split(wrapped, []byte(":")) {
		if raw, err := base64.StdEncoding.DecodeString(string(part)); err == nil {
			decoded = append(decoded, raw)
		}
		if raw, err := hex.DecodeString(string(part)); err == nil {
			decoded = append(decoded, raw)
		}
	}
	for _, raw := range decoded {
		for i := range len(key) - window + 1 {
			if bytes.Contains(raw, key[i:i+window]) {
				return fmt.Errorf("bytes %d to %d of the key are in what was wrapped", i, i+window)
			}
		}
	}
	return nil
}

func checkFresh(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	first, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	second, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	if bytes.Equal(first, second) {
		return errors.New("the same key was wrapped to the same bytes twice")
	}
	return errors.Join(
		wantUnwrap(ctx, b, first, testLabel, testKey(1)),
		wantUnwrap(ctx, b, second, testLabel, testKey(1)))
}

func checkKeySize(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	var errs []error
	for _, size := range []int{0, 1, 16, 24, keystore.KeySize - 1, keystore.KeySize + 1, 2 * keystore.KeySize} {
		what := fmt.Sprintf("a key of %d bytes", size)
		wrapped, err := b.Wrap(ctx, make([]byte, size), testLabel)
		if wrapped != nil {
			errs = append(errs, fmt.Errorf("%s: wrapped", what))
		}
		errs = append(errs, wantErr(what, err, keystore.ErrKeySize))
	}
	return errors.Join(errs...)
}
