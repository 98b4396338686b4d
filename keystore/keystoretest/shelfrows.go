package keystoretest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// TestShelf runs the contract of keystore.Shelf, but for durability, which
// only the test of the store behind a shelf can show. newShelf returns an
// empty shelf.
func TestShelf(t *testing.T, newShelf func(t *testing.T) keystore.Shelf) {
	for _, r := range shelfRows() {
		t.Run(r.name, func(t *testing.T) {
			if err := r.check(t.Context(), newShelf(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

type shelfRow struct {
	name  string
	check func(ctx context.Context, shelf keystore.Shelf) error
}

func shelfRows() []shelfRow {
	return []shelfRow{
		{"an unknown namespace has no keys", checkShelfEmpty},
		{"what is added is there", checkShelfAdd},
		{"namespaces are apart", checkShelfNamespaces},
		{"a taken version is refused, and all with it", checkShelfTaken},
		{"keys are the caller's own", checkShelfAliases},
		{"an ended context adds nothing", checkShelfContext},
		{"one of many at once is first", checkShelfRace},
		{"the census has every key", checkShelfCensus},
	}
}

// shelfKey returns a wrapped key as a shelf sees it; fill tells contents
// apart.
func shelfKey(namespace string, class keystore.Class, version uint32, fill byte) keystore.WrappedKey {
	return keystore.WrappedKey{
		Namespace: namespace,
		Class:     class,
		Version:   version,
		Created:   time.Unix(1_700_000_000+int64(version), 0).UTC(),
		Wrapped:   bytes.Repeat([]byte{fill}, 69),
	}
}

// wantShelf returns an error unless the namespace has exactly the keys.
func wantShelf(ctx context.Context, shelf keystore.Shelf, namespace string, want ...keystore.WrappedKey) error {
	got, err := shelf.WrappedKeys(ctx, namespace)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(sorted(got), sorted(want), equalKeys) {
		return fmt.Errorf("namespace %q has %v, want %v", namespace, got, want)
	}
	return nil
}

func sorted(keys []keystore.WrappedKey) []keystore.WrappedKey {
	return slices.SortedFunc(slices.Values(keys), func(a, b keystore.WrappedKey) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Version, b.Version))
	})
}

func equalKeys(a, b keystore.WrappedKey) bool {
	return a.ID() == b.ID() && a.Created.Equal(b.Created) && bytes.Equal(a.Wrapped, b.Wrapped)
}

func checkShelfEmpty(ctx context.Context, shelf keystore.Shelf) error {
	return wantShelf(ctx, shelf, "default")
}

func checkShelfAdd(ctx context.Context, shelf keystore.Shelf) error {
	first := []keystore.WrappedKey{
		shelfKey("default", keystore.Data, 1, 1),
		shelfKey("default", keystore.Token, 1, 2),
		shelfKey("default", keystore.Index, 1, 3),
		shelfKey("default", keystore.Subject, 1, 4),
	}
	later := shelfKey("default", keystore.Data, 2, 5)
	largest := shelfKey("default", keystore.Token, 1<<32-1, 6)
	largest.Wrapped = bytes.Repeat([]byte{6}, keystore.MaxWrapped)
	if err := shelf.AddWrappedKeys(ctx, first); err != nil {
		return err
	}
	if err := wantShelf(ctx, shelf, "default", first...); err != nil {
		return err
	}
	if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{later, largest}); err != nil {
		return err
	}
	return wantShelf(ctx, shelf, "default", append(first, later, largest)...)
}

func checkShelfNamespaces(ctx context.Context, shelf keystore.Shelf) error {
	// Names of which one begins another, or a separator is part.
	names := []string{"a", "ab", "a/b", "a\x00b", "\u00e9", "default", string(bytes.Repeat([]byte{'n'}, keystore.MaxNamespace))}
	for i, name := range names {
		if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{shelfKey(name, keystore.Data, 1, byte(i))}); err != nil {
			return fmt.Errorf("namespace %q: %w", name, err)
		}
	}
	var errs []error
	for i, name := range names {
		errs = append(errs, wantShelf(ctx, shelf, name, shelfKey(name, keystore.Data, 1, byte(i))))
	}
	return errors.Join(errs...)
}

func checkShelfTaken(ctx context.Context, shelf keystore.Shelf) error {
	taken := shelfKey("default", keystore.Data, 1, 1)
	if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{taken}); err != nil {
		return err
	}
	other := shelfKey("default", keystore.Token, 1, 2)
	again := shelfKey("default", keystore.Data, 1, 3)
	again.Created = again.Created.Add(time.Hour)
	rows := []struct {
		name string
		keys []keystore.WrappedKey
	}{
		{"the same key", []keystore.WrappedKey{taken}},
		{"another key of the version", []keystore.WrappedKey{again}},
		{"first of two", []keystore.WrappedKey{again, other}},
		{"last of two", []keystore.WrappedKey{other, again}},
		{"twice in one call", []keystore.WrappedKey{other, other}},
	}
	var errs []error
	for _, r := range rows {
		errs = append(errs, wantErr(r.name, shelf.AddWrappedKeys(ctx, r.keys), keystore.ErrKeyExists))
		if err := wantShelf(ctx, shelf, "default", taken); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	return errors.Join(errs...)
}

func checkShelfAliases(ctx context.Context, shelf keystore.Shelf) error {
	given := shelfKey("default", keystore.Data, 1, 1)
	if err := shelf.AddWrappedKeys(ctx, []keystore.WrappedKey{given}); err != nil {
		return err
	}
	clear(given.Wrapped)
	want := shelfKey("default", keystore.Data, 1, 1)
	if err := wantShelf(ctx, shelf, "default", want); err != nil {
		return fmt.Errorf("after the argument was wiped: %w", err)
	}
	got, err := shelf.WrappedKeys(ctx, "default")
	if err != nil {
		return err
	}
	clear(got[0].Wrapped)
	if err := wantShelf(ctx, shelf, "default", want); err != nil {
		return fmt.Errorf("after the result was wiped: %w", err)
	}
	return nil
}

func checkShelfContext(ctx context.Context, shelf keystore.Shelf) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	err := shelf.AddWrappedKeys(ended, []keystore.WrappedKey{shelfKey("default", keystore.Data, 1, 1)})
	return errors.Join(
		wantErr("AddWrappedKeys", err, context.Canceled),
		wantShelf(ctx, shelf, "default"))
}

