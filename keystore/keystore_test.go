package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
)

// fixedShelf returns the same keys for every namespace and takes none.
type fixedShelf []keystore.WrappedKey

func (s fixedShelf) WrappedKeys(context.Context, string) ([]keystore.WrappedKey, error) {
	return slices.Clone(s), nil
}

func (s fixedShelf) Census(context.Context, string) (counts []keystore.KeyCount, err error) {
	for _, k := range s {
		counts = append(counts, keystore.KeyCount{ID: k.ID()})
	}
	return counts, nil
}

func (s fixedShelf) AddWrappedKeys(context.Context, []keystore.WrappedKey) error {
	return errors.New("keys were made where there were some")
}

// What no Keystore has put on a shelf gives no keyring, and the backend isn't
// asked.
func TestKeyringRefusesShelf(t *testing.T) {
	remove := func(class keystore.Class) func([]keystore.WrappedKey) []keystore.WrappedKey {
		return func(keys []keystore.WrappedKey) []keystore.WrappedKey {
			return slices.DeleteFunc(keys, func(k keystore.WrappedKey) bool { return k.Class == class })
		}
	}
	change := func(change func(k *keystore.WrappedKey)) func([]keystore.WrappedKey) []keystore.WrappedKey {
		return func(keys []keystore.WrappedKey) []keystore.WrappedKey {
			change(&keys[0])
			return keys
		}
	}
	rows := []struct {
		name   string
		change func([]keystore.WrappedKey) []keystore.WrappedKey
	}{
		{"no data key", remove(keystore.Data)},
		{"no token key", remove(keystore.Token)},
		{"no index key", remove(keystore.Index)},
		{"no subject key", remove(keystore.Subject)},
		{"one key only", func(keys []keystore.WrappedKey) []keystore.WrappedKey { return keys[:1] }},
		{"a version twice", func(keys []keystore.WrappedKey) []keystore.WrappedKey { return append(keys, keys[0]) }},
		{"another namespace", change(func(k *keystore.WrappedKey) { k.Namespace = "other" })},
		{"unknown class", change(func(k *keystore.WrappedKey) { k.Class = 7 })},
		{"version 0", change(func(k *keystore.WrappedKey) { k.Version = 0 })},
		{"no time", change(func(k *keystore.WrappedKey) { k.Created = time.Time{} })},
		{"nothing wrapped", change(func(k *keystore.WrappedKey) { k.Wrapped = nil })},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			untouched := &keystoretest.FaultyBackend{Before: func(op keystoretest.Op) error {
				t.Errorf("the backend was asked to %s", op)
				return keystore.ErrUnavailable
			}}
			shelf := fixedShelf(r.change(vectorKeys(t)))
			ring, err := keystore.New(untouched, shelf, keystore.Options{}).Keyring(t.Context(), "default")
			if !errors.Is(err, keystore.ErrDamaged) || ring != nil {
				t.Errorf("keyring %v, error %v; want ErrDamaged", ring, err)
			}
		})
	}
}

