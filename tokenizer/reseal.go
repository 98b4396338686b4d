package tokenizer

import (
	"context"
	"errors"
	"fmt"

	"github.com/coatcheck/coatcheck/keystore"
)

// Resealed says what Reseal has found and prepared.
type Resealed struct {
	Version uint32 // the active data key, under which records are now sealed
	Moved   int    // records in the unit's Updates
	Failed  int    // records that don't parse or open, and are left as they are
	Next    uint64 // where to go on, 0 at the end
}

// Reseal looks for up to limit records of a namespace, behind the id after,
// that are not under the active data key, seals them anew under it and adds
// their updates to the unit. Tokens stay as they are. It is safe beside
// everything else: a record that is changed meanwhile is left out by Commit
// and is found again by the next pass.
//
// Errors: ErrUnavailable, keystore.ErrKeySpent, those of
// keystore.Keystore.Keyring, or that of ctx. The unit is unchanged after an
// error.
func (t *Tokenizer) Reseal(ctx context.Context, namespace string, after uint64, limit int, unit *Unit) (Resealed, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Resealed{}, err
	}
	result := Resealed{Version: r.ring.ActiveVersion(keystore.Data)}
	found, err := t.store.Outdated(ctx, namespace, result.Version, after, limit)
	if err != nil {
		return Resealed{}, err
	}
	result.Next, result.Failed = found.Next, found.Unreadable
	var subjects []uint64
	for _, old := range found.Records {
		if old.Subject != 0 {
			subjects = append(subjects, old.Subject)
		}
	}
	if err := r.fetchSubjects(ctx, subjects...); err != nil {
		return Resealed{}, err
	}
	updates := make([]Update, 0, len(found.Records))
	for _, old := range found.Records {
		if old.KeyVersion > result.Version {
			continue // another replica is further than we are
		}
		renewed, err := r.reseal(old)
		if errors.Is(err, ErrDamaged) || isErased(err) {
			result.Failed++
			continue
		}
		if err != nil {
			return Resealed{}, err
		}
		updates = append(updates, Update{Old: old, New: renewed, Optional: true})
	}
	result.Moved = len(updates)
	unit.Updates = append(unit.Updates, updates...)
	return result, nil
}

// reseal returns the record with its ciphertexts opened and sealed under the
// ring's newest data key.
func (r *reader) reseal(record Record) (Record, error) {
	o, err := r.open(record)
	if err != nil {
		return Record{}, err
	}
	defer clear(o.value)
	renewed, err := r.seal(o)
	if err != nil {
		return Record{}, fmt.Errorf("tokenizer: reseal record %d: %w", record.ID, err)
	}
	return renewed, nil
}
