package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

var outageRow = row{"an outage is unavailable, and passes", checkOutage}

// callRows are the clauses about how a backend may be called, whatever it
// wraps.
func callRows() []row {
	return []row{
		{"arguments are neither changed nor kept", checkArguments},
		{"results are the caller's own", checkResults},
		{"an ended context ends the call", checkContext},
		{"it may be used concurrently", checkConcurrent},
		{"a usable backend passes its check", checkCheck},
		outageRow,
		{"a denial is denied, and passes", checkDenial},
	}
}

func checkArguments(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	// With capacity to spare, so that an append that reaches past the end of
	// an argument is seen.
	key, label := slack(testKey(1)), slack(testLabel)
	wrapped, err := b.Wrap(ctx, key, label)
	if err != nil {
		return err
	}
	if !unchanged(key, testKey(1)) || !unchanged(label, testLabel) {
		return errors.New("Wrap changed an argument")
	}
	clear(key)
	clear(label)
	given := slack(wrapped)
	label = slack(testLabel)
	if err := wantUnwrap(ctx, b, given, label, testKey(1)); err != nil {
		return fmt.Errorf("after the arguments of Wrap were wiped: %w", err)
	}
	if !unchanged(given, wrapped) || !unchanged(label, testLabel) {
		return errors.New("Unwrap changed an argument")
	}
	return nil
}

// slack returns a copy of b with zeros behind it, inside its capacity.
func slack(b []byte) []byte {
	return slices.Concat(b, make([]byte, 64))[:len(b)]
}

// unchanged reports whether a slice that slack made from b is as it was.
func unchanged(s, b []byte) bool {
	return bytes.Equal(s[:len(b)+64], slices.Concat(b, make([]byte, 64)))
}

func checkResults(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	wrapped, err := b.Wrap(ctx, testKey(1), testLabel)
	if err != nil {
		return err
	}
	kept := bytes.Clone(wrapped)
	key, err := b.Unwrap(ctx, wrapped, testLabel)
	if err != nil {
		return err
	}
	clear(key) // the caller wipes what it is given
	if !bytes.Equal(wrapped, kept) {
		return errors.New("the unwrapped key shares memory with the wrapped one")
	}
	clear(wrapped)
	return errors.Join(
		wantUnwrap(ctx, b, kept, testLabel, testKey(1)),
		wantUnwrap(ctx, b, kept, testLabel, testKey(1)))
}

func checkContext(t *testing.T, h Harness) error {
	b := h.newBackend(t)
	wrapped, err := b.Wrap(t.Context(), testKey(1), testLabel)
	if err != nil {
		return err
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	var errs []error
	for _, ctx := range []context.Context{cancelled, expired} {
		got, err := b.Wrap(ctx, testKey(1), testLabel)
		errs = append(errs, wantErr("Wrap", err, ctx.Err()))
		key, err := b.Unwrap(ctx, wrapped, testLabel)
		errs = append(errs, wantErr("Unwrap", err, ctx.Err()))
		again, err := b.Rewrap(ctx, wrapped, testLabel)
		errs = append(errs, wantErr("Rewrap", err, ctx.Err()))
		if got != nil || key != nil || again != nil {
			errs = append(errs, errors.New("bytes were returned with an error"))
		}
		errs = append(errs, wantErr("Check", b.Check(ctx), ctx.Err()))
	}
	return errors.Join(errs...)
}

func checkConcurrent(t *testing.T, h Harness) error {
	ctx, b := t.Context(), h.newBackend(t)
	return inParallel(16, func(i int) error {
		key, label := testKey(byte(i)), append(bytes.Clone(testLabel), byte(i))
		for range 8 {
			wrapped, err := b.Wrap(ctx, key, label)
			if err != nil {
				return err
			}
			if err := wantUnwrap(ctx, b, wrapped, label, key); err != nil {
				return err
			}
			if err := b.Check(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkCheck(t *testing.T, h Harness) error {
	return h.newBackend(t).Check(t.Context())
}
