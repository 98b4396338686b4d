package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// segmentLines reads the lines of a segment, plain or packed, in bounded memory: those of
// a frame and one line.
type segmentLines interface {
	// next returns the next line, as lineReader.next does.
	next() ([]byte, error)
	io.Closer
}

// openLines opens a segment at the line of an event, or at its beginning if from is not
// behind that. One that was packed since it was listed is read in its other form. The
// segment that is returned is the one that is read.
func openLines(dir string, seg segment, from uint64) (segmentLines, segment, error) {
	f, err := os.Open(seg.path(dir))
	if isGone(err) && !seg.packed() {
		seg = seg.pack()
		f, err = os.Open(seg.path(dir))
	}
	if err != nil {
		return nil, seg, err
	}
	lines, err := openFileAt(f, seg, from)
	if err != nil {
		return nil, seg, errors.Join(err, f.Close())
	}
	return lines, seg, nil
}

// openFileAt is openLines for a file that is open.
func openFileAt(f *os.File, seg segment, from uint64) (segmentLines, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(strings.TrimSuffix(seg.name, partSuffix), packedSuffix) {
		return openPacked(f, info.Size(), seg, from)
	}
	return openPlain(f, info.Size(), seg, from)
}

// plainLines are the lines of a plain segment.
type plainLines struct {
	*lineReader
	io.Closer
}

func openPlain(f *os.File, size int64, seg segment, from uint64) (segmentLines, error) {
	at, err := findLine(f, size, seg, from)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	return plainLines{newLineReader(f), f}, nil
}

// findLine returns where a line begins that is at the event or not far before it.
func findLine(f io.ReaderAt, size int64, seg segment, from uint64) (int64, error) {
	low, high := int64(0), size
	if from <= seg.first {
		return 0, nil
	}
	for high-low > frameAim {
		middle := low + (high-low)/2
		lines := newLineReader(io.NewSectionReader(f, middle, size-middle))
		rest, err := lines.next() // of the line that the middle is in
		if err != nil && err != io.EOF {
			return 0, err
		}
		at := middle + int64(len(rest))
		line, err := lines.next()
		if err == io.EOF || at >= high {
			high = middle
			continue
		}
		if err != nil {
			return 0, err
		}
		number, ok := lineNumber(line)
		switch {
		case !ok:
			return low, nil // whoever reads on finds out what that is
		case number <= from:
			low = at
		default:
			high = middle
		}
	}
	return low, nil
}

// lineNumber returns the number that a line says it has.
func lineNumber(line []byte) (uint64, bool) {
	var log tokenizer.LogID
	rest, ok := cutHex(log[:], line, lineLog)
	if !ok {
		return 0, false
	}
	n, _, ok := cutNumber(rest, lineSeq)
	return n, ok
}

// packedLines are the lines of a packed segment. Read from the beginning to the end, it
// is found if a byte of the file was changed, whether or not that changes a line.
type packedLines struct {
	*os.File
	index
	seg   segment
	size  int64
	at    int       // the frame that comes next
	sum   hash.Hash // of what was read; nil if that isn't all
	raw   []byte
	buf   []byte
	rest  []byte // of buf
	bytes int64  // of the frames that were read, before they were packed
	last  uint64 // the number of the last line that was read
}

func openPacked(f *os.File, size int64, seg segment, from uint64) (segmentLines, error) {
	x, err := readIndex(f, size, seg)
	if err != nil {
		return nil, err
	}
	p := &packedLines{File: f, index: x, seg: seg, size: size}
	p.at = max(sort.Search(len(x.frames), func(i int) bool { return x.frames[i].first > from })-1, 0)
	if p.at == 0 {
		p.sum = sha256.New()
	}
	return p, nil
}

func (p *packedLines) next() ([]byte, error) {
	if len(p.rest) == 0 {
		if p.at == len(p.frames) {
			return nil, p.finish()
		}
		if err := p.read(); err != nil {
			return nil, err
		}
	}
	end := bytes.IndexByte(p.rest, '\n') + 1 // the last byte is one, as read has seen to
	line := p.rest[:end]
	p.rest = p.rest[end:]
	if len(p.rest) == 0 {
		p.last, _ = lineNumber(line)
	}
	return line, nil
}

