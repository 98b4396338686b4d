package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

// rewrapRows are the clauses about the versions of the root key.
func rewrapRows() []row {
	return []row{
		{"what is rewrapped unwraps", checkRewrap},
		{"what is under the newest version is left as it is", checkRewrapNothing},
		{"what doesn't unwrap isn't rewrapped", checkRewrapRefused},
		{"a new version of the root key wraps from then on", checkRootVersions},
		{"a version is refused for what wasn't wrapped", checkRootVersionRefused},
	}
}

// wantRootVersion returns an error unless wrapped says that it is under the
// version.
func wantRootVersion(b keystore.Backend, wrapped []byte, want uint32) error {
	got, err := b.RootVersion(wrapped)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("wrapped under version %d of the root key, want %d", got, want)
	}
	return nil
}

// wrapThenRotate wraps the first test key, and then rotates the root key if the
// backend can.
func wrapThenRotate(ctx context.Context, t *testing.T, root Root, b keystore.Backend) ([]byte, error) {
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err == nil && root.Rotate != nil {
		root.Rotate(t)
	}
	return wrapped, err
}

func checkRewrap(t *testing.T, h Harness) error {
	ctx, root := t.Context(), h.NewRoot(t)
	b := root.Open(t)
	wrapped, err := wrapThenRotate(ctx, t, root, b)
	if err != nil {
		return err
	}
	rewrapped, err := b.Rewrap(ctx, slack(wrapped), slack(testLabel))
	if err != nil {
		return err
	}
	if len(rewrapped) == 0 || len(rewrapped) > keystore.MaxWrapped {
		return fmt.Errorf("rewrapped bytes number %d, want 1 to %d", len(rewrapped), keystore.MaxWrapped)
	}
	// The old form stays good, and another opener reads both.
	other := root.Open(t)
	return errors.Join(
		wantUnwrap(ctx, b, rewrapped, testLabel, testKey(1)),
		wantUnwrap(ctx, other, rewrapped, testLabel, testKey(1)),
		wantUnwrap(ctx, other, wrapped, testLabel, testKey(1)),
		wantNoUnwrap(ctx, "rewrapped, for another label", b, rewrapped, testLabel[1:]))
}

func checkRewrapNothing(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	rewrapped, err := b.Rewrap(ctx, wrapped, testLabel)
	if err != nil {
		return err
	}
	if !bytes.Equal(rewrapped, wrapped) {
		return errors.New("what was under the newest version came back changed")
	}
	clear(rewrapped)
	return wantUnwrap(ctx, b, wrapped, testLabel, testKey(1))
}

func checkRewrapRefused(t *testing.T, h Harness) error {
	ctx, root := t.Context(), h.NewRoot(t)
	b := root.Open(t)
	wrapped, err := wrapThenRotate(ctx, t, root, b)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range []int{0, len(wrapped) / 2, len(wrapped) - 1} {
		altered := bytes.Clone(wrapped)
		altered[at] ^= 0x20
		got, err := b.Rewrap(ctx, altered, testLabel)
		// The outer layer of what is wrapped is all that a backend needs to look
		// at; what it returns for the rest must not unwrap.
		if err == nil {
			err = wantNoUnwrap(ctx, "rewrapped altered bytes", b, got, testLabel)
		} else {
			err = wantErr("Rewrap of altered bytes", err, keystore.ErrUnwrap)
		}
		errs = append(errs, err)
	}
	for _, cut := range [][]byte{nil, wrapped[:1], wrapped[:len(wrapped)-1], bytes.Repeat(wrapped[:1], keystore.MaxWrapped+1)} {
		_, err := b.Rewrap(ctx, cut, testLabel)
		errs = append(errs, wantErr(fmt.Sprintf("Rewrap of %d bytes", len(cut)), err, keystore.ErrUnwrap))
	}
	_, err = h.newBackend(t).Rewrap(ctx, wrapped, testLabel)
	return errors.Join(append(errs, wantErr("Rewrap under another root key", err, keystore.ErrUnwrap))...)
}

func checkRootVersions(t *testing.T, h Harness) error {
	ctx, root := t.Context(), h.NewRoot(t)
	b := root.Open(t)
	wrap := func() ([]byte, error) { return b.Wrap(ctx, testKey(1), testLabel) }
	first, err := wrap()
	if err != nil {
		return err
	}
	if err := wantRootVersion(b, first, 1); err != nil || root.Rotate == nil {
		return err
	}
	for version := uint32(2); version <= 3; version++ {
		root.Rotate(t)
		wrapped, err := wrap()
		if err != nil {
			return err
		}
		rewrapped, err := b.Rewrap(ctx, first, testLabel)
		if err != nil {
			return err
		}
		again, err := b.Rewrap(ctx, rewrapped, testLabel)
		if err != nil {
			return err
		}
		err = errors.Join(
			wantRootVersion(b, wrapped, version), wantRootVersion(b, rewrapped, version), wantRootVersion(b, first, 1),
			wantUnwrap(ctx, b, first, testLabel, testKey(1)), wantUnwrap(ctx, b, rewrapped, testLabel, testKey(1)))
		if err != nil {
			return err
		}
		if !bytes.Equal(again, rewrapped) {
			return errors.New("rewrapped again, though nothing was newer")
		}
	}
	return nil
}

func checkRootVersionRefused(t *testing.T, h Harness) error {
	b := h.newBackend(t)
	var errs []error
	for _, wrapped := range [][]byte{nil, {}, {0}, testKey(1), make([]byte, keystore.MaxWrapped+1)} {
		_, err := b.RootVersion(wrapped)
		errs = append(errs, wantErr(fmt.Sprintf("%d bytes", len(wrapped)), err, keystore.ErrUnwrap))
	}
	return errors.Join(errs...)
}

// checkAway is what a backend must do while its root key can't be used, and
// when it can be again.
func checkAway(ctx context.Context, t *testing.T, b keystore.Backend, begin func(t *testing.T) (end func()), want error) error {
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	end := begin(t)
	got, err := b.Wrap(ctx, testKey(1), testLabel)
	errs := []error{wantErr("Wrap", err, want)}
	key, err := b.Unwrap(ctx, wrapped, testLabel)
	errs = append(errs, wantErr("Unwrap", err, want))
	if errors.Is(err, keystore.ErrUnwrap) {
		errs = append(errs, errors.New("what may pass was passed off as final"))
	}
	again, err := b.Rewrap(ctx, wrapped, testLabel)
	errs = append(errs, wantErr("Rewrap", err, want))
	if got != nil || key != nil || again != nil {
		errs = append(errs, errors.New("bytes were returned with an error"))
	}
	errs = append(errs, wantErr("Check", b.Check(ctx), want))
	end()
	errs = append(errs, b.Check(ctx), wantUnwrap(ctx, b, wrapped, testLabel, testKey(1)))
	return errors.Join(errs...)
}

func checkOutage(t *testing.T, h Harness) error {
	root := h.NewRoot(t)
	if root.Outage == nil {
		t.Skip("this backend declares that nothing of it can go away")
	}
	return checkAway(t.Context(), t, root.Open(t), root.Outage, keystore.ErrUnavailable)
}

func checkDenial(t *testing.T, h Harness) error {
	root := h.NewRoot(t)
	if root.Deny == nil {
		t.Skip("this backend declares that nobody can deny it its root key")
	}
	return checkAway(t.Context(), t, root.Open(t), root.Deny, keystore.ErrDenied)
}
