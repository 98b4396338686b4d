package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// The records of each profile are counted in a row of the bucket of profiles,
// under its namespace, behind its length as in the bucket of keys, and its name:
//
//	records(8) checksum(4)
//
// The checksum is like that of the census, here as for budgets. Records without a profile, which are
// subjects, aren't counted, and a profile without records has no row.

// profileID names a profile in a store.
type profileID struct{ namespace, profile string }

const countSize = 8 + 4

func (p profileID) name() []byte { return append(keysPrefix(p.namespace), p.profile...) }

func parseProfile(name, b []byte) (records uint64, err error) {
	records, ok := parseCount(name, b)
	if !ok {
		return 0, fmt.Errorf("%w: the count of a profile", tokenizer.ErrDamaged)
	}
	return records, nil
}

// parseCount reads a count with its checksum.
func parseCount(name, b []byte) (n uint64, ok bool) {
	if len(b) != countSize || binary.BigEndian.Uint32(b[8:]) != tallyChecksum(name, b[:8]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// countForm is the stored form of a count.
func countForm(name []byte, n uint64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, countSize), n)
	return binary.BigEndian.AppendUint32(b, tallyChecksum(name, b))
}

// profile returns the row of a profile.
func (c *counts) profile(id profileID) (*row, error) {
	if r, ok := c.profileRows[id]; ok {
		return r, nil
	}
	r, name := new(row), id.name()
	if stored := c.profiles.Get(name); stored != nil {
		var err error
		if r.records, err = parseProfile(name, stored); err != nil {
			return nil, err
		}
	}
	c.profileRows[id] = r
	return r, nil
}

// countProfile counts a record where its profile is.
func (c *counts) countProfile(r *tokenizer.Record) error {
	if r.Profile == "" {
		return nil
	}
	row, err := c.profile(profileID{r.Namespace, r.Profile})
	if err == nil {
		row.records++
		row.dirty = true
	}
	return err
}

// flushProfiles writes the rows that changed.
func (c *counts) flushProfiles() (err error) {
	for id, r := range c.profileRows {
		name := id.name()
		switch {
		case !r.dirty:
		case r.records == 0:
			err = c.profiles.Delete(name)
		default:
			err = c.profiles.Put(name, countForm(name, r.records))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Profiles reads the rows of a namespace.
func (s *Store) Profiles(ctx context.Context, namespace string) (profiles map[string]uint64, err error) {
	prefix := keysPrefix(namespace)
	err = s.read(ctx, func(v *view) (err error) {
		profiles = make(map[string]uint64)
		v.bucket(profilesID).ascend(prefix, func(name, stored []byte) bool {
			if !bytes.HasPrefix(name, prefix) {
				return false
			}
			var n uint64
			if n, err = parseProfile(name, stored); err == nil {
				profiles[string(name[len(prefix):])] = n
			}
			return err == nil
		})
		return err
	}, profilesID)
	if err != nil {
		return nil, err
	}
	return profiles, nil
}
