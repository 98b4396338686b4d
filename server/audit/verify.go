package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Summary tells of a log that was verified.
type Summary struct {
	Log    tokenizer.LogID
	First  uint64         // number of the first event that is there
	Last   uint64         // number of the last event
	Head   tokenizer.Hash // hash of the last event
	Events uint64         // that are there
	Pruned uint64         // events that were pruned
}

// Verify reads a whole log, from its first event on, and checks each line: that
// it is of the same log, that no number is missing or there twice, and that it
// is chained to the line before by its hash. The name is only for errors.
//
// Whatever was changed, removed, added or moved is found, with one exception:
// lines that were cut off at the end, whole, can't be told from lines that were
// never written. To find that, compare Summary.Last and Head with what was
// noted down elsewhere.
//
// An empty log is whole. Errors say the line: ErrBroken, ErrTorn for a last
// line that is unfinished, or that of r. The Summary that comes with an error
// tells of the lines before.
func Verify(name string, r io.Reader) (Summary, error) {
	var c chain
	err := c.read(name, newLineReader(r))
	return c.Summary, err
}

// VerifyDir verifies the log in the segments of a directory, plain and packed, as Verify
// does. Files that don't have the name of a segment are not looked at, but for PrunedFile:
// where events were pruned, the chain goes on with what is left of them there, and the
// event of the prune must say the same, unless it was pruned too.
func VerifyDir(dir string) (Summary, error) {
	var c chain
	err := c.readDir(dir)
	return c.Summary, err
}

// readDir goes on with the segments of a directory.
func (c *chain) readDir(dir string) error {
	segments, err := listSegments(dir)
	if err != nil {
		return err
	}
	if c.pruned, err = ReadPruned(dir); err != nil {
		return err
	}
	for i, seg := range segments {
		if err := c.skip(seg); err != nil {
			return err
		}
		err := c.readSegment(dir, seg)
		if errors.Is(err, ErrTorn) && i < len(segments)-1 {
			err = fmt.Errorf("%w: %s: the last line is unfinished, though another segment follows", ErrBroken, seg.name)
		}
		if err != nil {
			return err
		}
	}
	return c.proven()
}

// chain is a log that is being verified.
type chain struct {
	Summary
	pruned []Pruned // what was removed
	holes  []Pruned // those of them that the chain went over
	events map[uint64]pruneClaim

	// each, if set, is called with each line that is chained, which is valid until it
	// returns. Head is the hash of its event.
	each func(at Place, line []byte) error

	// over, if set, is called with each segment that was pruned, once the chain has gone
	// over it.
	over func(p Pruned) error
}

// Place is where something stands in a log.
type Place struct {
	File  string
	Line  int    // from 1; 0 if no line is meant
	Event uint64 // the number of the event that is there, or should be; 0 if it is none
}

// String returns "file:line".
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Fault is an error at a place.
type Fault struct {
	Place
	Err error
}

// Error says where and why.
func (f *Fault) Error() string { return fmt.Sprintf("%v: %v", f.Place, f.Err) }

// Unwrap returns why.
func (f *Fault) Unwrap() error { return f.Err }

func (c *chain) readSegment(dir string, seg segment) error {
	lines, seg, err := openLines(dir, seg, seg.first)
	if err != nil {
		return fmt.Errorf("%s: %w", seg.name, err)
	}
	defer lines.Close()
	return c.read(seg.name, lines)
}

// read goes on with lines.
func (c *chain) read(name string, lines interface{ next() ([]byte, error) }) error {
	for number := 1; ; number++ {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		at := Place{name, number, c.Last + 1}
		if err == nil {
			err = c.add(line)
		}
		if err != nil {
			return &Fault{at, err}
		}
		if c.each == nil {
			continue
		}
		if err := c.each(at, line); err != nil {
			return err
		}
	}
}

// add checks that a line is the next one.
func (c *chain) add(line []byte) error {
	l, err := parseLine(line)
	if err != nil {
		return err
	}
	prev := c.Head
	if c.First == 0 {
		c.Log, c.First = l.Log, l.Sequence
		if c.Last == 0 {
			prev = tokenizer.Genesis(l.Log)
		}
		if err := c.genesis(l.Log); err != nil {
			return err
		}
	}
	switch {
	case l.Log != c.Log:
		return fmt.Errorf("%w: event %d is of log %s, not %s", ErrBroken, l.Sequence, l.Log, c.Log)
	case l.Sequence != c.Last+1:
		return fmt.Errorf("%w: event %d where %d should be", ErrBroken, l.Sequence, c.Last+1)
	case l.Prev != prev:
		return fmt.Errorf("%w: event %d is not chained to what is before it", ErrBroken, l.Sequence)
	}
	c.Last, c.Head = l.Sequence, l.Hash
	c.Events++
	return c.notePrune(l.Entry)
}

// errTooLong says that something is too long to be a line.
var errTooLong = fmt.Errorf("%w: a line of more than %d bytes", ErrBroken, maxLine)

// lineReader reads lines of any length up to maxLine.
type lineReader struct {
	r    *bufio.Reader
	long []byte // a line that is longer than the buffer of r
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 1<<16)}
}

// next returns the next line with its line feed, valid until the call after. A
// last line without one is returned as it is. The error is io.EOF at the end,
// errTooLong, or that of the reader.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	l.long = l.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		if l.long = append(l.long, line...); len(l.long) > maxLine {
			return nil, errTooLong
		}
		line, err = l.r.ReadSlice('\n')
	}
	l.long = append(l.long, line...)
	switch {
	case len(l.long) > maxLine:
		return nil, errTooLong
	case err == io.EOF && len(l.long) > 0, err == nil:
		return l.long, nil
	}
	return nil, err
}
