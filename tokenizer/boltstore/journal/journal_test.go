package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var testID = [16]byte{1, 2, 3}

const smallSegment = 8 * pageSize

// frames are payloads by sequence.
type frames map[uint64][]byte

// openReplayed opens a journal and replays it. It fails the test if what is replayed
// isn't what it should be: the frames from after+1 to last, in order, and perhaps one
// more, which was appended without having been acknowledged.
func openReplayed(t *testing.T, d disk, after, last uint64, want frames) (*Journal, Replayed) {
	t.Helper()
	j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
	if err != nil {
		t.Fatal(err)
	}
	next := after + 1
	r, err := j.Replay(after, func(sequence uint64, payload []byte) error {
		if sequence != next || !bytes.Equal(payload, want[sequence]) {
			return fmt.Errorf("frame %d of %d bytes, want frame %d of %d", sequence, len(payload), next, len(want[next]))
		}
		next++
		return nil
	})
	if err != nil {
		t.Fatalf("replay behind %d: %v", after, err)
	}
	if r.Last < last || r.Last > last+1 || r.Frames != int(r.Last-after) {
		t.Fatalf("replayed %+v, want up to %d", r, last)
	}
	return j, r
}

// payload is one of any size up to more than a segment; small ones are the rule.
func payload(random *rand.Rand) []byte {
	n := 1 + random.IntN(300)
	switch random.IntN(10) {
	case 0:
		n = 1 + random.IntN(3*pageSize)
	case 1:
		n = pageSize - frameHead + random.IntN(2)
	case 2:
		if random.IntN(5) == 0 {
			n = smallSegment + random.IntN(smallSegment)
		}
	}
	p := make([]byte, n)
	for i := 0; i < n; i += 1 + i/16 {
		p[i] = byte(random.Uint32())
	}
	return p
}

// TestCrashes stops the machine at any write or sync, again and again, with any part
// of what was not synced on the disk: what was acknowledged is there, and nothing
// else but, perhaps, what was being written.
func TestCrashes(t *testing.T) {
	seeds := 600
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		d := newMemDisk()
		written, applied, acknowledged := frames{}, uint64(0), uint64(0)
		for range 6 {
			d.left, d.err = -1, errDisk
			j, r := openReplayed(t, d, applied, acknowledged, written)
			acknowledged = r.Last // what is there once is there for good
			d.left = random.IntN(150)
			if random.IntN(3) == 0 {
				d.left = random.IntN(12)
			}
			for range 200 {
				switch random.IntN(12) {
				case 0, 1:
					// The file has it first.
					applied += uint64(random.IntN(int(acknowledged-applied) + 1))
					j.Release(applied)
					continue
				case 2:
					j.Turn()
					if err := j.Scrub(t.Context()); err != nil && !errors.Is(err, errDisk) {
						t.Fatal(err)
					}
					continue
				}
				p := payload(random)
				written[acknowledged+1] = p
				sequence, err := j.Append(p[:len(p)/2], p[len(p)/2:])
				if err != nil {
					if !errors.Is(err, errDisk) {
						t.Fatal(err)
					}
					break
				}
				if acknowledged++; sequence != acknowledged {
					t.Fatalf("sequence %d, want %d", sequence, acknowledged)
				}
			}
			_ = j.Close()
			d = d.crash(random)
		}
		openReplayed(t, d, applied, acknowledged, written)
	}
}

