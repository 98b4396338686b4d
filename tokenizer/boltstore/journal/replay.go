package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Replayed says what Replay has found.
type Replayed struct {
	Frames int    // that were handed on
	Last   uint64 // the sequence of the last
	Cut    int64  // bytes of a frame that was torn, and is cut off; 0 if none was
	Place  string // where, if one was
}

// place is where a frame lies.
type place struct {
	segment  *segment
	offset   int64
	sequence uint64
	length   int64  // of the payload
	sum      uint32 // its checksum
	before   uint32 // that of the frame before
}

func (p place) end() int64 { return p.offset + roundUp(frameHead+p.length) }

func (p place) String() string { return fmt.Sprintf("%s at byte %d", p.segment.name, p.offset) }

// Replay hands on the frames behind a sequence, in order. It is called once, before
// the first Append; if it fails, nothing can be appended.
//
// Errors: ErrDamaged, with the place; that of do, or of the file system.
func (j *Journal) Replay(after uint64, do func(sequence uint64, payload []byte) error) (Replayed, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var frames, torn []place
	for _, s := range j.free {
		whole, others, err := j.scan(s, after)
		if err != nil {
			return Replayed{}, fmt.Errorf("journal: %s: %w", s.name, err)
		}
		frames, torn = append(frames, whole...), append(torn, others...)
	}
	slices.SortFunc(frames, func(a, b place) int { return cmp.Compare(a.sequence, b.sequence) })
	result := Replayed{Last: after}
	sum := j.sum
	if len(frames) > 0 && frames[0].sequence == after && after > 0 {
		if sum != 0 && frames[0].sum != sum {
			return result, fmt.Errorf("%w: %v is frame %d of another history", ErrDamaged, frames[0], after)
		}
		sum, frames = frames[0].sum, frames[1:]
	}
	for i, p := range frames {
		switch {
		case p.sequence == result.Last && i > 0:
			return result, fmt.Errorf("%w: frame %d is there twice, in %v and in %v", ErrDamaged, p.sequence, frames[i-1], p)
		case p.sequence == result.Last+1 && sum != 0 && p.before != sum:
			return result, fmt.Errorf("%w: %v is frame %d of another history: it doesn't follow on frame %d", ErrDamaged, p, p.sequence, result.Last)
		case p.sequence != result.Last+1:
			return result, fmt.Errorf("%w: frame %d is missing%s, and frame %d is there, in %v", ErrDamaged, result.Last+1, behind(frames[:i]), p.sequence, p)
		}
		payload := make([]byte, p.length)
		if _, err := p.segment.ReadAt(payload, p.offset+frameHead); err != nil {
			return result, fmt.Errorf("journal: %s: %w", p.segment.name, err)
		}
		if err := do(p.sequence, payload); err != nil {
			return result, err
		}
		result.Frames++
		result.Last, sum = p.sequence, p.sum
	}
	for _, p := range torn {
		if p.sequence == result.Last+1 {
			result.Cut, result.Place = frameHead+p.length, p.String()
		}
	}
	if len(frames) > 0 {
		if err := j.again(frames[len(frames)-1]); err != nil {
			return result, err
		}
	}
	j.last, j.sum, j.released, j.broken = result.Last, sum, after, nil
	j.arrange(frames)
	return result, nil
}

// again writes a frame once more and syncs. A process that was killed may have handed
// the last one to the kernel, and not have synced it. Who goes on behind it must be sure
// that the disk has it, and frames that come may be in another segment.
func (j *Journal) again(p place) error {
	frame := make([]byte, p.end()-p.offset)
	_, err := p.segment.ReadAt(frame[:frameHead+p.length], p.offset)
	if err == nil {
		_, err = p.segment.WriteAt(frame, p.offset)
	}
	if err == nil {
		err = p.segment.Sync()
	}
	if err != nil {
		return fmt.Errorf("journal: %s: %w", p.segment.name, err)
	}
	return nil
}

