package tokenizer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/coatcheck/coatcheck/keystore"
)

// ErrInvalidSubject says that a subject is of the wrong form, missing, or named
// where there must be none. It comes inside an *InputError.
var ErrInvalidSubject = errors.New("tokenizer: invalid subject")

// ErrSubjectErased says that the person whom a value is about has been erased:
// the secret under which it was sealed is no more.
var ErrSubjectErased = errors.New("tokenizer: subject erased")

// MaxSubject is the longest name of a subject in bytes.
const MaxSubject = 256

// A subject is a record without a profile. Its value is the subject's secret,
// under which all that is about the subject is sealed (DESIGN.md section 5),
// followed by the name that the caller knows the subject by:
//
//	secret(32) name
//
// Destroying that record shreds every record of the subject, wherever copies of
// them are.
type subject struct {
	id     uint64
	name   string
	secret secret
	digest string // as DigestSubject makes it, once it is asked for
}

type secret = [keystore.SubjectSecretSize]byte

// newSubject makes a subject of a record whose header is begun.
func newSubject(ring *keystore.Keyring, record *Record, name string) (*subject, error) {
	s := &subject{id: record.ID, name: name}
	_, _ = rand.Read(s.secret[:]) // it never fails
	plain := append(append(make([]byte, 0, len(s.secret)+len(name)), s.secret[:]...), name...)
	defer clear(plain)
	return s, record.seal(ring, nil, nil, plain, "", nil)
}

// openSubject opens the record of a subject. One that is gone, or has no secret
// any more, is ErrSubjectErased.
func openSubject(ring *keystore.Keyring, f Found) (*subject, error) {
	if errors.Is(f.Err, ErrNotFound) || f.Err == nil && len(f.Record.Value) == 0 {
		return nil, ErrSubjectErased
	}
	if f.Err != nil {
		return nil, f.Err
	}
	plain, err := f.Record.open(ring, nil, partValue)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	if f.Record.Profile != "" || len(plain) <= keystore.SubjectSecretSize {
		return nil, fmt.Errorf("%w: record %d is no subject", ErrDamaged, f.Record.ID)
	}
	s := &subject{id: f.Record.ID}
	s.name = string(plain[copy(s.secret[:], plain):])
	return s, nil
}

// checkSubject says whether a request may name the subject that it names.
func (p *profile) checkSubject(name string) error {
	switch {
	case len(name) > MaxSubject:
		return &InputError{ErrInvalidSubject, "is longer than 256 bytes"}
	case name == "" && p.Subject == SubjectRequired:
		return &InputError{ErrInvalidSubject, "is required by the profile"}
	case name != "" && p.Subject == SubjectForbidden:
		return &InputError{ErrInvalidSubject, "must not be named for this profile"}
	case name != "" && !p.stored():
		return &InputError{ErrInvalidSubject, "has no meaning for this profile, which stores nothing"}
	}
	return nil
}

// findSubject returns the subject with the name, or nil if there is none.
func (r *reader) findSubject(ctx context.Context, name string) (*subject, error) {
	p, err := newProbe(r.ring, subjectClaim, []byte(name))
	if err != nil {
		return nil, err
	}
	if err := r.lookNewest(ctx, p); err != nil {
		return nil, err
	}
	id, err := p.id()
	if err != nil || id == 0 {
		return nil, err
	}
	if err := r.fetchSubjects(ctx, id); err != nil {
		return nil, err
	}
	s, err := r.subject(id)
	if err == nil && s.name != name {
		return nil, fmt.Errorf("%w: the index points to another subject", ErrDamaged)
	}
	return s, err
}
