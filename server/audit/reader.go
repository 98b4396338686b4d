package audit

import (
	"fmt"
	"io"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Line is an entry of a log as it stands in a segment.
type Line struct {
	Log  tokenizer.LogID
	Hash tokenizer.Hash // as the line says
	tokenizer.Entry
}

// Reader reads a log from the segments of a directory, plain and packed, in the order of
// the log and in bounded memory: 16 MiB and a line. It must be used by one goroutine at a
// time.
type Reader struct {
	dir     string
	next    uint64 // the number of the event that comes next
	checked bool
	lines   segmentLines
	seg     segment
	head    tokenizer.Hash
	known   bool   // whether head is that of the event before
	missing uint64 // the event that a segment ended before, though another follows
	pruned  []Pruned
}

// OpenReader returns a Reader that begins with the event of a number, or with the first
// that is there behind it if that one was pruned; 0 stands for 1. Packed segments are read
// from the frame in which the event is.
//
// What the lines say of their hashes is taken as it is. Check changes that.
func OpenReader(dir string, from uint64) (*Reader, error) {
	if _, err := listSegments(dir); err != nil {
		return nil, err
	}
	return &Reader{dir: dir, next: max(from, 1)}, nil
}

// Check has each line checked, and that it is chained to the one before, as Verify does.
// It must be called before Next.
func (r *Reader) Check() { r.checked = true }

// Close closes what is open.
func (r *Reader) Close() error {
	if r.lines == nil {
		return nil
	}
	err := r.lines.Close()
	r.lines = nil
	return err
}

// Next returns the next line, whose body is valid until the call after. At the end, which
// is before a last line that is unfinished, the error is io.EOF; Next may be called again,
// and goes on if more was written since.
//
// Errors: ErrBroken, also if events are missing, or that of the file system.
func (r *Reader) Next() (Line, error) {
	for {
		if r.lines == nil {
			if err := r.open(); err != nil {
				return Line{}, err
			}
		}
		text, err := r.lines.next()
		if err == io.EOF || err == nil && text[len(text)-1] != '\n' {
			// The rest may come, or what follows is in another segment.
			if err := r.Close(); err != nil {
				return Line{}, err
			}
			more, err := r.more()
			if err != nil {
				return Line{}, err
			}
			if !more {
				return Line{}, io.EOF
			}
			continue
		}
		if err != nil {
			return Line{}, fmt.Errorf("%s: %w", r.seg.name, err)
		}
		line, err := r.parse(text)
		if err != nil {
			return Line{}, fmt.Errorf("%s: %w", r.seg.name, err)
		}
		if line.Sequence < r.next {
			continue // it is before the place that was looked for
		}
		if line.Sequence != r.next {
			return Line{}, fmt.Errorf("%w: %s: event %d where %d should be", ErrBroken, r.seg.name, line.Sequence, r.next)
		}
		if r.checked && r.known && line.Prev != r.head {
			return Line{}, fmt.Errorf("%w: %s: event %d is not chained to what is before it", ErrBroken, r.seg.name, line.Sequence)
		}
		r.next, r.head, r.known = line.Sequence+1, line.Hash, true
		return line, nil
	}
}

// parse reads a line, and checks it if that is wanted.
func (r *Reader) parse(text []byte) (Line, error) {
	if !r.checked {
		return parseForm(text)
	}
	log, e, err := ParseLine(text)
	return Line{Log: log, Hash: e.Hash(), Entry: e}, err
}

// more says whether the log goes on in another segment than the one that was read.
func (r *Reader) more() (bool, error) {
	segments, err := listSegments(r.dir)
	if err != nil {
		return false, err
	}
	for _, seg := range segments {
		if seg.first <= r.seg.first {
			continue
		}
		if _, pruned := r.hole(); pruned || seg.first <= r.next {
			return true, nil
		}
		if r.missing == r.next {
			return false, fmt.Errorf("%w: %s: begins with event %d, not %d: events are missing", ErrBroken, seg.name, seg.first, r.next)
		}
		r.missing = r.next // they may have been written when the end was seen already: it is looked at again
		return true, nil
	}
	return false, nil
}

// open opens the segment in which the next event is.
func (r *Reader) open() error {
	segments, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	if r.pruned, err = ReadPruned(r.dir); err != nil {
		return err
	}
	for { // over what was pruned
		at := -1
		for i, seg := range segments {
			if seg.first <= r.next {
				at = i
			}
		}
		hole, ok := r.hole()
		if ok && (at < 0 || segments[at].first < hole.First) {
			r.next = hole.Last + 1
			r.head, r.known = parseHash(hole.Hash)
			continue
		}
		if at < 0 && len(segments) == 0 {
			return io.EOF
		}
		if at < 0 {
			return fmt.Errorf("%w: %s: begins with event %d, not %d: events are missing", ErrBroken, segments[0].name, segments[0].first, r.next)
		}
		r.lines, r.seg, err = openLines(r.dir, segments[at], r.next)
		return err
	}
}

// hole returns what was pruned and has the next event.
func (r *Reader) hole() (Pruned, bool) {
	for _, p := range r.pruned {
		if p.First <= r.next && r.next <= p.Last {
			return p, true
		}
	}
	return Pruned{}, false
}
