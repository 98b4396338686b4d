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
	mu   sync.Mutex
	keys map[keyName][]byte
}

var _ keystore.Shelf = (*MemoryShelf)(nil)

// keyName is what is unique on a shelf.
type keyName struct {
	namespace string
	class     keystore.Class
	version   uint32
}

func nameOf(k keystore.WrappedKey) keyName {
	return keyName{namespace: k.Namespace, class: k.Class, version: k.Version}
}

// WrappedKeys implements keystore.Shelf. The order of the result is random.
func (s *MemoryShelf) WrappedKeys(ctx context.Context, namespace string) ([]keystore.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []keystore.WrappedKey
	for name, stored := range s.keys {
		if name.namespace != namespace {
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
	add := make(map[keyName][]byte)
	for _, k := range keys {
		stored, err := k.AppendBinary(nil)
		if err != nil {
			return err
		}
		if s.keys[nameOf(k)] != nil || add[nameOf(k)] != nil {
			return fmt.Errorf("%w: %v", keystore.ErrKeyExists, k)
		}
		add[nameOf(k)] = stored
	}
	if s.keys == nil {
		s.keys = make(map[keyName][]byte)
	}
	for name, stored := range add {
		s.keys[name] = stored
	}
	return nil
}
