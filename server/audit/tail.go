package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// mark is a place between two lines of a segment.
type mark struct {
	offset int64
	last   uint64         // the number of the event before it
	head   tokenizer.Hash // and its hash; unknown at the beginning of a file
}

// tailWindow is how much of the end of a segment is read when it is opened. It
// is more than what may be written between two syncs, which is all that a
// crash can damage.
const tailWindow = 2 * maxUnsynced

// readTail finds the end of the last line of a segment that is whole and
// checks how the lines before are chained, as far back as the window goes, or
// further if there is no whole line in it. What comes behind the mark is what
// a crash left of lines: a half one, or lines with holes full of NULs, where
// the file was made longer but what was written hadn't reached the disk.
//
// What can't come from a crash is ErrBroken.
func readTail(f io.ReaderAt, size, window int64, seg segment, log tokenizer.LogID) (mark, error) {
	if size > window {
		if t, err := walkTail(f, size-window, size, seg, log); err != nil || t.found {
			return t.mark, err
		}
	}
	t, err := walkTail(f, 0, size, seg, log)
	return t.mark, err
}

// tail walks along the lines at the end of a segment.
type tail struct {
	mark
	found bool  // whether there was a whole line
	next  int64 // where the line after the current one begins
	bad   bool  // whether there was a line that is none; mark is before it
}

// walkTail walks from an offset, or the first line behind it, to the end.
func walkTail(f io.ReaderAt, from, size int64, seg segment, log tokenizer.LogID) (tail, error) {
	t := tail{mark: mark{offset: from, last: seg.first - 1}, next: from}
	lines := newLineReader(io.NewSectionReader(f, from, size-from))
	for first := true; ; first = false {
		line, err := lines.next()
		t.next += int64(len(line))
		switch {
		case err == io.EOF:
			return t, nil
		case errors.Is(err, errTooLong):
			return t, t.tooLong(f, seg)
		case err != nil:
			return t, err
		case first && from > 0:
			t.offset = t.next // it may have begun before the window
			continue
		}
		end, err := t.add(line, seg, log)
		if err != nil || end {
			return t, err
		}
	}
}

// add takes the next line. It says whether the tail ends before it.
func (t *tail) add(line []byte, seg segment, log tokenizer.LogID) (end bool, err error) {
	id, e, err := ParseLine(line)
	switch {
	case errors.Is(err, ErrTorn):
		return true, nil
	case errors.Is(err, errForm):
		t.bad = true
		return bytes.IndexByte(line, 0) >= 0, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", seg.name, err)
	case t.bad:
		return false, fmt.Errorf("%w: %s: what begins at byte %d is not a line, but a line follows it",
			ErrBroken, seg.name, t.offset)
	case id != log:
		return false, fmt.Errorf("%w: they are of log %s, and the store's is %s: the directory belongs to another store; name another directory, or %s",
			ErrMismatch, id, log, remedy)
	}
	want, chained := t.last+1, e.Prev == t.head
	if !t.found {
		chained = t.offset > 0 || e.Sequence > 1 || e.Prev == tokenizer.Genesis(log)
		if t.offset > 0 {
			want = e.Sequence // it is in the middle of the segment
		}
	}
	if e.Sequence != want {
		return false, fmt.Errorf("%w: %s: event %d where %d should be", ErrBroken, seg.name, e.Sequence, want)
	}
	if !chained {
		return false, fmt.Errorf("%w: %s: event %d is not chained to what is before it", ErrBroken, seg.name, e.Sequence)
	}
	t.mark, t.found = mark{t.next, e.Sequence, e.Hash()}, true
	return false, nil
}

// tooLong judges what is too long to be a line: it comes from a crash if it has
// NULs near its beginning.
func (t *tail) tooLong(f io.ReaderAt, seg segment) error {
	beginning := make([]byte, 1<<16)
	n, err := f.ReadAt(beginning, t.next)
	if err != nil && err != io.EOF {
		return err
	}
	if bytes.IndexByte(beginning[:n], 0) < 0 {
		return fmt.Errorf("%w: %s: what begins at byte %d is too long to be a line", ErrBroken, seg.name, t.next)
	}
	return nil
}
