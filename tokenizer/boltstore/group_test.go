package boltstore

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// held is a store whose next frame waits until it is let go.
type held struct {
	*Store
	frames int           // counted in the commit loop, read once it is idle
	begun  chan struct{} // closed when the first frame has begun
	letGo  chan struct{}
}

func openHeld(t *testing.T) *held {
	t.Helper()
	h := &held{Store: open(t, filepath.Join(t.TempDir(), "store.db")), begun: make(chan struct{}), letGo: make(chan struct{})}
	t.Cleanup(func() { closeChecked(t, h.Store) })
	h.append = func(pieces ...[]byte) (uint64, error) {
		if h.frames++; h.frames == 1 {
			close(h.begun)
			<-h.letGo
		}
		return h.journal.Append(pieces...)
	}
	return h
}

// waitFor waits until n writes are queued.
func (h *held) waitFor(n int) {
	for {
		h.mu.Lock()
		queued := len(h.pending)
		h.mu.Unlock()
		if queued == n {
			return
		}
		runtime.Gosched()
	}
}

// Whatever arrives while one frame is being synced shares the next.
func TestUnitsShareAFrame(t *testing.T) {
	h := openHeld(t)
	const n = 100
	var wg sync.WaitGroup
	commit := func() {
		if _, err := h.Commit(context.Background(), tokenizer.Unit{Event: event}); err != nil {
			t.Error(err)
		}
	}
	wg.Go(commit)
	<-h.begun
	for range n {
		wg.Go(commit)
	}
	h.waitFor(n)
	close(h.letGo)
	wg.Wait()
	if h.frames != 2 {
		t.Errorf("%d units took %d frames, want 2", n+1, h.frames)
	}
	if entries, err := h.Entries(context.Background(), 0, 2*n); err != nil || len(entries) != n+1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// Who gives up while waiting is told at once, and nothing is written for them.
func TestGivingUpWhileWaiting(t *testing.T) {
	h := openHeld(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := h.Commit(context.Background(), tokenizer.Unit{Event: event}); err != nil {
			t.Error(err)
		}
	})
	<-h.begun
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := h.Commit(ctx, tokenizer.Unit{Event: event})
		failed <- err
	}()
	h.waitFor(1)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) { // the frame is still held
		t.Errorf("Commit: %v, want context.Canceled", err)
	}
	close(h.letGo)
	wg.Wait()
	if entries, err := h.Entries(context.Background(), 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v; want 1", len(entries), err)
	}
}

// A write that hangs doesn't hold its caller, and Check tells of it. What
// becomes of the unit shows later.
func TestAWriteThatHangs(t *testing.T) {
	h := openHeld(t)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := h.Commit(ctx, tokenizer.Unit{Event: event})
		failed <- err
	}()
	<-h.begun
	if err := h.Check(context.Background()); err != nil {
		t.Errorf("Check during a write: %v", err)
	}
	h.writing.Add(-int64(2 * slowWrite)) // as if it had begun earlier
	if err := h.Check(context.Background()); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("Check while a write hangs: %v", err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("Commit: %v, want ErrUnavailable", err)
	}
	close(h.letGo)
	if _, err := h.Commit(context.Background(), tokenizer.Unit{Event: event}); err != nil {
		t.Errorf("the next Commit: %v", err)
	}
	if entries, err := h.Entries(context.Background(), 0, 10); err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v; want 2: the write had begun", len(entries), err)
	}
	if err := h.Check(context.Background()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// shelf is a keystore.Shelf on a Store, as the service has it.
type shelf struct{ *Store }

func (s shelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	_, err := s.Commit(ctx, tokenizer.Unit{Keys: keys, Event: event})
	return err
}

func TestShelf(t *testing.T) {
	keystoretest.TestShelf(t, func(t *testing.T) keystore.Shelf {
		s := open(t, filepath.Join(t.TempDir(), "store.db"))
		t.Cleanup(func() { closeChecked(t, s) })
		return shelf{s}
	})
}