// A keyring that was made before there were keys of some class gets one of them,
// and its other keys are as they were.
func TestKeyringGetsLaterClasses(t *testing.T) {
	for name, lacking := range map[string][]keystore.Class{
		"before audit keys": {keystore.Audit, keystore.FPE},
		"before fpe keys":   {keystore.FPE},
	} {
		before := slices.DeleteFunc(vectorKeys(t), func(k keystore.WrappedKey) bool { return slices.Contains(lacking, k.Class) })
		shelf := shelfOf(t, before...)
		ring, err := keystore.New(vectorBackend(t), shelf, keystore.Options{}).Keyring(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		for _, class := range lacking {
			if got := ring.Versions(class); !slices.Equal(got, []uint32{1}) {
				t.Errorf("%s: %v versions %v", name, class, got)
			}
		}
		after, err := shelf.WrappedKeys(t.Context(), "default")
		if err != nil || len(after) != len(before)+len(lacking) {
			t.Errorf("%s: %d keys on the shelf, %v", name, len(after), err)
		}
		for _, k := range before {
			if !slices.ContainsFunc(after, func(a keystore.WrappedKey) bool { return a.ID() == k.ID() && bytes.Equal(a.Wrapped, k.Wrapped) }) {
				t.Errorf("%s: %v is gone or changed", name, k)
			}
		}
	}
}

// The order in which a shelf returns keys means nothing.
func TestKeyringOrder(t *testing.T) {
	keys := vectorKeys(t)
	for range len(keys) {
		keys = append(keys[1:], keys[0])
		ring, err := keystore.New(vectorBackend(t), fixedShelf(keys), keystore.Options{}).Keyring(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		if got := ring.Versions(keystore.Data); !slices.Equal(got, []uint32{2, 1}) {
			t.Errorf("data versions %v, want [2 1]", got)
		}
	}
}

// oddBackend returns keys of another size, or none, without an error.
type oddBackend struct {
	keystore.Backend
	size int
}

func (b oddBackend) Unwrap(context.Context, []byte, []byte) ([]byte, error) {
	return make([]byte, b.size), nil
}

func TestKeyringRefusesKeySize(t *testing.T) {
	for _, size := range []int{0, 16, 24, 31, 33, 64} {
		odd := oddBackend{vectorBackend(t), size}
		ring, err := keystore.New(odd, fixedShelf(vectorKeys(t)), keystore.Options{}).Keyring(t.Context(), "default")
		if !errors.Is(err, keystore.ErrUnwrap) || ring != nil {
			t.Errorf("a key of %d bytes: keyring %v, error %v; want ErrUnwrap", size, ring, err)
		}
	}
}

// silentBackend wraps to nothing, or too much, without an error.
type silentBackend struct {
	keystore.Backend
	size int
}

func (b silentBackend) Wrap(context.Context, []byte, []byte) ([]byte, error) {
	return make([]byte, b.size), nil
}

func TestKeyringRefusesWrapped(t *testing.T) {
	for _, size := range []int{0, keystore.MaxWrapped + 1} {
		shelf := &keystoretest.FaultyShelf{
			Shelf: new(keystoretest.MemoryShelf),
			Before: keystoretest.On(keystoretest.OpAddWrappedKeys, func(keystoretest.Op) error {
				t.Errorf("%d wrapped bytes were added to the shelf", size)
				return nil
			}),
		}
		ring, err := keystore.New(silentBackend{vectorBackend(t), size}, shelf, keystore.Options{}).Keyring(t.Context(), "default")
		if err == nil || ring != nil {
			t.Errorf("%d wrapped bytes: keyring %v, error %v", size, ring, err)
		}
	}
}

func TestKeyringRefusesNamespace(t *testing.T) {
	untouched := &keystoretest.FaultyShelf{Before: func(op keystoretest.Op) error {
		t.Errorf("the shelf was asked for %s", op)
		return errors.New("asked")
	}}
	keys := keystore.New(vectorBackend(t), untouched, keystore.Options{})
	for _, name := range []string{"", "\xff", strings.Repeat("n", keystore.MaxNamespace+1)} {
		if ring, err := keys.Keyring(t.Context(), name); err == nil || ring != nil {
			t.Errorf("namespace %q: keyring %v, error %v", name, ring, err)
		}
	}
}

// A namespace that is loaded leaves the others in memory.
func TestKeyringKeepsNamespaces(t *testing.T) {
	keys := keystore.New(vectorBackend(t), new(keystoretest.MemoryShelf), keystore.Options{})
	names := []string{"a", "b", "c"}
	rings := make(map[string]*keystore.Keyring)
	for range 2 {
		for _, name := range names {
			ring, err := keys.Keyring(t.Context(), name)
			if err != nil || ring.Namespace() != name {
				t.Fatalf("namespace %q: keyring %v, error %v", name, ring, err)
			}
			if rings[name] != nil && rings[name] != ring {
				t.Errorf("namespace %q was loaded twice", name)
			}
			rings[name] = ring
		}
	}
}

// A call that waits for another to load a keyring leaves when its context
// ends, and the other's end lets the rest in.
func TestKeyringWaitersLeave(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	stuck := &keystoretest.FaultyBackend{
		Backend: vectorBackend(t),
		Before: keystoretest.Nth(1, func(keystoretest.Op) error {
			close(entered)
			<-release
			return keystore.ErrUnavailable
		}),
	}
	keys := keystore.New(stuck, shelfOf(t, vectorKeys(t)...), keystore.Options{})
	first := make(chan error, 1)
	go func() {
		_, err := keys.Keyring(context.WithoutCancel(t.Context()), "default")
		first <- err
	}()
	<-entered

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := keys.Keyring(ctx, "default"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call whose context has ended: error %v, want context.Canceled", err)
	}
	close(release)
	if err := <-first; !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("the first call: error %v, want ErrUnavailable", err)
	}
	if _, err := keys.Keyring(t.Context(), "default"); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// Before there are keys to confirm, the backend is asked whether it works.
func TestConfirmWithoutKeys(t *testing.T) {
	for _, want := range []error{nil, keystore.ErrUnavailable, keystore.ErrDenied} {
		backend := &keystoretest.FaultyBackend{
			Backend: vectorBackend(t),
			Before:  keystoretest.On(keystoretest.OpCheck, keystoretest.Always(want)),
		}
		if err := keystore.New(backend, new(keystoretest.MemoryShelf), keystore.Options{}).Confirm(t.Context()); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}
