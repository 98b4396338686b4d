package boltstore

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// txGroup is a group of units in their transaction.
type txGroup struct {
	records, claims, keys, log *bbolt.Bucket
	counts                     counts

	head     tokenizer.Hash // of the last entry of the log
	sequence uint64         // of the last entry
	inserts  []insert
	ids      map[uint64]struct{} // of inserts
}

// insert is a record in its stored form.
type insert struct {
	id     uint64
	stored []byte
	record *tokenizer.Record // to be counted
}

func newGroup(tx *bbolt.Tx) (*txGroup, error) {
	g := &txGroup{
		records: tx.Bucket(recordsBucket), claims: tx.Bucket(claimsBucket),
		keys: tx.Bucket(keysBucket), log: tx.Bucket(logBucket),
		counts: newCounts(tx), ids: make(map[uint64]struct{}),
	}
	// The end of the log is read anew each time: a transaction that was
	// thought to have failed may have taken effect.
	key, value := g.log.Cursor().Last()
	if key == nil {
		g.head = tokenizer.Genesis(tokenizer.LogID(tx.Bucket(metaBucket).Get(logIDKey)))
		return g, nil
	}
	last, err := parseEntry(key, value)
	if err != nil {
		return nil, err
	}
	g.head, g.sequence = last.Hash(), last.Sequence
	return g, nil
}

// settle decides what becomes of a unit and puts it into the transaction, new
// records apart. Until the first Put nothing is changed, so that a unit that
// fails leaves no trace.
func (g *txGroup) settle(unit tokenizer.Unit) (tokenizer.Outcome, error) {
	plan, outcome, err := g.plan(unit)
	if err != nil {
		return tokenizer.Outcome{}, err
	}
	body, err := eventBody(unit, outcome)
	if err != nil {
		g.forget(plan.inserts)
		return tokenizer.Outcome{}, err
	}
	if err := g.apply(unit, plan, outcome); err != nil {
		return tokenizer.Outcome{}, err
	}
	return outcome, g.appendEntry(body)
}

// plan is what a unit will write: stored forms, ready to be put.
type plan struct {
	keys    map[string][]byte // added and rewrapped, by name
	inserts []insert
	updates []insert // nil stored: left out
}

// plan decides what becomes of a unit, and changes nothing but the ids that are
// taken.
func (g *txGroup) plan(unit tokenizer.Unit) (p plan, outcome tokenizer.Outcome, err error) {
	if p.keys, err = g.checkKeys(unit.Keys); err != nil {
		return plan{}, outcome, err
	}
	if p.keys, err = g.checkRewraps(unit.Rewraps, p.keys); err != nil {
		return plan{}, outcome, err
	}
	if err := g.checkRetire(unit); err != nil {
		return plan{}, outcome, err
	}
	if p.updates, outcome.Stale, err = g.checkUpdates(unit.Updates); err != nil {
		return plan{}, outcome, err
	}
	outcome.Sequence, outcome.Held = g.sequence+1, g.held(unit.Claims)
	p.inserts, err = g.checkRecords(unit, outcome.Held)
	return p, outcome, err
}

// apply puts what was planned into the transaction, new records apart.
func (g *txGroup) apply(unit tokenizer.Unit, p plan, outcome tokenizer.Outcome) error {
	for name, stored := range p.keys {
		if err := g.keys.Put([]byte(name), stored); err != nil {
			return err
		}
	}
	for _, k := range unit.Keys {
		g.counts.add(k.ID())
	}
	for i, c := range unit.Claims {
		if outcome.Held[i] == nil {
			if err := g.claims.Put(c.Key, c.Value); err != nil {
				return err
			}
		}
	}
	for i, u := range p.updates {
		if u.stored == nil {
			continue
		}
		g.counts.updated(unit.Updates[i])
		if err := g.records.Put(idKey(u.id), u.stored); err != nil {
			return err
		}
	}
	for _, r := range p.inserts {
		g.counts.inserted(*r.record)
	}
	g.inserts = append(g.inserts, p.inserts...)
	if unit.Retire == (keystore.KeyID{}) {
		return nil
	}
	g.counts.rows[unit.Retire].exists = false
	return g.keys.Delete(keyName(unit.Retire))
}

