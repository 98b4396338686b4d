package tokenizer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// Record is one stored ciphertext with its header. It is what is kept of a
// token; or, without a profile, of a subject (see subject.go).
//
// The header is bound to the ciphertext: whoever moves a ciphertext to another
// record, or edits the header, is found out when it is opened.
type Record struct {
	ID           uint64
	Namespace    string // at most 255 bytes
	Profile      string // at most 255 bytes
	Created      time.Time
	Expires      time.Time // to the second; zero stands for never
	KeyVersion   uint32    // of the data key that sealed it
	TokenVersion uint32    // of the token key that made its token; 0 if none did
	Check        [4]byte   // random; a token that is a sealed id has to match it
	State        State
	Imported     bool   // its token was made elsewhere
	Honeytoken   bool   // see honeytoken.go; never of an imported one
	Subject      uint64 // the record of the subject whose secret it is sealed under too; 0 if none
	MaxUses      uint32 // how often it may be revealed; 0 stands for no bound
	Uses         uint32 // how often it has been, where there is a bound
	Value        []byte // the normal form of the value, sealed; nil once it has been shredded
	Details      []byte // sealed details, see details.go; nil when there are none

	// Token is the token, sealed, where that is no sealed id; under the data key
	// alone, so that it is still known when the subject's secret is gone.
	Token []byte

	// Legacy marks a record in the form that it was stored in before there were
	// lives of tokens. All that form lacks is zero.
	Legacy bool
}

// State says what has become of a token. The numbers are part of stored forms.
type State uint8

// States.
const (
	Active  State = 0
	Revoked State = 1 // until it is restored
	Spent   State = 2 // used as often as it may be
	Expired State = 3 // the value has been shredded
	Deleted State = 4 // kept only so that its token is never made again
)

// String returns the name of the state, as in "active".
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Revoked:
		return "revoked"
	case Spent:
		return "spent"
	case Expired:
		return "expired"
	case Deleted:
		return "deleted"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Formats of stored records: the first byte. Both stay readable; new ones are
// of the second.
const (
	legacyFormat = 1
	recordFormat = 2
)

// MaxValue is the size of the largest value in bytes, in its normal form.
const MaxValue = 1 << 20

// maxRecord bounds a stored record: the largest value, the most details and the
// header, with room.
const maxRecord = MaxValue + 1<<16

// Flags of a stored record, of which it has one at most.
const (
	imported   = 1
	honeytoken = 2
)

// AppendBinary appends the stored form of the record, without its id, which is
// the key under which it is stored:
//
//	format(1) check(4) created(8) key version(uvarint) token version(uvarint)
//	namespace(uvarint length, bytes) profile(same)
//	state(1) flags(1) expires(uvarint) subject(uvarint) max uses(uvarint) uses(uvarint)
//	value(same) details(same)
//	token(same)
//
// A legacy record, of format 1, lacks the third and the last line. Times are in
// Unix seconds, 0 for never; integers of fixed size are big endian; flag 1 is
// Imported, 2 is Honeytoken. It fails for a record that ParseRecord would refuse.
func (r Record) AppendBinary(dst []byte) ([]byte, error) {
	if len(r.Namespace) > 255 || len(r.Profile) > 255 || len(r.Value)+len(r.Details)+len(r.Token) > maxRecord-1024 {
		return dst, fmt.Errorf("tokenizer: record %d is too large to be stored", r.ID)
	}
	if r.State > Deleted || r.expires() < 0 || (r.Legacy && !r.plain()) || r.Imported && r.Honeytoken {
		return dst, fmt.Errorf("tokenizer: record %d has no stored form", r.ID)
	}
	dst = append(dst, r.format())
	dst = append(dst, r.Check[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created.Unix()))
	dst = binary.AppendUvarint(dst, uint64(r.KeyVersion))
	dst = binary.AppendUvarint(dst, uint64(r.TokenVersion))
	dst = appendField(dst, r.Namespace)
	dst = appendField(dst, r.Profile)
	if !r.Legacy {
		dst = append(dst, byte(r.State), r.flags())
		dst = binary.AppendUvarint(dst, uint64(r.expires()))
		dst = binary.AppendUvarint(dst, r.Subject)
		dst = binary.AppendUvarint(dst, uint64(r.MaxUses))
		dst = binary.AppendUvarint(dst, uint64(r.Uses))
	}
	dst = appendField(dst, r.Value)
	dst = appendField(dst, r.Details)
	if !r.Legacy {
		dst = appendField(dst, r.Token)
	}
	return dst, nil
}

func (r *Record) format() byte {
	if r.Legacy {
		return legacyFormat
	}
	return recordFormat
}

func (r *Record) flags() byte {
	switch {
	case r.Honeytoken:
		return honeytoken
	case r.Imported:
		return imported
	}
	return 0
}

