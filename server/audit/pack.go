package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

const (
	packRetry  = time.Minute // after segments couldn't be packed
	packPeriod = time.Hour   // between two looks, at least
	partSuffix = ".part"     // of a file that isn't finished
)

// fileSystem is what changes names and makes files beside the segment that is written;
// tests put faults in its way.
type fileSystem interface {
	Create(path string) (newFile, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

// newFile is a file that is being made.
type newFile interface {
	io.WriteCloser
	Sync() error
}

// osFiles is the file system.
type osFiles struct{}

func (osFiles) Create(path string) (newFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}
func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }
func (osFiles) SyncDir(dir string) error     { return syncDir(dir) }

// packClosed packs segments that are closed, until ctx ends. What fails is tried again;
// the plain segments stay meanwhile.
func (s *Segments) packClosed(ctx context.Context) {
	broken := make(map[uint64]bool) // what isn't tried again
	failed := false
	for ctx.Err() == nil {
		err := s.packAll(ctx, broken)
		period := packPeriod
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failed {
				s.log.Error("audit segments can't be compressed; they stay as they are", "dir", s.dir, "error", err)
			}
			period = packRetry
		case failed:
			s.log.Info("audit segments are compressed again", "dir", s.dir)
		}
		failed = err != nil
		wait(ctx, s.closed, period)
	}
}

// packAll packs what is closed and still plain.
func (s *Segments) packAll(ctx context.Context, broken map[uint64]bool) error {
	if err := s.removeParts(); err != nil {
		return err
	}
	files, err := listFiles(s.dir)
	if err != nil {
		return err
	}
	for _, seg := range files {
		if seg.packed() || seg.first >= s.current.Load() || broken[seg.first] {
			continue
		}
		err := s.pack(ctx, seg)
		if errors.Is(err, ErrBroken) {
			s.log.Error("audit segment is not compressed: verify the directory", "dir", s.dir, "error", err)
			broken[seg.first] = true
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeParts removes what a crash left unfinished.
func (s *Segments) removeParts() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, part := strings.CutSuffix(entry.Name(), partSuffix)
		if _, ok := parseName(name); part && ok {
			if err := s.files.Remove(filepath.Join(s.dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// pack has the packed form of a segment take the place of the plain one. There is a whole
// one at every moment: the plain one is removed once the packed one is on disk, under its
// name, and was read back.
func (s *Segments) pack(ctx context.Context, seg segment) error {
	s.closing.Lock()
	defer s.closing.Unlock()
	target := seg.pack()
	part := target.path(s.dir) + partSuffix
	err := s.writePacked(ctx, seg, part)
	if err == nil {
		err = s.files.Rename(part, target.path(s.dir))
	}
	if err != nil {
		_ = s.files.Remove(part)
		return err
	}
	if err := s.files.SyncDir(s.dir); err != nil {
		return err
	}
	if err := s.files.Remove(seg.path(s.dir)); err != nil {
		return err
	}
	return s.files.SyncDir(s.dir)
}

// writePacked writes the packed form of a plain segment to a path, has it reach the disk
// and reads it back.
func (s *Segments) writePacked(ctx context.Context, seg segment, path string) error {
	f, err := s.files.Create(path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(f, 1<<16)
	packer := newFrameWriter(buffered)
	wrote, err := s.readSpan(ctx, seg, packer.add)
	if err == nil {
		err = packer.finish()
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	read, err := s.readSpan(ctx, segment{filepath.Base(path), seg.first}, nil)
	if err == nil && read != wrote {
		err = errors.New("what was written reads otherwise")
	}
	if err != nil { // of a file that was just written: the disk is at fault, not the log
		return fmt.Errorf("audit: %s: reading back: %v", path, err)
	}
	return nil
}

// span is a stretch of a log.
type span struct {
	log         tokenizer.LogID
	first, last uint64
	prev, head  tokenizer.Hash // what the first is chained to, and the hash of the last
}

// add checks that a line is the next one.
func (s *span) add(line []byte) error {
	log, e, err := ParseLine(line)
	switch {
	case errors.Is(err, ErrTorn):
		return fmt.Errorf("%w: the last line is unfinished, though another segment follows", ErrBroken)
	case err != nil:
		return err
	case s.first == 0:
		s.log, s.first, s.prev = log, e.Sequence, e.Prev
	case log != s.log || e.Sequence != s.last+1 || e.Prev != s.head:
		return fmt.Errorf("%w: event %d is not chained to what is before it", ErrBroken, e.Sequence)
	}
	s.last, s.head = e.Sequence, e.Hash()
	return nil
}

// readSpan reads and checks a segment, and hands each line on, if wanted.
func (s *Segments) readSpan(ctx context.Context, seg segment, each func(line []byte, number uint64) error) (span, error) {
	var all span
	lines, err := openFileLines(s.dir, seg)
	if err != nil {
		return all, err
	}
	defer lines.Close()
	for number := 0; ; number++ {
		line, err := lines.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = all.add(line)
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", seg.name, err)
		}
		if each != nil {
			if err := each(line, all.last); err != nil {
				return all, err
			}
		}
		if number%1000 == 0 && ctx.Err() != nil {
			return all, ctx.Err()
		}
	}
	if all.first != seg.first {
		return all, fmt.Errorf("%w: %s: begins with event %d", ErrBroken, seg.name, all.first)
	}
	return all, nil
}

// openFileLines opens just this file, from its beginning.
func openFileLines(dir string, seg segment) (segmentLines, error) {
	f, err := os.Open(seg.path(dir))
	if err != nil {
		return nil, err
	}
	lines, err := openFileAt(f, seg, seg.first)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return lines, nil
}

// isGone says whether an error is that a file isn't there.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
