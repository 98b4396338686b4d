package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
)

// moody is a backend whose answers can be changed while it is used.
type moody struct {
	keystoretest.FaultyBackend
	fault atomic.Pointer[error]
}

func newMoody(t *testing.T) *moody {
	m := new(moody)
	m.Backend = vectorBackend(t)
	m.Before = func(keystoretest.Op) error {
		if err := m.fault.Load(); err != nil {
			return *err
		}
		return nil
	}
	return m
}

// answer has every call fail with err, or none.
func (m *moody) answer(err error) {
	if err == nil {
		m.fault.Store(nil)
		return
	}
	m.fault.Store(&err)
}

// leased is a Keystore that runs, with its keyring loaded.
func leased(t *testing.T, m *moody, o keystore.Options) (*keystore.Keystore, chan keystore.Status) {
	t.Helper()
	changes := make(chan keystore.Status, 100)
	o.Changed = func(s keystore.Status) { changes <- s }
	keys := keystore.New(m, shelfOf(t, vectorKeys(t)...), o)
	if _, err := keys.Keyring(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { keys.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return keys, changes
}

// want waits for the next change of state.
func want(t *testing.T, changes chan keystore.Status, state keystore.State) keystore.Status {
	t.Helper()
	select {
	case s := <-changes:
		if s.State != state {
			t.Fatalf("state %v (%v), want %v", s.State, s.Cause, state)
		}
		return s
	case <-time.After(30 * time.Second):
		t.Fatalf("the state never became %v", state)
		panic("unreachable")
	}
}

func TestOfflineThenSealedThenReady(t *testing.T) {
	m := newMoody(t)
	keys, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond, MaxOffline: 300 * time.Millisecond})
	m.answer(keystore.ErrUnavailable)
	offline := want(t, changes, keystore.Offline)
	if ring, err := keys.Keyring(t.Context(), "default"); err != nil || ring == nil {
		t.Errorf("offline: keyring %v, error %v", ring, err)
	}
	if err := keys.Check(t.Context()); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrSealed) {
		t.Errorf("offline: Check: %v", err)
	}
	if err := keys.Usable(t.Context()); err != nil {
		t.Errorf("offline: Usable: %v", err)
	}
	if _, err := keys.NewVersion(t.Context(), "default", keystore.Data); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("offline: NewVersion: %v", err)
	}
	sealed := want(t, changes, keystore.Sealed)
	if d := sealed.Since.Sub(offline.Since); d < 300*time.Millisecond {
		t.Errorf("sealed after %v", d)
	}
	for name, err := range map[string]error{
		"Keyring": func() error { _, err := keys.Keyring(t.Context(), "default"); return err }(),
		"another": func() error { _, err := keys.Keyring(t.Context(), "other"); return err }(),
		"Reload":  keys.Reload(t.Context(), "default"),
		"Check":   keys.Check(t.Context()),
		"Usable":  keys.Usable(t.Context()),
	} {
		if !errors.Is(err, keystore.ErrSealed) || !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("sealed: %s: %v", name, err)
		}
	}
	if _, err := keys.Keys(t.Context(), "default"); err != nil {
		t.Errorf("sealed: Keys: %v", err)
	}
	m.answer(nil)
	want(t, changes, keystore.Ready)
	if _, err := keys.Keyring(t.Context(), "default"); err != nil {
		t.Errorf("ready again: %v", err)
	}
}

// Whoever is denied is sealed within a lease, however long MaxOffline is.
func TestDeniedIsSealed(t *testing.T) {
	for _, cause := range []error{keystore.ErrDenied, keystore.ErrUnwrap} {
		m := newMoody(t)
		keys, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond, MaxOffline: time.Hour})
		m.answer(cause)
		if s := want(t, changes, keystore.Sealed); !errors.Is(s.Cause, cause) {
			t.Errorf("cause %v, want %v", s.Cause, cause)
		}
		m.answer(nil)
		want(t, changes, keystore.Ready)
		if err := keys.Usable(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestNoTimeOffline(t *testing.T) {
	m := newMoody(t)
	_, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond})
	m.answer(keystore.ErrUnavailable)
	want(t, changes, keystore.Sealed)
}