// expires returns Expires as it is stored.
func (r *Record) expires() int64 {
	if r.Expires.IsZero() {
		return 0
	}
	return r.Expires.Unix()
}

// plain says whether a record has nothing that a legacy one can't have.
func (r *Record) plain() bool {
	return r.State == Active && !r.Imported && !r.Honeytoken && r.Expires.IsZero() && r.Subject == 0 && r.MaxUses == 0 && r.Uses == 0 && len(r.Token) == 0
}

// ParseRecord reads the stored form of the record with the id. The result
// shares no memory with b. Anything but the output of AppendBinary is
// ErrDamaged.
func ParseRecord(id uint64, b []byte) (Record, error) {
	p := parser{rest: b}
	r := Record{ID: id}
	form := p.take(1)[0]
	r.Legacy = form == legacyFormat
	if !r.Legacy && form != recordFormat {
		p.bad = true
	}
	copy(r.Check[:], p.take(4))
	r.Created = time.Unix(int64(binary.BigEndian.Uint64(p.take(8))), 0).UTC()
	r.KeyVersion = p.version()
	r.TokenVersion = p.version()
	r.Namespace, r.Profile = p.names()
	if !r.Legacy {
		p.life(&r)
	}
	p.rest = bytes.Clone(p.rest)
	r.Value, r.Details = p.sealed(), p.sealed()
	if !r.Legacy {
		r.Token = p.sealed()
	}
	if p.bad || len(p.rest) != 0 || len(b) > maxRecord ||
		len(r.Namespace) > 255 || len(r.Profile) > 255 {
		return Record{}, fmt.Errorf("%w: record %d doesn't parse", ErrDamaged, id)
	}
	return r, nil
}

// life takes what a legacy record lacks.
func (p *parser) life(r *Record) {
	marks := p.take(2)
	r.State, r.Imported, r.Honeytoken = State(marks[0]), marks[1] == imported, marks[1] == honeytoken
	if r.State > Deleted || marks[1] > honeytoken {
		p.bad = true
	}
	if at := p.uvarint(); at > maxTime {
		p.bad = true
	} else if at > 0 {
		r.Expires = time.Unix(int64(at), 0).UTC()
	}
	r.Subject = p.uvarint()
	r.MaxUses, r.Uses = p.version(), p.version()
}

// maxTime is the last second that a time.Time can be written in RFC 3339.
const maxTime = 253402300799

// ParseRecordHead returns the part of a stored record that says what it is
// under and of which profile. It looks no further, so it is cheaper than
// ParseRecord, and finds less damage.
func ParseRecordHead(id uint64, b []byte) (Record, error) {
	p := parser{rest: b}
	r := Record{ID: id}
	form := p.take(1)[0]
	p.bad = form != recordFormat && form != legacyFormat
	p.take(4)
	p.take(8)
	r.KeyVersion, r.TokenVersion = p.version(), p.version()
	r.Namespace, r.Profile = p.names()
	if p.bad {
		return Record{}, fmt.Errorf("%w: record %d doesn't parse", ErrDamaged, id)
	}
	return r, nil
}

// SameOrigin says whether one record can take the place of the other: they are
// of one token.
func (r Record) SameOrigin(o Record) bool {
	return r.ID == o.ID && r.Namespace == o.Namespace && r.Profile == o.Profile &&
		r.Created.Equal(o.Created) && r.TokenVersion == o.TokenVersion && r.Check == o.Check
}

// Equal says whether two records are the same.
func (r Record) Equal(o Record) bool {
	return r.SameOrigin(o) && r.KeyVersion == o.KeyVersion && r.Legacy == o.Legacy && r.State == o.State &&
		r.Imported == o.Imported && r.Honeytoken == o.Honeytoken && r.Expires.Equal(o.Expires) && r.Subject == o.Subject &&
		r.MaxUses == o.MaxUses && r.Uses == o.Uses &&
		bytes.Equal(r.Value, o.Value) && bytes.Equal(r.Details, o.Details) && bytes.Equal(r.Token, o.Token)
}

// DataKey names the data key that seals the record.
func (r Record) DataKey() keystore.KeyID {
	return keystore.KeyID{Namespace: r.Namespace, Class: keystore.Data, Version: r.KeyVersion}
}

// TokenKey names the token key that made the record's token; the version is 0
// if none did.
func (r Record) TokenKey() keystore.KeyID {
	return keystore.KeyID{Namespace: r.Namespace, Class: keystore.Token, Version: r.TokenVersion}
}

