package tokenizer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// Record is one stored ciphertext with its header.
//
// The header is bound to the ciphertext: whoever moves a ciphertext to another
// record, or edits the header, is found out when it is opened.
type Record struct {
	ID           uint64
	Namespace    string // at most 255 bytes
	Profile      string // at most 255 bytes
	Created      time.Time
	KeyVersion   uint32  // of the data key that sealed it
	TokenVersion uint32  // of the token key that made its token
	Check        [4]byte // random; a token has to match it
	Value        []byte  // the normal form of the value, sealed
	Metadata     []byte  // the labels, sealed; nil when there are none
}

// recordFormat is the first byte of a stored record. A later format gets
// another number; this one stays readable.
const recordFormat = 1

// maxRecord bounds a stored record: the largest value, the most metadata and
// the header, with room.
const maxRecord = 1 << 18

// AppendBinary appends the stored form of the record, without its id, which is
// the key under which it is stored:
//
//	format(1) check(4) created(8) key version(uvarint) token version(uvarint)
//	namespace(uvarint length, bytes) profile(same)
//	value(same) metadata(same)
//
// created is in Unix seconds; integers of fixed size are big endian. It fails
// for a record that ParseRecord would refuse.
func (r Record) AppendBinary(dst []byte) ([]byte, error) {
	if len(r.Namespace) > 255 || len(r.Profile) > 255 ||
		len(r.Value)+len(r.Metadata) > maxRecord-1024 {
		return dst, fmt.Errorf("tokenizer: record %d is too large to be stored", r.ID)
	}
	dst = append(dst, recordFormat)
	dst = append(dst, r.Check[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created.Unix()))
	dst = binary.AppendUvarint(dst, uint64(r.KeyVersion))
	dst = binary.AppendUvarint(dst, uint64(r.TokenVersion))
	dst = appendField(dst, r.Namespace)
	dst = appendField(dst, r.Profile)
	dst = appendField(dst, r.Value)
	return appendField(dst, r.Metadata), nil
}

// ParseRecord reads the stored form of the record with the id. The result
// shares no memory with b. Anything but the output of AppendBinary is
// ErrDamaged.
func ParseRecord(id uint64, b []byte) (Record, error) {
	p := parser{rest: b}
	r := Record{ID: id}
	if p.take(1)[0] != recordFormat {
		p.bad = true
	}
	copy(r.Check[:], p.take(4))
	r.Created = time.Unix(int64(binary.BigEndian.Uint64(p.take(8))), 0).UTC()
	r.KeyVersion = p.version()
	r.TokenVersion = p.version()
	r.Namespace = string(p.field())
	r.Profile = string(p.field())
	r.Value = append([]byte(nil), p.field()...)
	r.Metadata = append([]byte(nil), p.field()...)
	if p.bad || len(p.rest) != 0 || len(b) > maxRecord ||
		len(r.Namespace) > 255 || len(r.Profile) > 255 {
		return Record{}, fmt.Errorf("%w: record %d doesn't parse", ErrDamaged, id)
	}
	return r, nil
}

// ParseRecordKeys returns the keys that a stored record is under: the data key
// that seals it and the token key that made its token. It looks no further, so
// it is cheaper than ParseRecord, and finds less damage.
func ParseRecordKeys(id uint64, b []byte) (data, token keystore.KeyID, err error) {
	p := parser{rest: b}
	p.bad = p.take(1)[0] != recordFormat
	p.take(4)
	p.take(8)
	data, token = keystore.KeyID{Class: keystore.Data}, keystore.KeyID{Class: keystore.Token}
	data.Version, token.Version = p.version(), p.version()
	data.Namespace = string(p.field())
	token.Namespace = data.Namespace
	if p.bad {
		return data, token, fmt.Errorf("%w: record %d doesn't parse", ErrDamaged, id)
	}
	return data, token, nil
}

// SameHeader says whether two records are the same but for what is sealed, and
// under which key.
func (r Record) SameHeader(o Record) bool {
	return r.ID == o.ID && r.Namespace == o.Namespace && r.Profile == o.Profile &&
		r.Created.Equal(o.Created) && r.TokenVersion == o.TokenVersion && r.Check == o.Check
}

