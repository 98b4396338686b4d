package tokenizer

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/coatcheck/coatcheck/keystore"
)

// Audited is something that is stored, by the names that the audit trail has for it.
type Audited struct {
	// Digests are those of Digests, or SubjectDigests.
	Digests []string

	// Record is the id of its record.
	Record uint64

	// Subject is the id of the record of the person that it is, or is about; 0 if it
	// is about nobody.
	Subject uint64
}

// auditedPage is how many records are gone through at once.
const auditedPage = 1000

// AuditedSubjects goes through the people whom anything is stored about, in no
// particular order, and hands on each; some perhaps twice, while one key takes the place
// of another. Those who have been erased aren't there any more, and those whose records
// can't be read are passed over: their number is returned. What is in memory doesn't grow
// with how many there are.
//
// Errors: that of do, ErrUnavailable, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) AuditedSubjects(ctx context.Context, namespace string, do func(Audited) error) (damaged int, err error) {
	prefix := claimPrefix(subjectClaim, namespace)
	for after := []byte(nil); ; {
		claims, err := t.store.Claims(ctx, prefix, after, auditedPage)
		if err != nil || len(claims) == 0 {
			return damaged, err
		}
		after = claims[len(claims)-1].Key
		var ids []uint64
		for _, c := range claims {
			if len(c.Value) != 8 {
				damaged++
				continue
			}
			ids = append(ids, binary.BigEndian.Uint64(c.Value))
		}
		r, err := t.reader(ctx, namespace) // a new one, so that it doesn't keep all
		if err != nil {
			return damaged, err
		}
		if err := r.fetchSubjects(ctx, ids...); err != nil {
			return damaged, err
		}
		for _, id := range ids {
			about, err := r.auditedSubject(id)
			if errors.Is(err, ErrDamaged) {
				damaged++
				continue
			}
			if err == nil && about.Digests != nil {
				err = do(about)
			}
			if err != nil {
				return damaged, err
			}
		}
	}
}

// auditedSubject returns a person by their digests, of which there are none if they have
// been erased.
func (r *reader) auditedSubject(id uint64) (Audited, error) {
	s, err := r.subject(id)
	if isErased(err) {
		return Audited{}, nil
	}
	if err != nil {
		return Audited{}, err
	}
	all, err := digests(r.ring, labelSubject, []byte(s.name))
	return Audited{all, id, id}, err
}

// AuditedTokens is AuditedSubjects for the tokens of a profile, in the order in which they
// were made, whatever has become of them.
//
// Errors: ErrUnknownProfile, and those of AuditedSubjects.
func (t *Tokenizer) AuditedTokens(ctx context.Context, namespace, profile string, do func(Audited) error) (damaged int, err error) {
	if _, ok := t.profiles[profile]; !ok {
		return 0, ErrUnknownProfile
	}
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for after := uint64(0); ; {
		scanned, err := t.store.Scan(ctx, namespace, profile, after, auditedPage)
		if err != nil {
			return damaged, err
		}
		for ids := scanned.IDs; len(ids) > 0; ids = ids[min(atOnce, len(ids)):] {
			found, err := r.read(ctx, ids[:min(atOnce, len(ids))])
			if err != nil {
				return damaged, err
			}
			for _, f := range found {
				about, err := r.audited(f)
				if errors.Is(err, ErrDamaged) {
					damaged++
					continue
				}
				if err == nil && about.Digests != nil {
					err = do(about)
				}
				if err != nil {
					return damaged, err
				}
			}
		}
		if after = scanned.Next; after == 0 {
			return damaged, nil
		}
	}
}

// audited returns a token by its digests, of which there are none if it isn't there.
func (r *reader) audited(f Found) (Audited, error) {
	if errors.Is(f.Err, ErrNotFound) {
		return Audited{}, nil
	}
	if f.Err != nil {
		return Audited{}, f.Err
	}
	o := opened{Record: f.Record}
	var err error
	if o.token, err = f.Record.token(r.ring); err != nil {
		return Audited{}, err
	}
	token, err := r.tokenOf(&o)
	if err != nil {
		return Audited{}, err
	}
	all, err := digests(r.ring, labelToken, digestContent(nil, o.Profile, token))
	return Audited{all, o.ID, o.Subject}, err
}

// SubjectName is how a caller knows a person, and how the audit trail does.
type SubjectName struct {
	Name   string // "" if they have been erased
	Digest string // as DigestSubject makes it; then ""
}

// SubjectNames returns who the people are whose records have the ids, in their order.
//
// Errors: ErrDamaged, ErrUnavailable, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) SubjectNames(ctx context.Context, namespace string, ids ...uint64) ([]SubjectName, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return nil, err
	}
	if err := r.fetchSubjects(ctx, ids...); err != nil {
		return nil, err
	}
	names := make([]SubjectName, len(ids))
	for i, id := range ids {
		s, err := r.subject(id)
		if isErased(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names[i].Name = s.name
		if names[i].Digest, err = r.digestOf(id); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// digests returns all digests of a content: see Digests.
func digests(ring *keystore.Keyring, label string, content []byte) (all []string, err error) {
	for _, under := range []struct {
		class  keystore.Class
		prefix string
	}{{keystore.Audit, "a"}, {keystore.Index, ""}} {
		for _, version := range ring.Versions(under.class) {
			sum, err := ring.MACVersion(under.class, version, label, content)
			if err != nil {
				return nil, err
			}
			all = append(all, formatDigest(under.prefix, version, sum))
		}
	}
	return all, nil
}
