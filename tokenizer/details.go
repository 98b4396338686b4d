package tokenizer

import (
	"encoding/binary"
	"fmt"
	"time"
)

// details are what is kept of a token beside its value, sealed like it.
type details struct {
	redemptions []redemption
	labels      []byte // as appendMetadata makes them
}

// redemption is a use of a token that can be repeated until its lease ends.
type redemption struct {
	id    string
	until time.Time
}

// append appends the stored form, which is empty for zero details:
//
//	number of redemptions(uvarint), of each: id(uvarint length, bytes) until(8)
//	labels
//
// until is in Unix seconds, big endian.
func (d details) append(dst []byte) []byte {
	if len(d.redemptions) == 0 && len(d.labels) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.redemptions)))
	for _, r := range d.redemptions {
		dst = appendField(dst, r.id)
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.until.Unix()))
	}
	return append(dst, d.labels...)
}

// parseDetails reads the details of a record. Those of legacy records are its
// labels and nothing else. The labels share the memory of plain.
func parseDetails(r Record, plain []byte) (details, error) {
	if len(plain) == 0 {
		return details{}, nil
	}
	if r.Legacy {
		return details{labels: plain}, nil
	}
	p := parser{rest: plain}
	d := details{}
	for n := p.uvarint(); n > 0 && !p.bad; n-- {
		id := string(p.field())
		d.redemptions = append(d.redemptions, redemption{id, time.Unix(int64(binary.BigEndian.Uint64(p.take(8))), 0)})
	}
	if p.bad {
		return details{}, fmt.Errorf("%w: the details of record %d don't parse", ErrDamaged, r.ID)
	}
	d.labels = p.rest
	return d, nil
}

// redeemed says whether a use can be repeated, and forgets those that can't.
func (d *details) redeemed(id string, now time.Time) bool {
	kept := d.redemptions[:0:0]
	found := false
	for _, r := range d.redemptions {
		if r.until.After(now) {
			kept = append(kept, r)
			found = found || id != "" && r.id == id
		}
	}
	d.redemptions = kept
	return found
}

// leased returns when the last use stops being repeatable; zero if none is.
func (d details) leased() (until time.Time) {
	for _, r := range d.redemptions {
		if r.until.After(until) {
			until = r.until
		}
	}
	return until
}

// parseMetadata reads what appendMetadata wrote.
func parseMetadata(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	labels := make(map[string]string)
	p := parser{rest: b}
	for len(p.rest) > 0 && !p.bad {
		key := string(p.field())
		labels[key] = string(p.field())
	}
	if p.bad {
		return nil, fmt.Errorf("%w: labels don't parse", ErrDamaged)
	}
	return labels, nil
}
