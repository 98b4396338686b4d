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

	head     tokenizer.Hash // of the last entry of the log
	sequence uint64         // of the last entry
	inserts  []insert
	ids      map[uint64]struct{} // of inserts
}

// insert is a record in its stored form.
type insert struct {
	id     uint64
	stored []byte
}

func newGroup(tx *bbolt.Tx) (*txGroup, error) {
	g := &txGroup{
		records: tx.Bucket(recordsBucket), claims: tx.Bucket(claimsBucket),
		keys: tx.Bucket(keysBucket), log: tx.Bucket(logBucket),
		ids: make(map[uint64]struct{}),
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

// settle decides what becomes of a unit and puts it into the transaction,
// records apart. Until the first Put nothing is changed, so that a unit that
// fails leaves no trace.
func (g *txGroup) settle(unit tokenizer.Unit) (tokenizer.Outcome, error) {
	keys, err := g.checkKeys(unit.Keys)
	if err != nil {
		return tokenizer.Outcome{}, err
	}
	outcome := tokenizer.Outcome{Sequence: g.sequence + 1, Held: g.held(unit.Claims)}
	records, err := g.checkRecords(unit, outcome.Held)
	if err != nil {
		return tokenizer.Outcome{}, err
	}
	body, err := eventBody(unit, outcome)
	if err != nil {
		g.forget(records)
		return tokenizer.Outcome{}, err
	}
	for name, stored := range keys {
		if err := g.keys.Put([]byte(name), stored); err != nil {
			return tokenizer.Outcome{}, err
		}
	}
	for i, c := range unit.Claims {
		if outcome.Held[i] == nil {
			if err := g.claims.Put(c.Key, c.Value); err != nil {
				return tokenizer.Outcome{}, err
			}
		}
	}
	g.inserts = append(g.inserts, records...)
	return outcome, g.appendEntry(body)
}

// checkKeys returns the stored forms of the keys by their names. It refuses a
// unit one of whose key versions is taken.
func (g *txGroup) checkKeys(keys []keystore.WrappedKey) (map[string][]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	forms := make(map[string][]byte, len(keys))
	for _, k := range keys {
		name := keyName(k)
		if forms[string(name)] != nil || g.keys.Get(name) != nil {
			return nil, keystore.ErrKeyExists
		}
		stored, err := k.AppendBinary(nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnit, err)
		}
		forms[string(name)] = stored
	}
	return forms, nil
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
	for i, r := range unit.Records {
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
		g.ids[r.ID] = struct{}{}
		inserts = append(inserts, insert{r.ID, stored})
	}
	return inserts, nil
}

// forget frees the ids of records that won't be inserted after all.
func (g *txGroup) forget(inserts []insert) {
	for _, r := range inserts {
		delete(g.ids, r.id)
	}
}

// insertRecords puts the records of all units in the order of ids, which keeps
// bbolt's pages dense.
func (g *txGroup) insertRecords() error {
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

// keyName is the key of a wrapped key: its namespace behind its length, so
// that no name is the prefix of another's keys, then class and version.
func keyName(k keystore.WrappedKey) []byte {
	return binary.BigEndian.AppendUint32(append(keysPrefix(k.Namespace), byte(k.Class)), k.Version)
}

func keysPrefix(namespace string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(namespace))), namespace...)
}
