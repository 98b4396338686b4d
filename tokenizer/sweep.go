package tokenizer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Swept says what Sweep has found and prepared.
type Swept struct {
	Shredded int    // records whose values go
	Removed  int    // records that go, as far as they can
	Failed   int    // records and entries that don't parse or open, and are left as they are
	More     bool   // there is more to do by now
	Next     []byte // where to go on
}

// Sweep looks for up to limit things that are due in a namespace, behind the
// position after, which is nil for the beginning, and adds to the
// unit what is to be done about them: values of tokens that have expired, or are
// spent for good, are shredded; tokens of which it has been known for long enough
// that they have expired go; so do idempotency keys whose time is over. It is
// safe beside everything else: a unit that rests on what has changed meanwhile
// is refused.
//
// Errors: ErrUnavailable, keystore.ErrKeySpent, those of
// keystore.Keystore.Keyring, or that of ctx. The unit is unchanged after an
// error.
func (t *Tokenizer) Sweep(ctx context.Context, namespace string, after []byte, limit int, unit *Unit) (Swept, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Swept{}, err
	}
	now := t.now()
	prefix := claimPrefix(dueClaim, namespace)
	claims, err := t.store.Claims(ctx, prefix, after, limit)
	if err != nil {
		return Swept{}, err
	}
	s := &sweeping{reader: r, now: now, seen: make(map[uint64]bool)}
	var records, keys []due
	n := 0
	for ; n < len(claims); n++ {
		d, err := parseDue(claims[n].Key, len(prefix))
		if err != nil || len(claims[n].Value) == 0 {
			s.result.Failed++ // and it is stepped over
			continue
		}
		if d.at.After(now) {
			break
		}
		if d.kind == dueRecord {
			records = append(records, d)
		} else {
			keys = append(keys, d)
		}
	}
	if n > 0 {
		s.result.Next = claims[n-1].Key
	}
	s.result.More = n == limit
	if err := s.forget(ctx, keys); err != nil {
		return Swept{}, err
	}
	ids := make([]uint64, len(records))
	for i, d := range records {
		ids[i] = d.id
	}
	if err := s.each(ctx, ids, func(i int, f *Found) error { return s.record(ctx, records[i], f) }); err != nil {
		return Swept{}, err
	}
	unit.Claims = append(unit.Claims, s.unit.Claims...)
	unit.Updates = append(unit.Updates, s.unit.Updates...)
	unit.Deletes = append(unit.Deletes, s.unit.Deletes...)
	return s.result, nil
}

// due is something that is to be done at a time.
type due struct {
	key  []byte
	at   time.Time
	kind byte
	what []byte
	id   uint64 // of a record
}

func parseDue(key []byte, prefix int) (due, error) {
	rest := key[prefix:]
	if len(rest) < 9 {
		return due{}, fmt.Errorf("%w: a claim", ErrDamaged)
	}
	d := due{key: key, at: time.Unix(int64(binary.BigEndian.Uint64(rest)), 0).UTC(), kind: rest[8], what: rest[9:]}
	switch {
	case d.kind == dueIdempotency && len(d.what) > 8:
		d.what = d.what[:len(d.what)-8]
		return d, nil
	case d.kind == dueRecord && len(d.what) == 8:
		d.id = binary.BigEndian.Uint64(d.what)
		return d, nil
	}
	return due{}, fmt.Errorf("%w: a claim", ErrDamaged)
}

// sweeping is Sweep on its way.
type sweeping struct {
	*reader
	now    time.Time
	seen   map[uint64]bool // records that have been dealt with
	unit   Unit
	result Swept
}

// done adds the claim that has something looked at no more.
func (s *sweeping) done(d due) {
	s.unit.Claims = append(s.unit.Claims, Claim{Key: d.key, Old: present})
}

// failedAgain is after how long it is tried again what has failed.
const failedAgain = time.Hour

// failed puts off what can't be done. Under its old time it would be in the way of
// all others for ever.
func (s *sweeping) failed(ctx context.Context, d due) error {
	s.result.Failed++
	later := dueKey(s.ring.Namespace(), s.now.Add(failedAgain), d.kind, d.what)
	held, err := s.t.store.Claimed(ctx, later)
	if err != nil {
		return err
	}
	s.done(d)
	if held[0] == nil {
		s.unit.Claims = append(s.unit.Claims, Claim{Key: later, New: present})
	}
	return nil
}

