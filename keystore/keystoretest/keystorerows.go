package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// keystoreRows are the clauses about a Keystore on the backend.
func keystoreRows() []row {
	return []row{
		{"first use makes one key of each class", checkFirstUse},
		{"keyrings outlive the process", checkRestart},
		{"concurrent first calls make one keyring", checkOneKeyring},
		{"replicas that race end with the same keys", checkReplicas},
		{"namespaces share no keys", checkApart},
		{"a wrapped key in another's place is refused", checkMisplaced},
		{"another root key gives no keyring", checkOtherRootKeyring},
		{"later versions are active and earlier ones open", checkVersions},
	}
}

var allClasses = keystore.Classes()

// wantSame returns an error unless the keyrings have the same keys: what one
// has sealed the other opens, and all else is equal.
func wantSame(a, b *keystore.Keyring) error {
	return errors.Join(wantOpens(a, b), wantOpens(b, a), wantSameDigests(a, b))
}

// wantOpens returns an error unless b opens what a seals.
func wantOpens(a, b *keystore.Keyring) error {
	plaintext, additional := []byte("4111111111111111"), []byte("record 1")
	sealed, version, err := a.Seal(nil, nil, plaintext, additional)
	if err != nil {
		return err
	}
	opened, err := b.Open(nil, version, sealed, additional)
	if err != nil {
		return fmt.Errorf("what one keyring sealed the other doesn't open: %w", err)
	}
	if !bytes.Equal(opened, plaintext) {
		return errors.New("what one keyring sealed the other opens to something else")
	}
	return wantOpensFor(a, b)
}

// wantOpensFor is wantOpens for what is sealed for a subject.
func wantOpensFor(a, b *keystore.Keyring) error {
	plaintext, additional := []byte("4111111111111111"), []byte("record 1")
	secret := [keystore.SubjectSecretSize]byte{1, 2, 3}
	sealed, version, err := a.SealFor(nil, nil, plaintext, additional, &secret)
	if err != nil {
		return err
	}
	opened, err := b.OpenFor(nil, version, sealed, additional, &secret)
	if err != nil {
		return fmt.Errorf("what one keyring sealed for a subject the other doesn't open: %w", err)
	}
	if !bytes.Equal(opened, plaintext) {
		return errors.New("what one keyring sealed for a subject the other opens to something else")
	}
	secret[0]++
	if _, err := b.OpenFor(nil, version, sealed, additional, &secret); !errors.Is(err, keystore.ErrOpen) {
		return fmt.Errorf("what was sealed for a subject opens for another: error %v", err)
	}
	return nil
}

func wantSameDigests(a, b *keystore.Keyring) error {
	for _, class := range allClasses {
		if av, bv := a.Versions(class), b.Versions(class); !slices.Equal(av, bv) {
			return fmt.Errorf("%v versions are %v and %v", class, av, bv)
		}
	}
	for _, class := range []keystore.Class{keystore.Index, keystore.Subject, keystore.Audit} {
		aSum, _, aErr := a.MAC(class, "test", []byte("data"))
		bSum, _, bErr := b.MAC(class, "test", []byte("data"))
		if err := errors.Join(aErr, bErr); err != nil {
			return err
		}
		if aSum != bSum {
			return fmt.Errorf("%v MACs differ", class)
		}
	}
	block := [16]byte{1, 2, 3}
	if err := b.Unpermute(a.Permute(&block), &block); err != nil {
		return err
	}
	if block != [16]byte{1, 2, 3} {
		return errors.New("token permutations differ")
	}
	return wantSameFPE(a, b)
}

// wantSameFPE returns an error unless both encrypt to the same under each of a's
// fpe keys.
func wantSameFPE(a, b *keystore.Keyring) error {
	for _, version := range a.Versions(keystore.FPE) {
		aBlock, aErr := a.FPE(version)
		bBlock, bErr := b.FPE(version)
		if err := errors.Join(aErr, bErr); err != nil {
			return err
		}
		var aOut, bOut [16]byte
		aBlock.Encrypt(aOut[:], aOut[:])
		bBlock.Encrypt(bOut[:], bOut[:])
		if aOut != bOut {
			return fmt.Errorf("fpe keys %d differ", version)
		}
	}
	return nil
}

