package tokenizer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coatcheck/coatcheck/keystore"
)

// reader reads for one unit, as few times as it can, with a keyring that has
// the keys of what it reads.
type reader struct {
	t        *Tokenizer
	ring     *keystore.Keyring
	subjects map[uint64]held[*subject]
}

// held is what was found, or why it wasn't.
type held[T any] struct {
	it  T
	err error
}

func (t *Tokenizer) reader(ctx context.Context, namespace string) (*reader, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return &reader{t: t, ring: ring}, nil
}

// look reads what the probes' claims hold, all at one moment.
func (r *reader) look(ctx context.Context, probes ...*probe) error {
	var keys [][]byte
	for _, p := range probes {
		keys = append(keys, p.keys...)
	}
	if len(keys) == 0 {
		return nil
	}
	values, err := r.t.store.Claimed(ctx, keys...)
	if err != nil {
		return err
	}
	for _, p := range probes {
		p.values, values = values[:len(p.keys):len(p.keys)], values[len(p.keys):]
	}
	return nil
}

// lookNewest is look for who commits nothing that rests on what it found, and
// would not be told that entries have moved to a newer key: if something isn't
// held it looks whether there is one, which another replica may have made, and
// looks again. All probes are of one class.
func (r *reader) lookNewest(ctx context.Context, probes ...*probe) error {
	for {
		if err := r.look(ctx, probes...); err != nil {
			return err
		}
		if !slices.ContainsFunc(probes, func(p *probe) bool { return p.held() == nil }) {
			return nil
		}
		if newer, err := r.renew(ctx, probes[0].kind.class()); err != nil || !newer {
			return err
		}
		for _, p := range probes {
			if err := p.renew(r.ring); err != nil {
				return err
			}
		}
	}
}

// renew takes over the newest keyring, and says whether its active key of the
// class is newer than that of the one at hand.
func (r *reader) renew(ctx context.Context, class keystore.Class) (newer bool, err error) {
	was := r.ring.ActiveVersion(class)
	ring, err := r.t.keys.Newer(ctx, r.ring.Namespace(), class, was+1)
	if err != nil {
		return false, err
	}
	r.ring = ring
	return ring.ActiveVersion(class) > was, nil
}

// atOnce is how many records are in memory at once at most, where many are gone
// through: of the largest values, 64 MiB.
const atOnce = 64

