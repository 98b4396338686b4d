package keystore_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// maxSubjectKeys is how many keys of subjects a keyring keeps.
const maxSubjectKeys = 4096

// subject returns the secret of one of many subjects.
func subject(n int) *secret {
	var s secret
	binary.BigEndian.PutUint64(s[:], uint64(n)+1)
	return &s
}

// caching is a keyring with its keystore, and how many keys it has without
// subjects, but with the one that names them in memory.
func caching(t *testing.T) (*keystore.Keystore, *keystore.Keyring, int) {
	t.Helper()
	keys := keystore.New(vectorBackend(t), shelfOf(t, vectorKeys(t)...), keystore.Options{})
	ring, err := keys.Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	return keys, ring, len(vectorKeys(t)) + 1
}

func sealFor(t *testing.T, ring *keystore.Keyring, n int) []byte {
	t.Helper()
	sealed, _, err := ring.SealFor(nil, nil, []byte("value"), nil, subject(n))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func openFor(t *testing.T, ring *keystore.Keyring, sealed []byte, n int) {
	t.Helper()
	if got, err := ring.OpenFor(nil, 2, sealed, nil, subject(n)); err != nil || string(got) != "value" {
		t.Errorf("subject %d: opened to %q, %v", n, got, err)
	}
}

// wantKeys waits until there are as many keys in memory.
func wantKeys(t *testing.T, keys *keystore.Keystore, want int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); keys.Status().Keys != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d keys in memory, want %d", keys.Status().Keys, want)
		}
		runtime.GC()
	}
}

func TestSubjectKeysAreKept(t *testing.T) {
	keys, ring, base := caching(t)
	if got := keys.Status().Keys; got != base-1 {
		t.Errorf("%d keys in memory before there are subjects, want %d", got, base-1)
	}
	for range 3 {
		for n := range 10 {
			openFor(t, ring, sealFor(t, ring, n), n)
		}
	}
	// Another version has another key.
	for _, v := range readFile(t, "subject-v1.json").Sealed {
		_, _ = ring.OpenFor(nil, 1, v.Sealed, nil, subject(0))
	}
	wantKeys(t, keys, base+11)
	runtime.KeepAlive(ring)
}

// However many subjects come by, so many keys are kept and no more; who comes
// often stays.
func TestSubjectKeysAreEvicted(t *testing.T) {
	keys, ring, base := caching(t)
	first := sealFor(t, ring, 0)
	for n := range 2 * maxSubjectKeys {
		sealFor(t, ring, n)
		openFor(t, ring, first, 0)
	}
	wantKeys(t, keys, base+maxSubjectKeys)
	openFor(t, ring, first, 0)
	if got := keys.Status().Keys; got != base+maxSubjectKeys {
		t.Errorf("%d keys in memory after a call for who comes often, want %d", got, base+maxSubjectKeys)
	}
	runtime.KeepAlive(ring)
}

func TestForget(t *testing.T) {
	keys, ring, base := caching(t)
	var sealed [][]byte
	for n := range 10 {
		sealed = append(sealed, sealFor(t, ring, n))
	}
	_, _ = ring.OpenFor(nil, 1, nil, nil, subject(3)) // a key under each version
	wantKeys(t, keys, base+11)
	ring.Forget(subject(3))
	ring.Forget(subject(3))
	ring.Forget(subject(99)) // who never was
	wantKeys(t, keys, base+9)
	// A call that still has the secret gets its key and leaves none behind.
	for n := range 10 {
		openFor(t, ring, sealed[n], n)
	}
	wantKeys(t, keys, base+9)
	// What notes who was forgotten is bounded, too.
	for n := range 3 * maxSubjectKeys {
		ring.Forget(subject(n))
	}
	wantKeys(t, keys, base)
	openFor(t, ring, sealFor(t, ring, 2), 2)
	runtime.KeepAlive(ring)
}

// A Reload makes a keyring that keeps its own; that of the one before goes with
// it.
func TestSubjectKeysGoWithTheirKeyring(t *testing.T) {
	ctx := t.Context()
	shelf := shelfOf(t, vectorKeys(t)...)
	keys := keystore.New(vectorBackend(t), shelf, keystore.Options{})
	before, err := keys.Keyring(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	base := len(vectorKeys(t)) + 1
	sealed := sealFor(t, before, 1)
	sealFor(t, before, 2)
	k, err := keys.NewVersion(ctx, "default", keystore.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{k}); err != nil {
		t.Fatal(err)
	}
	if err := keys.Reload(ctx, "default"); err != nil {
		t.Fatal(err)
	}
	after, err := keys.Keyring(ctx, "default")
	if err != nil || after == before {
		t.Fatalf("the same keyring, error %v", err)
	}
	openFor(t, after, sealed, 1)
	wantKeys(t, keys, base+1+2+1+1) // the new version, two subjects before, and one and the name's key now
	openFor(t, before, sealed, 1)
	before = nil
	wantKeys(t, keys, base+1+1)
	openFor(t, after, sealed, 1)
	runtime.KeepAlive(after)
}

// Keys of subjects are wiped like others: when sealed, and not before the calls
// that use them end.
func TestSealedSubjectKeysAreWiped(t *testing.T) {
	m := newMoody(t)
	keys, changes := leased(t, m, keystore.Options{Lease: 10 * time.Millisecond})
	ring, err := keys.Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	for n := range 100 {
		sealed = sealFor(t, ring, n)
	}
	m.answer(keystore.ErrDenied)
	want(t, changes, keystore.Sealed)
	wantKeys(t, keys, len(vectorKeys(t))+1+100)
	openFor(t, ring, sealed, 99) // a call that was under way
	ring = nil
	waitFor(t, func() bool { return keys.Status().Keys == 0 })
}

// Many calls for few subjects, some of whom are being forgotten.
func TestSubjectKeysConcurrently(t *testing.T) {
	_, ring, _ := caching(t)
	var group sync.WaitGroup
	for caller := range 8 {
		group.Go(func() {
			for i := range 500 {
				n := (caller + i) % 5
				sealed, version, err := ring.SealFor(nil, nil, []byte("value"), nil, subject(n))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := ring.OpenFor(nil, version, sealed, nil, subject(n)); err != nil || string(got) != "value" {
					t.Errorf("opened to %q, %v", got, err)
					return
				}
				if i%50 == 0 {
					ring.Forget(subject(i % 3))
					_, _, _ = ring.SealFor(nil, nil, nil, nil, subject(10_000*caller+i))
				}
			}
		})
	}
	group.Wait()
}
