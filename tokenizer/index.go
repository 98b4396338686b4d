package tokenizer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// The index is made of claims. What a key of it begins with says what it finds:
//
//	token        the record of a token that is no sealed id
//	convergent   the record of a value, in the mode convergent
//	lookup       the records of a value: their ids stand in the key
//	subject      the record of a subject
//	idempotency  what a call with an idempotency key was answered with
//	owned        the records of a subject: their ids stand in the key
//	honeytoken   the honeytokens of a profile: their ids stand in the key
//	due          what is to be done at a time: see sweep.go
//
// Three more are no way to a record of a token: see declare.go and signer.go. All
// before owned are sums under a key of the keyring (PCI DSS 4.0.1,
// 3.5.1.1): kind(1) namespace(length(1), bytes) version(4) sum(16).
type claimKind byte

const (
	tokenClaim       claimKind = 't'
	convergentClaim  claimKind = 'c'
	lookupClaim      claimKind = 'l'
	subjectClaim     claimKind = 's'
	idempotencyClaim claimKind = 'i'
	ownedClaim       claimKind = 'o'
	honeytokenClaim  claimKind = 'h'
	dueClaim         claimKind = 'x'
)

// label is what the sum of a claim is for (keystore.Keyring.MAC).
func (k claimKind) label() string {
	switch k {
	case tokenClaim:
		return "index token"
	case convergentClaim:
		return "index convergent"
	case lookupClaim:
		return "index lookup"
	case subjectClaim:
		return "index subject"
	default:
		return "index idempotency"
	}
}

// class is the class of keys that sums are under.
func (k claimKind) class() keystore.Class {
	if k == subjectClaim {
		return keystore.Subject
	}
	return keystore.Index
}

// sumSize is how much of a sum stands in a claim: 128 bits.
const sumSize = 16

// claimPrefix begins the keys of a kind in a namespace.
func claimPrefix(kind claimKind, namespace string) []byte {
	key := make([]byte, 0, 2+len(namespace)+4+sumSize+8)
	key = append(key, byte(kind), byte(len(namespace)))
	return append(key, namespace...)
}

// versionPrefix begins the keys of a kind under a version.
func versionPrefix(kind claimKind, namespace string, version uint32) []byte {
	return binary.BigEndian.AppendUint32(claimPrefix(kind, namespace), version)
}

// sumKey returns the key of a claim under a version.
//
// Errors: keystore.ErrKeyVersion.
func sumKey(ring *keystore.Keyring, kind claimKind, version uint32, content []byte) ([]byte, error) {
	sum, err := ring.MACVersion(kind.class(), version, kind.label(), content)
	if err != nil {
		return nil, err
	}
	return append(versionPrefix(kind, ring.Namespace(), version), sum[:sumSize]...), nil
}

// underOf names the key that a claim of the kind is under if it is made now.
func underOf(ring *keystore.Keyring, kind claimKind) keystore.KeyID {
	class := kind.class()
	return keystore.KeyID{Namespace: ring.Namespace(), Class: class, Version: ring.ActiveVersion(class)}
}

// probe is a claim that is looked for under each version of its class, since
// there may be several while one key takes the place of another.
type probe struct {
	kind    claimKind
	content []byte
	suffix  []byte            // stands behind the sum
	ring    *keystore.Keyring // that has the versions
	keys    [][]byte          // the newest version's first
	values  [][]byte          // what they hold
}

func newProbe(ring *keystore.Keyring, kind claimKind, content []byte) (*probe, error) {
	p := &probe{kind: kind, content: content}
	return p, p.renew(ring)
}

// newLookupProbe returns the probe of the claim by which a record is found by its
// value.
func newLookupProbe(ring *keystore.Keyring, profile string, value []byte, id uint64) (*probe, error) {
	p := &probe{kind: lookupClaim, content: lookupContent(profile, value), suffix: lookupSuffix(id)}
	return p, p.renew(ring)
}

// renew has a probe look under the versions of a keyring.
func (p *probe) renew(ring *keystore.Keyring) error {
	p.ring, p.keys, p.values = ring, nil, nil
	for _, version := range p.versions() {
		key, err := sumKey(ring, p.kind, version, p.content)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, append(key, p.suffix...))
	}
	return nil
}

// versions returns those of the keys.
func (p *probe) versions() []uint32 { return p.ring.Versions(p.kind.class()) }

// newest returns the key under which a claim is made.
func (p *probe) newest() []byte { return p.keys[0] }

// held returns what is claimed, nil if nothing is.
func (p *probe) held() []byte {
	for _, value := range p.values {
		if value != nil {
			return value
		}
	}
	return nil
}

// id returns the id that the claim holds, 0 if none.
func (p *probe) id() (uint64, error) {
	value := p.held()
	if value == nil {
		return 0, nil
	}
	if len(value) < 8 {
		return 0, fmt.Errorf("%w: a claim", ErrDamaged)
	}
	return binary.BigEndian.Uint64(value), nil
}

// claim returns the claims that put a value in the place of what is held.
func (p *probe) claim(value []byte) (claims []Claim) {
	claims = append(claims, Claim{Key: p.keys[0], Old: p.values[0], New: value, Under: underOf(p.ring, p.kind)})
	return append(claims, p.release(1, nil)...)
}

// release returns the claims that remove what is held, from the n-th key on; if
// value is not nil, only where that is held.
func (p *probe) release(n int, value []byte) (claims []Claim) {
	for i := n; i < len(p.keys); i++ {
		if p.values[i] != nil && (value == nil || bytes.Equal(p.values[i], value)) {
			claims = append(claims, Claim{Key: p.keys[i], Old: p.values[i]})
		}
	}
	return claims
}

// idValue is what a claim that points to a record holds.
func idValue(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// present is what a claim holds whose key says it all.
var present = []byte{1}

// lookupSuffix stands behind the sum of a value in the key by which a record is
// found by it. The newest record comes first.
func lookupSuffix(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, ^id) }

// ownedKey is the key by which a record is found by its subject.
func ownedKey(namespace string, subject, id uint64) []byte {
	return binary.BigEndian.AppendUint64(ownedPrefix(namespace, subject), id)
}

func ownedPrefix(namespace string, subject uint64) []byte {
	return binary.BigEndian.AppendUint64(claimPrefix(ownedClaim, namespace), subject)
}

// Kinds of what is due.
const (
	dueRecord      = 'r' // a record expires, or its last lease ends
	dueIdempotency = 'i' // an idempotency key is forgotten
)

// dueKey is the key of something that is due at a time.
func dueKey(namespace string, at time.Time, kind byte, what []byte) []byte {
	key := binary.BigEndian.AppendUint64(claimPrefix(dueClaim, namespace), uint64(at.Unix()))
	return append(append(key, kind), what...)
}

// Contents of sums. Fields stand behind their lengths, so that no two contents
// are the same by chance.

func tokenContent(profile, token string) []byte {
	return appendField(appendField(nil, profile), token)
}

func convergentContent(profile, subject string, value []byte) []byte {
	return append(appendField(appendField(make([]byte, 0, len(profile)+len(subject)+len(value)+4), profile), subject), value...)
}

func lookupContent(profile string, value []byte) []byte {
	return append(appendField(make([]byte, 0, len(profile)+len(value)+2), profile), value...)
}

func idempotencyContent(caller, key string) []byte {
	return appendField(appendField(nil, caller), key)
}
