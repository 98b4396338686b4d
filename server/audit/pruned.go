package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// PrunedFile is the file beside the segments that has a line for each that was pruned, as
// JSON of Pruned, in the order of the log.
const PrunedFile = "pruned.jsonl"

// Pruned is what is left of a segment that was pruned.
type Pruned struct {
	Log    string    `json:"log"`
	File   string    `json:"file"`   // its name
	First  uint64    `json:"first"`  // number of its first event
	Last   uint64    `json:"last"`   // and of its last
	Prev   string    `json:"prev"`   // what its first event was chained to
	Hash   string    `json:"hash"`   // of its last event
	SHA256 string    `json:"sha256"` // of the file
	Bytes  int64     `json:"bytes"`  // of the file
	Time   time.Time `json:"time"`   // when it was pruned
	By     string    `json:"by"`     // the caller who had it pruned
	Event  uint64    `json:"event"`  // number of the event that says so
}

// ReadPruned returns what was pruned from a directory, nothing if nothing was.
//
// Errors: ErrBroken, or that of the file system.
func ReadPruned(dir string) ([]Pruned, error) {
	text, err := os.ReadFile(filepath.Join(dir, PrunedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Pruned
	for line := range bytes.Lines(text) {
		var p Pruned
		if err := json.Unmarshal(line, &p); err != nil || p.First == 0 || p.Last < p.First || line[len(line)-1] != '\n' {
			return nil, fmt.Errorf("%w: %s:%d: not a line about a segment", ErrBroken, PrunedFile, len(all)+1)
		}
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b Pruned) int {
		if a.First < b.First {
			return -1
		}
		return min(int(a.First-b.First), 1)
	})
	return all, nil
}

// parseHash reads a hash in lower-case hexadecimal digits.
func parseHash(digits string) (tokenizer.Hash, bool) {
	var h tokenizer.Hash
	b, err := hex.DecodeString(digits)
	return h, err == nil && copy(h[:], b) == len(h) && len(b) == len(h)
}

// pruneClaim is what an event says of the events that a prune removes.
type pruneClaim struct {
	Action string `json:"action"`
	Code   string `json:"code"`
	First  uint64 `json:"pruned_first"`
	Last   uint64 `json:"pruned_last"`
	Hash   string `json:"pruned_hash"` // of the last
	Only   bool   `json:"validate_only"`
}

// skip has the chain go on at a segment, over what was pruned before it.
func (c *chain) skip(seg segment) error {
	for _, p := range c.pruned {
		if c.Last+1 == seg.first || p.First != c.Last+1 {
			continue
		}
		prev, ok := parseHash(p.Prev)
		if c.Last > 0 && (!ok || prev != c.Head || c.First > 0 && p.Log != c.Log.String()) {
			return fmt.Errorf("%w: %s: events %d to %d, which were pruned, are not chained to what is before them", ErrBroken, PrunedFile, p.First, p.Last)
		}
		if c.Head, ok = parseHash(p.Hash); !ok {
			return fmt.Errorf("%w: %s: the hash of event %d is none", ErrBroken, PrunedFile, p.Last)
		}
		c.Last = p.Last
		c.Pruned += p.Last - p.First + 1
		c.holes = append(c.holes, p)
		if c.over == nil {
			continue
		}
		if err := c.over(p); err != nil {
			return err
		}
	}
	switch want := c.Last + 1; {
	case seg.first > want:
		return fmt.Errorf("%w: %s: begins with event %d, not %d: events %d to %d are missing", ErrBroken, seg.name, seg.first, want, want, seg.first-1)
	case seg.first < want:
		return fmt.Errorf("%w: %s: begins with event %d, not %d: events are there twice", ErrBroken, seg.name, seg.first, want)
	}
	return nil
}

// genesis checks that the log, if its beginning was pruned, began as one of its id does.
func (c *chain) genesis(log tokenizer.LogID) error {
	for i, p := range c.holes {
		genesis := tokenizer.Genesis(log)
		if p.Log != log.String() || i == 0 && p.Prev != genesis.String() {
			return fmt.Errorf("%w: %s: events %d to %d are not of log %s", ErrBroken, PrunedFile, p.First, p.Last, log)
		}
	}
	return nil
}

// notePrune notes what an event says if it is that of a prune.
func (c *chain) notePrune(e tokenizer.Entry) error {
	if len(c.holes) == 0 || !bytes.Contains(e.Body, []byte(`"action":"`+ActionPrune+`"`)) {
		return nil
	}
	var claim pruneClaim
	if err := json.Unmarshal(e.Body, &claim); err != nil {
		return fmt.Errorf("%w: event %d: %w", ErrBroken, e.Sequence, err)
	}
	if claim.Action == ActionPrune && claim.Code == "OK" && !claim.Only {
		if c.events == nil {
			c.events = make(map[uint64]pruneClaim)
		}
		c.events[e.Sequence] = claim
	}
	return nil
}

// proven checks that the events of the prunes that the chain went over say the same.
func (c *chain) proven() error {
	gone := func(event uint64) bool { // it was pruned too
		return slices.ContainsFunc(c.holes, func(p Pruned) bool { return p.First <= event && event <= p.Last })
	}
	for _, p := range c.holes {
		if gone(p.Event) {
			continue
		}
		claim, ok := c.events[p.Event]
		if !ok || p.First < claim.First || p.Last > claim.Last || p.Last == claim.Last && p.Hash != claim.Hash {
			return fmt.Errorf("%w: %s: events %d to %d are gone, and event %d doesn't say that they were pruned", ErrBroken, PrunedFile, p.First, p.Last, p.Event)
		}
	}
	return nil
}

// gap is a range of events that are missing.
type gap struct{ first, last uint64 }

// findGaps returns which events before a segment are neither in another nor pruned.
func findGaps(dir string, until segment) ([]gap, error) {
	segments, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	pruned, err := ReadPruned(dir)
	if err != nil {
		return nil, err
	}
	var gaps []gap
	next := uint64(1)
	for i, seg := range segments {
		for _, p := range pruned {
			if p.First == next && next < seg.first {
				next = p.Last + 1
			}
		}
		if seg.first > next {
			gaps = append(gaps, gap{next, seg.first - 1})
		}
		if i == len(segments)-1 || seg.first >= until.first {
			return gaps, nil
		}
		line, err := lastLine(dir, seg)
		if err != nil {
			return gaps, err
		}
		last, ok := lineNumber(line)
		if !ok {
			return gaps, fmt.Errorf("%w: %s: has no last line", ErrBroken, seg.name)
		}
		next = last + 1
	}
	return gaps, nil
}
