package tokenizer

import (
	"context"
	"fmt"
	"time"
)

// maxLeases is how many uses of a token can be repeated at a time: the latest.
const maxLeases = 128

// usage is a record whose uses are counted, on its way.
type usage struct {
	*opened
	before  Record
	changed bool
	err     error
}

// use returns the value of a token whose uses are counted, and the use that it would
// be; none if it repeats one that counted.
func (d *detokenizing) use(redemption string, record Record) ([]byte, *usage, error) {
	u := d.used[record.ID]
	if u == nil {
		u = &usage{before: record}
		u.opened, u.err = d.open(record)
		if d.used == nil {
			d.used = make(map[uint64]*usage)
		}
		d.used[record.ID] = u
	}
	if u.err != nil {
		return nil, nil, u.err
	}
	state := u.stateAt(d.now)
	if (state == Active || state == Spent) && u.details.redeemed(redemption, d.now) && len(u.value) > 0 {
		return append([]byte(nil), u.value...), nil, nil
	}
	if err := usable(state); err != nil {
		return nil, nil, err
	}
	if len(u.value) == 0 {
		return nil, nil, fmt.Errorf("%w: record %d is active and has no value", ErrDamaged, record.ID)
	}
	return append([]byte(nil), u.value...), u, nil
}

// count counts a use.
func (u *usage) count(p *profile, redeemed string, now time.Time) {
	u.changed = true
	u.Uses++
	if redeemed != "" {
		until := now.Add(p.RedemptionLease).Truncate(time.Second)
		if !u.Expires.IsZero() && u.Expires.Before(until) {
			until = u.Expires
		}
		if n := len(u.details.redemptions); n >= maxLeases {
			u.details.redemptions = u.details.redemptions[n-maxLeases+1:]
		}
		u.details.redemptions = append(u.details.redemptions, redemption{redeemed, until})
	}
	if u.Uses >= u.MaxUses {
		u.State = Spent
	}
}

// finish adds to the unit what the uses change. The value of a token that is
// spent is shredded at once, unless a lease is left.
func (d *detokenizing) finish(ctx context.Context, unit *Unit) error {
	var updates []Update
	var claims []Claim
	for _, u := range d.used {
		if !u.changed {
			continue
		}
		if u.State == Spent {
			if until := u.details.leased(); until.After(d.now) {
				claims = append(claims, d.dueOnce(u, until)...)
			} else {
				released, err := d.shred(ctx, u.opened)
				if err != nil {
					return err
				}
				claims = append(claims, released...)
			}
		}
		after, err := d.seal(u.opened)
		if err != nil {
			return err
		}
		clear(u.value)
		updates = append(updates, Update{Old: u.before, New: after})
	}
	unit.Updates = append(unit.Updates, updates...)
	unit.Claims = append(unit.Claims, claims...)
	return nil
}

// dueOnce returns the claim that has a spent token looked at again when its last
// lease ends; none if it expires at that moment anyway.
func (d *detokenizing) dueOnce(u *usage, until time.Time) []Claim {
	if until.Equal(u.Expires) {
		return nil
	}
	return []Claim{{Key: dueKey(u.Namespace, until, dueRecord, idValue(u.ID)), New: present}}
}
