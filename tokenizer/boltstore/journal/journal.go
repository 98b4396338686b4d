// Package journal keeps frames of bytes in files that are made ahead: what Append
// has returned is durable, with one sync for each frame, until it is released.
//
// A journal is a number of files, its segments, of a fixed size. A frame lies in one
// segment. When a segment is full the next takes its place, one whose frames have
// all been released if there is one. So the files don't grow, and a sync has nothing
// to write but the frame itself.
//
// The first page of a segment says of which journal it is. Frames begin at pages of
// their own, so that no write touches what was acknowledged before, even if the
// machine stops in the middle of one:
//
//	CRC-32C(4) length(4) sequence(8) CRC-32C of the frame before(4) payload, and zeros
//	up to the end of the page
//
// with big endian integers. The checksum is over the id of the journal and all that
// follows it. Sequences ascend by one and don't come again, so nothing of the
// former contents of a segment can be taken for a new frame. They do come again for who
// goes back to an older state of what the journal is for: but then what follows on a
// frame is told by its checksum.
//
// A frame is written only after the one before is durable. So when a machine stops,
// at most the last may be torn, and nobody was told that it is durable: it is cut
// off. If any other is not whole, a frame behind it is, and the journal is damaged.
package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"time"
)

// Sentinels. Those of the file system are wrapped too.
var (
	// ErrFull says that no segment could be made, most often for want of room. Nothing
	// was written, and it may be tried again.
	ErrFull = errors.New("journal: another segment can't be made")

	// ErrDamaged says that what is in the files is not what was written.
	ErrDamaged = errors.New("journal: damaged")

	// ErrBroken says that a write or a sync has failed. What is on the disk isn't
	// known until the journal is opened anew.
	ErrBroken = errors.New("journal: a write failed")
)

// pageSize is what the parts of a segment are multiples of: no less than what any
// disk writes at once.
const pageSize = 4096

// frameHead is how long a frame is before its payload.
const frameHead = 20

// MaxFrame is the longest payload of a frame; the shortest has a byte.
const MaxFrame = math.MaxInt32 - 2*pageSize

// Options change what a journal is like.
type Options struct {
	// SegmentSize is how large a segment is, in bytes; 0 stands for 8 MiB. A frame
	// that doesn't fit gets a segment of its own size.
	SegmentSize int64

	disk disk // nil: that of the operating system
}

// spares is how many segments without frames are kept.
const spares = 2

// Journal is a journal. It is safe for concurrent use.
type Journal struct {
	disk   disk
	prefix string
	id     [16]byte
	size   int64 // of a segment

	appending sync.Mutex // held while a frame is written
	buffer    []byte     // of the frame that is

	mu       sync.Mutex
	current  *segment   // that frames go to; nil: the next one that there is
	full     []*segment // with frames that are not released, in order
	free     []*segment
	unclean  []*segment // free too, but kept for Scrub to overwrite; see Turn
	turned   uint64     // the latest frame at Turn; 0 but from there to the end of Scrub
	spoiled  bool       // meanwhile one of those had to be used
	made     uint64     // number of the newest segment
	last     uint64     // sequence of the newest frame
	sum      uint32     // its checksum; 0 if it isn't known
	released uint64     // up to which sequence they are not needed any more
	broken   error
	making   bool           // one is being made ahead
	noRoom   time.Time      // when there was none for one
	ahead    sync.WaitGroup // of who does
	closed   bool
}

// segment is a file of a journal.
type segment struct {
	file
	name string
	size int64
	end  int64  // of the last frame
	last uint64 // its sequence
	used int64  // up to where there may be anything
}

// Expect says what checksum the frame has behind which Replay begins, as Sum has told;
// 0 if that isn't known.
func (j *Journal) Expect(sum uint32) { j.sum = sum }

// Sum returns the checksum of the latest frame, 0 if it isn't known.
func (j *Journal) Sum() uint32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sum
}

// Open opens the segments with a prefix in a directory, or none if there are none.
// Replay has to follow. id tells the journals of different stores apart.
//
// Errors: ErrDamaged for a segment of another journal or none at all, or that of the
// file system.
func Open(dir, prefix string, id [16]byte, o Options) (*Journal, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = 8 << 20
	}
	if o.disk == nil {
		o.disk = osDisk{dir}
	}
	j := &Journal{disk: o.disk, prefix: prefix, id: id, size: max(roundUp(o.SegmentSize), 2*pageSize)}
	j.broken = fmt.Errorf("%w: it has not been replayed", ErrBroken)
	names, err := j.disk.list(prefix + "-")
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for _, name := range names {
		number, temporary, ok := j.parseName(name)
		if temporary {
			err = j.disk.remove(name) // it was being made
		} else if ok {
			err = j.open(name, number)
		}
		if err != nil {
			return nil, errors.Join(err, j.Close())
		}
	}
	return j, nil
}

