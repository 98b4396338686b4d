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

// segment is a file of the log.
type segment struct {
	name  string
	first uint64 // the number of its first event
}

const (
	segmentPrefix = "audit-"
	segmentSuffix = ".jsonl"
	segmentDigits = 20 // enough for any number, so that names sort by it
)

// segmentName returns the name of the segment whose first event has a number.
func segmentName(first uint64) string {
	return fmt.Sprintf("%s%0*d%s", segmentPrefix, segmentDigits, first, segmentSuffix)
}

// listSegments returns the segments in a directory, in the order of the log.
// A directory that doesn't exist is an error, fs.ErrNotExist.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, entry := range entries {
		digits := strings.TrimSuffix(strings.TrimPrefix(entry.Name(), segmentPrefix), segmentSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && first > 0 && entry.Name() == segmentName(first) {
			segments = append(segments, segment{entry.Name(), first})
		}
	}
	slices.SortFunc(segments, func(a, b segment) int { return strings.Compare(a.name, b.name) })
	return segments, nil
}

// lastSegment returns the segment to which the log is appended, which is the
// first if there is none yet. The directory is made if it doesn't exist.
func lastSegment(dir string) (segment, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return segment{}, err
	}
	segments, err := listSegments(dir)
	if err != nil {
		return segment{}, err
	}
	if len(segments) == 0 {
		return segment{segmentName(1), 1}, nil
	}
	return segments[len(segments)-1], nil
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

// path returns where the segment is.
func (s segment) path(dir string) string { return filepath.Join(dir, s.name) }
