package exposure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// A row is one access to one record of one owner, by the one or by the other, or says what
// one of them is known as. It is of a form that is sorted as bytes, and holds digests and
// numbers only, so that it may lie in a file:
//
//	ref(22) mark(1) ref(22) facet(4) event(8) time(8)
//
// Integers are big endian; time is in nanoseconds since 1970.
type row [22 + 1 + 22 + 4 + 8 + 8]byte

// compareRows orders rows by the first ref, mark, the other, facet, event and time.
func compareRows(a, b row) int { return bytes.Compare(a[:], b[:]) }

// Marks: of the rows with the same ref first, those that say what it is come first.
const (
	markKnown  = 0 // the other ref is the same thing
	markAccess = 1
)

// ref names something: kind(1) class(1) version(4) sum(16), or kind(1) id(8) owner(8).
// The zero ref names nothing.
type ref [22]byte

// Kinds of a ref, in the order in which they are reported.
const (
	kindPerson   = 'i' // the id of the record of a person
	kindNobody   = 'n' // nobody: the record is there, and about nobody
	kindRecord   = 'r' // the id of the record of a token, and of that of its person
	kindSubject  = 's' // the digest of a person
	kindToken    = 't' // the digest of a token
	kindUnknown  = 'u' // who it is can't be told any more
	digestLength = 16
)

func newRow(by ref, mark byte, other ref, facet uint32, event uint64, at time.Time) (r row) {
	copy(r[:], by[:])
	r[22] = mark
	copy(r[23:], other[:])
	binary.BigEndian.PutUint32(r[45:], facet)
	binary.BigEndian.PutUint64(r[49:], event)
	binary.BigEndian.PutUint64(r[57:], uint64(at.UnixNano()))
	return r
}

func (r *row) by() ref         { return ref(r[:22]) }
func (r *row) mark() byte      { return r[22] }
func (r *row) other() ref      { return ref(r[23:45]) }
func (r *row) facet() uint32   { return binary.BigEndian.Uint32(r[45:]) }
func (r *row) event() uint64   { return binary.BigEndian.Uint64(r[49:]) }
func (r *row) time() time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(r[57:]))).UTC() }

// digestRef returns the ref of a digest of the audit log, in the form of
// tokenizer.Tokenizer.Digest.
func digestRef(kind byte, digest string) (r ref, ok bool) {
	r[0], r[1] = kind, 'x'
	if rest, isAudit := strings.CutPrefix(digest, "a"); isAudit {
		r[1], digest = 'a', rest
	}
	version, digits, _ := strings.Cut(digest, ":")
	number, err := strconv.ParseUint(version, 10, 32)
	if err != nil || len(digits) != 2*digestLength {
		return r, false
	}
	binary.BigEndian.PutUint32(r[2:], uint32(number))
	_, err = hex.Decode(r[6:], []byte(digits))
	return r, err == nil
}

// digest is the reverse of digestRef.
func (r ref) digest() string {
	b := make([]byte, 0, 48)
	if r[1] == 'a' {
		b = append(b, 'a')
	}
	b = strconv.AppendUint(b, uint64(binary.BigEndian.Uint32(r[2:])), 10)
	return string(hex.AppendEncode(append(b, ':'), r[6:]))
}

func personRef(id uint64) (r ref) {
	r[0] = kindPerson
	binary.BigEndian.PutUint64(r[1:], id)
	return r
}

func recordRef(id, owner uint64) (r ref) {
	r[0] = kindRecord
	binary.BigEndian.PutUint64(r[1:], id)
	binary.BigEndian.PutUint64(r[9:], owner)
	return r
}

// owner returns whose a recordRef is.
func (r ref) owner() ref {
	if id := binary.BigEndian.Uint64(r[9:]); id != 0 {
		return personRef(id)
	}
	return ref{kindNobody}
}

// key returns what tells the key of a digest from another.
func (r ref) key() [5]byte { return [5]byte(r[1:6]) }

// id returns the id of a personRef.
func (r ref) id() uint64 { return binary.BigEndian.Uint64(r[1:]) }