// checkUpdates returns the stored forms of the new records, and which updates
// are left out since the record is no longer what it was.
func (g *txGroup) checkUpdates(updates []tokenizer.Update) (forms []insert, stale []bool, err error) {
	if len(updates) == 0 {
		return nil, nil, nil
	}
	forms, stale = make([]insert, len(updates)), make([]bool, len(updates))
	seen, leave := make(map[uint64]bool, len(updates)), make(map[keystore.KeyID]uint64)
	for i, u := range updates {
		if !u.Old.SameHeader(u.New) || seen[u.Old.ID] {
			return nil, nil, fmt.Errorf("%w: not an update of record %d", errUnit, u.Old.ID)
		}
		seen[u.Old.ID] = true
		now, err := tokenizer.ParseRecord(u.Old.ID, g.records.Get(idKey(u.Old.ID)))
		if stale[i] = err != nil || !now.Equal(u.Old); stale[i] {
			continue
		}
		if err := g.counts.usable(u.New.DataKey()); err != nil {
			return nil, nil, err
		}
		from, err := g.counts.row(u.Old.DataKey())
		if leave[u.Old.DataKey()]++; err != nil || from == nil || from.records < leave[u.Old.DataKey()] {
			return nil, nil, fmt.Errorf("%w: the census has too few records under %v", tokenizer.ErrDamaged, u.Old.DataKey())
		}
		after, err := u.New.AppendBinary(nil)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errUnit, err)
		}
		forms[i] = insert{id: u.New.ID, stored: after}
	}
	return forms, stale, nil
}

// held returns for each claim the value that it loses to, or nil.
func (g *txGroup) held(claims []tokenizer.Claim) [][]byte {
	if len(claims) == 0 {
		return nil
	}
	held := make([][]byte, len(claims))
	first := make(map[string][]byte, len(claims))
	for i, c := range claims {
		if value, ok := first[string(c.Key)]; ok {
			held[i] = value
			continue
		}
		held[i] = slices.Clone(g.claims.Get(c.Key))
		first[string(c.Key)] = c.Value
		if held[i] != nil {
			first[string(c.Key)] = held[i]
		}
	}
	return held
}

// checkRecords returns the records of the unit that are to be inserted: those
// without a claim and those whose claim is won. It refuses a unit with an id
// that is taken, or with a record that has no stored form.
func (g *txGroup) checkRecords(unit tokenizer.Unit, held [][]byte) (inserts []insert, err error) {
	lost := make(map[int]bool)
	for i, c := range unit.Claims {
		if held[i] != nil && c.Record != tokenizer.NoRecord {
			lost[c.Record] = true
		}
	}
	defer func() {
		if err != nil {
			g.forget(inserts)
		}
	}()
	for i := range unit.Records {
		r := &unit.Records[i]
		if lost[i] {
			continue
		}
		if _, twice := g.ids[r.ID]; twice || r.ID == 0 || g.records.Get(idKey(r.ID)) != nil {
			return inserts, fmt.Errorf("%w: %d", tokenizer.ErrIDTaken, r.ID)
		}
		stored, err := r.AppendBinary(nil)
		if err != nil {
			return inserts, fmt.Errorf("%w: %w", errUnit, err)
		}
		for _, key := range [...]keystore.KeyID{r.DataKey(), r.TokenKey()} {
			if err := g.counts.usable(key); err != nil {
				return inserts, err
			}
		}
		g.ids[r.ID] = struct{}{}
		inserts = append(inserts, insert{r.ID, stored, r})
	}
	return inserts, nil
}

// forget frees the ids of records that won't be inserted after all.
func (g *txGroup) forget(inserts []insert) {
	for _, r := range inserts {
		delete(g.ids, r.id)
	}
}

// finish puts what is put once for all units: the census, and the records in
// the order of ids, which keeps bbolt's pages dense.
func (g *txGroup) finish() error {
	if err := g.counts.flush(); err != nil {
		return err
	}
	slices.SortFunc(g.inserts, func(a, b insert) int { return cmp.Compare(a.id, b.id) })
	for _, r := range g.inserts {
		if err := g.records.Put(idKey(r.id), r.stored); err != nil {
			return err
		}
	}
	return nil
}

// eventBody asks the unit for its event.
func eventBody(unit tokenizer.Unit, outcome tokenizer.Outcome) (body []byte, err error) {
	defer func() {
		if recover() != nil {
			body, err = nil, errUnit
		}
	}()
	if body = unit.Event(outcome); len(body) == 0 {
		return nil, errUnit
	}
	return body, nil
}

// appendEntry chains an event to the log.
func (g *txGroup) appendEntry(body []byte) error {
	entry := tokenizer.Entry{Sequence: g.sequence + 1, Prev: g.head, Body: body}
	if err := g.log.Put(idKey(entry.Sequence), slices.Concat(entry.Prev[:], body)); err != nil {
		return err
	}
	g.sequence, g.head = entry.Sequence, entry.Hash()
	return nil
}

// idKey is the key of a record or a log entry.
func idKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }
