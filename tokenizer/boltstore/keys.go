package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// WrappedKeys reads the wrapped keys of a namespace.
func (s *Store) WrappedKeys(ctx context.Context, namespace string) (keys []keystore.WrappedKey, err error) {
	prefix := keysPrefix(namespace)
	err = s.read(ctx, func(v *view) (err error) {
		v.bucket(keysID).ascend(prefix, func(name, stored []byte) bool {
			if !bytes.HasPrefix(name, prefix) {
				return false
			}
			key, damage := keystore.ParseWrappedKey(stored)
			if damage != nil || !bytes.Equal(keyName(key.ID()), name) {
				err = fmt.Errorf("%w: a wrapped key of namespace %q", tokenizer.ErrDamaged, namespace)
				return false
			}
			keys = append(keys, key)
			return true
		})
		return err
	}, keysID)
	return keys, err
}

// checkKeys returns the stored forms of the keys by their names. It refuses a
// unit one of whose key versions is taken.
func (g *txGroup) checkKeys(keys []keystore.WrappedKey) (map[string][]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	forms := make(map[string][]byte, len(keys))
	for _, k := range keys {
		name := keyName(k.ID())
		row, err := g.counts.row(k.ID())
		if err != nil {
			return nil, err
		}
		if forms[string(name)] != nil || row != nil {
			return nil, fmt.Errorf("%w: %v", keystore.ErrKeyExists, k)
		}
		stored, err := k.AppendBinary(nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", tokenizer.ErrBadUnit, err)
		}
		forms[string(name)] = stored
	}
	return forms, nil
}

// checkRewraps adds the stored forms of the new keys to forms, which it returns.
// It refuses a unit one of whose old keys is not as it was.
func (g *txGroup) checkRewraps(changes []keystore.Rewrapping, forms map[string][]byte) (map[string][]byte, error) {
	if forms == nil && len(changes) > 0 {
		forms = make(map[string][]byte, len(changes))
	}
	for _, c := range changes {
		name := keyName(c.Old.ID())
		before, err := c.Old.AppendBinary(nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", tokenizer.ErrBadUnit, err)
		}
		after, err := c.New.AppendBinary(nil)
		if err != nil || c.New.ID() != c.Old.ID() || !c.New.Created.Equal(c.Old.Created) || forms[string(name)] != nil {
			return nil, fmt.Errorf("%w: not a rewrapping of %v", tokenizer.ErrBadUnit, c.Old)
		}
		if !bytes.Equal(g.keys.Get(name), before) {
			return nil, fmt.Errorf("%w: %v", keystore.ErrKeyChanged, c.Old)
		}
		forms[string(name)] = after
	}
	return forms, nil
}

// checkRetire refuses a unit that would take away a key which is needed.
func (g *txGroup) checkRetire(unit tokenizer.Unit) error {
	id := unit.Retire
	if id == (keystore.KeyID{}) {
		return nil
	}
	if unit.Retire = (keystore.KeyID{}); !unit.Empty() {
		// What such a unit would leave behind would depend on an order.
		return fmt.Errorf("%w: it retires a key and does something else", tokenizer.ErrBadUnit)
	}
	if err := g.counts.usable(id); err != nil {
		return err
	}
	active := g.newest(id.Namespace, id.Class) == id.Version
	if active || id.Class.Permanent() || g.counts.rows[id].records > 0 {
		return fmt.Errorf("%w: %v", keystore.ErrKeyInUse, id)
	}
	return nil
}

// keyName is the key of a wrapped key: its namespace behind its length, so
// that no name is the prefix of another's keys, then class and version.
func keyName(k keystore.KeyID) []byte {
	return binary.BigEndian.AppendUint32(append(keysPrefix(k.Namespace), byte(k.Class)), k.Version)
}

func keysPrefix(namespace string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(namespace))), namespace...)
}