// Ciphertexts returns how many times its data key has sealed for the record.
func (r *Record) Ciphertexts() (n uint64) {
	for _, sealed := range [...][]byte{r.Value, r.Details, r.Token} {
		if len(sealed) > 0 {
			n++
		}
	}
	return n
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

// names takes two names, into one piece of memory.
func (p *parser) names() (first, second string) {
	rest := p.rest
	a := p.field()
	end := len(rest) - len(p.rest)
	b := p.field()
	both := string(rest[:len(rest)-len(p.rest)])
	return both[end-len(a) : end], both[len(both)-len(b):]
}

// sealed takes a byte string, nil if it is empty. It shares its memory with what it
// is taken from.
func (p *parser) sealed() []byte {
	if b := p.field(); len(b) > 0 {
		return b[:len(b):len(b)]
	}
	return nil
}

// part names what of a record a ciphertext is, for additionalData.
type part byte

const (
	partValue   part = 'v'
	partDetails part = 'm'
	partToken   part = 't'
)

// additionalData appends what a ciphertext is bound to (DESIGN.md section 5:
// format version, namespace, profile, id and subject; and all else that stands
// in the header but the version of the data key, so that no part of it can be
// edited).
func (r *Record) additionalData(dst []byte, p part) []byte {
	dst = append(dst, "coatcheck record"...)
	dst = append(dst, r.format(), byte(p))
	dst = binary.BigEndian.AppendUint64(dst, r.ID)
	dst = append(dst, r.Check[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created.Unix()))
	dst = binary.BigEndian.AppendUint32(dst, r.TokenVersion)
	if !r.Legacy {
		dst = append(dst, byte(r.State), r.flags())
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.expires()))
		dst = binary.BigEndian.AppendUint64(dst, r.Subject)
		dst = binary.BigEndian.AppendUint32(dst, r.MaxUses)
		dst = binary.BigEndian.AppendUint32(dst, r.Uses)
	}
	dst = appendField(dst, r.Namespace)
	return appendField(dst, r.Profile)
}

// additional has room for the additional data of usual records, which is nothing
// secret.
var additional = sync.Pool{New: func() any { return new([192]byte) }}

// seal encrypts value, token and details into the record, whose header is
// complete but for the key version, under the ring's newest data key and, if the
// record has a subject, value and details under the subject's secret. What is
// empty is not there. nonces may be nil.
func (r *Record) seal(ring *keystore.Keyring, nonces *keystore.Nonces, secret *secret, value []byte, token Token, details []byte) (err error) {
	r.Legacy, r.Value, r.Details, r.Token = false, nil, nil, nil
	if len(value) > 0 {
		if r.Value, err = r.sealPart(ring, nonces, secret, value, partValue); err != nil {
			return err
		}
	}
	if len(details) > 0 {
		if r.Details, err = r.sealPart(ring, nonces, secret, details, partDetails); err != nil {
			return err
		}
	}
	if len(token) > 0 {
		if r.Token, err = r.sealPart(ring, nonces, nil, []byte(token), partToken); err != nil {
			return err
		}
	}
	if r.Ciphertexts() == 0 {
		r.KeyVersion = ring.ActiveVersion(keystore.Data)
	}
	return nil
}

// sealPart encrypts one part.
func (r *Record) sealPart(ring *keystore.Keyring, nonces *keystore.Nonces, secret *secret, plain []byte, p part) (sealed []byte, err error) {
	buf := additional.Get().(*[192]byte)
	defer additional.Put(buf)
	bound := r.additionalData(buf[:0], p)
	if r.Subject != 0 && p != partToken {
		sealed, r.KeyVersion, err = ring.SealFor(nonces, nil, plain, bound, secret)
	} else {
		sealed, r.KeyVersion, err = ring.Seal(nonces, nil, plain, bound)
	}
	return sealed, err
}

// open decrypts one part of the record, nil if it isn't there. A record that
// doesn't open under the key that it names is ErrDamaged.
func (r *Record) open(ring *keystore.Keyring, secret *secret, p part) (plain []byte, err error) {
	sealed := r.Value
	switch p {
	case partDetails:
		sealed = r.Details
	case partToken:
		sealed = r.Token
	}
	if len(sealed) == 0 {
		return nil, nil
	}
	buf := additional.Get().(*[192]byte)
	defer additional.Put(buf)
	bound := r.additionalData(buf[:0], p)
	if r.Subject != 0 && p != partToken {
		plain, err = ring.OpenFor(nil, r.KeyVersion, sealed, bound, secret)
	} else {
		plain, err = ring.Open(nil, r.KeyVersion, sealed, bound)
	}
	if errors.Is(err, keystore.ErrOpen) || errors.Is(err, keystore.ErrKeyVersion) {
		// Of a key that is gone, retrying doesn't bring it back: it isn't wrapped.
		return nil, fmt.Errorf("%w: record %d doesn't open: %v", ErrDamaged, r.ID, err)
	}
	return plain, err
}
