package keystore

import (
	"bytes"
	"crypto/rand"
	"runtime"
	"sync"
)

const (
	// maxSubjectKeys is how many keys of subjects a keyring keeps: some 6 MB.
	maxSubjectKeys = 4096

	// subjectShards is into how many parts they are divided, each with locks of
	// its own.
	subjectShards = 16
)

// subjectCache keeps keys of subjects that have been used lately, so that they
// needn't be derived for each record of theirs. It belongs to one keyring and is
// gone with it. It has no secrets: a subject goes by a MAC of its secret, under a
// key that is made for each cache.
type subjectCache struct {
	count  *inMemory
	names  *subjectNames
	shards [subjectShards]*subjectShard // by the first byte of the id
}

// subjectNames is the key that names subjects: many times the same, since a single
// macStates has a lock that all callers would meet at.
type subjectNames [subjectShards]*subjectName

type subjectName struct {
	macStates
	_ cacheLine
}

// cacheLine keeps locks apart that would meet in one line of a processor's cache.
type cacheLine [64]byte

func newSubjectNames(count *inMemory) *subjectNames {
	key := make([]byte, KeySize)
	defer clear(key)
	_, _ = rand.Read(key) // never fails
	names := new(subjectNames)
	for i := range names {
		names[i] = &subjectName{macStates: macStates{key: bytes.Clone(key)}}
	}
	all := *names
	return watch(count, names, func() {
		for _, name := range all {
			name.wipe()
		}
	})
}

// id returns the id of a subject, with version 0.
func (n *subjectNames) id(secret *[SubjectSecretSize]byte) subjectID {
	sum := n[secret[0]%subjectShards].sumSecret(secret)
	runtime.KeepAlive(n)
	return subjectID{subject: [16]byte(sum[:16])}
}

// subjectShard evicts by the clock algorithm: the hand goes round and takes what
// was not used since it came by last.
type subjectShard struct {
	mu    sync.Mutex
	slots []subjectSlot
	index map[subjectID]int // into slots
	hand  int
	_     cacheLine
}

// subjectSlot is a key that is kept, or a subject that was forgotten, or free.
type subjectSlot struct {
	id   subjectID
	key  *subjectKey // nil unless it is a key
	used bool
}

// subjectID names a key of a subject.
type subjectID struct {
	subject [16]byte // of the MAC of its secret
	version uint32   // of the data key; 0 says that the subject was forgotten
}

func newSubjectCache(count *inMemory) *subjectCache {
	c := &subjectCache{count: count, names: newSubjectNames(count)}
	for i := range c.shards {
		c.shards[i] = &subjectShard{index: make(map[subjectID]int)}
	}
	return c
}

// find returns where a subject's keys are, and its id with version 0.
func (c *subjectCache) find(secret *[SubjectSecretSize]byte) (*subjectShard, subjectID) {
	id := c.names.id(secret)
	return c.shards[id.subject[0]%subjectShards], id
}

// key returns the key of a subject under a data key: the one that is kept, or
// one that is derived now and kept.
func (c *subjectCache) key(version uint32, data *dataKey, secret *[SubjectSecretSize]byte) (*subjectKey, error) {
	shard, id := c.find(secret)
	id.version = version
	if key := shard.get(id); key != nil {
		return key, nil
	}
	key, err := derive(data, secret, c.count)
	if err != nil {
		return nil, err
	}
	return shard.put(id, key), nil
}

// forget drops the keys of a subject under all the data keys, and notes that it
// was forgotten.
func (c *subjectCache) forget(secret *[SubjectSecretSize]byte, data versions[*dataKey]) {
	shard, id := c.find(secret)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for i := range data {
		shard.drop(subjectID{id.subject, data[i].number})
	}
	if _, ok := shard.index[id]; !ok {
		shard.insert(id, nil)
	}
}

func (s *subjectShard) get(id subjectID) *subjectKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[id]
	if !ok {
		return nil
	}
	s.slots[i].used = true
	return s.slots[i].key
}

// put keeps a key, unless its subject was forgotten, and returns it, or the one
// that somebody else has put meanwhile.
func (s *subjectShard) put(id subjectID, key *subjectKey) *subjectKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, forgotten := s.index[subjectID{subject: id.subject}]; forgotten {
		return key
	}
	if i, ok := s.index[id]; ok {
		return s.slots[i].key
	}
	s.insert(id, key)
	return key
}

// insert takes a slot for an id that has none. The caller holds mu.
func (s *subjectShard) insert(id subjectID, key *subjectKey) {
	i := s.free()
	s.slots[i] = subjectSlot{id: id, key: key, used: true}
	s.index[id] = i
}

// free returns a slot that can be used: a new one, while there may be more, or
// one that it frees.
func (s *subjectShard) free() int {
	if len(s.slots) < maxSubjectKeys/subjectShards {
		s.slots = append(s.slots, subjectSlot{})
		return len(s.slots) - 1
	}
	for {
		i := s.hand
		s.hand = (s.hand + 1) % len(s.slots)
		if !s.slots[i].used {
			s.drop(s.slots[i].id)
			return i
		}
		s.slots[i].used = false
	}
}

// drop frees the slot of an id, if it has one. The caller holds mu.
func (s *subjectShard) drop(id subjectID) {
	if i, ok := s.index[id]; ok {
		delete(s.index, id)
		s.slots[i] = subjectSlot{}
	}
}