// TestFaults has each write, sync and change of a directory fail in its turn: the
// append that it is part of fails, and so does every later one, unless nothing was
// written; and all that was acknowledged is there when the journal is opened anew.
func TestFaults(t *testing.T) {
	work := func(d *memDisk) (j *Journal, acknowledged uint64, err error) {
		if j, err = Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d}); err != nil {
			return j, 0, err
		}
		if _, err = j.Replay(0, nil); err != nil {
			return j, 0, err
		}
		for n := range uint64(20) {
			if _, err = j.Append(bytes.Repeat([]byte{byte(n + 1)}, 3000)); err != nil {
				return j, acknowledged, err
			}
			acknowledged++
			j.ahead.Wait() // so that the order of operations is always the same
		}
		return j, acknowledged, j.Scrub(context.Background())
	}
	want := frames{}
	for n := range uint64(21) {
		want[n+1] = bytes.Repeat([]byte{byte(n + 1)}, 3000)
	}
	whole := newMemDisk()
	if _, _, err := work(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole.ops {
		d := newMemDisk()
		d.left, d.err = n, errDisk
		j, acknowledged, err := work(d)
		if err == nil {
			continue // a segment that was made ahead, or a wipe
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("operation %d: %v", n, err)
		}
		if errors.Is(err, ErrBroken) {
			d.left = -1
			if _, err := j.Append([]byte("x")); !errors.Is(err, ErrBroken) {
				t.Fatalf("operation %d: an append after one that failed: %v", n, err)
			}
		}
		_ = j.Close()
		d.left = -1
		openReplayed(t, d.crash(rand.New(rand.NewPCG(uint64(n), 2))), 0, acknowledged, want)
	}
}

// TestFull shows that a full disk stops appends, loses nothing, and doesn't matter to
// segments that there are.
func TestFull(t *testing.T) {
	d := newMemDisk()
	j, _ := openReplayed(t, d, 0, 0, nil)
	written := frames{}
	p := bytes.Repeat([]byte{7}, pageSize)
	last := uint64(0)
	appendFull := func() error {
		sequence, err := j.Append(p)
		if err == nil {
			last, written[sequence] = sequence, p
		}
		return err
	}
	for range 5 {
		if err := appendFull(); err != nil {
			t.Fatal(err)
		}
		j.ahead.Wait()
	}
	d.full = true
	var err error
	for range 100 {
		if err = appendFull(); err != nil {
			break
		}
		j.ahead.Wait()
	}
	if !errors.Is(err, ErrFull) || last < 3 {
		t.Fatalf("after %d frames: %v", last, err)
	}
	if err := appendFull(); !errors.Is(err, ErrFull) {
		t.Fatalf("again: %v", err)
	}
	j.Release(last - 1) // which gives back a segment
	for range 3 {
		if err := appendFull(); err != nil {
			t.Fatalf("once there is room in a segment: %v", err)
		}
	}
	d.full = false
	for range 20 {
		if err := appendFull(); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Close()
	openReplayed(t, d, last-23, last, written)
}

// TestFlippedBits flips each bit that counts. In any frame but the last, or in a first
// page, that is an error with the place; in the last frame, which is what a write that
// was torn looks like, that frame is cut off.
func TestFlippedBits(t *testing.T) {
	d := newMemDisk()
	j, _ := openReplayed(t, d, 0, 0, nil)
	written, where := frames{}, map[uint64]place{}
	for n := range uint64(12) {
		p := bytes.Repeat([]byte{byte(n)}, 40)
		if n == 5 {
			p = bytes.Repeat([]byte{5}, smallSegment+100)
		}
		sequence, err := j.Append(p)
		if err != nil {
			t.Fatal(err)
		}
		j.ahead.Wait()
		written[sequence] = p
		where[sequence] = place{segment: j.current, offset: j.current.end - roundUp(int64(frameHead+len(p))), sequence: sequence, length: int64(len(p))}
	}
	const last, applied = 12, 3
	_ = j.Close()
	flip := func(f *memFile, at int64, bit int, check func(err error, r Replayed)) {
		f.content[at] ^= 1 << bit
		defer func() { f.content[at] ^= 1 << bit }()
		j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
		var r Replayed
		if err == nil {
			r, err = j.Replay(applied, func(sequence uint64, payload []byte) error {
				if !bytes.Equal(payload, written[sequence]) {
					return fmt.Errorf("frame %d is another", sequence)
				}
				return nil
			})
		}
		check(err, r)
	}
	for sequence, p := range where {
		f := d.names[p.segment.name]
		for i := int64(0); i < frameHead+p.length; i++ {
			if i > 200 && i%1009 != 0 {
				continue
			}
			bit := int(i) % 8
			flip(f, p.offset+i, bit, func(err error, r Replayed) {
				switch {
				case sequence <= applied: // it is in the file
					if err != nil {
						t.Fatalf("frame %d, byte %d: %v", sequence, i, err)
					}
				case sequence == last:
					if err != nil || r.Last != last-1 || i >= frameHead && (r.Cut != frameHead+p.length || r.Place != p.String()) {
						t.Fatalf("the last frame, byte %d: %+v, %v", i, r, err)
					}
				case !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("frame %d is missing", sequence)):
					t.Fatalf("frame %d, byte %d: %+v, %v", sequence, i, r, err)
				case sequence > applied+1 && !strings.Contains(err.Error(), where[sequence-1].segment.name):
					t.Fatalf("frame %d: %v doesn't say where", sequence, err)
				}
			})
		}
		flip(f, int64(sequence)%36, 3, func(err error, _ Replayed) {
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), p.segment.name) {
				t.Fatalf("the first page of %s: %v", p.segment.name, err)
			}
		})
	}
}

