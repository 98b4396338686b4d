package command

import (
	"fmt"
	"io"
	"os"
)

// source is where rows come from: a file, a pipe, or an export.
type source interface {
	name() string
	state() inputState // by which it is known again; zero for a pipe
	size() int64       // in bytes; 0 if nobody knows

	// open returns what is at an offset and behind it. What was returned before
	// must not be read any more.
	open(offset int64) (io.Reader, error)
	close() error
}

// fileSource is a file or a pipe.
type fileSource struct {
	in   io.Reader
	file *os.File // nil: a pipe
	info os.FileInfo
}

// openSource opens a file; "-" is standard input.
func openSource(env Env, path string) (*fileSource, error) {
	if path == "-" {
		return &fileSource{in: env.Stdin}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s: is a directory; coatcheck import --identity FILE reads that of an export", path)
	} else if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file; --in - reads a pipe", path)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &fileSource{in: file, file: file, info: info}, nil
}

func (s *fileSource) name() string {
	if s.file == nil {
		return "standard input"
	}
	return s.file.Name()
}

func (s *fileSource) state() inputState {
	if s.file == nil {
		return inputState{}
	}
	return inputState{s.info.Size(), s.info.ModTime()}
}

func (s *fileSource) size() int64 { return s.state().Size }

func (s *fileSource) open(offset int64) (io.Reader, error) {
	if s.file == nil {
		return s.in, nil
	}
	_, err := s.file.Seek(offset, io.SeekStart)
	return s.file, err
}

func (s *fileSource) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