func checkShelfCensus(ctx context.Context, shelf keystore.Shelf) error {
	keys := []keystore.WrappedKey{shelfKey("default", keystore.Data, 1, 1), shelfKey("default", keystore.Data, 3, 2), shelfKey("default", keystore.Token, 1, 3)}
	if err := shelf.AddWrappedKeys(ctx, append(slices.Clone(keys), shelfKey("other", keystore.Data, 9, 4))); err != nil {
		return err
	}
	counts, err := shelf.Census(ctx, "default")
	if err != nil {
		return err
	}
	if len(counts) != len(keys) {
		return fmt.Errorf("the census has %d keys, want %d: %v", len(counts), len(keys), counts)
	}
	for _, k := range keys {
		if !slices.Contains(counts, keystore.KeyCount{ID: k.ID()}) {
			return fmt.Errorf("the census lacks an empty %v: %v", k, counts)
		}
	}
	if counts, err := shelf.Census(ctx, "nobody"); err != nil || len(counts) != 0 {
		return fmt.Errorf("the census of no namespace: %v, %w", counts, err)
	}
	return nil
}

func checkShelfRace(ctx context.Context, shelf keystore.Shelf) error {
	const callers = 8
	var winner atomic.Int64
	err := inParallel(callers, func(i int) error {
		// In turn from both ends, so that each call meets the others halfway.
		keys := []keystore.WrappedKey{
			shelfKey("default", keystore.Data, 1, byte(i)),
			shelfKey("default", keystore.Token, 1, byte(i)),
		}
		if i%2 == 1 {
			slices.Reverse(keys)
		}
		err := shelf.AddWrappedKeys(ctx, keys)
		if err == nil {
			if !winner.CompareAndSwap(0, int64(i)+1) {
				return errors.New("two callers were first")
			}
			return nil
		}
		if err := wantErr("a later caller", err, keystore.ErrKeyExists); err != nil {
			return err
		}
		// Who was refused has to see what was there first.
		got, err := shelf.WrappedKeys(ctx, "default")
		if err == nil && len(got) != len(keys) {
			err = fmt.Errorf("a refused caller sees %d keys, want %d", len(got), len(keys))
		}
		return err
	})
	if err != nil {
		return err
	}
	if winner.Load() == 0 {
		return errors.New("no caller was first")
	}
	first := byte(winner.Load() - 1)
	return wantShelf(ctx, shelf, "default",
		shelfKey("default", keystore.Data, 1, first), shelfKey("default", keystore.Token, 1, first))
}