// A backend that hangs, whatever its context says, doesn't keep the keys alive.
func TestHangIsSealed(t *testing.T) {
	m := newMoody(t)
	release := make(chan struct{})
	var hang atomic.Bool
	m.Before = func(keystoretest.Op) error {
		if hang.Load() {
			<-release
		}
		return nil
	}
	keys, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond, MaxOffline: 100 * time.Millisecond})
	hang.Store(true)
	want(t, changes, keystore.Sealed)
	if _, err := keys.Keyring(t.Context(), "default"); !errors.Is(err, keystore.ErrSealed) {
		t.Errorf("Keyring: %v", err)
	}
	hang.Store(false)
	close(release)
	want(t, changes, keystore.Ready)
}

// When sealed, the memory of every key is overwritten, and not before the
// calls that use it end.
func TestSealedKeysAreWiped(t *testing.T) {
	m := newMoody(t)
	keys, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond})
	ring, err := keys.Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	sealed, version, err := ring.Seal(nil, nil, []byte("value"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.answer(keystore.ErrDenied)
	want(t, changes, keystore.Sealed)
	held := len(vectorKeys(t))
	waitFor(t, func() bool { return keys.Status().Keys == held })
	if got, err := ring.Open(nil, version, sealed, nil); err != nil || !bytes.Equal(got, []byte("value")) {
		t.Errorf("a call that was under way: %q, %v", got, err)
	}
	ring = nil
	waitFor(t, func() bool { return keys.Status().Keys == 0 })
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came to pass")
		}
	}
}

