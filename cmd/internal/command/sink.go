package command

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// openSink opens a file for its owner alone, cuts it off at a length, and goes on
// behind it. A file that is shorter is refused.
func openSink(path string, length int64) (*sink, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New(path + ": is not a regular file")
	case info.Size() < length:
		err = errors.New(path + ": is shorter than it was")
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
	next := path + ".new"
	file, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync()); err == nil {
		err = ready(file)
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
