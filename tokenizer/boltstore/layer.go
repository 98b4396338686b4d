package boltstore

import (
	"bytes"

	"github.com/tidwall/btree"
	"go.etcd.io/bbolt"
)

// bucketID names a bucket. The numbers are part of the journal's form.
type bucketID uint8

const (
	metaID bucketID = iota
	recordsID
	claimsID
	keysID
	censusID
	profilesID
	logBucketID
	budgetsID
	statesID
	buckets // how many there are
)

// bucketNames are the names of the buckets in the file.
var bucketNames = [buckets][]byte{
	metaID: []byte("meta"), recordsID: []byte("records"), claimsID: []byte("claims"), keysID: []byte("keys"),
	censusID: []byte("census"), profilesID: []byte("profiles"), logBucketID: []byte("log"),
	budgetsID: []byte("budgets"), statesID: []byte("states"),
}

// change is what a key of a bucket holds from now on; a value that is nil takes
// the key away.
type change struct {
	bucket bucketID
	key    string
	value  []byte
}

// A layer is what has changed since the file was written last: it is in the
// journal, and lies over what the file holds. A value that is nil says that there
// is none.
type layer struct {
	buckets [buckets]btree.Map[string, []byte]
	frame   uint64 // the latest in it
	sum     uint32 // its checksum in the journal
	size    int    // of what it takes up in memory, about
}

// changeCost is about what a change takes up beside its key and its value.
const changeCost = 64

// add lays the changes of a frame over what there is.
func (l *layer) add(frame uint64, changes []change) {
	for i := range changes {
		c := &changes[i]
		l.buckets[c.bucket].Set(c.key, c.value)
		l.size += len(c.key) + len(c.value) + changeCost
	}
	l.frame = frame
}

// A view is the store at one moment: layers over a snapshot of the file. Who
// makes one must close it.
type view struct {
	layers [2]*layer // the newer first; nil ones are not there
	file   *snapshot
	files  *snapshots
}

// view returns what the latest frame left. To go through the keys of buckets in
// order, name them. If any is named, no other can be looked at; if none is, all can be
// looked up, but only by the commit loop.
//
// The layers and the snapshot are of one moment, since a layer goes only after
// the transaction that wrote it into the file.
func (s *Store) view(through ...bucketID) (*view, error) {
	s.state.Lock()
	defer s.state.Unlock()
	v := &view{layers: [2]*layer{s.active, s.frozen}, files: &s.files}
	if len(through) > 0 {
		v.layers[0] = new(layer) // a copy of what is needed: the commit loop goes on
		for _, id := range through {
			v.layers[0].buckets[id] = *s.active.buckets[id].Copy()
		}
	}
	var err error
	v.file, err = s.files.take()
	return v, err
}

func (v *view) close() { v.files.give(v.file) }

// bucket is a bucket in a view.
type bucket struct {
	view   *view
	id     bucketID
	cursor *bbolt.Cursor // nil until it is needed
}

func (v *view) bucket(id bucketID) *bucket { return &bucket{view: v, id: id} }

func (b *bucket) inFile() *bbolt.Cursor {
	if b.cursor == nil {
		b.cursor = b.view.file.tx.Bucket(bucketNames[b.id]).Cursor()
	}
	return b.cursor
}

// layered returns what the layers have under a key.
func layered(layers [2]*layer, id bucketID, key []byte) (value []byte, ok bool) {
	for _, l := range layers {
		if l == nil || l.buckets[id].Len() == 0 {
			continue
		}
		if value, ok := l.buckets[id].Get(string(key)); ok {
			return value, true
		}
	}
	return nil, false
}

// get returns what is under a key, nil if nothing is.
func (b *bucket) get(key []byte) []byte {
	if value, ok := layered(b.view.layers, b.id, key); ok {
		return value
	}
	return find(b.inFile(), key)
}

// find returns what is under a key, nil if nothing is. It costs less than
// Bucket.Get, which makes a cursor each time.
func find(cursor *bbolt.Cursor, key []byte) []byte {
	if found, value := cursor.Seek(key); bytes.Equal(found, key) {
		return value
	}
	return nil
}

// ascend shows the keys from one on, in order, until show returns false.
func (b *bucket) ascend(from []byte, show func(key, value []byte) (more bool)) {
	cursor := b.inFile()
	at := source{}
	at.key, at.value = cursor.Seek(from)
	var over [2]source
	var iters [2]btree.MapIter[string, []byte]
	for i, l := range b.view.layers {
		if l != nil {
			iters[i] = l.buckets[b.id].Iter()
			over[i].of(&iters[i], iters[i].Seek(string(from)))
		}
	}
	for {
		// The smallest key, as the newest of those that have it has it.
		least := at.key
		for _, o := range over {
			if o.key != nil && (least == nil || bytes.Compare(o.key, least) < 0) {
				least = o.key
			}
		}
		if least == nil {
			return
		}
		value, known := []byte(nil), false
		for i := range over {
			if bytes.Equal(over[i].key, least) {
				if !known {
					value, known = over[i].value, true
				}
				over[i].of(&iters[i], iters[i].Next())
			}
		}
		if bytes.Equal(at.key, least) {
			if !known {
				value = at.value
			}
			at.key, at.value = cursor.Next()
		}
		if value != nil && !show(least, value) {
			return
		}
	}
}

// source is where ascend has come to in one of what it goes through.
type source struct{ key, value []byte }

func (s *source) of(iter *btree.MapIter[string, []byte], ok bool) {
	if *s = (source{}); ok {
		s.key, s.value = []byte(iter.Key()), iter.Value()
	}
}

// last returns the last key and what it holds, nil if there is none. Keys of the
// bucket must never be taken away.
func (b *bucket) last() (key, value []byte) {
	key, value = b.inFile().Last()
	for _, l := range b.view.layers {
		if l == nil {
			continue
		}
		if k, v, ok := l.buckets[b.id].Max(); ok && (key == nil || k > string(key)) {
			key, value = []byte(k), v
		}
	}
	return key, value
}
