package boltstore

import (
	"encoding/binary"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// txRecords are the records as the units of a group have left them.
type txRecords struct {
	bucket  *txBucket
	begun   bool
	highest uint64 // id, when it was begun
	inserts []insert
	ids     map[uint64]struct{} // of inserts, but for
	runs    []run               // those of units that bring many
}

// run is a number of ids, one behind the other.
type run struct{ first, last uint64 }

// manyInserts is from how many records on a unit is taken to bring runs of ids, as
// they are reserved: a map of them would cost more than all else about them.
const manyInserts = 16

// insert is a new record in its stored form.
type insert struct {
	id     uint64
	stored []byte
	home   home
	sealed uint64 // ciphertexts
}

// ready prepares for reading.
func (t *txRecords) ready() {
	if t.begun {
		return
	}
	t.begun, t.ids = true, make(map[uint64]struct{})
	if key, _ := t.bucket.last(); len(key) == 8 {
		t.highest = binary.BigEndian.Uint64(key)
	}
}

// taken says whether there is a record with the id.
func (t *txRecords) taken(id uint64) bool {
	if t.inserted(id) {
		return true
	}
	return id <= t.highest && t.bucket.Get(idKey(id)) != nil
}

// inserted says whether a unit of the group inserts the id.
func (t *txRecords) inserted(id uint64) bool {
	for i := len(t.runs) - 1; i >= 0; i-- {
		if r := &t.runs[i]; r.first <= id && id <= r.last {
			return true
		}
	}
	_, inserted := t.ids[id]
	return inserted
}

// insert notes an id of a unit that brings n records.
func (t *txRecords) insert(id uint64, n int) {
	if n < manyInserts {
		t.ids[id] = struct{}{}
	} else if k := len(t.runs) - 1; k >= 0 && t.runs[k].last+1 == id {
		t.runs[k].last = id
	} else {
		t.runs = append(t.runs, run{id, id})
	}
}

// stored returns the record with the id as units before have left it.
func (t *txRecords) stored(id uint64) []byte {
	if t.inserted(id) {
		for i := range t.inserts {
			t.bucket.set(idKey(t.inserts[i].id), t.inserts[i].stored)
		}
		t.inserts = t.inserts[:0]
	}
	return t.bucket.Get(idKey(id))
}

// forget frees the ids of the latest unit, which brought n records and whose inserts
// won't be after all.
func (t *txRecords) forget(inserts []insert, n int) {
	if n < manyInserts {
		for i := range inserts {
			delete(t.ids, inserts[i].id)
		}
		return
	}
	for i := len(inserts) - 1; i >= 0; i-- { // they were noted last
		k := len(t.runs) - 1
		if t.runs[k].last--; t.runs[k].last < t.runs[k].first {
			t.runs = t.runs[:k]
		}
	}
}

// appendInserts appends the new records.
func (t *txRecords) appendInserts(changes []change) []change {
	ids := make([]byte, 0, 8*len(t.inserts)) // one string for all keys
	for i := range t.inserts {
		ids = binary.BigEndian.AppendUint64(ids, t.inserts[i].id)
	}
	keys := string(ids)
	for i := range t.inserts {
		changes = append(changes, change{recordsID, keys[8*i : 8*i+8], t.inserts[i].stored})
	}
	return changes
}

// checkInserts refuses records whose ids are taken, whose keys are not on the
// shelf, or that have no stored form.
func (g *txGroup) checkInserts(records []tokenizer.Record) (inserts []insert, err error) {
	if len(records) == 0 {
		return nil, nil
	}
	g.records.ready()
	defer func() {
		if err != nil {
			g.records.forget(inserts, len(records))
		}
	}()
	size := 0
	for i := range records {
		size += formSize(&records[i])
	}
	forms := make([]byte, 0, size)
	inserts = make([]insert, 0, len(records))
	for i := range records {
		r := &records[i]
		if r.ID == 0 || g.records.taken(r.ID) {
			return inserts, fmt.Errorf("%w: %d", tokenizer.ErrIDTaken, r.ID)
		}
		start := len(forms)
		if forms, err = r.AppendBinary(forms); err != nil {
			return inserts, fmt.Errorf("%w: %w", tokenizer.ErrBadUnit, err)
		}
		home, err := g.counts.home(r)
		if err != nil {
			return inserts, err
		}
		if err := home.usable(r); err != nil {
			return inserts, err
		}
		g.records.insert(r.ID, len(records))
		inserts = append(inserts, insert{r.ID, forms[start:len(forms):len(forms)], home, r.Ciphertexts()})
	}
	return inserts, nil
}

// formSize is room for the stored form of a record.
func formSize(r *tokenizer.Record) int {
	return 72 + len(r.Namespace) + len(r.Profile) + len(r.Value) + len(r.Details) + len(r.Token)
}
