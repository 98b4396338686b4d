package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

const (
	maxEntries = 255     // written at once, at most; one more is read, to check the last by
	readAim    = 4 << 20 // bytes read at once, about
	writeAim   = 1 << 20 // bytes written at once, about
)

// remedy is what to do about segments that can't be gone on with.
const remedy = "move the directory away and start again: it is rebuilt from the store"

// open opens the last segment, cuts off what a crash left behind its last whole
// line and makes sure that this line is the store's.
func (s *Segments) open(ctx context.Context) error {
	seg, err := s.lastSegment(ctx)
	if err != nil {
		return err
	}
	return s.enter(ctx, seg)
}

// lastSegment returns the segment to which the log is appended, which is the first if
// there is none yet. The directory is made if it doesn't exist.
func (s *Segments) lastSegment(ctx context.Context) (segment, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return segment{}, fmt.Errorf("audit: %w", err)
	}
	segments, err := listSegments(s.dir)
	if err != nil {
		return segment{}, fmt.Errorf("audit: %w", err)
	}
	if len(segments) == 0 {
		return plainSegment(1), nil
	}
	last := segments[len(segments)-1]
	if !last.packed() {
		return last, nil
	}
	// The one behind it was deleted: the last is packed only once the next has begun.
	end, err := packedEnd(s.dir, last)
	if err == nil {
		_, err = s.headOf(ctx, end)
	}
	if err != nil {
		return segment{}, fmt.Errorf("%s: %w", s.dir, err)
	}
	return plainSegment(end.last + 1), nil
}

// enter has the log go on in a segment, which is made if it doesn't exist.
func (s *Segments) enter(ctx context.Context, seg segment) error {
	f, err := s.openFile(seg.path(s.dir))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	end, err := s.settle(ctx, f, seg)
	if err == nil && end.offset == 0 {
		err = s.files.SyncDir(s.dir)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	if s.file != nil {
		_ = s.file.Close()
	}
	s.file, s.segment, s.first = f, seg, firstTime(f, end)
	s.written, s.synced, s.dirty = end, end, false
	s.current.Store(seg.first)
	s.durable.Store(end.last)
	return nil
}

// settle finds where a segment goes on, and leaves nothing behind that place
// and everything before it on disk.
func (s *Segments) settle(ctx context.Context, f file, seg segment) (mark, error) {
	info, err := f.Stat()
	if err != nil {
		return mark{}, err
	}
	end, err := readTail(f, info.Size(), tailWindow, seg, s.store.LogID())
	if errors.Is(err, ErrBroken) {
		return mark{}, fmt.Errorf("%w. Keep the directory as evidence; %s", err, remedy)
	}
	if err != nil {
		return mark{}, err
	}
	if end.head, err = s.headOf(ctx, end); err != nil {
		return mark{}, err
	}
	if cut := info.Size() - end.offset; cut > 0 {
		s.log.Warn("audit segment ended in unfinished lines, which were cut off; they are written anew from the store",
			"file", seg.path(s.dir), "bytes", cut, "last", end.last)
		if err := f.Truncate(end.offset); err != nil {
			return mark{}, err
		}
	}
	return end, f.Sync()
}

// headOf returns the hash that the store has for the event at a mark, which
// must be the one that the segment has.
func (s *Segments) headOf(ctx context.Context, end mark) (tokenizer.Hash, error) {
	if end.last == 0 {
		return tokenizer.Genesis(s.store.LogID()), nil
	}
	entries, err := s.store.Entries(ctx, end.last-1, 1)
	if err != nil {
		return tokenizer.Hash{}, err
	}
	if len(entries) == 0 {
		return tokenizer.Hash{}, fmt.Errorf("%w: they end with event %d, which the store doesn't have yet: the store was restored from an older copy, "+
			"or the directory is that of a later one. The directory may be the only record of these events, so keep it; %s", ErrMismatch, end.last, remedy)
	}
	head := entries[0].Hash()
	if end.offset > 0 && head != end.head {
		return tokenizer.Hash{}, fmt.Errorf("%w: their event %d is not the one of the store: the store was restored from an older copy and has gone on since, "+
			"or one of the two was changed. Keep the directory as evidence; %s", ErrMismatch, end.last, remedy)
	}
	return head, nil
}

// pass writes all that is committed, and syncs if that is due.
func (s *Segments) pass(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	defer s.busy.Store(0)
	for more := true; more; {
		s.busy.Store(int64(time.Since(s.began)) + 1)
		var err error
		if more, err = s.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step writes what is committed, but no more than was read at once. It says
// whether there may be more.
func (s *Segments) step(ctx context.Context) (more bool, err error) {
	if s.file == nil {
		if err := s.open(ctx); err != nil {
			return false, err
		}
	}
	if err := s.rollback(); err != nil {
		return false, err
	}
	entries, err := s.store.Entries(ctx, s.written.last, s.limit+1)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 && s.full(s.written) {
		return true, s.rotate(ctx)
	}
	if err := s.write(entries, s.limit); err != nil {
		return false, err
	}
	if s.written != s.synced && (time.Until(s.due) <= 0 || s.written.offset-s.synced.offset >= maxUnsynced) {
		if err := s.sync(ctx); err != nil {
			return false, err
		}
	}
	more = len(entries) > 0 && s.written.last < entries[len(entries)-1].Sequence
	s.adapt(entries)
	return more, nil
}

// adapt sets how many entries are read at once by the size of those that were.
func (s *Segments) adapt(entries []tokenizer.Entry) {
	s.limit = adapted(s.limit, entries, len(entries) > s.limit)
}

// adapted returns how many entries are to be read at once by the size of those that
// were: fewer if it was much, more if there were as many as could be.
func adapted(limit int, entries []tokenizer.Entry, full bool) int {
	size := 0
	for _, e := range entries {
		size += len(e.Body)
	}
	switch {
	case size > readAim:
		return max(len(entries)*readAim/size, 1)
	case full && size < readAim/2:
		return min(2*limit, maxEntries)
	}
	return limit
}

// write writes entries, up to a number of them and as long as the segment isn't full. If
// one of them doesn't follow from the one before it, or isn't what the next is chained
// to, those before it are written all the same.
func (s *Segments) write(entries []tokenizer.Entry, most int) error {
	log := s.store.LogID()
	end := s.written
	s.buf = s.buf[:0]
	for i, e := range entries[:min(most, len(entries))] {
		if s.full(end) {
			break
		}
		hash := e.Hash()
		var damage string
		switch next := i + 1; {
		case e.Sequence != end.last+1 || e.Prev != end.head || !fitsLine(e.Body):
			damage = "can't be the one that follows"
		case next < len(entries) && hash != entries[next].Prev:
			damage = "is not what the next is chained to"
		case next == len(entries) && !validBody(e.Body): // nothing is chained to it
			damage = "is not JSON"
		}
		if damage != "" {
			if err := s.writeLines(end); err != nil {
				return err
			}
			return fmt.Errorf("%w: event %d of the audit log %s", tokenizer.ErrDamaged, end.last+1, damage)
		}
		before := len(s.buf)
		s.buf = appendLine(s.buf, log, e, hash)
		end = mark{end.offset + int64(len(s.buf)-before), e.Sequence, hash}
		if len(s.buf) >= writeAim {
			if err := s.writeLines(end); err != nil {
				return err
			}
		}
	}
	return s.writeLines(end)
}

// writeLines writes the lines in s.buf, after which the file ends at a mark.
func (s *Segments) writeLines(end mark) error {
	if len(s.buf) == 0 {
		return nil
	}
	n, err := s.file.WriteAt(s.buf, s.written.offset)
	if err == nil && n < len(s.buf) {
		err = io.ErrShortWrite
	}
	s.buf = s.buf[:0]
	if err != nil {
		s.dirty = true
		_ = s.rollback() // if it fails, it is tried again before the next write
		return fmt.Errorf("audit: %w", err)
	}
	if s.written.offset == 0 {
		s.first = time.Now()
	}
	s.written = end
	return nil
}

// rollback cuts off what a write that failed may have left.
func (s *Segments) rollback() error {
	if !s.dirty {
		return nil
	}
	if err := s.file.Truncate(s.written.offset); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	s.dirty = false
	return nil
}

// sync has everything that was written reach the disk. If that fails, nobody
// knows what did since the last time, and reading doesn't tell, since the
// kernel may hold what the disk doesn't: all of it is written anew.
//
// A file that was deleted or moved away is found here, and begun anew.
func (s *Segments) sync(ctx context.Context) error {
	if s.written == s.synced {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		s.written, s.dirty, s.due = s.synced, true, time.Time{}
		_ = s.rollback()
		return fmt.Errorf("audit: %w", err)
	}
	s.synced, s.due = s.written, time.Now().Add(syncPeriod)
	s.durable.Store(s.synced.last)
	lost, err := isLost(s.file, s.segment.path(s.dir))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if !lost {
		return nil
	}
	s.log.Warn("audit segment was deleted or moved away; it is begun anew", "file", s.segment.path(s.dir))
	_ = s.file.Close()
	s.file = nil
	if err := s.open(ctx); err != nil {
		return err
	}
	s.Wake()
	return nil
}
