package tokenizer

import (
	"context"
	"time"
)

// Facts are what can be known of a token before anything is done with it. What is
// sealed is opened when it is asked for. Facts are good only during the call of the
// judge that they are handed to, and not for concurrent use.
//
// Of a token of the mode FPE, of which nothing is stored, there are none: all that
// they say is zero.
type Facts struct {
	reader *reader
	record *Record // nil if nothing is stored

	opened bool // what follows is known
	labels map[string]string
	err    error
}

// Created returns when the token was made.
func (f *Facts) Created() time.Time {
	if f.record == nil {
		return time.Time{}
	}
	return f.record.Created
}

// Expires returns when it expires, zero for never.
func (f *Facts) Expires() time.Time {
	if f.record == nil {
		return time.Time{}
	}
	return f.record.Expires
}

// Subject returns whom it is about, "" for nobody.
//
// Errors: ErrSubjectErased, ErrDamaged. A judge that needs to know passes them on.
func (f *Facts) Subject() (string, error) {
	if f.record == nil {
		return "", nil
	}
	s, err := f.reader.subject(f.record.Subject)
	if s == nil || err != nil {
		return "", err
	}
	return s.name, nil
}

// Metadata returns its labels, which must not be changed.
//
// Errors: ErrExpired if they have been shredded with the value, ErrSubjectErased,
// ErrDamaged. A judge that needs to know passes them on.
func (f *Facts) Metadata() (map[string]string, error) {
	if !f.opened && f.record != nil {
		f.opened = true
		f.labels, f.err = f.reader.labelsOf(f.record)
	}
	return f.labels, f.err
}

// labelsOf opens the labels of a record, and nothing else of it.
func (r *reader) labelsOf(record *Record) (map[string]string, error) {
	if record.State == Expired {
		return nil, ErrExpired
	}
	key, err := r.secretOf(*record)
	if err != nil {
		return nil, err
	}
	plain, err := record.open(r.ring, key, partDetails)
	if err != nil {
		return nil, err
	}
	d, err := parseDetails(*record, plain)
	if err != nil {
		return nil, err
	}
	return parseMetadata(d.labels)
}

// facts returns the facts of what was found.
func (r *reader) facts(f *Found) *Facts {
	if f.Err != nil {
		return &Facts{}
	}
	return &Facts{reader: r, record: &f.Record}
}

// Find says whether a token is there: nil, whatever has become of it, or one of the
// errors.
//
// Errors: ErrTokenNotFound, ErrHoneytoken, ErrDamaged, ErrUnavailable, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Find(ctx context.Context, namespace string, ref Reference) error {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return err
	}
	_, err = r.findRecord(ctx, ref, nil)
	return err
}
