package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// ErrRetention says that events are to be pruned that have to be kept.
var ErrRetention = errors.New("audit: within the retention")

// ErrSegments says that the directory of the segments couldn't be changed. It comes with
// what that failed with.
var ErrSegments = errors.New("audit: the segments can't be changed")

// maxPruned and maxPrunedBytes bound how many segments are pruned at once, by their
// number and by the bytes of their lines, all of which are read: some seconds. One is
// pruned however large it is.
const (
	maxPruned      = 32
	maxPrunedBytes = 1 << 30
)

// Pruning is what is to be pruned: segments that follow each other.
type Pruning struct {
	First, Last uint64         // numbers of the first and of the last event; 0 if there are none
	Hash        tokenizer.Hash // of the last
	Segments    int
	More        bool // whether there are more that are old enough

	files []segment
}

// PlanPrune returns what can be pruned: closed segments, from the oldest on, of which the
// last event is from before a time. There are none for as long as the first event of all
// is newer, or nothing is closed.
//
// Errors: ErrRetention if the time is within the retention, ErrBroken, ErrSegments.
func (s *Segments) PlanPrune(before time.Time) (Pruning, error) {
	if before.After(time.Now().Add(-s.options.Retention)) {
		return Pruning{}, ErrRetention
	}
	s.closing.Lock()
	defer s.closing.Unlock()
	segments, err := listSegments(s.dir)
	if err != nil {
		return Pruning{}, errors.Join(ErrSegments, err)
	}
	var p Pruning
	var size int64
	for _, seg := range segments {
		if seg.first >= s.current.Load() {
			return p, nil
		}
		line, err := lastLine(s.dir, seg)
		if err != nil {
			return Pruning{}, unread(err)
		}
		t, err := timeOf(line)
		if err != nil {
			return Pruning{}, fmt.Errorf("%s: %w", seg.name, err)
		}
		if !t.Before(before) {
			return p, nil
		}
		n, err := linesSize(s.dir, seg)
		if err != nil {
			return Pruning{}, unread(err)
		}
		if size += n; p.Segments == maxPruned || p.Segments > 0 && size > maxPrunedBytes {
			p.More = true
			return p, nil
		}
		_, e, err := ParseLine(line)
		if err != nil {
			return Pruning{}, fmt.Errorf("%s: %w", seg.name, err)
		}
		if p.First == 0 {
			p.First = seg.first
		}
		p.Last, p.Hash = e.Sequence, e.Hash()
		p.Segments++
		p.files = append(p.files, seg)
	}
	return p, nil
}

// Prune removes what was planned, once the event that says so, which is committed, is in
// the segments, and on disk. What is left of them goes to PrunedFile before the first is
// removed.
//
// Errors: ErrBroken, ErrSegments, or that of the store. What was planned may be gone in
// part; it is told of in PrunedFile then.
func (s *Segments) Prune(ctx context.Context, p Pruning, event uint64, by string) error {
	if p.Segments == 0 {
		return nil
	}
	if err := s.reach(ctx, event); err != nil {
		return errors.Join(ErrSegments, err)
	}
	s.closing.Lock()
	defer s.closing.Unlock()
	before, err := ReadPruned(s.dir)
	if err != nil {
		return unread(err)
	}
	noted := make(map[uint64]bool)
	for _, old := range before {
		noted[old.First] = true
	}
	var text []byte
	for _, seg := range p.files {
		if noted[seg.first] { // it was to be removed before, and that was cut off
			continue
		}
		left, err := s.describe(ctx, seg)
		if err != nil {
			return unread(err)
		}
		left.Time, left.By, left.Event = time.Now().UTC(), by, event
		line, err := json.Marshal(left)
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
	}
	if err := s.notePruned(text); err != nil {
		return errors.Join(ErrSegments, err)
	}
	for _, seg := range p.files {
		for _, form := range []segment{seg.plain(), seg.pack()} {
			if err := s.files.Remove(form.path(s.dir)); err != nil && !isGone(err) {
				return errors.Join(ErrSegments, err)
			}
		}
	}
	if err := s.files.SyncDir(s.dir); err != nil {
		return errors.Join(ErrSegments, err)
	}
	s.log.Info("audit segments pruned", "dir", s.dir, "first", p.First, "last", p.Last, "segments", p.Segments, "by", by)
	return nil
}

// unread marks an error of reading segments that isn't about what stands in them.
func unread(err error) error {
	if errors.Is(err, ErrBroken) {
		return err
	}
	return errors.Join(ErrSegments, err)
}

// reach has everything up to an event be on disk.
func (s *Segments) reach(ctx context.Context, event uint64) error {
	if err := s.pass(ctx); err != nil {
		return err
	}
	s.work.Lock()
	defer s.work.Unlock()
	if err := s.sync(ctx); err != nil {
		return err
	}
	if s.synced.last < event {
		return fmt.Errorf("audit: event %d is not in the segments yet", event)
	}
	return nil
}

// describe returns what is to be left of a segment. A segment that was packed since it was
// listed is described in that form.
func (s *Segments) describe(ctx context.Context, seg segment) (Pruned, error) {
	f, err := os.Open(seg.path(s.dir))
	if isGone(err) && !seg.packed() {
		seg = seg.pack()
		f, err = os.Open(seg.path(s.dir))
	}
	if err != nil {
		return Pruned{}, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return Pruned{}, err
	}
	all, err := s.readSpan(ctx, seg, nil)
	if err != nil {
		return Pruned{}, err
	}
	return Pruned{
		Log: all.log.String(), File: seg.name, First: all.first, Last: all.last, Prev: all.prev.String(), Hash: all.head.String(),
		SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: size,
	}, nil
}

// notePruned adds lines to PrunedFile, which is whole at every moment.
func (s *Segments) notePruned(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	path := filepath.Join(s.dir, PrunedFile)
	before, err := os.ReadFile(path)
	if err != nil && !isGone(err) {
		return err
	}
	f, err := s.files.Create(path + partSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(append(before, text...))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.files.Rename(path+partSuffix, path)
	}
	if err != nil {
		_ = s.files.Remove(path + partSuffix)
		return err
	}
	return s.files.SyncDir(s.dir)
}
