package tokenizer

import (
	"bytes"
	"context"
)

// valueClaims returns the claims that remove by what a record is found by its
// value.
func (r *reader) valueClaims(ctx context.Context, o *opened) ([]Claim, error) {
	if len(o.value) == 0 {
		return nil, nil
	}
	s, err := r.subject(o.Subject)
	if err != nil {
		return nil, err
	}
	name := ""
	if s != nil {
		name = s.name
	}
	known, err := newProbe(r.ring, convergentClaim, convergentContent(o.Profile, name, o.value))
	if err != nil {
		return nil, err
	}
	lookup, err := newLookupProbe(r.ring, o.Profile, o.value, o.ID)
	if err != nil {
		return nil, err
	}
	if err := r.lookNewest(ctx, known, lookup); err != nil {
		return nil, err
	}
	return append(known.release(0, idValue(o.ID)), lookup.release(0, present)...), nil
}

// release returns the claims that remove those of the keys that are held.
func (r *reader) release(ctx context.Context, keys ...[]byte) (claims []Claim, err error) {
	values, err := r.t.store.Claimed(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		if bytes.Equal(value, present) {
			claims = append(claims, Claim{Key: keys[i], Old: value})
		}
	}
	return claims, nil
}

// shred takes the value out of a record, and returns the claims that remove by
// what it is found by it.
func (r *reader) shred(ctx context.Context, o *opened) ([]Claim, error) {
	claims, err := r.valueClaims(ctx, o)
	clear(o.value)
	o.value = nil
	return claims, err
}

// remove adds to the unit what removes a token for good. Of one that is no sealed
// id, and could be made again, so much stays that it is not: the token itself.
//
// What is about an erased subject doesn't open any more, so nothing is found of
// it by its value either.
func (r *reader) remove(ctx context.Context, record Record, unit *Unit) error {
	var claims []Claim
	o, err := r.open(record)
	if err == nil {
		claims, err = r.shred(ctx, o)
	}
	if err != nil && !isErased(err) {
		return err
	}
	var keys [][]byte
	if record.Subject != 0 {
		keys = append(keys, ownedKey(record.Namespace, record.Subject, record.ID))
	}
	if record.Honeytoken {
		keys = append(keys, honeytokenKey(&record))
	}
	if !record.Expires.IsZero() {
		keys = append(keys, dueKey(record.Namespace, record.Expires, dueRecord, idValue(record.ID)))
		keys = append(keys, dueKey(record.Namespace, record.Expires.Add(ExpiredKept), dueRecord, idValue(record.ID)))
	}
	if len(keys) > 0 {
		more, err := r.release(ctx, keys...)
		if err != nil {
			return err
		}
		claims = append(claims, more...)
	}
	if record.TokenVersion != 0 {
		unit.Deletes, unit.Claims = append(unit.Deletes, record), append(unit.Claims, claims...)
		return nil
	}
	token, err := record.token(r.ring)
	if err != nil {
		return err
	}
	kept := record
	kept.State, kept.Subject, kept.Honeytoken = Deleted, 0, false
	if err := kept.seal(r.ring, nil, nil, nil, token, nil); err != nil {
		return err
	}
	unit.Updates, unit.Claims = append(unit.Updates, Update{Old: record, New: kept}), append(unit.Claims, claims...)
	return nil
}
