package boltstore

import (
	"bytes"

	"go.etcd.io/bbolt"
)

// rows is what the counts need of a bucket, which may be one of bbolt's.
type rows interface {
	Get(key []byte) []byte
	Put(key, value []byte) error
	Delete(key []byte) error
}

var _ rows = (*bbolt.Bucket)(nil)

// txBucket is a bucket as the units of a group have left it.
type txBucket struct {
	*bucket
	changed map[string][]byte // nil for what was taken away
}

func newTxBucket(v *view, id bucketID) *txBucket { return &txBucket{bucket: v.bucket(id)} }

// Get returns what is under a key, nil if nothing is.
func (b *txBucket) Get(key []byte) []byte {
	if value, ok := b.changed[string(key)]; ok {
		return value
	}
	return b.get(key)
}

// set puts a value under a key, or takes it away if it is nil.
func (b *txBucket) set(key, value []byte) { b.put(string(key), value) }

func (b *txBucket) put(key string, value []byte) {
	if b.changed == nil {
		b.changed = make(map[string][]byte)
	}
	b.changed[key] = value
}

// setAll makes changes, and returns about how large they are. b may be nil if there
// are none.
func (b *txBucket) setAll(changes []change) (size int) {
	for i := range changes {
		c := &changes[i]
		b.put(c.key, c.value)
		size += len(c.key) + len(c.value) + changeCost
	}
	return size
}

// Put is part of rows.
func (b *txBucket) Put(key, value []byte) error {
	b.set(key, value)
	return nil
}

// Delete is part of rows.
func (b *txBucket) Delete(key []byte) error {
	b.set(key, nil)
	return nil
}

// withPrefix returns the keys with a prefix, in no order.
func (b *txBucket) withPrefix(prefix []byte) (keys []string) {
	b.ascend(prefix, func(key, _ []byte) bool {
		if !bytes.HasPrefix(key, prefix) {
			return false
		}
		if _, changed := b.changed[string(key)]; !changed {
			keys = append(keys, string(key))
		}
		return true
	})
	for key, value := range b.changed {
		if value != nil && len(key) >= len(prefix) && key[:len(prefix)] == string(prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

// appendChanges appends what has changed, nothing if b is nil.
func (b *txBucket) appendChanges(changes []change) []change {
	if b == nil {
		return changes
	}
	for key, value := range b.changed {
		changes = append(changes, change{b.id, key, value})
	}
	return changes
}
