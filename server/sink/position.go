package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// position is up to where a receiver has confirmed a log.
type position struct {
	Log      string `json:"log"`
	Sequence uint64 `json:"seq"`
	Hash     string `json:"hash"` // of the event
}

// errPosition says that a file is not that of a position.
var errPosition = errors.New("not a position")

// loadPosition reads a position.
//
// Errors: fs.ErrNotExist, errPosition, or that of the file system.
func loadPosition(path string) (position, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return position{}, err
	}
	var p position
	if err := json.Unmarshal(text, &p); err != nil || p.Log == "" {
		return position{}, fmt.Errorf("%s: %w", path, errPosition)
	}
	return p, nil
}

// save has a file hold the position, and be on disk when it returns. It holds the one
// before until then.
func (p position) save(path string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// place is a place in the log behind an event.
type place struct {
	last uint64         // number of the event; 0 is the beginning of the log
	head tokenizer.Hash // and its hash
}
