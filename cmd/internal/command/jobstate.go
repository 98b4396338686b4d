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
	"slices"
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

// readState returns the state in a file, nil if there is none.
func readState(path string) (*jobState, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := new(jobState)
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(s); err != nil || s.Version != stateVersion {
		return nil, fmt.Errorf("%s: is not a state file of this version", path)
	}
	return s, nil
}

// write makes the state durable.
func (s *jobState) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(path, append(data, '\n'))
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