// open opens a segment.
func (j *Journal) open(name string, number uint64) error {
	f, size, err := j.disk.open(name)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	s := &segment{file: f, name: name, size: size &^ (pageSize - 1), used: size}
	j.free = append(j.free, s) // until Replay finds something in it
	j.made = max(j.made, number)
	head := make([]byte, pageSize)
	if size < pageSize {
		return fmt.Errorf("%w: %s is cut short: it has %d bytes", ErrDamaged, name, size)
	}
	if _, err := s.ReadAt(head, 0); err != nil {
		return fmt.Errorf("journal: %s: %w", name, err)
	}
	made, err := j.checkHead(head)
	if err != nil {
		return fmt.Errorf("%w: %s %w", ErrDamaged, name, err)
	}
	if made != size {
		return fmt.Errorf("%w: %s is cut short: it has %d bytes of %d", ErrDamaged, name, size, made)
	}
	return nil
}

// Append writes a frame, whose payload is the pieces one behind the other, and
// returns its sequence once it is durable.
//
// Errors: ErrFull, after which nothing has changed; ErrBroken, after which nothing
// can be appended any more.
func (j *Journal) Append(pieces ...[]byte) (sequence uint64, err error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	length := 0
	for _, p := range pieces {
		length += len(p)
	}
	if length == 0 || length > MaxFrame {
		return 0, fmt.Errorf("journal: a frame of %d bytes", length)
	}
	padded := roundUp(int64(frameHead + length))
	s, sequence, err := j.room(padded)
	if err != nil {
		return 0, err
	}
	frame := append(j.buffer[:0], make([]byte, frameHead)...)
	for _, p := range pieces {
		frame = append(frame, p...)
	}
	sum := j.seal(frame, sequence, j.sum)
	frame = append(frame, make([]byte, int(padded)-len(frame))...)
	if j.buffer = frame; cap(frame) > int(j.size) {
		j.buffer = nil // it isn't often that large
	}
	if _, err = s.WriteAt(frame, s.end); err == nil {
		err = s.Sync()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.broken = fmt.Errorf("%w: %s: %w", ErrBroken, s.name, err)
		return 0, j.broken
	}
	s.end += padded
	s.last, s.used = sequence, max(s.used, s.end)
	j.last, j.sum = sequence, sum
	if s.size-s.end < s.size/2 {
		j.makeAhead()
	}
	return sequence, nil
}

// room returns the segment that the next frame goes to, of a size, and its sequence.
func (j *Journal) room(padded int64) (*segment, uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.broken != nil:
		return nil, 0, j.broken
	case j.closed:
		return nil, 0, errors.New("journal: closed")
	}
	if s := j.current; s != nil && s.size-s.end >= padded {
		return s, j.last + 1, nil
	}
	j.leave()
	j.current = take(&j.free, padded)
	if j.current == nil && len(j.unclean) > mostUnclean {
		j.current = take(&j.unclean, padded)
		j.spoiled = j.spoiled || j.current != nil
	}
	if j.current == nil {
		j.made++
		s, err := j.make(j.made, max(j.size, pageSize+padded))
		if err != nil {
			if s = take(&j.unclean, padded); s == nil {
				return nil, 0, err
			}
			j.spoiled = true
		}
		j.current = s
	}
	j.current.end, j.current.last = pageSize, 0
	return j.current, j.last + 1, nil
}

// mostUnclean is how many segments are kept for Scrub. Where it fails again and again
// there would be ever more.
const mostUnclean = 32

// take takes the first segment off a list in which a frame finds room, nil if there is
// none.
func take(list *[]*segment, padded int64) *segment {
	for i, s := range *list {
		if s.size-pageSize >= padded {
			*list = append((*list)[:i], (*list)[i+1:]...)
			return s
		}
	}
	return nil
}

// leave has the next frame go to another segment.
func (j *Journal) leave() {
	if j.current != nil {
		j.full = append(j.full, j.current)
		j.current = nil
		j.recycle()
	}
}

// recycle frees segments that are not needed any more.
func (j *Journal) recycle() {
	n := 0
	for _, s := range j.full {
		if s.last > j.released {
			break
		}
		if s.last <= j.turned {
			j.unclean = append(j.unclean, s)
		} else {
			j.free = append(j.free, s)
		}
		n++
	}
	j.full = append(j.full[:0], j.full[n:]...)
}

// Release says that frames up to a sequence are not needed any more. What they hold
// stays in the files until it is overwritten by others, or by Scrub.
func (j *Journal) Release(sequence uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.released = max(j.released, min(sequence, j.last))
	j.recycle()
}

// Released returns up to which sequence frames are not needed any more.
func (j *Journal) Released() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.released
}

