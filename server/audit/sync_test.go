package audit

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSyncMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		for range 5 {
			f.commit(3)
			f.pass(300 * time.Millisecond)
		}
		f.disk.mu.Lock()
		f.disk.noSync = 3
		f.disk.mu.Unlock()
		f.commit(3)
		f.pass(syncPeriod)
		if err := f.Check(); !errors.Is(err, errDisk) {
			t.Errorf("error %v, want that of the disk", err)
		}
		f.wantWhole()
		f.pass(lastRetry)
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.wantWhole()
		f.finish()
	})
}

// What was in the file before it was opened is as uncertain as the rest until a
// sync has worked.
func TestFirstSyncMayFail(t *testing.T) {
	store := newMemoryStore(1, 5)
	for _, failures := range []int{1, 2} {
		dir := t.TempDir()
		writeSegment(t, dir, 1, store.text())
		s := newSegments(dir, store, SegmentOptions{}, new(logBuffer).logger())
		s.openFile = (&disk{noSync: failures}).open
		for s.start(ctx) != nil {
			failures--
		}
		if failures != 0 {
			t.Errorf("%d failures weren't told", failures)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wantText(t, dir, store.text())
	}
}

func TestSyncsAreRareWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		before := f.disk.syncs
		const seconds = 20
		for range seconds * 50 {
			f.commit(1) // 20 ms
		}
		if n := f.disk.syncs - before; n < seconds-1 || n > seconds+1 {
			t.Errorf("%d syncs in %d seconds", n, seconds)
		}
		f.pass(2 * syncPeriod)
		before = f.disk.syncs
		f.pass(time.Minute)
		if f.disk.syncs != before {
			t.Error("synced without need")
		}
		f.commit(1)
		f.pass(2 * syncPeriod)
		if f.disk.syncs != before+1 {
			t.Errorf("%d syncs of one event", f.disk.syncs-before)
		}
		f.finish()
	})
}

func TestRunSyncsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.commit(1)
		f.store.addEvents(5) // nobody tells of them
		before := f.disk.syncs
		f.finish()
		if f.disk.syncs != before+1 {
			t.Errorf("%d syncs at the end", f.disk.syncs-before)
		}
	})
}
