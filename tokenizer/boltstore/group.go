package boltstore

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// txGroup is a group of units on their way.
type txGroup struct {
	view            *view
	meta, keys      *txBucket
	records         txRecords
	claims          txClaims
	counts          counts
	budgets, states *txBucket // nil until they are needed
	entries         []change  // of the log
	size            int       // of what has been settled, about

	expired     uint64 // budgets that expired before it can go, in seconds since 1970
	firstBudget string // see Store

	head     tokenizer.Hash // of the last entry of the log
	sequence uint64         // of the last entry
}

func newGroup(v *view, logID tokenizer.LogID) (*txGroup, error) {
	keys := newTxBucket(v, keysID)
	g := &txGroup{
		view: v,
		meta: newTxBucket(v, metaID), keys: keys,
		records: txRecords{bucket: newTxBucket(v, recordsID)},
		claims:  txClaims{bucket: newTxBucket(v, claimsID)},
		counts:  newCounts(keys, newTxBucket(v, censusID), newTxBucket(v, profilesID)),
	}
	key, value := v.bucket(logBucketID).last()
	if key == nil {
		g.head = tokenizer.Genesis(logID)
		return g, nil
	}
	last, err := parseEntry(key, value)
	if err != nil {
		return nil, err
	}
	g.head, g.sequence = last.Hash(), last.Sequence
	return g, nil
}

// settle decides what becomes of a unit. Until the first Put nothing is changed, so
// that a unit that fails leaves no trace.
func (g *txGroup) settle(unit tokenizer.Unit) (tokenizer.Outcome, error) {
	plan, outcome, err := g.plan(&unit)
	if err != nil {
		return tokenizer.Outcome{}, err
	}
	body, err := eventBody(unit, outcome)
	if err != nil {
		g.records.forget(plan.inserts, len(unit.Records))
		return tokenizer.Outcome{}, err
	}
	g.apply(&unit, plan)
	g.appendEntry(body)
	return outcome, nil
}

// plan is what a unit will write: stored forms, ready to be put, and the rows in
// which it is counted.
type plan struct {
	keys    map[string][]byte // added and rewrapped, by name
	inserts []insert
	updates []update
	deletes []removal
	claims  []claimChange
	states  []change
	budgets []change
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
	if err := g.checkStates(unit.States, &p); err != nil {
		return plan{}, outcome, err
	}
	if err := g.checkSpends(unit.Spends, &p); err != nil {
		return plan{}, outcome, err
	}
	outcome.Sequence = g.sequence + 1
	p.inserts, err = g.checkInserts(unit.Records)
	return p, outcome, err
}

// apply puts what was planned into the buckets, but for new records and claims.
func (g *txGroup) apply(unit *tokenizer.Unit, p plan) {
	for name, stored := range p.keys {
		g.keys.set([]byte(name), stored)
	}
	for _, k := range unit.Keys {
		g.counts.add(k.ID())
		clear(g.claims.newest)
	}
	for _, c := range p.claims {
		c.apply()
	}
	for _, u := range p.updates {
		u.apply(g.records.bucket)
	}
	for _, d := range p.deletes {
		d.apply(g.records.bucket)
	}
	for i := range p.inserts {
		p.inserts[i].home.add(p.inserts[i].sealed)
		g.size += len(p.inserts[i].stored) + changeCost
	}
	for i := range p.updates {
		g.size += len(p.updates[i].stored) + changeCost
	}
	g.size += len(p.claims) * 2 * changeCost
	g.size += g.states.setAll(p.states) + g.budgets.setAll(p.budgets)
	if expire := unit.ExpireBudgets; !expire.IsZero() {
		g.expired = max(g.expired, uint64(max(expire.Unix(), 0)))
	}
	g.records.inserts = append(g.records.inserts, p.inserts...)
	if unit.Retire != (keystore.KeyID{}) {
		g.counts.rows[unit.Retire].exists = false
		g.keys.set(keyName(unit.Retire), nil)
	}
}

// finish returns all that the units change.
func (g *txGroup) finish() ([]change, error) {
	if err := g.counts.flush(); err != nil {
		return nil, err
	}
	changes := make([]change, 0, len(g.records.inserts)+len(g.claims.held)+len(g.entries)+16)
	g.removeExpired()
	for _, b := range [...]*txBucket{
		g.meta, g.keys, g.counts.census.(*txBucket), g.counts.profiles.(*txBucket), g.records.bucket, g.states, g.budgets,
	} {
		changes = b.appendChanges(changes)
	}
	changes = g.records.appendInserts(changes)
	changes = g.claims.appendChanges(changes)
	return append(changes, g.entries...), nil
}

// eventBody asks the unit for its event.
func eventBody(unit tokenizer.Unit, outcome tokenizer.Outcome) (body []byte, err error) {
	defer func() {
		if recover() != nil {
			body, err = nil, tokenizer.ErrBadUnit
		}
	}()
	if body = unit.Event(outcome); len(body) == 0 {
		return nil, tokenizer.ErrBadUnit
	}
	return body, nil
}

// appendEntry chains an event to the log.
func (g *txGroup) appendEntry(body []byte) {
	entry := tokenizer.Entry{Sequence: g.sequence + 1, Prev: g.head, Body: body}
	g.entries = append(g.entries, change{logBucketID, string(idKey(entry.Sequence)), slices.Concat(entry.Prev[:], body)})
	g.sequence, g.head = entry.Sequence, entry.Hash()
	g.size += len(body) + changeCost
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
