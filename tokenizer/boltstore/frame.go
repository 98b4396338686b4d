package boltstore

import (
	"encoding/binary"
	"errors"
)

// A frame of the journal is what a group of units changes:
//
//	bucket(1) key(uvarint length, bytes) value(uvarint length plus 1, bytes)
//
// one behind the other. A length of 0 in the place of that of the value says that
// the key holds nothing any more. The numbers of buckets are those of bucketID. To
// replay a frame that has been replayed already changes nothing.

// appendChanges appends the form of changes.
func appendChanges(dst []byte, changes []change) []byte {
	for i := range changes {
		c := &changes[i]
		dst = append(dst, byte(c.bucket))
		dst = binary.AppendUvarint(dst, uint64(len(c.key)))
		dst = append(dst, c.key...)
		if c.value == nil {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(c.value))+1)
		dst = append(dst, c.value...)
	}
	return dst
}

var errFrame = errors.New("a frame that holds no changes")

// parseChanges reads what appendChanges wrote. The result shares no memory with
// frame.
func parseChanges(frame []byte) (changes []change, err error) {
	own := append([]byte(nil), frame...)
	for rest := own; len(rest) > 0; {
		c := change{bucket: bucketID(rest[0])}
		key, after, ok := takeBytes(rest[1:], 0)
		if c.bucket >= buckets || !ok || len(key) == 0 {
			return nil, errFrame
		}
		c.key = string(key)
		if c.value, rest, ok = takeBytes(after, 1); !ok {
			return nil, errFrame
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// takeBytes takes a byte string behind its length, to which more was added. A
// length of less than that is nil.
func takeBytes(b []byte, more uint64) (taken, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return nil, nil, false
	}
	b = b[size:]
	if n < more {
		return nil, b, true
	}
	if n -= more; n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