// each fetches records some at a time and hands on each with its place.
func (r *reader) each(ctx context.Context, ids []uint64, do func(i int, f *Found) error) error {
	for from := 0; from < len(ids); from += atOnce {
		found, err := r.fetch(ctx, ids[from:min(from+atOnce, len(ids))]...)
		if err != nil {
			return err
		}
		for i := range found {
			if err := do(from+i, &found[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch reads records, and those of their subjects, and takes over newer keys if
// that is what it takes to open them. Records move from key to key, so either
// the record or the keyring at hand may be behind the other.
func (r *reader) fetch(ctx context.Context, ids ...uint64) ([]Found, error) {
	found, err := r.read(ctx, ids)
	if err != nil {
		return nil, err
	}
	var subjects map[uint64]struct{}
	for i := range found {
		id := found[i].Record.Subject
		if _, ok := r.subjects[id]; id == 0 || ok {
			continue
		}
		if subjects == nil {
			subjects = make(map[uint64]struct{})
		}
		subjects[id] = struct{}{}
	}
	if len(subjects) == 0 {
		return found, nil
	}
	return found, r.fetchSubjects(ctx, slices.Collect(maps.Keys(subjects))...)
}

// fetchSubjects reads the records of subjects.
func (r *reader) fetchSubjects(ctx context.Context, ids ...uint64) error {
	if len(ids) == 0 {
		return nil
	}
	found, err := r.read(ctx, ids)
	if err != nil {
		return err
	}
	if r.subjects == nil {
		r.subjects = make(map[uint64]held[*subject])
	}
	for i, f := range found {
		s, err := openSubject(r.ring, f)
		r.subjects[ids[i]] = held[*subject]{s, err}
	}
	return nil
}

// subject returns a subject that has been fetched; nil for the id 0.
func (r *reader) subject(id uint64) (*subject, error) {
	if id == 0 {
		return nil, nil
	}
	s, ok := r.subjects[id]
	if !ok {
		return nil, ErrSubjectErased
	}
	return s.it, s.err
}

// secretOf returns the secret that a record is sealed under, nil if it is about
// nobody.
func (r *reader) secretOf(record Record) (*secret, error) {
	s, err := r.subject(record.Subject)
	if s == nil {
		return nil, err
	}
	return &s.secret, err
}

// digestOf returns the digest by which the audit trail names the subject with the id,
// which has been fetched; "" for the id 0. It is made once for all that is about them.
func (r *reader) digestOf(id uint64) (string, error) {
	s, err := r.subject(id)
	if s == nil {
		return "", err
	}
	if s.digest == "" {
		s.digest, err = digest(r.ring, labelSubject, []byte(s.name))
	}
	return s.digest, err
}

// read reads records until the keyring has their data keys.
func (r *reader) read(ctx context.Context, ids []uint64) ([]Found, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	const attempts = 3
	for attempt := 1; ; attempt++ {
		found, err := r.t.store.Records(ctx, ids...)
		if err != nil {
			return nil, err
		}
		missing := r.missing(found)
		if missing == (keystore.KeyID{}) || attempt == attempts {
			return found, nil
		}
		if r.ring, err = r.t.keys.Newer(ctx, r.ring.Namespace(), missing.Class, missing.Version); err != nil {
			return nil, err
		}
	}
}

// missing returns a key that records are under and that the keyring hasn't.
func (r *reader) missing(found []Found) keystore.KeyID {
	for i := range found {
		record := &found[i].Record
		if record.Namespace != r.ring.Namespace() {
			continue // not there, or not ours
		}
		if record.Ciphertexts() > 0 && !r.ring.Has(keystore.Data, record.KeyVersion) {
			return record.DataKey()
		}
		if record.TokenVersion != 0 && !r.ring.Has(keystore.Token, record.TokenVersion) {
			return record.TokenKey()
		}
	}
	return keystore.KeyID{}
}

// opened is a record with what is sealed in it.
type opened struct {
	Record
	value []byte // nil if it has been shredded
	token Token  // "" if it is a sealed id
	details
}

// openFound is open for what may not have been found.
func (r *reader) openFound(f Found) (*opened, error) {
	if f.Err != nil {
		return nil, f.Err
	}
	return r.open(f.Record)
}

// open opens a record that has been fetched.
func (r *reader) open(record Record) (*opened, error) {
	o := &opened{Record: record}
	key, err := r.secretOf(record)
	if err != nil {
		return nil, err
	}
	if o.token, err = record.token(r.ring); err != nil {
		return nil, err
	}
	plain, err := record.open(r.ring, key, partDetails)
	if err != nil {
		return nil, err
	}
	if o.details, err = parseDetails(record, plain); err != nil {
		return nil, err
	}
	o.value, err = record.open(r.ring, key, partValue)
	return o, err
}

// token returns the token that a record keeps, "" if that is a sealed id.
func (r *Record) token(ring *keystore.Keyring) (Token, error) {
	if r.TokenVersion != 0 || r.Profile == "" {
		return "", nil
	}
	plain, err := r.open(ring, nil, partToken)
	if err == nil && len(plain) == 0 {
		err = fmt.Errorf("%w: record %d has no token", ErrDamaged, r.ID)
	}
	return Token(plain), err
}

// seal returns the record as it is to be stored from now on.
func (r *reader) seal(o *opened) (Record, error) {
	renewed := o.Record
	key, err := r.secretOf(renewed)
	if err != nil {
		return Record{}, err
	}
	plain := o.details.append(nil)
	defer clear(plain)
	err = renewed.seal(r.ring, nil, key, o.value, o.token, plain)
	return renewed, err
}

// tokenOf returns the token of a record.
func (r *reader) tokenOf(o *opened) (Token, error) {
	if o.TokenVersion == 0 {
		return o.token, nil
	}
	token, err := sealID(r.ring, &o.Record)
	if errors.Is(err, keystore.ErrKeyVersion) {
		err = ErrDamaged // its key is counted in the census, so it can't have been retired
	}
	return token, err
}