// wantKeyring returns the keyring of a new Keystore, as after a restart.
func wantKeyring(ctx context.Context, b keystore.Backend, shelf keystore.Shelf, namespace string) (*keystore.Keyring, error) {
	return keystore.New(b, shelf, keystore.Options{}).Keyring(ctx, namespace)
}

func checkFirstUse(t *testing.T, h Harness) error {
	ctx, shelf := t.Context(), new(MemoryShelf)
	keys := keystore.New(h.newBackend(t), shelf, keystore.Options{})
	if err := errors.Join(keys.Check(ctx), wantShelf(ctx, shelf, "default")); err != nil {
		return fmt.Errorf("before the first use: %w", err)
	}
	before := time.Now().Truncate(time.Second)
	ring, err := keys.Keyring(ctx, "default")
	if err != nil {
		return err
	}
	wrapped, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return err
	}
	if len(wrapped) != len(allClasses) {
		return fmt.Errorf("%d keys on the shelf, want %d", len(wrapped), len(allClasses))
	}
	for _, k := range wrapped {
		if k.Version != 1 || k.Created.Before(before) || k.Created.After(time.Now()) {
			return fmt.Errorf("%v was created %v", k, k.Created)
		}
	}
	for _, class := range allClasses {
		if got := ring.Versions(class); !slices.Equal(got, []uint32{1}) {
			return fmt.Errorf("%v versions are %v, want 1", class, got)
		}
	}
	again, err := keys.Keyring(ctx, "default")
	if err != nil || again != ring {
		return fmt.Errorf("the second call gave another keyring (error %v)", err)
	}
	return nil
}

func checkRestart(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	before, err := wantKeyring(ctx, root.Open(t), shelf, "default")
	if err != nil {
		return err
	}
	after, err := wantKeyring(ctx, root.Open(t), shelf, "default")
	if err != nil {
		return err
	}
	return wantSame(before, after)
}

func checkOneKeyring(t *testing.T, h Harness) error {
	ctx, shelf := t.Context(), new(MemoryShelf)
	keys := keystore.New(h.newBackend(t), shelf, keystore.Options{})
	rings := make([]*keystore.Keyring, 16)
	err := inParallel(len(rings), func(i int) (err error) {
		rings[i], err = keys.Keyring(ctx, "default")
		return err
	})
	if err != nil {
		return err
	}
	for _, ring := range rings {
		if ring != rings[0] {
			return errors.New("concurrent first calls gave different keyrings")
		}
	}
	return nil
}

