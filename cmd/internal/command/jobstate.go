package command

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// jobState is how far a job is, as its state file has it. It holds nothing of
// the rows. The input is known by size and time: a hash of it could be tried
// against guesses of a short file.
type jobState struct {
	Version  int               `json:"version"`
	Command  string            `json:"command"`
	Run      string            `json:"run"` // what idempotency keys begin with
	Settings map[string]string `json:"settings"`
	Input    inputState        `json:"input"`
	Position rows.Position     `json:"position"` // of the input, behind the last row that is done
	Rows     int64             `json:"rows"`     // that are done
	Values   int64             `json:"values"`   // that were replaced in them
	Rejected int64             `json:"rejected"` // of them
	Output   int64             `json:"output"`   // bytes
	Rejects  int64             `json:"rejects"`
	Done     bool              `json:"done"`
}

// inputState is by what an input is known again.
type inputState struct {
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

// stateVersion is the version of the state file.
const stateVersion = 1

// newRun returns a name that no other run has.
func newRun() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "run-" + hex.EncodeToString(b[:])
}

// stateFile is the state of a job, in a file that belongs to one run at a time; or
// in none, if path is "".
type stateFile struct {
	jobState
	path  string
	file  *os.File // locked
	found bool     // there was one
}

// openState opens a state file, or makes one, and keeps other runs from it.
func openState(path string) (*stateFile, error) {
	s := &stateFile{path: path}
	if path == "" {
		return s, nil
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no directory %s", filepath.Dir(path))
		}
		if err != nil {
			return nil, err
		}
		if err := lock(file); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: another run is at work on it: %w", path, err), file.Close())
		}
		// Meanwhile it may have been replaced.
		opened, err := file.Stat()
		named, err2 := os.Stat(path)
		if err := errors.Join(err, err2); err == nil && os.SameFile(opened, named) {
			s.file = file
			break
		}
		_ = file.Close()
	}
	data, err := os.ReadFile(path)
	err = errors.Join(err, removeLeftovers(path))
	if err == nil && len(data) > 0 {
		s.found = true
		err = s.parse(data)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stateFile) parse(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s.jobState); err != nil || s.Version != stateVersion || decoder.More() {
		return fmt.Errorf("%s: is not a state file of this version", s.path)
	}
	return nil
}

// write makes the state durable.
func (s *stateFile) write() error {
	if s.path == "" {
		return nil
	}
	data, err := json.MarshalIndent(s.jobState, "", "  ")
	if err != nil {
		return err
	}
	next, err := replaceFile(s.path, append(data, '\n'), lock)
	if err != nil {
		return err
	}
	err = s.file.Close()
	s.file = next
	return err
}

// remove removes the file.
func (s *stateFile) remove() error {
	if s.path == "" {
		return nil
	}
	return os.Remove(s.path)
}

// close lets other runs have the file.
func (s *stateFile) close() error {
	if s == nil || s.file == nil {
		return nil
	}
	return s.file.Close()
}

// continues says why a state is not that of the same job, if it isn't.
func (s *jobState) continues(next *jobState) error {
	if s.Command != next.Command {
		return fmt.Errorf("it is one of coatcheck %s", s.Command)
	}
	if s.Input.Size != next.Input.Size || !s.Input.Modified.Equal(next.Input.Modified) {
		return errors.New("the input has changed since: its size or its time is another")
	}
	names := slices.Sorted(maps.Keys(s.Settings))
	names = append(names, slices.Sorted(maps.Keys(next.Settings))...)
	for _, name := range names {
		if s.Settings[name] != next.Settings[name] {
			return fmt.Errorf("--%s was %q and is %q", name, s.Settings[name], next.Settings[name])
		}
	}
	return nil
}
