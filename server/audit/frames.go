package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A packed segment is a file of zstd (RFC 8878): frames of whole lines, each of which can
// be read without the others, and behind them the index, which is a skippable frame, so
// that any zstd reads the file. Numbers in it are little endian, as those of zstd are:
//
//	4  magic number of a skippable frame, 0x184D2A5A
//	4  bytes that follow
//	for each frame:
//	    8  where it begins in the file
//	    8  the number of its first event
//	8  the number of the last event
//	8  bytes of the segment before it was compressed
//	4  how many frames there are
//	8  "ccindex1"
//	32 SHA-256 of all bytes of the file before these 32
const (
	frameAim   = 1 << 20            // bytes of lines in a frame, unless a line is longer
	maxFrame   = maxLine + frameAim // a frame has at most so many, packed or not
	indexMagic = 0x184D2A5A
	indexLabel = "ccindex1"
	indexHead  = 8
	indexRow   = 16
	indexFoot  = 8 + 8 + 4 + len(indexLabel) + sha256.Size
)

// frame is where a part of a packed segment begins.
type frame struct {
	offset int64
	first  uint64 // the number of its first event
}

// index tells what is where in a packed segment.
type index struct {
	frames []frame
	end    int64  // where the frames end
	last   uint64 // the number of the last event
	plain  int64  // bytes before it was compressed
}

// append appends the index as it stands in the file, but for the hash.
func (x *index) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, indexMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(indexRow*len(x.frames)+indexFoot))
	for _, f := range x.frames {
		b = binary.LittleEndian.AppendUint64(b, uint64(f.offset))
		b = binary.LittleEndian.AppendUint64(b, f.first)
	}
	b = binary.LittleEndian.AppendUint64(b, x.last)
	b = binary.LittleEndian.AppendUint64(b, uint64(x.plain))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(x.frames)))
	return append(b, indexLabel...)
}

// readIndex reads the index of a packed segment of a size. What it says is in order, but
// whether it is true shows only when the frames are read.
//
// Errors: ErrBroken, or that of f.
func readIndex(f io.ReaderAt, size int64, seg segment) (index, error) {
	broken := func(what string) (index, error) {
		return index{}, fmt.Errorf("%w: %s: its index %s", ErrBroken, seg.name, what)
	}
	if size < int64(indexHead+indexFoot) {
		return broken("is missing")
	}
	foot := make([]byte, indexFoot)
	if _, err := f.ReadAt(foot, size-int64(indexFoot)); err != nil {
		return index{}, err
	}
	if string(foot[20:20+len(indexLabel)]) != indexLabel {
		return broken("is missing")
	}
	x := index{last: binary.LittleEndian.Uint64(foot), plain: int64(binary.LittleEndian.Uint64(foot[8:]))}
	count := int64(binary.LittleEndian.Uint32(foot[16:]))
	x.end = size - int64(indexHead+indexFoot) - indexRow*count
	if x.end < 0 || count == 0 || x.plain <= 0 {
		return broken("can't be")
	}
	rows := make([]byte, indexHead+indexRow*count)
	if _, err := f.ReadAt(rows, x.end); err != nil {
		return index{}, err
	}
	if binary.LittleEndian.Uint32(rows) != indexMagic || int64(binary.LittleEndian.Uint32(rows[4:])) != indexRow*count+int64(indexFoot) {
		return broken("can't be")
	}
	before := frame{-1, seg.first - 1}
	for rows = rows[indexHead:]; len(rows) > 0; rows = rows[indexRow:] {
		next := frame{int64(binary.LittleEndian.Uint64(rows)), binary.LittleEndian.Uint64(rows[8:])}
		if next.offset <= before.offset || next.first <= before.first || next.offset-max(before.offset, 0) > maxFrame {
			return broken("is out of order")
		}
		x.frames, before = append(x.frames, next), next
	}
	if x.frames[0] != (frame{0, seg.first}) || x.end <= before.offset || x.end-before.offset > maxFrame || x.last < before.first {
		return broken("is out of order")
	}
	return x, nil
}

// frameEncoder and frameDecoder work on whole frames, of as many goroutines as like to.
var (
	frameEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameAim), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constant
		}
		return e
	})
	frameDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxFrame))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// frameWriter packs lines.
type frameWriter struct {
	w      io.Writer
	sum    hash.Hash
	lines  []byte // of the frame that is begun
	packed []byte
	first  uint64 // the number of the first event in lines
	index
}

func newFrameWriter(w io.Writer) *frameWriter {
	return &frameWriter{w: w, sum: sha256.New()}
}

// add adds the line of an event.
func (p *frameWriter) add(line []byte, number uint64) error {
	if len(p.lines) > 0 && len(p.lines)+len(line) > frameAim {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if len(p.lines) == 0 {
		p.first = number
	}
	p.lines, p.last = append(p.lines, line...), number
	return nil
}

// flush writes the lines that were added as a frame.
func (p *frameWriter) flush() error {
	p.packed = frameEncoder().EncodeAll(p.lines, p.packed[:0])
	p.frames = append(p.frames, frame{p.end, p.first})
	p.end += int64(len(p.packed))
	p.plain += int64(len(p.lines))
	p.lines = p.lines[:0]
	return p.write(p.packed)
}

func (p *frameWriter) write(b []byte) error {
	p.sum.Write(b)
	_, err := p.w.Write(b)
	return err
}

// finish writes the rest and the index. There must have been a line.
func (p *frameWriter) finish() error {
	if err := p.flush(); err != nil {
		return err
	}
	if err := p.write(p.index.append(nil)); err != nil {
		return err
	}
	_, err := p.w.Write(p.sum.Sum(nil))
	return err
}
