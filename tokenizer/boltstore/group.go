package boltstore

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// txGroup is a group of units in their transaction.
type txGroup struct {
	keys, log *bbolt.Bucket
	records   txRecords
	claims    txClaims
	counts    counts

	head     tokenizer.Hash // of the last entry of the log
	sequence uint64         // of the last entry
}

func newGroup(tx *bbolt.Tx) (*txGroup, error) {
	g := &txGroup{
		keys: tx.Bucket(keysBucket), log: tx.Bucket(logBucket),
		records: txRecords{bucket: tx.Bucket(recordsBucket)},
		claims:  txClaims{bucket: tx.Bucket(claimsBucket)},
		counts:  newCounts(tx),
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

// settle decides what becomes of a unit and puts it into the transaction, but
// for new records and claims. Until the first Put nothing is changed, so that a
// unit that fails leaves no trace.
func (g *txGroup) settle(unit tokenizer.Unit) (tokenizer.Outcome, error) {
	plan, outcome, err := g.plan(&unit)
	if err != nil {
		return tokenizer.Outcome{}, err
	}
	body, err := eventBody(unit, outcome)
	if err != nil {
		g.records.forget(plan.inserts)
		return tokenizer.Outcome{}, err
	}
	if err := g.apply(&unit, plan); err != nil {
		return tokenizer.Outcome{}, err
	}
	return outcome, g.appendEntry(body)
}

// plan is what a unit will write: stored forms, ready to be put, and the rows in
// which it is counted.
type plan struct {
	keys    map[string][]byte // added and rewrapped, by name
	inserts []insert
	updates []update
	deletes []removal
	claims  []claimChange
	leaving leaving
}

// plan decides what becomes of a unit, and changes nothing but the ids that are
// taken.
func (g *txGroup) plan(unit *tokenizer.Unit) (p plan, outcome tokenizer.Outcome, err error) {
	if p.keys, err = g.checkKeys(unit.Keys); err != nil {
		return plan{}, outcome, err
	}
	if p.keys, err = g.checkRewraps(unit.Rewraps, p.keys); err != nil {
		return plan{}, outcome, err
	}
	if err := g.checkRetire(*unit); err != nil {
		return plan{}, outcome, err
	}
	if outcome.Stale, err = g.checkUpdates(unit.Updates, &p); err != nil {
		return plan{}, outcome, err
	}
	if err := g.checkDeletes(unit, &p); err != nil {
		return plan{}, outcome, err
	}
	if err := g.checkClaims(unit.Claims, &p); err != nil {
		return plan{}, outcome, err
	}
	if err := p.leaving.check(); err != nil {
		return plan{}, outcome, err
	}
	outcome.Sequence = g.sequence + 1
	p.inserts, err = g.checkInserts(unit.Records)
	return p, outcome, err
}

// apply puts what was planned into the transaction, but for new records and
// claims.
func (g *txGroup) apply(unit *tokenizer.Unit, p plan) error {
	for name, stored := range p.keys {
		if err := g.keys.Put([]byte(name), stored); err != nil {
			return err
		}
	}
	for _, k := range unit.Keys {
		g.counts.add(k.ID())
		clear(g.claims.newest)
	}
	for _, c := range p.claims {
		c.apply()
	}
	for _, u := range p.updates {
		if err := u.apply(g.records.bucket); err != nil {
			return err
		}
	}
	for _, d := range p.deletes {
		if err := d.apply(g.records.bucket); err != nil {
			return err
		}
	}
	for i := range p.inserts {
		p.inserts[i].home.add(p.inserts[i].sealed)
	}
	g.records.inserts = append(g.records.inserts, p.inserts...)
	if unit.Retire == (keystore.KeyID{}) {
		return nil
	}
	g.counts.rows[unit.Retire].exists = false
	return g.keys.Delete(keyName(unit.Retire))
}

// finish puts what is put once for all units.
func (g *txGroup) finish() error {
	if err := g.counts.flush(); err != nil {
		return err
	}
	if err := g.claims.flush(); err != nil {
		return err
	}
	return g.records.flush()
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

// leaving is how much a unit takes away from rows. A row that has less is
// damaged: a count must not fall below what there is.
type leaving map[*row]uint64

// take notes that one leaves a row, which is nil if there is none.
func (l *leaving) take(r *row) error {
	if r == nil {
		return fmt.Errorf("%w: a key under which something is has no row in the census", tokenizer.ErrDamaged)
	}
	if *l == nil {
		*l = make(leaving)
	}
	(*l)[r]++
	return nil
}

func (l leaving) check() error {
	for r, n := range l {
		if r.records < n {
			return fmt.Errorf("%w: a count is lower than what it counts", tokenizer.ErrDamaged)
		}
	}
	return nil
}

// idKey is the key of a record or a log entry.
func idKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }
