package tokenizer_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// addVersion puts a new version of the class on the shelf. Rings that were
// loaded before don't have it.
func (k kit) addVersion(t testing.TB, class keystore.Class) keystore.WrappedKey {
	t.Helper()
	key, err := k.keys.NewVersion(t.Context(), namespace, class)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Keys: []keystore.WrappedKey{key}, Event: event}); err != nil {
		t.Fatal(err)
	}
	return key
}

// rotate makes a new version of the class the active one.
func (k kit) rotate(t testing.TB, class keystore.Class) {
	t.Helper()
	k.addVersion(t, class)
	if err := k.keys.Reload(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
}

// resealAll goes through all records once.
func (k kit) resealAll(t testing.TB) (moved, failed int) {
	t.Helper()
	for after := uint64(0); ; {
		var unit tokenizer.Unit
		r, err := k.Reseal(t.Context(), namespace, after, 7, &unit)
		if err != nil {
			t.Fatal(err)
		}
		moved, failed = moved+r.Moved, failed+r.Failed
		unit.Event = event
		if _, err := k.store.Commit(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
		if after = r.Next; after == 0 {
			return moved, failed
		}
	}
}

func (k kit) count(t testing.TB, class keystore.Class, version uint32) uint64 {
	t.Helper()
	census, err := k.store.Census(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(census, func(c keystore.KeyCount) bool { return c.ID.Class == class && c.ID.Version == version })
	if i < 0 {
		t.Fatalf("the census has no %v key %d", class, version)
	}
	return census[i].Records
}

func TestResealMovesEveryRecord(t *testing.T) {
	k := newKit(t)
	values := make(map[tokenizer.Token]string)
	for i := range 50 {
		value := fmt.Sprint("value ", i)
		values[k.tokenize(t, "note", value).Token] = value
	}
	var labelled tokenizer.Unit
	made, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "note", Value: tokenizer.NewValue("labelled"), Metadata: map[string]string{"order": "17"}}, &labelled)
	if err != nil {
		t.Fatal(err)
	}
	labelled.Event = event
	if _, err := k.store.Commit(t.Context(), labelled); err != nil {
		t.Fatal(err)
	}
	values[made.Token] = "labelled"
	for version := uint32(2); version <= 3; version++ {
		k.rotate(t, keystore.Data)
		k.rotate(t, keystore.Token)
		if moved, failed := k.resealAll(t); moved != len(values) || failed != 0 {
			t.Fatalf("%d moved, %d failed; want %d", moved, failed, len(values))
		}
		if moved, _ := k.resealAll(t); moved != 0 {
			t.Errorf("%d moved again", moved)
		}
		if old, now := k.count(t, keystore.Data, version-1), k.count(t, keystore.Data, version); old != 0 || now != uint64(len(values)) {
			t.Errorf("%d under the old key, %d under the new", old, now)
		}
		for token, value := range values {
			if got, err := k.detokenize(t, namespace, token, ""); err != nil || got.Reveal() != value {
				t.Fatalf("%q came back as %q, %v", value, got.Reveal(), err)
			}
		}
	}
	found, err := k.store.Records(t.Context(), labelled.Records[0].ID)
	if err != nil || found[0].Err != nil || found[0].Record.KeyVersion != 3 || len(found[0].Record.Details) == 0 {
		t.Errorf("the labelled record: %+v, %v", found, err)
	}
}

// A record that doesn't open is left as it is and keeps its key from being
// retired; the others go on.
func TestResealLeavesWhatDoesNotOpen(t *testing.T) {
	k := newKit(t)
	good := k.tokenize(t, "note", "good")
	var unit tokenizer.Unit
	if _, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "note", Value: tokenizer.NewValue("bad")}, &unit); err != nil {
		t.Fatal(err)
	}
	unit.Records[0].Value[5] ^= 1
	unit.Event = event
	if _, err := k.store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	k.rotate(t, keystore.Data)
	if moved, failed := k.resealAll(t); moved != 1 || failed != 1 {
		t.Errorf("%d moved, %d failed; want 1 and 1", moved, failed)
	}
	if n := k.count(t, keystore.Data, 1); n != 1 {
		t.Errorf("%d records under the old key, want 1", n)
	}
	if got, err := k.detokenize(t, namespace, good.Token, ""); err != nil || got.Reveal() != "good" {
		t.Errorf("the good one: %v", err)
	}
}

