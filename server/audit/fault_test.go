package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

func TestEveryWriteMayFail(t *testing.T) {
	for _, partial := range []int{0, 1, 200, 500, 1 << 20} {
		for at := 1; at <= 6; at++ {
			for _, silent := range []bool{false, true} {
				t.Run(fmt.Sprintf("write %d after %d bytes, silent %v", at, partial, silent), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := follow(t, &disk{partial: partial, noError: silent})
						f.disk.mu.Lock()
						f.disk.failAt, f.disk.fails = f.disk.writes+at, 2
						f.disk.mu.Unlock()
						for range 8 {
							f.commit(2)
							f.wantWhole()
							f.pass(30 * time.Millisecond)
							f.wantWhole()
						}
						f.pass(time.Second)
						if err := f.Check(); err != nil {
							t.Error(err)
						}
						f.finish()
					})
				})
			}
		}
	}
}

func TestCheckTellsWhileWritesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.disk.mu.Lock()
		f.disk.failAt, f.disk.fails = f.disk.writes+1, 1000
		f.disk.mu.Unlock()
		before := f.text()
		f.commit(1)
		for range 30 {
			if err := f.Check(); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("error %v, want ENOSPC", err)
			}
			f.Wake() // which doesn't make it try more often
			f.pass(time.Second)
		}
		if !bytes.Equal(f.text(), before) {
			t.Error("something was written")
		}
		if n := f.disk.writes - f.disk.failAt; n > 15 {
			t.Errorf("%d writes were tried", n)
		}
		f.disk.mu.Lock()
		f.disk.fails = 0
		f.disk.mu.Unlock()
		f.pass(lastRetry)
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		if got := strings.Count(f.logged.String(), "level=ERROR"); got != 1 {
			t.Errorf("%d errors were logged: %s", got, f.logged)
		}
		if !strings.Contains(f.logged.String(), "audit segments are written again") {
			t.Errorf("logged %s", f.logged)
		}
		f.finish()
	})
}

// While the file can't be cut back, nothing is written behind a half line.
func TestTruncateMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{partial: 100})
		f.disk.mu.Lock()
		f.disk.failAt, f.disk.fails, f.disk.noTrunc = f.disk.writes+1, 1, 3
		f.disk.mu.Unlock()
		f.commit(1)
		half := f.text()
		for range 2 { // retries, of which there are three in this time
			f.commit(1)
			f.pass(150 * time.Millisecond)
			if _, err := Verify("log", bytes.NewReader(half)); !errors.Is(err, ErrTorn) || !bytes.Equal(half, f.text()) {
				t.Fatalf("error %v, %s", err, f.text())
			}
		}
		f.pass(time.Second)
		f.finish()
	})
}

func TestRunReturnsWhatTheLastWriteFailedWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.disk.mu.Lock()
		f.disk.failAt, f.disk.fails = f.disk.writes+1, 1000
		f.disk.mu.Unlock()
		f.commit(1)
		if err := f.stop(); !errors.Is(err, errDisk) {
			t.Errorf("error %v", err)
		}
		if err := f.Check(); !errors.Is(err, errDisk) {
			t.Errorf("error %v", err)
		}
	})
}

func TestCheckTellsOfAWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.disk.mu.Lock()
		f.disk.hang = make(chan struct{})
		f.disk.mu.Unlock()
		for range 1000 {
			f.Wake() // doesn't block
		}
		f.commit(1)
		f.pass(stallLimit / 2)
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.pass(stallLimit)
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), "has been taking ") {
			t.Errorf("error %v", err)
		}
		close(f.disk.hang)
		synctest.Wait()
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.finish()
	})
}

func TestTheStoreMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.store.mu.Lock()
		f.store.fail = tokenizer.ErrUnavailable
		f.store.mu.Unlock()
		f.commit(1)
		if err := f.Check(); !errors.Is(err, tokenizer.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		f.store.mu.Lock()
		f.store.fail = nil
		f.store.mu.Unlock()
		f.pass(lastRetry)
		f.finish()
	})
}

// An entry that can't follow the one before it is never written.
func TestDamagedEntriesAreNotWritten(t *testing.T) {
	for name, damage := range map[string]func(*tokenizer.Entry){
		"number":         func(e *tokenizer.Entry) { e.Sequence++ },
		"previous hash":  func(e *tokenizer.Entry) { e.Prev[0]++ },
		"line feed":      func(e *tokenizer.Entry) { e.Body = []byte("{\n}") },
		"not an object":  func(e *tokenizer.Entry) { e.Body = []byte(`"x"`) },
		"not in ASCII":   func(e *tokenizer.Entry) { e.Body = []byte(`{"ä":1}`) },
		"not JSON":       func(e *tokenizer.Entry) { e.Body = []byte(`{"a":}`) },
		"empty":          func(e *tokenizer.Entry) { e.Body = nil },
		"another event":  func(e *tokenizer.Entry) { e.Body = bytes.Replace(e.Body, []byte(`"v":1`), []byte(`"v":2`), 1) },
		"too long a one": func(e *tokenizer.Entry) { e.Body = fmt.Appendf(nil, `{"a":"%s"}`, bytes.Repeat([]byte("x"), maxLine)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemoryStore(1, 6)
			good := 3
			if name == "previous hash" {
				good = 2 // event 3 might as well be what is damaged
			}
			want := slicesJoin(lines(store.text())[:good]...)
			damage(&store.entries[3])
			dir := t.TempDir()
			_, err := OpenSegments(ctx, dir, store, SegmentOptions{}, new(logBuffer).logger())
			if !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprint("event ", good+1)) {
				t.Errorf("error %v", err)
			}
			wantText(t, dir, want)
		})
	}
	t.Run("the last", func(t *testing.T) {
		store := newMemoryStore(1, 6)
		want := slicesJoin(lines(store.text())[:5]...)
		store.entries[5].Body = []byte(`{"a":}`)
		dir := t.TempDir()
		if _, err := OpenSegments(ctx, dir, store, SegmentOptions{}, new(logBuffer).logger()); !errors.Is(err, tokenizer.ErrDamaged) || !strings.Contains(err.Error(), "event 6") {
			t.Errorf("error %v", err)
		}
		wantText(t, dir, want)
	})
}

// A directory that somebody deletes or moves away is rebuilt.
func TestAFileThatIsLostIsBegunAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.commit(3)
		if err := os.RemoveAll(f.dir); err != nil {
			t.Fatal(err)
		}
		f.commit(1)
		f.pass(2 * syncPeriod)
		wantText(t, f.dir, f.store.text())
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		moved := f.dir + ".moved"
		if err := os.Rename(f.dir, moved); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(moved) })
		f.commit(1)
		f.pass(2 * syncPeriod)
		if n := strings.Count(f.logged.String(), "begun anew"); n != 2 {
			t.Errorf("told %d times: %s", n, f.logged)
		}
		f.finish()
	})
}

func TestOpenOnAFullDisk(t *testing.T) {
	store := newMemoryStore(1, 3)
	s := newSegments(t.TempDir(), store, SegmentOptions{}, new(logBuffer).logger())
	s.openFile = (&disk{failAt: 1, fails: 1000}).open
	if err := s.start(ctx); !errors.Is(err, syscall.ENOSPC) || s.file != nil {
		t.Errorf("error %v", err)
	}
}

func TestOpenCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := OpenSegments(ctx, t.TempDir(), newMemoryStore(1, 3), SegmentOptions{}, new(logBuffer).logger()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