func TestNewVersion(t *testing.T) {
	ctx := t.Context()
	shelf := new(keystoretest.MemoryShelf)
	keys := keystore.New(vectorBackend(t), shelf, keystore.Options{})
	replica := keystore.New(vectorBackend(t), shelf, keystore.Options{})
	before, err := keys.Keyring(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	other, err := replica.Keyring(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	for version := uint32(2); version <= 3; version++ {
		for _, class := range keystore.Classes() {
			k, err := keys.NewVersion(ctx, "default", class)
			if err != nil || k.Version != version {
				t.Fatalf("%v, error %v; want version %d", k, err, version)
			}
			again, err := keys.NewVersion(ctx, "default", class)
			if err != nil || again.Version != version || bytes.Equal(again.Wrapped, k.Wrapped) {
				t.Fatalf("prepared again: %v, error %v", again, err)
			}
			if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{k}); err != nil {
				t.Fatal(err)
			}
		}
		if err := keys.Reload(ctx, "default"); err != nil {
			t.Fatal(err)
		}
	}
	after, err := keys.Keyring(ctx, "default")
	if err != nil || after == before {
		t.Fatalf("the same keyring, error %v", err)
	}
	for _, class := range keystore.Classes() {
		if got := after.Versions(class); !slices.Equal(got, []uint32{3, 2, 1}) {
			t.Errorf("%v versions %v", class, got)
		}
	}
	sealed, version, err := after.Seal(nil, nil, []byte("value"), nil)
	if err != nil || version != 3 {
		t.Fatalf("sealed under %d, %v", version, err)
	}
	// The replica doesn't know the version, and asks.
	if _, err := other.Open(nil, version, sealed, nil); !errors.Is(err, keystore.ErrKeyVersion) {
		t.Fatalf("an older keyring: %v", err)
	}
	newer, err := replica.Newer(ctx, "default", keystore.Data, version)
	if err != nil || newer == other {
		t.Fatalf("Newer: the same keyring, error %v", err)
	}
	if got, err := newer.Open(nil, version, sealed, nil); err != nil || string(got) != "value" {
		t.Errorf("opened to %q, error %v", got, err)
	}
	if again, err := replica.Newer(ctx, "default", keystore.Data, version); err != nil || again != newer {
		t.Errorf("Newer again: another keyring, error %v", err)
	}
	// A number is not used again, even after its key is gone.
	shelf.Remove(keystore.KeyID{Namespace: "default", Class: keystore.Data, Version: 3})
	if k, err := keys.NewVersion(ctx, "default", keystore.Data); err != nil || k.Version != 4 {
		t.Errorf("%v, error %v; want version 4", k, err)
	}
	if _, err := keys.NewVersion(ctx, "default", 9); !errors.Is(err, keystore.ErrClass) {
		t.Errorf("no class: %v", err)
	}
}

// Versions that somebody made up don't have the backend asked.
func TestNewerAsksNobody(t *testing.T) {
	var asked atomic.Int64
	backend := &keystoretest.FaultyBackend{Backend: vectorBackend(t), Before: func(keystoretest.Op) error {
		asked.Add(1)
		return nil
	}}
	keys := keystore.New(backend, shelfOf(t, vectorKeys(t)...), keystore.Options{})
	ring, err := keys.Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	for range 100 {
		if got, err := keys.Newer(t.Context(), "default", keystore.Token, 9); err != nil || got != ring {
			t.Fatalf("another keyring, error %v", err)
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// sealedShelf says that keys have sealed a number of times.
type sealedShelf struct {
	*keystoretest.MemoryShelf
	sealed uint64
}

func (s sealedShelf) Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error) {
	counts, err := s.MemoryShelf.Census(ctx, namespace)
	for i := range counts {
		counts[i].Sealed = s.sealed
	}
	return counts, err
}

func TestSpentKeySealsNoMore(t *testing.T) {
	shelf := sealedShelf{shelfOf(t, vectorKeys(t)...), keystore.MaxUses - 2}
	ring, err := keystore.New(vectorBackend(t), shelf, keystore.Options{}).Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := ring.Seal(nil, nil, []byte("value"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := ring.Uses(2); got != keystore.MaxUses {
		t.Errorf("%d uses", got)
	}
	for range 3 {
		if sealed, _, err := ring.Seal(nil, nil, []byte("value"), nil); !errors.Is(err, keystore.ErrKeySpent) || sealed != nil {
			t.Errorf("a spent key sealed: %v", err)
		}
	}
}

// To seal keys doesn't depend on who is told of it.
func TestNobodyWaitsForChanged(t *testing.T) {
	m := newMoody(t)
	release := make(chan struct{})
	defer close(release)
	keys := keystore.New(m, shelfOf(t, vectorKeys(t)...), keystore.Options{
		Lease: 10 * time.Millisecond, MaxOffline: 50 * time.Millisecond, Changed: func(keystore.Status) { <-release },
	})
	if _, err := keys.Keyring(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { keys.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	m.answer(keystore.ErrUnavailable)
	waitFor(t, func() bool { return errors.Is(keys.Usable(ctx), keystore.ErrSealed) })
	m.answer(nil)
	waitFor(t, func() bool { return keys.Usable(ctx) == nil })
}

// garbling wraps to something that doesn't unwrap.
type garbling struct{ keystore.Backend }

func (g garbling) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	wrapped, err := g.Backend.Wrap(ctx, key, label)
	if err == nil {
		wrapped[len(wrapped)-1] ^= 1
	}
	return wrapped, err
}

// swapping wraps another key.
type swapping struct{ keystore.Backend }

func (s swapping) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	return s.Backend.Wrap(ctx, make([]byte, len(key)), label)
}

// One key on the shelf that doesn't open would be the end of all: none gets
// there.
func TestANewKeyMustOpen(t *testing.T) {
	for name, backend := range map[string]keystore.Backend{"garbled": garbling{vectorBackend(t)}, "another key": swapping{vectorBackend(t)}} {
		shelf := shelfOf(t, vectorKeys(t)...)
		if k, err := keystore.New(backend, shelf, keystore.Options{}).NewVersion(t.Context(), "default", keystore.Data); !errors.Is(err, keystore.ErrUnavailable) || k.Wrapped != nil {
			t.Errorf("%s: NewVersion: %v, %v", name, k, err)
		}
		empty := new(keystoretest.MemoryShelf)
		if _, err := keystore.New(backend, empty, keystore.Options{}).Keyring(t.Context(), "default"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: first keys: %v", name, err)
		}
		if keys, err := empty.WrappedKeys(t.Context(), "default"); err != nil || len(keys) != 0 {
			t.Errorf("%s: %d keys on the shelf, %v", name, len(keys), err)
		}
	}
}

// countingShelf has its own census.
type countingShelf struct {
	*keystoretest.MemoryShelf
	census func([]keystore.KeyCount) []keystore.KeyCount
}

func (s countingShelf) Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error) {
	counts, err := s.MemoryShelf.Census(ctx, namespace)
	return s.census(counts), err
}

func TestCensusAgainstShelf(t *testing.T) {
	lost := keystore.KeyID{Namespace: "default", Class: keystore.Data, Version: 3}
	for name, row := range map[string]struct {
		census  func([]keystore.KeyCount) []keystore.KeyCount
		wantErr error
	}{
		"as it is": {func(c []keystore.KeyCount) []keystore.KeyCount { return c }, nil},
		"retired": {func(c []keystore.KeyCount) []keystore.KeyCount {
			return append(c, keystore.KeyCount{ID: lost, Gone: true})
		}, nil},
		"lost": {func(c []keystore.KeyCount) []keystore.KeyCount {
			return append(c, keystore.KeyCount{ID: lost, Gone: true, Records: 1})
		}, keystore.ErrDamaged},
		"not counted": {func(c []keystore.KeyCount) []keystore.KeyCount { return c[1:] }, keystore.ErrDamaged},
	} {
		shelf := countingShelf{shelfOf(t, vectorKeys(t)...), row.census}
		if _, err := keystore.New(vectorBackend(t), shelf, keystore.Options{}).Keyring(t.Context(), "default"); !errors.Is(err, row.wantErr) {
			t.Errorf("%s: %v, want %v", name, err, row.wantErr)
		}
	}
}

func TestTooManyVersions(t *testing.T) {
	many := func(n int, gone bool) func([]keystore.KeyCount) []keystore.KeyCount {
		return func(c []keystore.KeyCount) []keystore.KeyCount {
			for i := range n {
				c = append(c, keystore.KeyCount{ID: keystore.KeyID{Namespace: "default", Class: keystore.Token, Version: uint32(10 + i)}, Gone: gone})
			}
			return c
		}
	}
	last := func(c []keystore.KeyCount) []keystore.KeyCount {
		id := keystore.KeyID{Namespace: "default", Class: keystore.Token, Version: 1<<32 - 1}
		return append([]keystore.KeyCount{{ID: id, Gone: true}}, c...)
	}
	for name, row := range map[string]struct {
		census  func([]keystore.KeyCount) []keystore.KeyCount
		version uint32
		wantErr error
	}{
		"many":          {many(keystore.MaxVersions-2, false), 0, keystore.ErrTooManyKeys},
		"many are gone": {many(keystore.MaxVersions, true), 10 + keystore.MaxVersions, nil},
		"none is left":  {last, 0, keystore.ErrTooManyKeys},
		"as it is":      {many(0, false), 3, nil},
	} {
		shelf := countingShelf{shelfOf(t, vectorKeys(t)...), row.census}
		k, err := keystore.New(vectorBackend(t), shelf, keystore.Options{}).NewVersion(t.Context(), "default", keystore.Token)
		if !errors.Is(err, row.wantErr) || k.Version != row.version {
			t.Errorf("%s: version %d, %v; want %d, %v", name, k.Version, err, row.version, row.wantErr)
		}
	}
}