// A token of a version that this process has not seen yet, and a record under
// one, have it look at the shelf.
func TestKeysOfAnotherReplicaAreFound(t *testing.T) {
	k := newKit(t)
	old := k.tokenize(t, "note", "old")
	replica := k
	replica.keys = keystore.New(k.backend, shelf{k.store}, keystore.Options{})
	var err error
	if replica.Tokenizer, err = tokenizer.New(replica.keys, k.store, profiles); err != nil {
		t.Fatal(err)
	}
	replica.tokenize(t, "note", "warm")
	k.rotate(t, keystore.Token)
	if got, err := replica.detokenize(t, namespace, k.tokenize(t, "note", "new").Token, ""); err != nil || got.Reveal() != "new" {
		t.Errorf("a token of a new version: %q, %v", got.Reveal(), err)
	}
	k.rotate(t, keystore.Data)
	k.resealAll(t)
	if got, err := replica.detokenize(t, namespace, old.Token, ""); err != nil || got.Reveal() != "old" {
		t.Errorf("a record under a new version: %q, %v", got.Reveal(), err)
	}
}

// A record that is sealed under a key which is retired before the commit is
// refused, and sealing it anew works.
func TestRetiredBeforeCommit(t *testing.T) {
	k := newKit(t)
	req := tokenizer.TokenizeRequest{Profile: "note", Value: tokenizer.NewValue("value")}
	unit := tokenizer.Unit{Event: event}
	if _, err := k.Tokenize(t.Context(), namespace, req, &unit); err != nil {
		t.Fatal(err)
	}
	k.rotate(t, keystore.Data)
	k.resealAll(t)
	retire := tokenizer.Unit{Retire: keystore.KeyID{Namespace: namespace, Class: keystore.Data, Version: 1}, Event: event}
	if _, err := k.store.Commit(t.Context(), retire); err != nil {
		t.Fatal(err)
	}
	if _, err := k.store.Commit(t.Context(), unit); !errors.Is(err, keystore.ErrKeyVersion) {
		t.Fatalf("error %v, want ErrKeyVersion", err)
	}
	unit = tokenizer.Unit{Event: event}
	made, err := k.Tokenize(t.Context(), namespace, req, &unit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if got, err := k.detokenize(t, namespace, made.Token, ""); err != nil || got.Reveal() != "value" {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
}

// Reveals and reseals at once see either form of a record, never a damaged one.
func TestResealBesideReveals(t *testing.T) {
	k := newKit(t)
	var tokens []tokenizer.Token
	for i := range 40 {
		tokens = append(tokens, k.tokenize(t, "note", fmt.Sprint(i)).Token)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for i, token := range tokens {
					ref, err := k.Inspect(token, "")
					if err != nil {
						t.Error(err)
						return
					}
					if got, err := k.reveal(t, namespace, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full}); err != nil || got.Reveal() != fmt.Sprint(i) {
						t.Errorf("%d came back as %q, %v", i, got.Reveal(), err)
						return
					}
				}
			}
		})
	}
	for version := uint32(1); version < 8; version++ {
		k.rotate(t, keystore.Data)
		k.resealAll(t)
		retire := tokenizer.Unit{Retire: keystore.KeyID{Namespace: namespace, Class: keystore.Data, Version: version}, Event: event}
		if _, err := k.store.Commit(t.Context(), retire); err != nil {
			t.Fatal(err)
		}
		if err := k.keys.Reload(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}
