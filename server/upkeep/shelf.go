package upkeep

import (
	"context"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Shelf is the keystore.Shelf of a service: wrapped keys lie in its store, and
// each addition is committed with its audit event. It is safe for concurrent
// use.
type Shelf struct {
	tokenizer.Store
	Audit      *audit.Log
	PolicyHash func() string // for events
}

// addTimeout is how long adding keys is waited for.
const addTimeout = 10 * time.Second

// AddWrappedKeys commits the keys. A store knows every version that it ever
// had, so keys that it has lost are not made anew over what is under them.
func (s *Shelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	event := audit.SystemEvent(audit.ActionCreateKeys, keys[0].Namespace, s.PolicyHash())
	for _, k := range keys {
		event.Keys = append(event.Keys, KeyName(k.ID()))
	}
	_, err := s.Audit.Commit(ctx, tokenizer.Unit{Keys: keys}, &event)
	return err
}
