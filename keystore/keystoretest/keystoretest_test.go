package keystoretest

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
)

func TestMemoryShelf(t *testing.T) {
	TestShelf(t, func(*testing.T) keystore.Shelf { return new(MemoryShelf) })
}

// localHarness makes root keys in files, with what break makes of them.
func localHarness(breakIt func(keystore.Backend) keystore.Backend) Harness {
	return Harness{NewRoot: func(t *testing.T) Root {
		path := filepath.Join(t.TempDir(), "root.key")
		if err := local.Create(path, nil); err != nil {
			t.Fatal(err)
		}
		return Root{Open: func(t *testing.T) keystore.Backend {
			b, err := local.Open(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			return breakIt(b)
		}}
	}}
}

// broken is a backend with one or more of its methods replaced.
type broken struct {
	keystore.Backend
	wrap   func(ctx context.Context, key, label []byte) ([]byte, error)
	unwrap func(ctx context.Context, wrapped, label []byte) ([]byte, error)
}

func (b broken) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	if b.wrap != nil {
		return b.wrap(ctx, key, label)
	}
	return b.Backend.Wrap(ctx, key, label)
}

func (b broken) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	if b.unwrap != nil {
		return b.unwrap(ctx, wrapped, label)
	}
	return b.Backend.Unwrap(ctx, wrapped, label)
}

// TestSuiteFindsDefects runs the suite on backends that each have one defect,
// and demands that the row that is there for it fails.
func TestSuiteFindsDefects(t *testing.T) {
	rows := []struct {
		name    string
		row     string
		breakIt func(b keystore.Backend) keystore.Backend
	}{
		{"ignores the label", "the label is bound", ignoresLabel},
		{"ignores the end of the label", "the label is bound", ignoresLabelEnd},
		{"ignores the label", "a wrapped key in another's place is refused", ignoresLabel},
		{"ignores a byte", "altered wrapped bytes are refused", ignoresByte},
		{"ignores what follows", "wrapped bytes of another length are refused", ignoresTail},
		{"calls alteration an outage", "altered wrapped bytes are refused", blursErrors},
		{"calls another root key an outage", "another root key doesn't unwrap", blursErrors},
		{"calls another root key an outage", "another root key gives no keyring", blursErrors},
		{"forgets its root key", "wrapped bytes outlive the backend", forgets},
		{"forgets its root key", "keyrings outlive the process", forgets},
		{"appends the key", "wrapped bytes don't show the key", showsKey},
		{"gives the same result", "wrapping twice gives two results", repeats()},
		{"takes any size", "a key of another size is refused", takesAnySize},
		{"wipes the key", "arguments are neither changed nor kept", wipesKey},
		{"writes behind the label", "arguments are neither changed nor kept", scribbles},
		{"returns the key it keeps", "results are the caller's own", returnsKept()},
		{"ignores the context", "an ended context ends the call", ignoresContext},
	}
	all := slices.Concat(wrapRows(), rewrapRows(), callRows(), keystoreRows(), rotateRows(), faultRows())
	for _, r := range rows {
		t.Run(r.name+"/"+r.row, func(t *testing.T) {
			i := slices.IndexFunc(all, func(have row) bool { return have.name == r.row })
			if i < 0 {
				t.Fatal("no such row")
			}
			if err := all[i].check(t, localHarness(r.breakIt)); err == nil {
				t.Error("the row found nothing")
			}
		})
	}
}

func ignoresLabel(b keystore.Backend) keystore.Backend {
	return broken{b, func(ctx context.Context, key, _ []byte) ([]byte, error) { return b.Wrap(ctx, key, nil) },
		func(ctx context.Context, wrapped, _ []byte) ([]byte, error) { return b.Unwrap(ctx, wrapped, nil) }}
}

func ignoresLabelEnd(b keystore.Backend) keystore.Backend {
	cut := func(label []byte) []byte { return label[:max(0, len(label)-1)] }
	return broken{b, func(ctx context.Context, key, label []byte) ([]byte, error) { return b.Wrap(ctx, key, cut(label)) },
		func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
			return b.Unwrap(ctx, wrapped, cut(label))
		}}
}

func ignoresByte(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, unwrap: func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
		if wrapped = bytes.Clone(wrapped); len(wrapped) > 0 {
			wrapped[0] = 1
		}
		return b.Unwrap(ctx, wrapped, label)
	}}
}

func ignoresTail(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, unwrap: func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
		return b.Unwrap(ctx, wrapped[:min(69, len(wrapped))], label)
	}}
}

func blursErrors(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, unwrap: func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
		key, err := b.Unwrap(ctx, wrapped, label)
		if err != nil {
			return nil, keystore.ErrUnavailable
		}
		return key, nil
	}}
}

func forgets(b keystore.Backend) keystore.Backend {
	kept := make(map[string]bool)
	return broken{b, func(ctx context.Context, key, label []byte) ([]byte, error) {
		wrapped, err := b.Wrap(ctx, key, label)
		kept[string(wrapped)] = true
		return wrapped, err
	}, func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
		if !kept[string(wrapped)] {
			return nil, keystore.ErrUnwrap
		}
		return b.Unwrap(ctx, wrapped, label)
	}}
}

func showsKey(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, wrap: func(ctx context.Context, key, label []byte) ([]byte, error) {
		wrapped, err := b.Wrap(ctx, key, label)
		return append(wrapped, key[:8]...), err
	}}
}

func repeats() func(b keystore.Backend) keystore.Backend {
	return func(b keystore.Backend) keystore.Backend {
		var last []byte
		return broken{Backend: b, wrap: func(ctx context.Context, key, label []byte) (_ []byte, err error) {
			if last == nil {
				last, err = b.Wrap(ctx, key, label)
			}
			return bytes.Clone(last), err
		}}
	}
}

func takesAnySize(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, wrap: func(ctx context.Context, key, label []byte) ([]byte, error) {
		return b.Wrap(ctx, append(bytes.Clone(key), make([]byte, keystore.KeySize)...)[:keystore.KeySize], label)
	}}
}

func wipesKey(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, wrap: func(ctx context.Context, key, label []byte) ([]byte, error) {
		defer clear(key)
		return b.Wrap(ctx, key, label)
	}}
}

func scribbles(b keystore.Backend) keystore.Backend {
	return broken{Backend: b, wrap: func(ctx context.Context, key, label []byte) ([]byte, error) {
		_ = append(label, "suffix"...)
		return b.Wrap(ctx, key, label)
	}}
}

func returnsKept() func(b keystore.Backend) keystore.Backend {
	return func(b keystore.Backend) keystore.Backend {
		kept := make(map[string][]byte)
		return broken{Backend: b, unwrap: func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
			if key := kept[string(wrapped)]; key != nil {
				return key, nil
			}
			key, err := b.Unwrap(ctx, wrapped, label)
			kept[string(wrapped)] = key
			return key, err
		}}
	}
}

func ignoresContext(b keystore.Backend) keystore.Backend {
	return broken{b, func(ctx context.Context, key, label []byte) ([]byte, error) {
		return b.Wrap(context.WithoutCancel(ctx), key, label)
	}, func(ctx context.Context, wrapped, label []byte) ([]byte, error) {
		return b.Unwrap(context.WithoutCancel(ctx), wrapped, label)
	}}
}
