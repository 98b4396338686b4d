package boltstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// txRecords are the records in a transaction. New ones are put when all units
// are settled, in the order of ids, which keeps bbolt's pages dense.
type txRecords struct {
	bucket  *bbolt.Bucket
	cursor  *bbolt.Cursor
	highest uint64 // id in the file, when cursor was made
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
	if t.cursor != nil {
		return
	}
	t.cursor, t.ids = t.bucket.Cursor(), make(map[uint64]struct{})
	if key, _ := t.cursor.Last(); len(key) == 8 {
		t.highest = binary.BigEndian.Uint64(key)
	}
}

// taken says whether there is a record with the id.
func (t *txRecords) taken(id uint64) bool {
	if _, inserted := t.ids[id]; inserted {
		return true
	}
	return id <= t.highest && find(t.cursor, idKey(id)) != nil
}

// stored returns the record with the id as units before have left it.
func (t *txRecords) stored(id uint64) ([]byte, error) {
	if _, inserted := t.ids[id]; inserted && len(t.inserts) > 0 {
		if err := t.flush(); err != nil {
			return nil, err
		}
	}
	return find(t.cursor, idKey(id)), nil
}

// forget frees the ids of records that won't be inserted after all.
func (t *txRecords) forget(inserts []insert) {
	for i := range inserts {
		delete(t.ids, inserts[i].id)
	}
}

// flush puts the new records into the transaction.
func (t *txRecords) flush() error {
	slices.SortFunc(t.inserts, func(a, b insert) int { return cmp.Compare(a.id, b.id) })
	var key [8]byte
	for i := range t.inserts {
		binary.BigEndian.PutUint64(key[:], t.inserts[i].id)
		if err := t.bucket.Put(key[:], t.inserts[i].stored); err != nil {
			return err
		}
	}
	t.inserts = t.inserts[:0]
	return nil
}

// find returns what is under a key, nil if nothing is. It costs less than
// Bucket.Get, which makes a cursor each time.
func find(cursor *bbolt.Cursor, key []byte) []byte {
	if found, value := cursor.Seek(key); bytes.Equal(found, key) {
		return value
	}
	return nil
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
