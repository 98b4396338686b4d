package audit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// faultyFiles is a file system on which a step fails, and all that come after it, as if
// the process had ended there.
type faultyFiles struct {
	osFiles
	mu     sync.Mutex
	steps  int  // that have been tried
	failAt int  // the first that fails; 0 for none
	after  bool // whether it is done all the same
	once   bool
}

var errFile = errors.Join(errors.New("a fault"), syscall.ENOSPC)

func (f *faultyFiles) step(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps++
	if f.failAt == 0 || f.steps < f.failAt || f.once && f.steps > f.failAt {
		return do()
	}
	if f.steps == f.failAt && f.after {
		_ = do()
	}
	return errFile
}

// fail has the next step fail, and all after it, or no more.
func (f *faultyFiles) fail(fail bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failAt = 0; fail {
		f.failAt = f.steps + 1
	}
}

func (f *faultyFiles) Create(path string) (n newFile, err error) {
	err = f.step(func() error {
		n, err = f.osFiles.Create(path)
		n = &faultyFile{n, f}
		return err
	})
	return n, err
}
func (f *faultyFiles) Rename(from, to string) error {
	return f.step(func() error { return f.osFiles.Rename(from, to) })
}
func (f *faultyFiles) Remove(path string) error {
	return f.step(func() error { return f.osFiles.Remove(path) })
}
func (f *faultyFiles) SyncDir(dir string) error {
	return f.step(func() error { return f.osFiles.SyncDir(dir) })
}

type faultyFile struct {
	newFile
	f *faultyFiles
}

func (f *faultyFile) Write(p []byte) (n int, err error) {
	err = f.f.step(func() error {
		n, err = f.newFile.Write(p)
		return err
	})
	return n, err
}
func (f *faultyFile) Sync() error { return f.f.step(f.newFile.Sync) }

// Wherever the process ends, the log is whole, and the next start packs what is left.
func TestPackingMayEndAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, once := range []bool{false, true} {
			for at := 1; ; at++ {
				store, dir := newMemoryStore(1, 20), t.TempDir()
				s, _ := openSmall(t, dir, store, smallSegments)
				files := &faultyFiles{failAt: at, after: after, once: once}
				s.files = files
				err := s.packAll(ctx, nil)
				if files.steps < at {
					if at < 20 {
						t.Errorf("only %d steps", files.steps)
					}
					break
				}
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("step %d: error %v", at, err)
				}
				wantLog(t, dir, store.text())
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				store.addEvents(3)
				s, logged := openSmall(t, dir, store, smallSegments)
				if strings.Contains(logged.String(), "level=ERROR") {
					t.Errorf("logged %s", logged)
				}
				if err := s.packAll(ctx, nil); err != nil {
					t.Fatal(err)
				}
				wantPacked(t, s)
				wantLog(t, dir, store.text())
			}
		}
	}
}

// wantPacked checks that the directory has packed segments, and the plain one that is
// written.
func wantPacked(t *testing.T, s *Segments) {
	t.Helper()
	for _, name := range names(t, s.dir) {
		seg, ok := parseName(name)
		if !ok || seg.packed() == (seg.first == s.segment.first) {
			t.Errorf("%v", names(t, s.dir))
		}
	}
}

// Any changed byte of a packed segment is found, and any that is cut off.
func TestVerifyFindsWhatChangedInAPackedSegment(t *testing.T) {
	store, dir := newMemoryStore(1, 9), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	if err := s.packAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	path := plainSegment(1).pack().path(dir)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyDir(dir); !errors.Is(err, ErrBroken) {
			t.Errorf("%s %d: error %v", what, at, err)
		}
	}
	for i := range whole {
		for _, bit := range []byte{1, 16, 128} {
			text := bytes.Clone(whole)
			text[i] ^= bit
			check("byte", i, text)
		}
		check("cut at", i, whole[:i])
	}
	check("longer", 0, append(bytes.Clone(whole), 0))
}