// forget removes the claims of idempotency keys, but of those that have been used
// anew.
func (s *sweeping) forget(ctx context.Context, all []due) error {
	if len(all) == 0 {
		return nil
	}
	keys := make([][]byte, len(all))
	for i, d := range all {
		keys[i] = d.what
	}
	held, err := s.t.store.Claimed(ctx, keys...)
	if err != nil {
		return err
	}
	forgotten := make(map[string]bool)
	for i, d := range all {
		s.done(d)
		if held[i] == nil || forgotten[string(d.what)] {
			continue
		}
		_, _, until, err := parseOnce(held[i])
		if err != nil {
			s.result.Failed++ // it stays, and so the key can't be used any more
			continue
		}
		if !until.After(s.now) {
			forgotten[string(d.what)] = true
			s.unit.Claims = append(s.unit.Claims, Claim{Key: d.what, Old: held[i]})
		}
	}
	return nil
}

// record does what is due about a record.
func (s *sweeping) record(ctx context.Context, d due, f *Found) error {
	r := f.Record
	if s.seen[d.id] {
		// Whatever is due about it later has an entry of its own.
		if !containsKey(s.unit.Claims, d.key) {
			s.done(d)
		}
		return nil
	}
	s.seen[d.id] = true
	switch {
	case errors.Is(f.Err, ErrNotFound), f.Err == nil && r.State == Deleted:
		s.done(d)
		return nil
	case f.Err != nil:
		return s.failed(ctx, d)
	}
	var unit Unit
	var err error
	expired := r.stateAt(s.now) == Expired
	switch {
	case expired && (r.Honeytoken || !s.now.Before(r.Expires.Add(ExpiredKept))):
		err = s.expire(ctx, r, &unit)
	case expired && r.State != Expired, r.State == Spent && len(r.Value) > 0:
		err = s.shredRecord(ctx, r, expired, &unit)
	}
	if isErased(err) {
		// Nobody can read it, so nothing can be said of it any longer either.
		if unit, err = (Unit{}), nil; expired {
			err = s.expire(ctx, r, &unit)
		}
	}
	if errors.Is(err, ErrDamaged) {
		return s.failed(ctx, d)
	}
	if err != nil {
		return err
	}
	if !containsKey(unit.Claims, d.key) {
		s.done(d)
	}
	s.unit.Claims = append(s.unit.Claims, unit.Claims...)
	s.unit.Updates = append(s.unit.Updates, unit.Updates...)
	s.unit.Deletes = append(s.unit.Deletes, unit.Deletes...)
	return nil
}

// expire removes a record whose token has expired.
func (s *sweeping) expire(ctx context.Context, r Record, unit *Unit) error {
	err := s.remove(ctx, r, unit)
	if err == nil {
		s.result.Removed++
	}
	return err
}

func containsKey(claims []Claim, key []byte) bool {
	for _, c := range claims {
		if string(c.Key) == string(key) {
			return true
		}
	}
	return false
}

// shredRecord adds to the unit what shreds a value and leaves the rest.
func (s *sweeping) shredRecord(ctx context.Context, r Record, expired bool, unit *Unit) error {
	o, err := s.open(r)
	if err != nil {
		return err
	}
	if until := o.details.leased(); !expired && until.After(s.now) {
		clear(o.value)
		if until.Equal(r.Expires) {
			return nil
		}
		unit.Claims = append(unit.Claims, Claim{Key: dueKey(r.Namespace, until, dueRecord, idValue(r.ID)), New: present})
		return nil
	}
	if len(o.value) > 0 {
		s.result.Shredded++
	}
	claims, err := s.shred(ctx, o)
	if err != nil {
		return err
	}
	o.details.redemptions = nil
	if expired {
		o.State, o.details.labels = Expired, nil
		claims = append(claims, Claim{Key: dueKey(r.Namespace, r.Expires.Add(ExpiredKept), dueRecord, idValue(r.ID)), New: present})
	}
	after, err := s.seal(o)
	if err != nil {
		return err
	}
	unit.Claims = append(unit.Claims, claims...)
	unit.Updates = append(unit.Updates, Update{Old: r, New: after})
	return nil
}
