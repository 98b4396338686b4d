package boltstore

import (
	"bytes"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// update is an update that will be made.
type update struct {
	id            uint64
	stored        []byte
	from, to      *row
	sealed, moved uint64 // ciphertexts that are new under their key, and those of them that came from another
}

func (u *update) apply(records *txBucket) {
	u.from.records--
	u.to.records++
	u.to.sealed += u.sealed
	u.to.moved += u.moved
	u.from.dirty, u.to.dirty = true, true
	records.set(idKey(u.id), u.stored)
}

// checkUpdates plans the updates whose records are still what they were. It
// returns which of the others are left out, if they are optional.
func (g *txGroup) checkUpdates(updates []tokenizer.Update, p *plan) (stale []bool, err error) {
	if len(updates) == 0 {
		return nil, nil
	}
	g.records.ready()
	stale = make([]bool, len(updates))
	p.updates = make([]update, 0, len(updates))
	seen := make(map[uint64]bool, len(updates))
	for i := range updates {
		u := &updates[i]
		if !u.Old.SameOrigin(u.New) || seen[u.Old.ID] {
			return nil, fmt.Errorf("%w: not an update of record %d", tokenizer.ErrBadUnit, u.Old.ID)
		}
		seen[u.Old.ID] = true
		same, err := g.unchanged(&u.Old)
		if err != nil {
			return nil, err
		}
		if stale[i] = !same; stale[i] {
			if u.Optional {
				continue
			}
			return nil, fmt.Errorf("%w: record %d", tokenizer.ErrConflict, u.Old.ID)
		}
		planned, err := g.planUpdate(u, &p.leaving)
		if err != nil {
			return nil, err
		}
		p.updates = append(p.updates, planned)
	}
	return stale, nil
}

func (g *txGroup) planUpdate(u *tokenizer.Update, leaving *leaving) (update, error) {
	if err := g.counts.usable(u.New.DataKey()); err != nil {
		return update{}, err
	}
	from, err := g.counts.row(u.Old.DataKey())
	if err != nil {
		return update{}, err
	}
	if err := leaving.take(from); err != nil {
		return update{}, err
	}
	stored, err := u.New.AppendBinary(make([]byte, 0, formSize(&u.New)))
	if err != nil {
		return update{}, fmt.Errorf("%w: %w", tokenizer.ErrBadUnit, err)
	}
	planned := update{id: u.New.ID, stored: stored, from: from, to: g.counts.rows[u.New.DataKey()]}
	planned.sealed, planned.moved = sealedAnew(u)
	return planned, nil
}

// sealedAnew returns how many ciphertexts of an update are new under their key,
// and how many of those came there since the record moved from another.
func sealedAnew(u *tokenizer.Update) (sealed, moved uint64) {
	if u.Old.KeyVersion != u.New.KeyVersion {
		return u.New.Ciphertexts(), u.New.Ciphertexts()
	}
	for _, part := range [...]struct{ was, is []byte }{
		{u.Old.Value, u.New.Value}, {u.Old.Details, u.New.Details}, {u.Old.Token, u.New.Token},
	} {
		if len(part.is) > 0 && !bytes.Equal(part.was, part.is) {
			sealed++
		}
	}
	return sealed, 0
}

// unchanged says whether a record is still what it was. A record has one stored
// form, so the forms are compared.
func (g *txGroup) unchanged(was *tokenizer.Record) (bool, error) {
	stored := g.records.stored(was.ID)
	if stored == nil {
		return false, nil
	}
	form, err := was.AppendBinary(make([]byte, 0, formSize(was)))
	return err == nil && bytes.Equal(form, stored), nil
}

// removal is a record that will be removed.
type removal struct {
	id   uint64
	home home
}

func (d *removal) apply(records *txBucket) {
	d.home.remove()
	records.set(idKey(d.id), nil)
}

// checkDeletes plans to remove the records that the unit deletes, all of which
// are still what they were.
func (g *txGroup) checkDeletes(unit *tokenizer.Unit, p *plan) error {
	if len(unit.Deletes) == 0 {
		return nil
	}
	g.records.ready()
	p.deletes = make([]removal, 0, len(unit.Deletes))
	seen := make(map[uint64]bool, len(unit.Deletes)+len(unit.Updates))
	for i := range unit.Updates {
		seen[unit.Updates[i].Old.ID] = true
	}
	for i := range unit.Deletes {
		r := &unit.Deletes[i]
		if seen[r.ID] {
			return fmt.Errorf("%w: record %d is deleted and something else", tokenizer.ErrBadUnit, r.ID)
		}
		seen[r.ID] = true
		same, err := g.unchanged(r)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: record %d", tokenizer.ErrConflict, r.ID)
		}
		home, err := g.counts.home(r)
		if err != nil {
			return err
		}
		if err := home.leave(&p.leaving); err != nil {
			return err
		}
		p.deletes = append(p.deletes, removal{r.ID, home})
	}
	return nil
}
