package tokenizer

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// TokenInfo is what is known of a token. It holds no value.
type TokenInfo struct {
	Token    Token
	Profile  string
	State    State
	Created  time.Time
	Expires  time.Time // zero stands for never
	MaxUses  uint32
	Uses     uint32
	Subject  string
	Metadata map[string]string
	Imported bool
}

// info returns what is known of the token of a record.
func (r *reader) info(o *opened, now time.Time) (TokenInfo, error) {
	token, err := r.tokenOf(o)
	if err != nil {
		return TokenInfo{}, err
	}
	labels, err := parseMetadata(o.details.labels)
	if err != nil {
		return TokenInfo{}, err
	}
	s, err := r.subject(o.Subject)
	if err != nil {
		return TokenInfo{}, err
	}
	info := TokenInfo{
		Token: token, Profile: o.Profile, State: o.stateAt(now), Created: o.Created, Expires: o.Expires,
		MaxUses: o.MaxUses, Uses: o.Uses, Metadata: labels, Imported: o.Imported,
	}
	if s != nil {
		info.Subject = s.name
	}
	return info, nil
}

// findOne looks a token up, has it judged and opens its record.
func (r *reader) findOne(ctx context.Context, ref Reference, judge func(*Facts) error) (*opened, error) {
	f, err := r.findRecord(ctx, ref, judge)
	if err != nil {
		return nil, err
	}
	return r.open(f)
}

// findRecord looks a token up and has it judged.
func (r *reader) findRecord(ctx context.Context, ref Reference, judge func(*Facts) error) (record Record, err error) {
	err = r.find(ctx, []*Reference{&ref}, func(_ int, f *Found) error {
		record = f.Record
		if f.Err != nil || judge == nil {
			return f.Err
		}
		return judge(r.facts(f))
	})
	return record, err
}

// Get returns what is known of a token, whatever has become of it. judge, if it isn't
// nil, is asked once the token is found, before anything else is told of it; if it
// returns an error, that is how Get ends.
//
// Errors: ErrTokenNotFound, ErrHoneytoken, that of judge, ErrSubjectErased,
// ErrDamaged, ErrUnavailable, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Get(ctx context.Context, namespace string, ref Reference, judge func(*Facts) error) (TokenInfo, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return TokenInfo{}, err
	}
	o, err := r.findOne(ctx, ref, judge)
	if err != nil {
		return TokenInfo{}, err
	}
	defer clear(o.value)
	return r.info(o, t.now())
}

// Change is what Update changes of a token. Nil fields stay as they are.
type Change struct {
	Metadata *map[string]string
	TTL      *time.Duration // from now on; 0 stands for as long as the profile allows
	State    *State         // Active or Revoked
}

// Update changes a token that is active or revoked, and returns what is known of
// it then. What is to be written is added to the unit, if anything is. judge is as for
// Get.
//
// Errors: ErrInvalidMetadata, ErrInvalidTTL, ErrExpired, ErrSpent,
// keystore.ErrKeySpent, and those of Get.
func (t *Tokenizer) Update(ctx context.Context, namespace string, ref Reference, change Change, judge func(*Facts) error, unit *Unit) (TokenInfo, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return TokenInfo{}, err
	}
	o, err := r.findOne(ctx, ref, judge)
	if err != nil {
		return TokenInfo{}, err
	}
	defer clear(o.value)
	now := t.now()
	if err := usable(o.stateAt(now)); err != nil && !errors.Is(err, ErrRevoked) {
		return TokenInfo{}, err
	}
	before := o.Record
	labels := o.details.labels
	if change.Metadata != nil {
		if o.details.labels, err = appendMetadata(nil, *change.Metadata); err != nil {
			return TokenInfo{}, err
		}
	}
	if change.TTL != nil {
		if o.Expires, err = t.profiles[o.Profile].extended(now, before, *change.TTL); err != nil {
			return TokenInfo{}, err
		}
	}
	if change.State != nil {
		o.State = *change.State
	}
	if slices.Equal(labels, o.details.labels) && o.Expires.Equal(before.Expires) && o.State == before.State {
		return r.info(o, now)
	}
	claims, err := r.reschedule(ctx, before, o.Expires)
	if err != nil {
		return TokenInfo{}, err
	}
	after, err := r.seal(o)
	if err != nil {
		return TokenInfo{}, err
	}
	unit.Updates = append(unit.Updates, Update{Old: before, New: after})
	unit.Claims = append(unit.Claims, claims...)
	return r.info(o, now)
}

// extended is expiry for a token that was made before: what a profile allows
// counts from then.
func (p *profile) extended(now time.Time, r Record, ttl time.Duration) (time.Time, error) {
	if ttl == 0 && p.Retention == 0 {
		return time.Time{}, nil
	}
	at, err := p.expiry(now, ttl)
	if err != nil || p.Retention == 0 {
		return at, err
	}
	last := r.Created.Add(p.Retention)
	if !p.dataType.Ephemeral() {
		last = last.Add(time.Second) // see expiry
	}
	switch {
	case ttl == 0:
		return last, nil
	case at.After(last):
		return at, &InputError{ErrInvalidTTL, "is longer than the profile allows from when the token was made"}
	}
	return at, nil
}

