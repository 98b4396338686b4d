package tokenizer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/coatcheck/coatcheck/keystore"
)

// Reindexed says what Reindex has found and prepared.
type Reindexed struct {
	Moved  int    // claims that come under the active key, or go since they lead nowhere
	Failed int    // claims that are damaged, or whose records don't open, and are left as they are
	Next   []byte // where to go on, nil at the end
}

// Reindex looks for up to limit claims of a namespace that are under older
// versions of an index or subject key, behind the position after, which is nil at
// first, and adds to the unit what puts them under the active one. Look-ups find
// a claim under whichever version it is, and the unit is refused if one has
// changed meanwhile. Those of idempotency keys are left: their time comes.
//
// Errors: ErrUnavailable, those of keystore.Keystore.Keyring, or that of ctx. The
// unit is unchanged after an error.
func (t *Tokenizer) Reindex(ctx context.Context, namespace string, after []byte, limit int, unit *Unit) (Reindexed, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Reindexed{}, err
	}
	claims, err := r.outdatedClaims(ctx, after, limit)
	if err != nil || len(claims) == 0 {
		return Reindexed{}, err
	}
	result := Reindexed{Next: claims[len(claims)-1].Key}
	ids, sound := make([]uint64, 0, len(claims)), claims[:0]
	for _, c := range claims {
		id, err := claimedID(c)
		if err != nil {
			result.Failed++
			continue
		}
		ids, sound = append(ids, id), append(sound, c)
	}
	var moved []Claim
	err = r.each(ctx, ids, func(i int, f *Found) error {
		c := &sound[i]
		key, err := r.renewedKey(c, f)
		if errors.Is(err, ErrDamaged) || isErased(err) {
			result.Failed++
			return nil
		}
		if err != nil {
			return err
		}
		result.Moved++
		moved = append(moved, Claim{Key: c.Key, Old: c.Value})
		if key != nil {
			moved = append(moved, Claim{Key: key, New: c.Value, Under: underOf(r.ring, claimKind(c.Key[0]))})
		}
		return nil
	})
	if err != nil {
		return Reindexed{}, err
	}
	unit.Claims = append(unit.Claims, moved...)
	return result, nil
}

// outdatedClaims returns claims under older keys, in order.
func (r *reader) outdatedClaims(ctx context.Context, after []byte, limit int) (claims []Claimed, err error) {
	for _, kind := range [...]claimKind{convergentClaim, lookupClaim, subjectClaim, tokenClaim} {
		versions := r.ring.Versions(kind.class())
		for i := len(versions) - 1; i > 0; i-- {
			prefix := versionPrefix(kind, r.ring.Namespace(), versions[i])
			var from []byte
			switch {
			case bytes.HasPrefix(after, prefix):
				from = after
			case bytes.Compare(after, prefix) > 0:
				continue // it has been through
			}
			more, err := r.t.store.Claims(ctx, prefix, from, limit-len(claims))
			if err != nil {
				return nil, err
			}
			if claims = append(claims, more...); len(claims) >= limit {
				return claims, nil
			}
		}
	}
	return claims, nil
}

// claimedID returns the id of the record that a claim points to.
func claimedID(c Claimed) (uint64, error) {
	b, lookup := c.Value, claimKind(c.Key[0]) == lookupClaim
	if lookup && len(b) > 0 {
		b = c.Key[max(0, len(c.Key)-8):]
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: a claim", ErrDamaged)
	}
	id := binary.BigEndian.Uint64(b)
	if lookup {
		id = ^id // see lookupSuffix
	}
	return id, nil
}

// renewedKey returns the key of a claim under the active version, nil if the claim
// leads nowhere any more.
func (r *reader) renewedKey(c *Claimed, f *Found) ([]byte, error) {
	kind := claimKind(c.Key[0])
	if errors.Is(f.Err, ErrNotFound) && kind != tokenClaim { // ids are never used again
		return nil, nil
	}
	if f.Err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, f.Err)
	}
	if kind == subjectClaim {
		s, err := openSubject(r.ring, *f)
		if err != nil {
			return nil, err
		}
		return sumKey(r.ring, kind, r.ring.ActiveVersion(keystore.Subject), []byte(s.name))
	}
	version := r.ring.ActiveVersion(keystore.Index)
	if kind == tokenClaim {
		token, err := f.Record.token(r.ring)
		if err != nil {
			return nil, err
		}
		return sumKey(r.ring, kind, version, tokenContent(f.Record.Profile, string(token)))
	}
	o, err := r.open(f.Record)
	if err != nil {
		return nil, err
	}
	defer clear(o.value)
	if len(o.value) == 0 {
		return nil, nil // it has been shredded
	}
	if kind == lookupClaim {
		key, err := sumKey(r.ring, kind, version, lookupContent(o.Profile, o.value))
		return append(key, lookupSuffix(o.ID)...), err
	}
	name := ""
	s, err := r.subject(o.Subject)
	if err != nil {
		return nil, err
	}
	if s != nil {
		name = s.name
	}
	return sumKey(r.ring, kind, version, convergentContent(o.Profile, name, o.value))
}
