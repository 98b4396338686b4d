package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// The census has a row for each key version that is or ever was, under the
// name that the key has in the bucket of keys:
//
//	records(8) sealed(8) moved(8) checksum(4)
//
// records is how many records, or claims, are under the key, sealed how many
// ciphertexts of it were ever stored, and moved how many of those came with
// records that had been under another key, and so say nothing about how much the
// key is used from day to day; big endian. The checksum is CRC-32C of the name
// and what comes before it: a bit that flips in a count must not let a key go
// that is needed. A row outlives its key, so that the version is not used again:
// not after the key was retired, not after it was lost.
//
// Profiles are counted likewise; see profiles.go. Rows change in the transaction
// that changes what they count.

// tally is a row.
type tally struct{ records, sealed, moved uint64 }

const tallySize = 24 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func tallyChecksum(name, counts []byte) uint32 {
	return crc32.Update(crc32.Checksum(name, castagnoli), castagnoli, counts)
}

func parseTally(name, b []byte) (tally, error) {
	if len(b) != tallySize || binary.BigEndian.Uint32(b[24:]) != tallyChecksum(name, b[:24]) {
		return tally{}, fmt.Errorf("%w: a row of the census", tokenizer.ErrDamaged)
	}
	return tally{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, nil
}

func (c tally) row(name []byte) []byte {
	b := make([]byte, 0, tallySize)
	for _, n := range [...]uint64{c.records, c.sealed, c.moved} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return binary.BigEndian.AppendUint32(b, tallyChecksum(name, b))
}

// counts are rows as a transaction will leave them, by what they are of.
type counts struct {
	keys, census, profiles rows
	rows                   map[keystore.KeyID]*row
	profileRows            map[profileID]*row

	// latest is where records were counted that were looked for last: those of
	// one unit tend to be alike.
	latest   home
	latestOf likeness
}

// likeness is what records have in common that are counted in the same rows.
type likeness struct {
	namespace, profile string
	data, token        uint32
}

// row is a row in a transaction.
type row struct {
	tally
	exists bool // the key is on the shelf
	dirty  bool
}

func newCounts(keys, census, profiles rows) counts {
	return counts{
		keys: keys, census: census, profiles: profiles,
		rows: make(map[keystore.KeyID]*row), profileRows: make(map[profileID]*row),
	}
}

// row returns the row of a key, or nil if there is no such key and never was.
func (c *counts) row(id keystore.KeyID) (*row, error) {
	if r, ok := c.rows[id]; ok {
		return r, nil
	}
	name := keyName(id)
	stored := c.census.Get(name)
	exists := c.keys.Get(name) != nil
	if stored == nil {
		if exists {
			return nil, fmt.Errorf("%w: the census lacks %v", tokenizer.ErrDamaged, id)
		}
		return nil, nil
	}
	t, err := parseTally(name, stored)
	if err != nil {
		return nil, err
	}
	r := &row{tally: t, exists: exists}
	c.rows[id] = r
	return r, nil
}

// usable refuses a key that is not on the shelf.
func (c *counts) usable(id keystore.KeyID) error {
	r, err := c.row(id)
	if err == nil && (r == nil || !r.exists) {
		err = fmt.Errorf("%w: %v", keystore.ErrKeyVersion, id)
	}
	return err
}

// home returns where a record is counted.
func (c *counts) home(r *tokenizer.Record) (h home, err error) {
	of := likeness{r.Namespace, r.Profile, r.KeyVersion, r.TokenVersion}
	if of == c.latestOf {
		return c.latest, nil
	}
	if h.data, err = c.row(r.DataKey()); err != nil {
		return home{}, err
	}
	if r.TokenVersion != 0 {
		if h.token, err = c.row(r.TokenKey()); err != nil {
			return home{}, err
		}
	}
	if r.Profile != "" {
		if h.profile, err = c.profile(profileID{r.Namespace, r.Profile}); err != nil {
			return home{}, err
		}
	}
	if h.data != nil && (h.token != nil || r.TokenVersion == 0) { // a row that isn't there may come
		c.latest, c.latestOf = h, of
	}
	return h, nil
}

// add makes the row of a new key.
func (c *counts) add(id keystore.KeyID) { c.rows[id] = &row{exists: true, dirty: true} }

// flush writes the rows that changed.
func (c *counts) flush() error {
	for id, r := range c.rows {
		if !r.dirty {
			continue
		}
		name := keyName(id)
		if err := c.census.Put(name, r.row(name)); err != nil {
			return err
		}
	}
	return c.flushProfiles()
}

// home is where a record is counted: in the rows of its keys, and in that of its
// profile. A row is nil if there is none.
type home struct {
	data, token, profile *row
}

// usable refuses a record one of whose keys is not on the shelf.
func (h home) usable(r *tokenizer.Record) error {
	if h.data == nil || !h.data.exists {
		return fmt.Errorf("%w: %v", keystore.ErrKeyVersion, r.DataKey())
	}
	if r.TokenVersion != 0 && (h.token == nil || !h.token.exists) {
		return fmt.Errorf("%w: %v", keystore.ErrKeyVersion, r.TokenKey())
	}
	return nil
}

// leave notes that a record leaves.
func (h home) leave(leaving *leaving) error {
	if err := leaving.take(h.data); err != nil {
		return err
	}
	for _, r := range [...]*row{h.token, h.profile} {
		if r != nil {
			(*leaving)[r]++
		}
	}
	return nil
}

// add counts a record in.
func (h home) add(sealed uint64) {
	h.data.sealed += sealed
	for _, r := range [...]*row{h.data, h.token, h.profile} {
		if r != nil {
			r.records++
			r.dirty = true
		}
	}
}

// remove counts a record out.
func (h home) remove() {
	for _, r := range [...]*row{h.data, h.token, h.profile} {
		if r != nil {
			r.records--
			r.dirty = true
		}
	}
}

// Census reads the rows of a namespace.
func (s *Store) Census(ctx context.Context, namespace string) (census []keystore.KeyCount, err error) {
	prefix := keysPrefix(namespace)
	err = s.read(ctx, func(v *view) (err error) {
		keys := v.bucket(keysID)
		v.bucket(censusID).ascend(prefix, func(name, stored []byte) bool {
			if !bytes.HasPrefix(name, prefix) {
				return false
			}
			t, damage := parseTally(name, stored)
			rest := name[len(prefix):]
			if damage != nil || len(rest) != 5 {
				err = fmt.Errorf("%w: the census of namespace %q", tokenizer.ErrDamaged, namespace)
				return false
			}
			census = append(census, keystore.KeyCount{
				ID:      keystore.KeyID{Namespace: namespace, Class: keystore.Class(rest[0]), Version: binary.BigEndian.Uint32(rest[1:])},
				Records: t.records, Sealed: t.sealed, Moved: t.moved, Gone: keys.get(name) == nil,
			})
			return true
		})
		return err
	}, censusID, keysID)
	return census, err
}
