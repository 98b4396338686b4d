package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// disk makes files that fail as they are told.
type disk struct {
	mu      sync.Mutex
	writes  int // that have been tried
	syncs   int
	failAt  int // the write that is the first to fail, counted from 1; 0 for none
	fails   int // how many fail from there on
	partial int // bytes that a write that fails writes all the same
	noError bool
	noTrunc int // truncations that fail from now on
	noSync  int // syncs that fail from now on
	hang    chan struct{}
}

var errDisk = &fs.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}

func (d *disk) open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return &diskFile{File: f, disk: d}, err
}

// diskFile is a file on a disk. It remembers what a sync has made durable.
type diskFile struct {
	*os.File
	disk    *disk
	durable int64
}

func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	d := f.disk
	d.mu.Lock()
	d.writes++
	fail := d.failAt > 0 && d.writes >= d.failAt && d.writes < d.failAt+d.fails
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if !fail {
		return f.File.WriteAt(p, off)
	}
	n, err := f.File.WriteAt(p[:min(d.partial, len(p)-1)], off)
	if err == nil && !d.noError {
		err = errDisk
	}
	return n, err
}

func (f *diskFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.noTrunc > 0 {
		f.disk.noTrunc--
		return errDisk
	}
	f.durable = min(f.durable, size)
	return f.File.Truncate(size)
}

// Sync, when it fails, loses what was written since it last worked: the file
// keeps its length, but there are NULs in it.
func (f *diskFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.syncs++
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if f.disk.noSync > 0 {
		f.disk.noSync--
		_, err := f.File.WriteAt(make([]byte, info.Size()-f.durable), f.durable)
		return errors.Join(errDisk, err)
	}
	f.durable = info.Size()
	return nil
}

// follower is Segments on a disk, with Run running, in a bubble of synctest.
type follower struct {
	*Segments
	t      *testing.T
	store  *memoryStore
	disk   *disk
	logged *logBuffer

	packing *faultyFiles // what names are changed by

	stop func() error // ends Run and returns its error
}

func follow(t *testing.T, d *disk) *follower {
	t.Helper()
	f := &follower{t: t, store: newMemoryStore(1, 3), disk: d, logged: new(logBuffer)}
	f.Segments = newSegments(t.TempDir(), f.store, SegmentOptions{}, f.logged.logger())
	f.packing = new(faultyFiles)
	f.openFile, f.files = d.open, f.packing
	if err := f.start(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	f.stop = func() error {
		cancel()
		return errors.Join(<-done, f.Close())
	}
	synctest.Wait()
	return f
}

// commit adds events to the store, tells of them and gives them time to be
// written.
func (f *follower) commit(n int) {
	f.store.addEvents(n)
	f.Wake()
	f.pass(pace)
}

// pass lets time pass.
func (f *follower) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (f *follower) text() []byte {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, segmentName(1)))
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// wantWhole checks that the segment is whole lines of the log.
func (f *follower) wantWhole() {
	f.t.Helper()
	if _, err := Verify("log", bytes.NewReader(f.text())); err != nil {
		f.t.Fatal(err)
	}
}

// finish checks that everything is written in the end.
func (f *follower) finish() {
	f.t.Helper()
	if err := f.stop(); err != nil {
		f.t.Error(err)
	}
	wantText(f.t, f.dir, f.store.text())
}
