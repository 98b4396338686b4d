package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// ErrMismatch says that a directory holds segments that can't be those of the
// store. What to do about it is in the error.
var ErrMismatch = errors.New("audit: the segments don't match the store")

const (
	syncPeriod  = time.Second            // between two syncs, at least
	maxUnsynced = 1 << 25                // bytes after which there is one sooner
	pace        = 20 * time.Millisecond  // between two writes, so that they are larger
	firstRetry  = 100 * time.Millisecond // after a failure, then twice as long each time
	lastRetry   = 5 * time.Second
	stallLimit  = 10 * time.Second // how long a write may take before Check complains
	finalBound  = 10 * time.Second // how long the last write may take
)

// Segments writes the log of a store to files of JSON lines. Wake and Check
// are safe for concurrent use.
type Segments struct {
	dir      string
	store    tokenizer.Store
	log      *slog.Logger
	options  SegmentOptions
	openFile func(path string) (file, error)
	files    fileSystem
	woken    chan struct{}
	closed   chan struct{} // that there is a segment to pack
	current  atomic.Uint64 // the number of the first event of the segment that is written
	closing  sync.Mutex    // held by who works on segments that are closed

	work    sync.Mutex // held by who writes: OpenSegments, Run, Close
	file    file       // nil before it is opened and after Close
	segment segment
	first   time.Time // when the first event of the segment was written; with an offset of 0, nothing
	written mark      // the end of the last whole line
	synced  mark      // of what is on disk for sure
	dirty   bool      // whether there may be something behind written
	due     time.Time // when the next sync may be; zero after one that failed
	limit   int       // of entries that are read at once
	buf     []byte

	durable atomic.Uint64 // the number of the last event that is on disk for sure

	began time.Time    // when the Segments was made
	busy  atomic.Int64 // since when, after began, it has been writing; 0 if it isn't

	mu     sync.Mutex
	failed error // why the latest write failed; nil if it didn't
}

// SegmentOptions say how a log is cut into segments. Fields that are zero stand for the
// default.
type SegmentOptions struct {
	Size  int64         // bytes beyond which another segment is begun; default 256 MiB
	Age   time.Duration // of its first event, after which another is begun; default 24 h
	Plain bool          // whether closed segments are left as they are, and not packed

	// Retention is for how long events stay that are to be pruned; default 400 days.
	Retention time.Duration
}

func (o SegmentOptions) withDefaults() SegmentOptions {
	if o.Size == 0 {
		o.Size = 256 << 20
	}
	if o.Age == 0 {
		o.Age = 24 * time.Hour
	}
	if o.Retention == 0 {
		o.Retention = 400 * 24 * time.Hour
	}
	return o
}

// OpenSegments opens the segments in a directory, which is made if it doesn't
// exist (mode 0700, files 0600), and brings them up to date with the store.
// What a crash left of the last lines is cut off, with a warning, and written
// anew from the store. An empty directory gets the whole log.
//
// One Segments at a time may have a directory open; the lock of the store sees
// to that.
//
// Errors: ErrMismatch if the segments can't be those of the store, ErrBroken if
// the last lines were changed, that of the store, that of ctx, or that of the
// file system.
func OpenSegments(ctx context.Context, dir string, store tokenizer.Store, options SegmentOptions, log *slog.Logger) (*Segments, error) {
	s := newSegments(dir, store, options, log)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func newSegments(dir string, store tokenizer.Store, options SegmentOptions, log *slog.Logger) *Segments {
	return &Segments{
		dir: dir, store: store, log: log, options: options.withDefaults(), openFile: openFile, files: osFiles{},
		woken: make(chan struct{}, 1), closed: make(chan struct{}, 1), limit: 1, began: time.Now(),
	}
}

// start opens the last segment and writes what is missing.
func (s *Segments) start(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	err := s.open(ctx)
	if err == nil {
		err = s.complete(ctx)
	}
	if err == nil {
		err = s.tellGaps()
	}
	if err != nil && s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	return err
}

// complete writes what the segments lack when they are opened.
func (s *Segments) complete(ctx context.Context) error {
	before := s.written.last
	told := time.Now()
	for more := true; more; {
		var err error
		if more, err = s.step(ctx); err != nil {
			return err
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			s.log.Info("audit segments are being completed from the store", "dir", s.dir, "written", s.written.last)
		}
	}
	if n := s.written.last - before; n > 0 {
		s.log.Info("audit segments completed from the store", "dir", s.dir, "events", n, "last", s.written.last)
	}
	return s.sync(ctx)
}

// Run writes what is committed until ctx ends, then once more, syncs and
// returns what the last write failed with. It must run in one goroutine only,
// and no event may be committed after it has ended if it is to be written
// before the next start.
//
// A write that fails is tried again until it works, at first after a tenth of
// a second, later every five. A half line is never left standing before
// another.
//
// Meanwhile segments that are closed are packed, without holding it up.
func (s *Segments) Run(ctx context.Context) error {
	var packing sync.WaitGroup
	defer packing.Wait()
	if !s.options.Plain {
		packing.Go(func() { s.packClosed(ctx) })
	}
	var retry time.Duration
	for ctx.Err() == nil {
		err := s.pass(ctx)
		if ctx.Err() != nil {
			break
		}
		s.report(err)
		if err != nil {
			retry = min(max(2*retry, firstRetry), lastRetry)
			wait(ctx, nil, retry)
			continue
		}
		retry = 0
		wait(ctx, nil, pace)
		wait(ctx, s.woken, s.untilSync())
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalBound)
	defer cancel()
	err := s.pass(last)
	if err == nil {
		s.work.Lock()
		err = s.sync(last)
		s.work.Unlock()
	}
	s.report(err)
	return err
}

// wait waits until ctx ends, woken has something or a time is over.
func wait(ctx context.Context, woken <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-woken:
	}
}

// untilSync returns how long there is nothing to do unless woken.
func (s *Segments) untilSync() time.Duration {
	s.work.Lock()
	defer s.work.Unlock()
	if s.written == s.synced {
		return time.Hour
	}
	return time.Until(s.due)
}

// Wake says that something was committed. It never blocks.
func (s *Segments) Wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// Durable returns the number of the last event that a segment on disk has, 0 for none. It
// falls if the segments are begun anew.
func (s *Segments) Durable() uint64 { return s.durable.Load() }

// Check returns nil while the segments keep up with the store, else why they
// don't: the error of the latest write, or that it is taking too long.
func (s *Segments) Check() error {
	if since := s.busy.Load(); since != 0 {
		if d := time.Since(s.began) - time.Duration(since); d > stallLimit {
			return fmt.Errorf("audit: a write to %s has been taking %v", s.dir, d.Round(time.Second))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// report notes how a write went, and logs it if that is new.
func (s *Segments) report(err error) {
	s.mu.Lock()
	before := s.failed
	s.failed = err
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.Error("audit segments can't be written; they will be completed from the store", "dir", s.dir, "error", err)
	case err == nil && before != nil:
		s.log.Info("audit segments are written again", "dir", s.dir)
	}
}

// Close syncs and closes the file. Run must have returned, if it was called.
func (s *Segments) Close() error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.file == nil {
		return nil
	}
	var err error
	if s.written != s.synced {
		err = s.file.Sync()
	}
	err = errors.Join(err, s.file.Close())
	s.file = nil
	return err
}