// reschedule returns the claims that have a record looked at when it expires from
// now on, and no more when it would have before.
func (r *reader) reschedule(ctx context.Context, before Record, expires time.Time) (claims []Claim, err error) {
	if before.Expires.Equal(expires) {
		return nil, nil
	}
	if !before.Expires.IsZero() {
		old := dueKey(before.Namespace, before.Expires, dueRecord, idValue(before.ID))
		if claims, err = r.release(ctx, old); err != nil {
			return nil, err
		}
	}
	if !expires.IsZero() {
		claims = append(claims, Claim{Key: dueKey(before.Namespace, expires, dueRecord, idValue(before.ID)), New: present})
	}
	return claims, nil
}

// Delete adds to the unit what deletes a token with all that is behind it. judge is
// as for Get.
//
// Errors: keystore.ErrKeySpent, and those of Get but ErrSubjectErased.
func (t *Tokenizer) Delete(ctx context.Context, namespace string, ref Reference, judge func(*Facts) error, unit *Unit) error {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return err
	}
	record, err := r.findRecord(ctx, ref, judge)
	if err != nil {
		return err
	}
	return r.remove(ctx, record, unit)
}

// ErrNoLookup says that tokens of the profile can't be found by their values.
var ErrNoLookup = errors.New("tokenizer: profile doesn't declare lookup")

// MaxFound is how many tokens Lookup returns at most.
const MaxFound = 100

// Lookup returns the tokens of a value, the newest first, up to MaxFound.
//
// Errors: ErrUnknownProfile, ErrNoLookup, ErrInvalidValue, ErrDamaged,
// ErrUnavailable, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Lookup(ctx context.Context, namespace, profile string, raw Value) ([]TokenInfo, error) {
	p, ok := t.profiles[profile]
	if !ok {
		return nil, ErrUnknownProfile
	}
	if !p.Lookup {
		return nil, ErrNoLookup
	}
	value, err := p.dataType.Normalize(nil, raw.Reveal())
	if err != nil {
		return nil, invalidValue(err)
	}
	defer clear(value)
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return nil, err
	}
	ids, err := r.lookupIDs(ctx, lookupContent(profile, value))
	if err != nil {
		return nil, err
	}
	var infos []TokenInfo
	err = r.each(ctx, ids, func(_ int, f *Found) error {
		if len(infos) == MaxFound || errors.Is(f.Err, ErrNotFound) {
			return nil // enough, or deleted meanwhile
		}
		info, same, err := r.infoIf(f, func(o *opened) bool {
			return o.Profile == profile && subtle.ConstantTimeCompare(o.value, value) == 1
		})
		if same {
			infos = append(infos, info)
		}
		return err
	})
	return infos, err
}

// lookupIDs returns the ids of the records of a value, the newest first, a few
// more than MaxFound at most.
func (r *reader) lookupIDs(ctx context.Context, content []byte) ([]uint64, error) {
	for {
		ids, err := r.lookedUp(ctx, content)
		if err != nil {
			return nil, err
		}
		if newer, err := r.renew(ctx, keystore.Index); err != nil || !newer {
			return ids, err
		}
	}
}

// lookedUp is lookupIDs under the versions of the keyring at hand. The oldest is
// looked at first: while one key takes the place of another, entries move to the
// newer.
func (r *reader) lookedUp(ctx context.Context, content []byte) (ids []uint64, err error) {
	versions := r.ring.Versions(keystore.Index)
	slices.Reverse(versions)
	for _, version := range versions {
		prefix, err := sumKey(r.ring, lookupClaim, version, content)
		if err != nil {
			return nil, err
		}
		claims, err := r.t.store.Claims(ctx, prefix, nil, 2*MaxFound)
		if err != nil {
			return nil, err
		}
		for _, c := range claims {
			id, err := claimedID(c)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	slices.Reverse(ids)
	return ids[:min(len(ids), 2*MaxFound)], nil
}

// infoIf returns what is known of the token of a record, if it is there, no
// honeytoken, and wanted.
func (r *reader) infoIf(f *Found, wanted func(*opened) bool) (info TokenInfo, ok bool, err error) {
	if f.Err != nil {
		return TokenInfo{}, false, f.Err
	}
	if f.Record.State == Deleted || f.Record.Honeytoken {
		return TokenInfo{}, false, nil
	}
	o, err := r.open(f.Record)
	if isErased(err) {
		return TokenInfo{}, false, nil
	}
	if err != nil {
		return TokenInfo{}, false, err
	}
	defer clear(o.value)
	if !wanted(o) {
		return TokenInfo{}, false, nil
	}
	info, err = r.info(o, r.t.now())
	return info, err == nil, err
}

// isErased says whether something is not there any more since the person whom it
// was about is erased.
func isErased(err error) bool { return errors.Is(err, ErrSubjectErased) }