// Anybody's zstd reads a packed segment.
func TestZstdReadsAPackedSegment(t *testing.T) {
	zstdcat, err := exec.LookPath("zstdcat")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no zstdcat")
	}
	store, dir := newMemoryStore(1, 20), t.TempDir()
	s, _ := openSmall(t, dir, store, smallSegments)
	if err := s.packAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	segments, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, seg := range segments[:len(segments)-1] {
		out, err := exec.Command(zstdcat, seg.path(dir)).Output()
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, out...)
	}
	if sum, err := Verify("log", bytes.NewReader(text)); err != nil || sum.Last+1 != s.segment.first {
		t.Errorf("%+v, %v", sum, err)
	}
}

// A closed segment in which something was changed stays as it is, and is told once.
func TestABrokenSegmentIsNotPacked(t *testing.T) {
	store, dir := newMemoryStore(1, 20), t.TempDir()
	s, logged := openSmall(t, dir, store, smallSegments)
	path := plainSegment(1).path(dir)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte("OK"), []byte("KO"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := make(map[uint64]bool)
	for range 2 {
		if err := s.packAll(ctx, broken); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, dir); got[0] != segmentName(1) || !strings.HasSuffix(got[1], packedSuffix) {
		t.Errorf("%v", got)
	}
	if n := strings.Count(logged.String(), "is not compressed"); n != 1 {
		t.Errorf("told %d times: %s", n, logged)
	}
}

// Run packs in the background. What fails there holds nothing up, and is tried again.
func TestRunPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.work.Lock()
		f.options.Size = 1200
		f.work.Unlock()
		f.commit(20)
		f.pass(time.Second)
		wantPacked(t, f.Segments)
		full := len(names(t, f.dir))
		f.commit(3)
		f.packing.fail(true)
		f.commit(1)
		f.packing.fail(false)
		f.commit(20)
		f.pass(2 * packRetry)
		wantPacked(t, f.Segments)
		if n := len(names(t, f.dir)); n < full+4 {
			t.Errorf("%d segments, after %d", n, full)
		}
		wantLog(t, f.dir, f.store.text())
		if err := errors.Join(f.Check(), f.stop()); err != nil {
			t.Error(err)
		}
	})
}

// While the disk is full for what is packed, the log goes on.
func TestPackingFailsAndTheLogGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &disk{})
		f.work.Lock()
		f.options.Size = 1200
		f.work.Unlock()
		if err := os.Mkdir(plainSegment(1).pack().path(f.dir)+partSuffix, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(plainSegment(1).pack().path(f.dir)+partSuffix+"/x", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f.commit(40)
		f.pass(10 * packRetry)
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		wantLog(t, f.dir, f.store.text())
		if n := strings.Count(f.logged.String(), "can't be compressed"); n != 1 {
			t.Errorf("told %d times: %s", n, f.logged)
		}
		if err := os.RemoveAll(plainSegment(1).pack().path(f.dir) + partSuffix); err != nil {
			t.Fatal(err)
		}
		f.pass(2 * packRetry)
		wantPacked(t, f.Segments)
		if !strings.Contains(f.logged.String(), "are compressed again") {
			t.Errorf("logged %s", f.logged)
		}
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A line of the greatest length goes through all of it.
func TestLongLinesArePacked(t *testing.T) {
	store, dir := newMemoryStore(1, 2), t.TempDir()
	store.add(slicesJoin([]byte(`{"v":"`), bytes.Repeat([]byte("x"), maxBody-8), []byte(`"}`)))
	store.addEvents(2)
	s, _ := openSmall(t, dir, store, smallSegments)
	if err := s.packAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	wantPacked(t, s)
	wantLog(t, dir, store.text())
}

func BenchmarkPack(b *testing.B) {
	store := newMemoryStore(1, 0)
	for range 30_000 {
		store.add(goldenEvents[1].Body())
	}
	var size int64
	for _, e := range store.entries {
		size += int64(len(AppendLine(nil, tokenizer.LogID{1}, e)))
	}
	b.SetBytes(size)
	s := newSegments(b.TempDir(), store, SegmentOptions{Plain: true}, new(logBuffer).logger())
	if err := s.start(ctx); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.writePacked(ctx, s.segment, s.segment.pack().path(s.dir)+partSuffix); err != nil {
			b.Fatal(err)
		}
	}
	if info, err := os.Stat(s.segment.pack().path(s.dir) + partSuffix); err == nil {
		b.ReportMetric(float64(size)/float64(info.Size()), "ratio")
	}
}