// read reads the next frame.
func (p *packedLines) read() error {
	begin, end := p.frames[p.at].offset, p.end
	if p.at+1 < len(p.frames) {
		end = p.frames[p.at+1].offset
	}
	p.raw = slices.Grow(p.raw[:0], int(end-begin))[:end-begin]
	if _, err := p.ReadAt(p.raw, begin); err != nil {
		return err
	}
	if p.sum != nil {
		p.sum.Write(p.raw)
	}
	var err error
	if p.buf, err = frameDecoder().DecodeAll(p.raw, p.buf[:0]); err != nil {
		return fmt.Errorf("%w: what is packed at byte %d: %w", ErrBroken, begin, err)
	}
	p.rest = p.buf
	p.bytes += int64(len(p.buf))
	number, ok := lineNumber(p.buf)
	if !ok || number != p.frames[p.at].first || p.buf[len(p.buf)-1] != '\n' {
		return fmt.Errorf("%w: what is packed at byte %d doesn't begin with event %d, or is unfinished", ErrBroken, begin, p.frames[p.at].first)
	}
	p.at++
	return nil
}

// finish checks what shows at the end only. It returns io.EOF if that is in order.
func (p *packedLines) finish() error {
	if p.last != p.index.last {
		return fmt.Errorf("%w: the last event is %d, and the index says %d", ErrBroken, p.last, p.index.last)
	}
	if p.sum == nil {
		return io.EOF
	}
	tail := make([]byte, p.size-p.end)
	if _, err := p.ReadAt(tail, p.end); err != nil {
		return err
	}
	said := tail[len(tail)-sha256.Size:]
	p.sum.Write(tail[:len(tail)-sha256.Size])
	if sum := p.sum.Sum(nil); !bytes.Equal(sum, said) || p.bytes != p.plain {
		return fmt.Errorf("%w: the file doesn't have the hash, or the length, that its index says", ErrBroken)
	}
	return io.EOF
}

// packedEnd returns what a packed segment ends with. It reads the last frame only.
func packedEnd(dir string, seg segment) (mark, error) {
	line, err := lastLine(dir, seg)
	if err != nil {
		return mark{}, err
	}
	_, e, err := ParseLine(line)
	if err != nil {
		return mark{}, fmt.Errorf("%s: %w", seg.name, err)
	}
	return mark{offset: int64(len(line)), last: e.Sequence, head: e.Hash()}, nil // the offset is not 0: the hash counts
}

// lastLine returns the last whole line of a segment, which is empty if there is none.
func lastLine(dir string, seg segment) ([]byte, error) {
	f, err := os.Open(seg.path(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if seg.packed() {
		x, err := readIndex(f, info.Size(), seg)
		if err != nil {
			return nil, err
		}
		lines, err := openPacked(f, info.Size(), seg, x.last)
		if err != nil {
			return nil, err
		}
		return endOf(lines)
	}
	for window := int64(1 << 16); ; window *= 16 {
		from := max(info.Size()-window, 0)
		lines := newLineReader(io.NewSectionReader(f, from, info.Size()-from))
		if from > 0 {
			if _, err := lines.next(); err != nil && err != io.EOF { // it may have begun before
				return nil, fmt.Errorf("%s: %w", seg.name, err)
			}
		}
		line, err := endOf(plainLines{lines, f})
		if err != nil || len(line) > 0 || from == 0 {
			return line, err
		}
	}
}

// linesSize returns how many bytes the lines of a segment have.
func linesSize(dir string, seg segment) (int64, error) {
	f, err := os.Open(seg.path(dir))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !seg.packed() {
		return info.Size(), nil
	}
	x, err := readIndex(f, info.Size(), seg)
	return x.plain, err
}

// endOf returns the last whole line.
func endOf(lines segmentLines) ([]byte, error) {
	var last []byte
	for {
		line, err := lines.next()
		if err == io.EOF || err == nil && line[len(line)-1] != '\n' {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		last = append(last[:0], line...)
	}
}
