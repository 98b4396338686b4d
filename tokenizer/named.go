package tokenizer

import (
	"context"
	"fmt"
)

// needsSubjects says whether any item that needs a new token is about somebody.
func (b *tokenizing) needsSubjects() bool {
	for i := range b.items {
		if b.items[i].subject() != "" {
			return true
		}
	}
	return false
}

// findSubjects finds the subjects of the items that need a new token, and makes
// those that aren't known.
func (b *tokenizing) findSubjects(ctx context.Context) error {
	var probes map[string]*probe
	for i := range b.items {
		it := &b.items[i]
		if name := it.subject(); name != "" && probes[name] == nil {
			if probes == nil {
				probes = make(map[string]*probe)
			}
			p, err := newProbe(b.ring, subjectClaim, []byte(name))
			if err != nil {
				return err
			}
			probes[name] = p
		}
	}
	if len(probes) == 0 {
		return nil
	}
	if err := b.lookAll(ctx, probes); err != nil {
		return err
	}
	b.named = make(map[string]*subject, len(probes))
	var missing, there []string
	var ids []uint64
	for name, p := range probes {
		id, err := p.id()
		if err != nil {
			return err
		}
		if id == 0 {
			missing = append(missing, name)
		} else {
			there, ids = append(there, name), append(ids, id)
		}
	}
	if err := b.fetchSubjects(ctx, ids...); err != nil {
		return err
	}
	for i, name := range there {
		s, err := b.reader.subject(ids[i])
		if err == nil && s.name != name {
			err = fmt.Errorf("%w: the index points to another subject", ErrDamaged)
		}
		if err != nil {
			b.refuseSubject(name, err)
			continue
		}
		b.named[name] = s
		// The unit rests on the subject's being there.
		p := probes[name]
		for i, value := range p.values {
			if value != nil {
				b.claims = append(b.claims, Claim{Key: p.keys[i], Old: value, New: value})
			}
		}
	}
	return b.makeSubjects(ctx, missing, probes)
}

// refuseSubject ends the items that are about a subject.
func (b *tokenizing) refuseSubject(name string, err error) {
	for i := range b.items {
		if it := &b.items[i]; it.subject() == name {
			it.settle(err)
		}
	}
}

// subject returns the name of the subject that an item needs, "" for none.
func (it *item) subject() string {
	if !it.open() {
		return ""
	}
	return it.req.Subject
}

func (b *tokenizing) lookAll(ctx context.Context, probes map[string]*probe) error {
	all := make([]*probe, 0, len(probes))
	for _, p := range probes {
		all = append(all, p)
	}
	return b.reader.look(ctx, all...)
}

// makeSubjects makes subjects that are not known yet.
func (b *tokenizing) makeSubjects(ctx context.Context, names []string, probes map[string]*probe) error {
	if len(names) == 0 {
		return nil
	}
	first, err := b.t.store.ReserveIDs(ctx, len(names))
	if err != nil {
		return err
	}
	if b.subjects == nil {
		b.subjects = make(map[uint64]held[*subject])
	}
	b.begin(len(names), len(names))
	for i, name := range names {
		s, err := newSubject(b.ring, b.record(first+uint64(i)), name)
		if err != nil {
			return err
		}
		b.named[name], b.subjects[s.id] = s, held[*subject]{it: s}
		b.claims = append(b.claims, probes[name].claim(idValue(s.id))...)
	}
	return nil
}