// behind says where a frame should be that is missing.
func behind(before []place) string {
	if len(before) == 0 {
		return ""
	}
	last := before[len(before)-1]
	return fmt.Sprintf(" behind frame %d, which ends in %s at byte %d", last.sequence, last.segment.name, last.end())
}

// arrange puts the segments where they belong: those with frames in order, the last
// of them to go on in, and the others free.
func (j *Journal) arrange(frames []place) {
	free := j.free
	j.free = nil
	for _, p := range frames {
		if s := p.segment; len(j.full) == 0 || j.full[len(j.full)-1] != s {
			j.full = append(j.full, s)
		}
		p.segment.end, p.segment.last = p.end(), p.sequence
	}
	for _, s := range free {
		if !slices.Contains(j.full, s) {
			j.free = append(j.free, s)
		}
	}
	if n := len(j.full); n > 0 {
		j.current, j.full = j.full[n-1], j.full[:n-1]
	}
}

// scanSize is how much of a segment is read at once to look for frames.
const scanSize = 1 << 20

// scan looks for frames from a sequence on in a segment, wherever they begin: those
// that are whole, and those behind it that look as if they had been begun.
func (j *Journal) scan(s *segment, after uint64) (whole, torn []place, err error) {
	var frame []byte
	chunk := make([]byte, min(scanSize, s.size))
	from, have := int64(0), int64(0) // what is in chunk
	for at := int64(pageSize); at < s.size; {
		if at+frameHead > from+have {
			from, have = at, min(int64(len(chunk)), s.size-at)
			if _, err := s.ReadAt(chunk[:have], from); err != nil {
				return nil, nil, err
			}
		}
		head := chunk[at-from : at-from+frameHead]
		p := place{
			segment: s, offset: at, sequence: binary.BigEndian.Uint64(head[8:]), length: int64(binary.BigEndian.Uint32(head[4:])),
			sum: binary.BigEndian.Uint32(head), before: binary.BigEndian.Uint32(head[16:]),
		}
		at += pageSize
		if p.length == 0 || p.length > MaxFrame || p.offset+frameHead+p.length > s.size {
			continue
		}
		if int64(cap(frame)) < frameHead+p.length {
			frame = make([]byte, frameHead+p.length)
		}
		frame = frame[:frameHead+p.length]
		if p.offset+int64(len(frame)) <= from+have {
			copy(frame, chunk[p.offset-from:])
		} else if _, err := s.ReadAt(frame, p.offset); err != nil {
			return nil, nil, err
		}
		switch good := p.sum == j.sumOf(frame); {
		case good && p.sequence >= after:
			whole = append(whole, p)
			at = p.end()
		case good:
			at = p.end()
		case p.sequence > after:
			torn = append(torn, p)
		}
	}
	return whole, torn, nil
}

// The first page of a segment:
//
//	magic(16) id(16) size of the segment(8) CRC-32C of these(4)
var magic = [16]byte{'c', 'o', 'a', 't', 'c', 'h', 'e', 'c', 'k', ' ', 'j', 'r', 'n', 'l', 0, 2}

const headSize = len(magic) + 16 + 8

// head returns the first page.
func (j *Journal) head(size int64) []byte {
	page := make([]byte, pageSize)
	n := copy(page, magic[:])
	n += copy(page[n:], j.id[:])
	binary.BigEndian.PutUint64(page[n:], uint64(size))
	binary.BigEndian.PutUint32(page[headSize:], checksum(page[:headSize]))
	return page
}

// checkHead returns the size that a first page tells, or what is wrong with it.
func (j *Journal) checkHead(page []byte) (size int64, err error) {
	if !bytes.Equal(page[:len(magic)], magic[:]) || binary.BigEndian.Uint32(page[headSize:]) != checksum(page[:headSize]) {
		return 0, errNoSegment
	}
	if !bytes.Equal(page[len(magic):headSize-8], j.id[:]) {
		return 0, errForeign
	}
	return int64(binary.BigEndian.Uint64(page[headSize-8:])), nil
}
