package tokenizer

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// record adds a new record, its header begun.
func (b *tokenizing) record(id uint64) *Record {
	b.records = append(b.records, Record{})
	r := &b.records[len(b.records)-1]
	r.ID, r.Namespace, r.Created = id, b.ring.Namespace(), b.created
	r.Check, b.checks = [4]byte(b.checks), b.checks[4:]
	return r
}

// begin prepares for n more records, which are sealed in so many parts.
func (b *tokenizing) begin(n, parts int) {
	b.records = slices.Grow(b.records, n)
	b.created = b.now.UTC().Truncate(time.Second)
	b.nonces, b.checks = keystore.NewNonces(parts, 4*n)
}

// parts is how many parts of the record of an item are sealed.
func (it *item) parts() int {
	n := 1 // the value
	if len(it.labels) > 0 || it.maxUses > 0 {
		n++ // details
	}
	if it.profile.shape != nil || it.req.Import != "" {
		n++ // the token
	}
	return n
}

// make makes the tokens that are still missing.
func (b *tokenizing) make(ctx context.Context) error {
	if b.draws() {
		if err := b.draw(ctx); err != nil {
			return err
		}
	}
	n, parts := 0, 0
	for i := range b.items {
		if it := &b.items[i]; it.open() {
			n++
			parts += it.parts()
		}
	}
	if n == 0 {
		return nil
	}
	id, err := b.t.store.ReserveIDs(ctx, n)
	if err != nil {
		return err
	}
	b.begin(n, parts)
	for i := range b.items {
		if it := &b.items[i]; it.open() {
			if err := b.makeOne(it, id); err != nil {
				return err
			}
			id++
		}
	}
	return nil
}

// makeOne makes the record of an item, with all by which it is found. Of most
// there is nothing but the token, and the stack is deep here, so what is for the
// others is only entered for them.
func (b *tokenizing) makeOne(it *item, id uint64) error {
	r := b.record(id)
	r.Profile, r.Expires, r.MaxUses, r.Imported = it.profile.Name, it.expires, it.maxUses, it.req.Import != ""
	var key *secret
	if s := b.named[it.req.Subject]; s != nil && it.req.Subject != "" {
		r.Subject, key = s.id, &s.secret
	}
	token := it.req.Import
	if token == "" && it.profile.shape == nil {
		r.TokenVersion = b.ring.ActiveVersion(keystore.Token)
	} else if token == "" {
		token = it.result.Token // as it was drawn
	}
	if err := r.seal(b.ring, &b.nonces, key, it.value, token, details{labels: it.labels}.append(nil)); err != nil {
		return err
	}
	if it.token != nil || it.known != nil || it.once != nil || it.profile.Lookup || r.Subject != 0 || !r.Expires.IsZero() {
		if err := b.index(it, r); err != nil {
			return err
		}
	}
	if r.TokenVersion != 0 {
		var err error
		if token, err = sealID(b.ring, r); err != nil {
			return err
		}
	}
	it.id = id
	it.answer(token, r.Expires, false)
	return nil
}

// index adds the claims by which a new record is found.
func (b *tokenizing) index(it *item, r *Record) error {
	for _, p := range [...]*probe{it.token, it.known} {
		if p != nil {
			b.claims = append(b.claims, p.claim(idValue(r.ID))...)
		}
	}
	if err := b.remember(it, r.ID); err != nil {
		return err
	}
	if it.profile.Lookup {
		key, err := sumKey(b.ring, lookupClaim, b.ring.ActiveVersion(keystore.Index), lookupContent(r.Profile, it.value))
		if err != nil {
			return err
		}
		key = append(key, lookupSuffix(r.ID)...)
		b.claims = append(b.claims, Claim{Key: key, New: present, Under: underOf(b.ring, lookupClaim)})
	}
	if r.Subject != 0 {
		b.claims = append(b.claims, Claim{Key: ownedKey(r.Namespace, r.Subject, r.ID), New: present})
	}
	if !r.Expires.IsZero() {
		b.claims = append(b.claims, Claim{Key: dueKey(r.Namespace, r.Expires, dueRecord, idValue(r.ID)), New: present})
	}
	return nil
}

// fpeKey returns the key of a profile of the mode FPE.
func (r *reader) fpeKey(p *profile) (cipher.Block, error) {
	block, err := r.ring.FPE(p.FPEKey)
	if errors.Is(err, keystore.ErrKeyVersion) {
		return nil, fmt.Errorf("%w: no fpe key %d", keystore.ErrUnavailable, p.FPEKey)
	}
	return block, err
}

// checkImport says whether a token from elsewhere can be taken over.
func (p *profile) checkImport(token Token, value []byte) error {
	if p.dataType.Ephemeral() {
		return ErrNotImportable // it must not have been kept
	}
	bad := func(why string) error { return &InputError{ErrInvalidToken, why} }
	if len(token) == 0 || len(token) > MaxToken {
		return bad("must have 1 to 512 characters")
	}
	for i := range len(token) {
		if c := token[i]; c < ' ' || c > '~' {
			return bad("must be printable ASCII")
		}
	}
	switch {
	case token[0] == ' ' || token[len(token)-1] == ' ':
		return bad("must not begin or end with a space")
	case token.opaque():
		return bad("is of the form of an opaque token, which can't be imported")
	}
	switch spelt, err := p.dataType.Normalize(nil, string(token)); {
	case string(token) == string(value), err == nil && string(spelt) == string(value):
		return bad("is the value itself")
	case err == nil && p.dataType.Luhn() && (p.shape == nil || p.Shape.Luhn == "" || p.Shape.Luhn == "never"):
		return bad("may be a live card number, which the profile doesn't allow: luhn")
	}
	return nil
}