// TestForeign refuses the journal of another store, files that are none, and one of
// which a segment is missing.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, "j", testID, Options{SegmentSize: smallSegment})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("x")); !errors.Is(err, ErrBroken) {
		t.Errorf("an append before a replay: %v", err)
	}
	if _, err := j.Replay(7, nil); err != nil {
		t.Fatal(err)
	}
	for want := range uint64(20) {
		if sequence, err := j.Append(make([]byte, pageSize)); err != nil || sequence != 8+want {
			t.Fatal(sequence, err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("x")); err == nil {
		t.Error("an append to a journal that is closed")
	}
	if _, err := Open(dir, "j", [16]byte{9}, Options{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "another store") {
		t.Errorf("another id: %v", err)
	}
	refused := func(name, want string, after uint64) {
		t.Helper()
		j, err := Open(dir, "j", testID, Options{})
		if err == nil {
			_, err = j.Replay(after, func(uint64, []byte) error { return nil })
			_ = j.Close()
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("an older store", "frame 6 is missing", 5)
	if err := os.Rename(filepath.Join(dir, "j-00000002"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	refused("a segment is missing", "is missing behind frame", 7)
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "j-00000002")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "j-00000002"), 5*pageSize); err != nil {
		t.Fatal(err)
	}
	refused("a segment is cut", "j-00000002 is cut short", 7)
	if err := os.Truncate(filepath.Join(dir, "j-00000002"), smallSegment); err != nil {
		t.Fatal(err)
	}
	refused("a segment has lost its end", "is missing behind frame", 7)
	if err := os.WriteFile(filepath.Join(dir, "j-00000009"), make([]byte, 2*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a file that is none", "j-00000009 doesn't begin as a segment does", 7)
	if err := os.WriteFile(filepath.Join(dir, "j-00000009"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("an empty file", "j-00000009 is cut short", 7)
}

// TestScrub shows that nothing of what was released is left, and that the files don't
// grow.
func TestScrub(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, "j", testID, Options{SegmentSize: smallSegment})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Replay(0, nil); err != nil {
		t.Fatal(err)
	}
	const secret = "<a secret>"
	for n := range 2000 {
		if _, err := j.Append(bytes.Repeat([]byte(secret), 10+n)); err != nil {
			t.Fatal(err)
		}
	}
	if live := j.Live(); live < 200*pageSize {
		t.Errorf("%d bytes are live", live)
	}
	kept, err := j.Append([]byte("<kept>"))
	if err != nil {
		t.Fatal(err)
	}
	if j.Turn() != kept {
		t.Error("the latest frame is another")
	}
	j.Release(kept)
	// Frames go on meanwhile.
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 50 {
			if _, err := j.Append([]byte("<kept>")); err != nil {
				t.Error(err)
			}
		}
	})
	if err := j.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	names, _ := filepath.Glob(filepath.Join(dir, "j-*"))
	if len(names) > spares+10 {
		t.Errorf("%d segments are left", len(names))
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("%s still has a secret", name)
		}
		if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	j.Release(kept + 50)
	if err := j.Scrub(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// Bytes that are no segment, or one with anything in it, are never taken for frames
// that weren't written, and don't crash.
func FuzzReplay(f *testing.F) {
	d := newMemDisk()
	j, _ := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
	_, _ = j.Replay(0, nil)
	for n := range 3 {
		_, _ = j.Append(bytes.Repeat([]byte{byte(n)}, 5000))
	}
	_ = j.Close()
	f.Add(d.names["j-00000001"].content[pageSize:])
	f.Add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1<<31), 1))
	f.Fuzz(func(t *testing.T, content []byte) {
		d := newMemDisk()
		head := (&Journal{id: testID}).head(int64(pageSize + len(content)))
		d.names["j-00000001"] = &memFile{disk: d, content: append(head, content...)}
		j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
		if err != nil {
			t.Fatal(err)
		}
		r, err := j.Replay(0, func(uint64, []byte) error { return nil })
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		sequence, err := j.Append([]byte("more"))
		if err != nil || sequence != r.Last+1 {
			t.Fatalf("append: %d, %v", sequence, err)
		}
		_ = j.Close()
		again, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
		if err != nil {
			t.Fatal(err)
		}
		if r2, err := again.Replay(0, func(uint64, []byte) error { return nil }); err != nil || r2.Last != sequence {
			t.Fatalf("replayed %+v, %v; want up to %d", r2, err, sequence)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{400, 20_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			j, err := Open(b.TempDir(), "j", testID, Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			if _, err := j.Replay(0, nil); err != nil {
				b.Fatal(err)
			}
			p := bytes.Repeat([]byte{1}, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				sequence, err := j.Append(p)
				if err != nil {
					b.Fatal(err)
				}
				j.Release(sequence)
			}
		})
	}
}

// What was appended before Turn is gone from all segments after Scrub, though others
// append meanwhile.
func TestTurnAndScrubLeaveNothing(t *testing.T) {
	d := newMemDisk()
	j, _ := openReplayed(t, d, 0, 0, nil)
	add := func(payload string) {
		t.Helper()
		if _, err := j.Append([]byte(payload)); err != nil {
			t.Fatal(err)
		}
		j.ahead.Wait()
	}
	const secret = "<what was deleted>"
	left := func() (names []string) {
		for name, f := range d.names {
			if bytes.Contains(f.content, []byte(secret)) {
				names = append(names, name)
			}
		}
		return names
	}
	add("first")
	add(secret) // on the second page of the first segment
	for range 6 {
		add("fill") // and the next is in use
	}
	j.Release(8)
	last := j.Turn()
	for range 20 { // some segments full
		add("of others")
	}
	j.Release(last + 20)
	if err := j.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := left(); len(names) > 0 {
		t.Errorf("after Scrub %v have it", names)
	}

	// Where there is no room for another segment, commits come first; Scrub says so.
	add(secret)
	for range 6 {
		add("fill")
	}
	j.Release(j.last)
	d.full = true
	j.Turn()
	for range 20 {
		add("of others")
	}
	j.Release(j.last)
	if err := j.Scrub(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("a segment was used before it was overwritten, and Scrub says %v", err)
	}
	d.full = false
	j.Turn()
	add("of others")
	j.Release(j.last)
	if err := j.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names := left(); len(names) > 0 {
		t.Errorf("after Scrub with room %v have it", names)
	}
}

// A process is killed before it has synced a frame, the next one goes on behind it, and
// then the machine stops: what was acknowledged is there.
func TestKillThenPowerCut(t *testing.T) {
	for name, size := range map[string]int{
		"small":                 10,
		"as large as a segment": smallSegment - pageSize - frameHead,
		"larger than a segment": 2 * smallSegment,
	} {
		for seed := range uint64(50) {
			d := newMemDisk()
			j, _ := openReplayed(t, d, 0, 0, nil)
			if _, err := j.Append([]byte("first")); err != nil {
				t.Fatal(err)
			}
			j.ahead.Wait()
			// As Append does, up to its sync.
			frame := append(make([]byte, frameHead), bytes.Repeat([]byte{7}, size)...)
			s, sequence, err := j.room(roundUp(int64(len(frame))))
			if err != nil {
				t.Fatal(err)
			}
			j.seal(frame, sequence, j.sum)
			if _, err := s.WriteAt(frame, s.end); err != nil {
				t.Fatal(err)
			}
			want := frames{1: []byte("first"), 2: frame[frameHead:], 3: []byte("acknowledged")}
			next, _ := openReplayed(t, d, 0, 2, want) // the kernel has all of it
			if n, err := next.Append(want[3]); err != nil || n != 3 {
				t.Fatal(name, n, err)
			}
			next.ahead.Wait()
			openReplayed(t, d.crash(rand.New(rand.NewPCG(seed, 1))), 0, 3, want)
		}
	}
}

// A journal that went on from another history is refused, where it parts from ours and
// where only one frame has the place of ours.
func TestAnotherHistory(t *testing.T) {
	ours, theirs := newMemDisk(), newMemDisk()
	for _, d := range []*memDisk{ours, theirs} {
		j, _ := openReplayed(t, d, 0, 0, nil)
		for n := range 4 {
			payload := fmt.Sprint("frame ", n)
			if d == theirs && n > 0 {
				payload += " of theirs"
			}
			if _, err := j.Append([]byte(payload)); err != nil {
				t.Fatal(err)
			}
			j.ahead.Wait()
		}
	}
	sumAt := func(d *memDisk, after uint64) (sum uint32) {
		j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: d})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range j.free {
			frames, _, err := j.scan(s, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range frames {
				if p.sequence == after {
					sum = p.sum
				}
			}
		}
		return sum
	}
	for after := range uint64(5) {
		for name, row := range map[string]struct {
			sum  uint32
			good bool
		}{
			"ours": {sumAt(ours, after), true}, "theirs": {sumAt(theirs, after), after <= 1}, "unknown": {0, true},
		} {
			j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: ours})
			if err != nil {
				t.Fatal(err)
			}
			j.Expect(row.sum)
			r, err := j.Replay(after, func(uint64, []byte) error { return nil })
			if good := err == nil; good != row.good || !good && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "another history")) {
				t.Errorf("%s, behind %d: %+v, %v", name, after, r, err)
			}
			if err == nil && (r.Last != 4 || j.Sum() != sumAt(ours, 4)) {
				t.Errorf("%s, behind %d: %+v, the checksum of the last frame is %x", name, after, r, j.Sum())
			}
		}
	}
	// A frame that is there twice is told as that.
	ours.names["j-00000009"] = ours.names["j-00000001"]
	j, err := Open("", "j", testID, Options{SegmentSize: smallSegment, disk: ours})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Replay(0, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "is there twice") {
		t.Errorf("with a segment twice: %v", err)
	}
}

// Who turns again and again and never comes to Scrub, and a Scrub that takes long, don't
// make the journal grow.
func TestTurnDoesNotMakeItGrow(t *testing.T) {
	for name, goOn := range map[string]bool{"given up": true, "a long one": false} {
		d := newMemDisk()
		j, _ := openReplayed(t, d, 0, 0, nil)
		for n := range 2000 {
			if n%20 == 0 && (goOn || n == 40) {
				j.Turn()
			}
			if _, err := j.Append([]byte("x")); err != nil {
				t.Fatal(err)
			}
			j.ahead.Wait()
			j.Release(j.last)
			if goOn && n%20 == 5 {
				j.GoOn()
			}
		}
		if n := len(d.names); n > mostUnclean+8 || !goOn && n > 6 {
			t.Errorf("%s: %d segments", name, n)
		}
	}
}