// Equal says whether two records are the same.
func (r Record) Equal(o Record) bool {
	return r.SameHeader(o) && r.KeyVersion == o.KeyVersion && bytes.Equal(r.Value, o.Value) && bytes.Equal(r.Metadata, o.Metadata)
}

// DataKey names the data key that seals the record.
func (r Record) DataKey() keystore.KeyID {
	return keystore.KeyID{Namespace: r.Namespace, Class: keystore.Data, Version: r.KeyVersion}
}

// TokenKey names the token key that made the record's token.
func (r Record) TokenKey() keystore.KeyID {
	return keystore.KeyID{Namespace: r.Namespace, Class: keystore.Token, Version: r.TokenVersion}
}

// Ciphertexts returns how many times its data key has sealed for the record.
func (r Record) Ciphertexts() uint64 {
	if len(r.Metadata) == 0 {
		return 1
	}
	return 2
}

// appendField appends a byte string with its length before it.
func appendField[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// parser takes a stored form apart. After the first fault everything it gives
// is zero and bad is set.
type parser struct {
	rest []byte
	bad  bool
}

var zeros [8]byte

// take returns the next n bytes, n at most 8, or zeros after a fault.
func (p *parser) take(n int) []byte {
	if p.bad || len(p.rest) < n {
		p.bad = true
		return zeros[:n]
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

// uvarint takes a number, which must be in its shortest form.
func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if p.bad || n <= 0 || (n > 1 && p.rest[n-1] == 0) {
		p.bad = true
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// version takes the version of a key.
func (p *parser) version() uint32 {
	v := p.uvarint()
	if v > math.MaxUint32 {
		p.bad = true
	}
	return uint32(v)
}

// field takes a byte string that stands behind its length.
func (p *parser) field() []byte {
	n := p.uvarint()
	if p.bad || n > uint64(len(p.rest)) {
		p.bad = true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

// part names what of a record a ciphertext is, for additionalData.
type part byte

const (
	partValue    part = 'v'
	partMetadata part = 'm'
)

// additionalData appends what a ciphertext is bound to (DESIGN.md section 5:
// format version, namespace, profile, id; the check, the time and the version
// of the token key too, so that no part of the header can be edited).
func (r Record) additionalData(dst []byte, p part) []byte {
	dst = append(dst, "coatcheck record"...)
	dst = append(dst, recordFormat, byte(p))
	dst = binary.BigEndian.AppendUint64(dst, r.ID)
	dst = append(dst, r.Check[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created.Unix()))
	dst = binary.BigEndian.AppendUint32(dst, r.TokenVersion)
	dst = appendField(dst, r.Namespace)
	return appendField(dst, r.Profile)
}

// seal encrypts value and labels into the record, whose header is complete but
// for the key version, under the ring's newest data key.
func (r *Record) seal(ring *keystore.Keyring, value, labels []byte) error {
	var buf [128]byte
	var err error
	r.Value, r.KeyVersion, err = ring.Seal(nil, value, r.additionalData(buf[:0], partValue))
	if err != nil || len(labels) == 0 {
		return err
	}
	r.Metadata, _, err = ring.Seal(nil, labels, r.additionalData(buf[:0], partMetadata))
	return err
}

// open decrypts one part of the record. A record that doesn't open under the
// key that it names is ErrDamaged.
func (r Record) open(ring *keystore.Keyring, sealed []byte, p part) ([]byte, error) {
	var buf [128]byte
	plain, err := ring.Open(nil, r.KeyVersion, sealed, r.additionalData(buf[:0], p))
	if errors.Is(err, keystore.ErrOpen) || errors.Is(err, keystore.ErrKeyVersion) {
		// Of a key that is gone, retrying doesn't bring it back: it isn't wrapped.
		return nil, fmt.Errorf("%w: record %d doesn't open: %v", ErrDamaged, r.ID, err)
	}
	return plain, err
}