// checkReplicas lets every replica see an empty shelf before any adds to it.
func checkReplicas(t *testing.T, h Harness) error {
	ctx, root, shelf := t.Context(), h.NewRoot(t), new(MemoryShelf)
	const replicas = 4
	var read sync.WaitGroup
	read.Add(replicas)
	rings := make([]*keystore.Keyring, replicas)
	err := inParallel(replicas, func(i int) (err error) {
		lockstep := &FaultyShelf{Shelf: shelf, After: On(OpWrappedKeys, Nth(1, func(Op) error {
			read.Done()
			read.Wait()
			return nil
		}))}
		rings[i], err = wantKeyring(ctx, root.Open(t), lockstep, "default")
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, ring := range rings[1:] {
		errs = append(errs, wantSame(rings[0], ring))
	}
	wrapped, err := shelf.WrappedKeys(ctx, "default")
	if err == nil && len(wrapped) != len(allClasses) {
		err = fmt.Errorf("%d keys on the shelf, want %d", len(wrapped), len(allClasses))
	}
	return errors.Join(append(errs, err)...)
}

func checkApart(t *testing.T, h Harness) error {
	ctx, shelf := t.Context(), new(MemoryShelf)
	keys := keystore.New(h.newBackend(t), shelf, keystore.Options{})
	a, err := keys.Keyring(ctx, "a")
	if err != nil {
		return err
	}
	b, err := keys.Keyring(ctx, "b")
	if err != nil {
		return err
	}
	sealed, version, err := a.Seal(nil, nil, []byte("value"), nil)
	if err != nil {
		return err
	}
	if _, err := b.Open(nil, version, sealed, nil); !errors.Is(err, keystore.ErrOpen) {
		return fmt.Errorf("another namespace opens what was sealed: error %v", err)
	}
	if err := wantSameDigests(a, b); err == nil {
		return errors.New("two namespaces have the same keys")
	}
	return nil
}

// checkMisplaced puts every wrapped key in the place of every other, and alters
// what is written beside it.
func checkMisplaced(t *testing.T, h Harness) error {
	ctx, shelf, b := t.Context(), new(MemoryShelf), h.newBackend(t)
	var all []keystore.WrappedKey
	for _, namespace := range []string{"a", "b"} {
		if _, err := wantKeyring(ctx, b, shelf, namespace); err != nil {
			return err
		}
		wrapped, err := shelf.WrappedKeys(ctx, namespace)
		if err != nil {
			return err
		}
		all = append(all, sorted(wrapped)...)
	}
	var errs []error
	refuse := func(what string, place int, alter func(k *keystore.WrappedKey)) {
		keys := slices.Clone(all[:len(allClasses)])
		alter(&keys[place])
		swapped := new(MemoryShelf)
		err := swapped.AddWrappedKeys(ctx, keys)
		if err == nil {
			_, err = wantKeyring(ctx, b, swapped, "a")
		}
		errs = append(errs, wantErr(fmt.Sprintf("%v: %s", all[place], what), err, keystore.ErrUnwrap))
	}
	for place := range allClasses {
		for from, k := range all {
			if from != place {
				refuse(fmt.Sprintf("has the bytes of %v", k), place, func(to *keystore.WrappedKey) { to.Wrapped = k.Wrapped })
			}
		}
		refuse("has another version", place, func(k *keystore.WrappedKey) { k.Version = 2 })
		refuse("has another time", place, func(k *keystore.WrappedKey) { k.Created = k.Created.Add(time.Second) })
	}
	return errors.Join(errs...)
}

func checkOtherRootKeyring(t *testing.T, h Harness) error {
	ctx, shelf := t.Context(), new(MemoryShelf)
	if _, err := wantKeyring(ctx, h.newBackend(t), shelf, "default"); err != nil {
		return err
	}
	before, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return err
	}
	ring, err := wantKeyring(ctx, h.newBackend(t), shelf, "default")
	if ring != nil {
		return errors.New("another root key gave a keyring")
	}
	return errors.Join(
		wantErr("another root key", err, keystore.ErrUnwrap),
		wantShelf(ctx, shelf, "default", before...))
}

func checkVersions(t *testing.T, h Harness) error {
	ctx, shelf, b := t.Context(), new(MemoryShelf), h.newBackend(t)
	before, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return err
	}
	var later []keystore.WrappedKey
	for _, class := range allClasses {
		// A gap is what a retired version leaves.
		k := keystore.WrappedKey{Namespace: "default", Class: class, Version: 3, Created: time.Unix(1_800_000_000, 0).UTC()}
		if k.Wrapped, err = b.Wrap(ctx, testKey(byte(class)), k.Label()); err != nil {
			return err
		}
		later = append(later, k)
	}
	if err := shelf.AddWrappedKeys(ctx, later); err != nil {
		return err
	}
	after, err := wantKeyring(ctx, b, shelf, "default")
	if err != nil {
		return err
	}
	for _, class := range allClasses {
		if got := after.Versions(class); !slices.Equal(got, []uint32{3, 1}) || after.ActiveVersion(class) != 3 {
			return fmt.Errorf("%v versions are %v, active %d; want [3 1], active 3", class, got, after.ActiveVersion(class))
		}
	}
	sealed, version, err := after.Seal(nil, nil, []byte("value"), nil)
	if err != nil || version != 3 {
		return fmt.Errorf("sealed under version %d, error %v; want version 3", version, err)
	}
	if _, err := before.Open(nil, version, sealed, nil); !errors.Is(err, keystore.ErrKeyVersion) {
		return fmt.Errorf("an older keyring opens a later version: error %v", err)
	}
	return wantOpens(before, after)
}
