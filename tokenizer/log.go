package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// LogID names one audit log: a store has one, and so has each replica where
// replicas keep a log each.
type LogID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// Hash is the SHA-256 hash by which an entry of an audit log is chained.
type Hash [sha256.Size]byte

// String returns the hash as 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Entry is an audit event at its place in a log. The store numbers and chains
// entries as it commits them; what the body says is the business of package
// server/audit.
type Entry struct {
	Sequence uint64 // from 1, without gaps
	Prev     Hash   // the hash of the entry before; Genesis for the first
	Body     []byte
}

// Genesis is what the first entry of a log is chained to. It holds the log's
// name, so that entries of one log are not mistaken for another's.
func Genesis(log LogID) Hash {
	return sha256.Sum256(append([]byte("coatcheck audit log v1\n"), log[:]...))
}

// Hash returns what the next entry is chained to: SHA-256 over a label, the
// sequence number (8 bytes, big endian), Prev and Body.
func (e Entry) Hash() Hash {
	h := sha256.New()
	var head [8 + sha256.Size]byte
	binary.BigEndian.PutUint64(head[:8], e.Sequence)
	copy(head[8:], e.Prev[:])
	h.Write([]byte("coatcheck audit entry v1\n"))
	h.Write(head[:])
	h.Write(e.Body)
	return Hash(h.Sum(nil))
}
