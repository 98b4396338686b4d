package keystoretest

import (
	"context"
	"fmt"
	"sync"

	"github.com/coatcheck/coatcheck/keystore"
)

// MemoryShelf is a keystore.Shelf in memory, for tests. It keeps keys in their
// stored form. The zero MemoryShelf is empty and ready for use; it is safe for
// concurrent use.
type MemoryShelf struct {
	mu    sync.Mutex
	keys  map[keystore.KeyID][]byte
	taken map[keystore.KeyID]bool // those in keys, and those that were
}

var _ keystore.Shelf = (*MemoryShelf)(nil)

// WrappedKeys implements keystore.Shelf. The order of the result is random.
func (s *MemoryShelf) WrappedKeys(ctx context.Context, namespace string) ([]keystore.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []keystore.WrappedKey
	for name, stored := range s.keys {
		if name.Namespace != namespace {
			continue
		}
		k, err := keystore.ParseWrappedKey(stored)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// AddWrappedKeys implements keystore.Shelf.
func (s *MemoryShelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	add := make(map[keystore.KeyID][]byte)
	for _, k := range keys {
		stored, err := k.AppendBinary(nil)
		if err != nil {
			return err
		}
		if s.taken[k.ID()] || add[k.ID()] != nil {
			return fmt.Errorf("%w: %v", keystore.ErrKeyExists, k)
		}
		add[k.ID()] = stored
	}
	if s.keys == nil {
		s.keys, s.taken = make(map[keystore.KeyID][]byte), make(map[keystore.KeyID]bool)
	}
	for name, stored := range add {
		s.keys[name], s.taken[name] = stored, true
	}
	return nil
}

// Census implements keystore.Shelf. There are no records.
func (s *MemoryShelf) Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var counts []keystore.KeyCount
	for name := range s.taken {
		if name.Namespace == namespace {
			counts = append(counts, keystore.KeyCount{ID: name, Gone: s.keys[name] == nil})
		}
	}
	return counts, nil
}

// Remove takes a key away, as a retirement does.
func (s *MemoryShelf) Remove(id keystore.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, id)
}

// Replace puts keys in the place of those of the same names, as a rewrap does.
func (s *MemoryShelf) Replace(changes []keystore.Rewrapping) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		stored, err := c.New.AppendBinary(nil)
		if err != nil {
			return err
		}
		s.keys[c.New.ID()] = stored
	}
	return nil
}