// Turn has frames go from now on to other segments than those in which anything is, and
// returns the sequence of the latest. Once that is released, Scrub overwrites all that
// was appended before.
func (j *Journal) Turn() (sequence uint64) {
	j.appending.Lock() // no frame is being written
	defer j.appending.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.turned, j.spoiled = j.last, false
	clean := j.free[:0]
	for _, s := range j.free {
		if s.used == pageSize {
			clean = append(clean, s)
		} else {
			j.unclean = append(j.unclean, s)
		}
	}
	j.free = clean
	j.leave()
	return j.last
}

// GoOn has all segments used again that are free, for who has called Turn and can't come
// to Scrub.
func (j *Journal) GoOn() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.goOn()
}

func (j *Journal) goOn() {
	j.turned = 0
	j.free, j.unclean = append(j.free, j.unclean...), nil
}

// Ready makes a segment for the first frame, if there is none.
//
// Errors: ErrFull, or that of the file system.
func (j *Journal) Ready() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.current != nil || len(j.free) > 0 {
		return nil
	}
	j.made++
	s, err := j.make(j.made, j.size)
	if err == nil {
		j.free = append(j.free, s)
	}
	return err
}

// Segments returns how many segments there are.
func (j *Journal) Segments() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.full) + len(j.free) + len(j.unclean)
	if j.current != nil {
		n++
	}
	return n
}

// retryRoom is how long none is made ahead after there was no room: each attempt takes
// what room there is, for a moment.
const retryRoom = time.Second

// makeAhead makes a segment if there is none to go on in. The lock is held.
func (j *Journal) makeAhead() {
	if len(j.free) > 0 || len(j.unclean) > mostUnclean || j.making || j.closed || time.Since(j.noRoom) < retryRoom {
		return
	}
	j.making = true
	j.made++
	number := j.made
	j.ahead.Go(func() {
		s, err := j.make(number, j.size)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.making = false
		if err == nil {
			j.free = append(j.free, s)
		} else { // Append tries again, and says why
			j.noRoom = time.Now()
		}
	})
}

// Scrub overwrites segments all of whose frames are released, and removes those beyond
// the ones that are kept for what is to come. See Turn.
//
// Errors: ErrFull if a segment that was to be overwritten had to be used, since there
// was no room for another, or too many were kept; that of the file system, or of ctx.
func (j *Journal) Scrub(ctx context.Context) error {
	j.mu.Lock()
	taken := append(j.unclean, j.free...)
	j.free, j.unclean = nil, nil
	j.mu.Unlock()
	var err error
	for _, s := range taken {
		if err == nil && s.used > pageSize {
			err = s.wipe(ctx)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil && j.spoiled {
		err = fmt.Errorf("%w, so that one was not overwritten", ErrFull)
	}
	j.goOn()
	for _, s := range taken {
		if clean := s.used == pageSize; clean && (s.size != j.size || len(j.free) >= spares) {
			err = errors.Join(err, s.Close(), j.disk.remove(s.name))
			continue
		}
		j.free = append(j.free, s)
	}
	return err
}

// wipeSize is how much is overwritten at once.
const wipeSize = 1 << 20

// wipe puts zeros in the place of all that is in a segment.
func (s *segment) wipe(ctx context.Context) error {
	zeros := make([]byte, min(wipeSize, s.used-pageSize))
	for at := int64(pageSize); at < s.used; at += int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.WriteAt(zeros[:min(int64(len(zeros)), s.used-at)], at); err != nil {
			return fmt.Errorf("journal: %s: %w", s.name, err)
		}
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("journal: %s: %w", s.name, err)
	}
	s.used = pageSize
	return nil
}

// Close closes the files. Nothing is lost by that.
func (j *Journal) Close() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.ahead.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	all := slices.Concat(j.full, j.free, j.unclean)
	if j.current != nil {
		all = append(all, j.current)
	}
	j.current, j.full, j.free, j.unclean = nil, nil, nil, nil
	var errs []error
	for _, s := range all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Live returns how many bytes of segments hold frames that are not released.
func (j *Journal) Live() (bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.full {
		bytes += s.end
	}
	if s := j.current; s != nil && s.last > j.released {
		bytes += s.end
	}
	return bytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// sumOf is the checksum of a frame.
func (j *Journal) sumOf(frame []byte) uint32 {
	return crc32.Update(checksum(j.id[:]), castagnoli, frame[4:])
}

// seal fills in what stands before the payload, and returns the checksum.
func (j *Journal) seal(frame []byte, sequence uint64, before uint32) uint32 {
	binary.BigEndian.PutUint32(frame[4:], uint32(len(frame)-frameHead))
	binary.BigEndian.PutUint64(frame[8:], sequence)
	binary.BigEndian.PutUint32(frame[16:], before)
	sum := j.sumOf(frame)
	binary.BigEndian.PutUint32(frame, sum)
	return sum
}

func roundUp(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }
