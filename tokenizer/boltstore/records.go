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
	ids     map[uint64]struct{} // of inserts
}

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
	if _, inserted := t.ids[id]; inserted {
		return true
	}
	return id <= t.highest && t.bucket.Get(idKey(id)) != nil
}

// stored returns the record with the id as units before have left it.
func (t *txRecords) stored(id uint64) []byte {
	if _, inserted := t.ids[id]; inserted {
		for i := range t.inserts {
			t.bucket.set(idKey(t.inserts[i].id), t.inserts[i].stored)
		}
		t.inserts = t.inserts[:0]
	}
	return t.bucket.Get(idKey(id))
}

// forget frees the ids of records that won't be inserted after all.
func (t *txRecords) forget(inserts []insert) {
	for i := range inserts {
		delete(t.ids, inserts[i].id)
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
			g.records.forget(inserts)
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
			return inserts, fmt.Errorf("%w: %w", errUnit, err)
		}
		home, err := g.counts.home(r)
		if err != nil {
			return inserts, err
		}
		if err := home.usable(r); err != nil {
			return inserts, err
		}
		g.records.ids[r.ID] = struct{}{}
		inserts = append(inserts, insert{r.ID, forms[start:len(forms):len(forms)], home, r.Ciphertexts()})
	}
	return inserts, nil
}

// formSize is room for the stored form of a record.
func formSize(r *tokenizer.Record) int {
	return 72 + len(r.Namespace) + len(r.Profile) + len(r.Value) + len(r.Details) + len(r.Token)
}
