package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// disk is a directory, for tests to put faults in the way of.
type disk interface {
	list(prefix string) (names []string, err error) // in order
	open(name string) (f file, size int64, err error)
	create(name string) (file, error)
	rename(from, to string) error
	remove(name string) error
	sync() error // makes names durable
}

// file is a file of a segment. Sync makes what was written durable; the size, once
// it has been, doesn't change.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

var (
	errForeign   = errors.New("is of the journal of another store")
	errNoSegment = errors.New("doesn't begin as a segment does")
)

// Names of segments are a prefix and a number of eight digits or more. One that is
// being made has another ending.
const temporaryEnd = ".new"

func (j *Journal) nameOf(number uint64) string { return fmt.Sprintf("%s-%08d", j.prefix, number) }

// parseName returns the number of a segment.
func (j *Journal) parseName(name string) (number uint64, temporary, ok bool) {
	text, temporary := strings.CutSuffix(strings.TrimPrefix(name, j.prefix+"-"), temporaryEnd)
	number, err := strconv.ParseUint(text, 10, 64)
	ok = err == nil && j.nameOf(number) == strings.TrimSuffix(name, temporaryEnd)
	return number, temporary && ok, ok && !temporary
}

// make makes a segment. It has its name only when all of it is on the disk.
func (j *Journal) make(number uint64, size int64) (*segment, error) {
	name := j.nameOf(number)
	f, err := j.disk.create(name + temporaryEnd)
	if err == nil {
		err = fill(f, j.head(size), size)
		if err == nil {
			err = j.disk.rename(name+temporaryEnd, name)
		}
		if err == nil {
			err = j.disk.sync()
		}
		if err != nil {
			_ = f.Close()
			_ = j.disk.remove(name + temporaryEnd) // or Open does
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFull, name, err)
	}
	return &segment{file: f, name: name, size: size, used: pageSize}, nil
}

// fill writes a whole segment, so that later writes neither need room nor change
// anything but what they write.
func fill(f file, head []byte, size int64) error {
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	zeros := make([]byte, min(wipeSize, size))
	for at := int64(len(head)); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// osDisk is a directory of the operating system.
type osDisk struct{ dir string }

func (d osDisk) list(prefix string) (names []string, err error) {
	entries, err := os.ReadDir(d.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d osDisk) open(name string) (file, int64, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", f.Name())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return osFile{f}, info.Size(), nil
}

func (d osDisk) create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osDisk) rename(from, to string) error {
	return os.Rename(filepath.Join(d.dir, from), filepath.Join(d.dir, to))
}

func (d osDisk) remove(name string) error { return os.Remove(filepath.Join(d.dir, name)) }

func (d osDisk) sync() error {
	dir, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

// Sync makes what was written durable. The times of the file may not be.
func (f osFile) Sync() error { return datasync(f.File) }
