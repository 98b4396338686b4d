package boltstore

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A state is stored under its key as it is.

// validateStates refuses changes of what no state can be.
func validateStates(changes []tokenizer.StateChange) error {
	for i := range changes {
		c := &changes[i]
		if c.Key == "" || len(c.Key) > tokenizer.MaxStateKey {
			return fmt.Errorf("%w: the key of a state is empty or too long", tokenizer.ErrBadUnit)
		}
		for _, value := range [...][]byte{c.Old, c.New} {
			if len(value) > tokenizer.MaxState || value != nil && len(value) == 0 {
				return fmt.Errorf("%w: a state is empty or too long", tokenizer.ErrBadUnit)
			}
		}
	}
	return distinct(len(changes), "two changes of one state", func(i int) string { return changes[i].Key })
}

// checkStates plans the changes of states. It refuses them all if one is not what it
// was.
func (g *txGroup) checkStates(changes []tokenizer.StateChange, p *plan) error {
	if len(changes) == 0 {
		return nil
	}
	if g.states == nil {
		g.states = newTxBucket(g.view, statesID)
	}
	for i := range changes {
		c := &changes[i]
		if !bytes.Equal(g.states.Get([]byte(c.Key)), c.Old) {
			return fmt.Errorf("%w: a state", tokenizer.ErrConflict)
		}
		if !bytes.Equal(c.Old, c.New) {
			p.states = append(p.states, change{statesID, c.Key, bytes.Clone(c.New)})
		}
	}
	return nil
}

// State reads a state.
func (s *Store) State(ctx context.Context, key string) (value []byte, err error) {
	err = s.lookUp(ctx, statesID, 1, func(int) []byte { return []byte(key) }, func(_ int, stored []byte) error {
		value = bytes.Clone(stored)
		return nil
	})
	return value, err
}

// ListStates reads states in the order of their keys.
func (s *Store) ListStates(ctx context.Context, prefix, after string, limit int) (rows []tokenizer.StateRow, err error) {
	if limit < 1 {
		return nil, ctx.Err()
	}
	from := prefix
	if after >= prefix {
		from = after + "\x00" // the next key that there can be
	}
	err = s.read(ctx, func(v *view) error {
		v.bucket(statesID).ascend([]byte(from), func(key, stored []byte) bool {
			name := string(key)
			if !strings.HasPrefix(name, prefix) {
				return false
			}
			rows = append(rows, tokenizer.StateRow{Key: name, Value: bytes.Clone(stored)})
			return len(rows) < limit
		})
		return nil
	}, statesID)
	if err != nil {
		return nil, err
	}
	return rows, nil
}
