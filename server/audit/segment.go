package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segment is a file of the log: plain lines, or packed ones if its name ends in
// packedSuffix.
type segment struct {
	name  string
	first uint64 // the number of its first event
}

const (
	segmentPrefix = "audit-"
	segmentSuffix = ".jsonl"
	packedSuffix  = ".zst" // behind segmentSuffix
	segmentDigits = 20     // enough for any number, so that names sort by it
)

// segmentName returns the name of the plain segment whose first event has a number.
func segmentName(first uint64) string {
	return fmt.Sprintf("%s%0*d%s", segmentPrefix, segmentDigits, first, segmentSuffix)
}

// plainSegment returns the plain segment whose first event has a number.
func plainSegment(first uint64) segment { return segment{segmentName(first), first} }

// parseName returns the segment that a file is, if it is one by its name.
func parseName(name string) (segment, bool) {
	plain := strings.TrimSuffix(name, packedSuffix)
	digits := strings.TrimSuffix(strings.TrimPrefix(plain, segmentPrefix), segmentSuffix)
	first, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || first == 0 || plain != segmentName(first) {
		return segment{}, false
	}
	return segment{name, first}, true
}

// packed says whether the lines are compressed.
func (s segment) packed() bool { return strings.HasSuffix(s.name, packedSuffix) }

// pack returns the packed form of the segment, and plain the plain one.
func (s segment) pack() segment  { return segment{s.plain().name + packedSuffix, s.first} }
func (s segment) plain() segment { return plainSegment(s.first) }

// path returns where the segment is.
func (s segment) path(dir string) string { return filepath.Join(dir, s.name) }

// listFiles returns the files of segments in a directory, in the order of the log. Of a
// segment that is there in both forms, which a crash may leave, the plain one comes
// first. A directory that doesn't exist is an error, fs.ErrNotExist.
func listFiles(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []segment
	for _, entry := range entries {
		if seg, ok := parseName(entry.Name()); ok && entry.Type().IsRegular() { // another would never end
			files = append(files, seg)
		}
	}
	slices.SortFunc(files, func(a, b segment) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// listSegments is listFiles with each segment once: the plain form of one that is there
// in both, since it is the one that was written first.
func listSegments(dir string) ([]segment, error) {
	files, err := listFiles(dir)
	if err != nil {
		return nil, err
	}
	return slices.CompactFunc(files, func(a, b segment) bool { return a.first == b.first }), nil
}

// file is what segments need of an *os.File; tests put faults in its way.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// openFile opens the file of a segment, which is made if it doesn't exist.
func openFile(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isLost says whether a path leads to another file than f by now, or to none.
func isLost(f file, path string) (bool, error) {
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	return !os.SameFile(ours, there), nil
}
