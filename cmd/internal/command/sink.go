package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// sink is where rows go: a file, which can be made durable, or a pipe.
type sink struct {
	*bufio.Writer
	path string
	file *os.File // nil: a pipe
	size int64    // with what is still buffered
}

// sinkBuffer is how much is written at once.
const sinkBuffer = 64 << 10

// pipeSink returns a sink that can't be made durable.
func pipeSink(w io.Writer) *sink { return &sink{Writer: bufio.NewWriterSize(w, sinkBuffer)} }

// openSink makes a file for its owner alone; or, if there has to be one already,
// cuts it off at a length, and goes on behind it. One that is shorter is refused, and
// one that another run has open.
func openSink(path string, fresh bool, length int64) (*sink, error) {
	flags := os.O_RDWR | syscall.O_NOFOLLOW
	switch {
	case fresh:
		flags |= os.O_CREATE | os.O_EXCL
	case length == 0:
		flags |= os.O_CREATE // the run may have ended before it was made
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, errThere(path)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New(path + ": is not a regular file")
	case lock(file) != nil:
		err = errors.New(path + ": another run is writing it")
	case info.Size() < length:
		err = fmt.Errorf("%s: is shorter than the run has written, %s; to begin anew, remove it and the state", path, counted(length, "byte"))
	default:
		if err = file.Truncate(length); err == nil {
			_, err = file.Seek(length, io.SeekStart)
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &sink{Writer: bufio.NewWriterSize(file, sinkBuffer), path: path, file: file, size: length}, nil
}

func errThere(path string) error {
	return fmt.Errorf("%s is there already: nothing is written over it", path)
}

// lock takes a file for this process, for as long as it is open.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// Write writes p.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.size += int64(n)
	return n, err
}

// sync writes out what is buffered, and makes a file durable.
func (s *sink) sync() error {
	if err := s.Flush(); err != nil || s.file == nil {
		return err
	}
	return s.file.Sync()
}

// close closes a file. What is still buffered is lost: see sync.
func (s *sink) close() error {
	if s == nil || s.file == nil {
		return nil
	}
	return s.file.Close()
}

// exists says whether there is anything under a name.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// replaceFile puts a new file in the place of another, or leaves that as it is. It
// is durable when the call returns. ready is called with the file before it has its
// name; the caller closes the file.
func replaceFile(path string, data []byte, ready func(*os.File) error) (*os.File, error) {
	file, err := os.CreateTemp(filepath.Dir(path), newPrefix(path)+"*")
	if err != nil {
		return nil, err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync()); err == nil {
		err = ready(file)
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// newPrefix begins the names of files that are to take the place of another.
func newPrefix(path string) string { return "." + filepath.Base(path) + ".new-" }

// removeLeftovers removes what replaceFile has left where the process ended in it.
// Nobody else may be replacing the file.
func removeLeftovers(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix(path)) && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
