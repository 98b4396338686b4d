package tokenizer

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// needsSubjects says whether any item that needs a new token is about somebody.
func (b *tokenizing) needsSubjects() bool {
	for i := range b.items {
		if b.items[i].subject() != "" {
			return true
		}
	}
	return false
}

// findSubjects finds the subjects of the items that need a new token, and makes
// those that aren't known.
func (b *tokenizing) findSubjects(ctx context.Context) error {
	var probes map[string]*probe
	for i := range b.items {
		it := &b.items[i]
		if name := it.subject(); name != "" && probes[name] == nil {
			if probes == nil {
				probes = make(map[string]*probe)
			}
			p, err := newProbe(b.ring, subjectClaim, []byte(name))
			if err != nil {
				return err
			}
			probes[name] = p
		}
	}
	if len(probes) == 0 {
		return nil
	}
	if err := b.lookAll(ctx, probes); err != nil {
		return err
	}
	b.named = make(map[string]*subject, len(probes))
	var missing, there []string
	var ids []uint64
	for name, p := range probes {
		id, err := p.id()
		if err != nil {
			return err
		}
		if id == 0 {
			missing = append(missing, name)
		} else {
			there, ids = append(there, name), append(ids, id)
		}
	}
	if err := b.fetchSubjects(ctx, ids...); err != nil {
		return err
	}
	for i, name := range there {
		s, err := b.reader.subject(ids[i])
		if err == nil && s.name != name {
			err = fmt.Errorf("%w: the index points to another subject", ErrDamaged)
		}
		if err != nil {
			b.refuseSubject(name, err)
			continue
		}
		b.named[name] = s
		// The unit rests on the subject's being there.
		p := probes[name]
		for i, value := range p.values {
			if value != nil {
				b.claims = append(b.claims, Claim{Key: p.keys[i], Old: value, New: value})
			}
		}
	}
	return b.makeSubjects(ctx, missing, probes)
}

// refuseSubject ends the items that are about a subject.
func (b *tokenizing) refuseSubject(name string, err error) {
	for i := range b.items {
		if it := &b.items[i]; it.subject() == name {
			it.settle(err)
		}
	}
}

// subject returns the name of the subject that an item needs, "" for none.
func (it *item) subject() string {
	if !it.open() {
		return ""
	}
	return it.req.Subject
}

func (b *tokenizing) lookAll(ctx context.Context, probes map[string]*probe) error {
	all := make([]*probe, 0, len(probes))
	for _, p := range probes {
		all = append(all, p)
	}
	return b.reader.look(ctx, all...)
}

// makeSubjects makes subjects that are not known yet.
func (b *tokenizing) makeSubjects(ctx context.Context, names []string, probes map[string]*probe) error {
	if len(names) == 0 {
		return nil
	}
	first, err := b.t.store.ReserveIDs(ctx, len(names))
	if err != nil {
		return err
	}
	if b.subjects == nil {
		b.subjects = make(map[uint64]held[*subject])
	}
	b.begin(len(names))
	for i, name := range names {
		s, err := newSubject(b.ring, b.record(first+uint64(i)), name)
		if err != nil {
			return err
		}
		b.named[name], b.subjects[s.id] = s, held[*subject]{it: s}
		b.claims = append(b.claims, probes[name].claim(idValue(s.id))...)
	}
	return nil
}

// record adds a new record, its header begun.
func (b *tokenizing) record(id uint64) *Record {
	b.records = append(b.records, Record{})
	r := &b.records[len(b.records)-1]
	r.ID, r.Namespace, r.Created = id, b.ring.Namespace(), b.created
	r.Check, b.checks = [4]byte(b.checks), b.checks[4:]
	return r
}

// begin prepares for n more records.
func (b *tokenizing) begin(n int) {
	b.records = slices.Grow(b.records, n)
	b.created = b.now.UTC().Truncate(time.Second)
	b.checks = make([]byte, 4*n)
	_, _ = rand.Read(b.checks) // it never fails
}

// make makes the tokens that are still missing.
func (b *tokenizing) make(ctx context.Context) error {
	if b.draws() {
		if err := b.draw(ctx); err != nil {
			return err
		}
	}
	n := 0
	for i := range b.items {
		if b.items[i].open() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	id, err := b.t.store.ReserveIDs(ctx, n)
	if err != nil {
		return err
	}
	b.begin(n)
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
		r.Subject, key = s.id, s.secret
	}
	d := details{token: string(it.req.Import), labels: it.labels}
	if it.req.Import == "" && it.profile.shape == nil {
		r.TokenVersion = b.ring.ActiveVersion(keystore.Token)
	} else if it.req.Import == "" {
		d.token = string(it.result.Token)
	}
	plain := d.append(nil)
	defer clear(plain)
	if err := r.seal(b.ring, key, it.value, plain); err != nil {
		return err
	}
	if it.token != nil || it.known != nil || it.once != nil || it.profile.Lookup || r.Subject != 0 || !r.Expires.IsZero() {
		if err := b.index(it, r); err != nil {
			return err
		}
	}
	token := Token(d.token)
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
		b.claims = append(b.claims, Claim{Key: lookupKey(key, r.ID), New: present, Under: underOf(b.ring, lookupClaim)})
	}
	if r.Subject != 0 {
		b.claims = append(b.claims, Claim{Key: ownedKey(r.Namespace, r.Subject, r.ID), New: present})
	}
	if !r.Expires.IsZero() {
		b.claims = append(b.claims, Claim{Key: dueKey(r.Namespace, r.Expires, dueRecord, idValue(r.ID)), New: present})
	}
	return nil
}

// ErrFull says that the format of a profile has no token left for a value.
var ErrFull = errors.New("tokenizer: no token left in the format")

// Bounds of the search for a token that is not taken.
const (
	// maxDraws is how many are drawn at random: nine of ten being taken, one
	// value in 800 needs more.
	maxDraws = 64

	// maxWalk is how many are then looked at one after the other.
	maxWalk = 1 << 17

	walkStep = 1 << 10 // in one read
)

// draw finds a token for each item whose format is no sealed id: at random, since
// a counter would make the same tokens again after the restore of a backup.
func (b *tokenizing) draw(ctx context.Context) error {
	taken := make(map[string]bool) // by earlier items
	for draws := 0; draws < maxDraws; draws++ {
		var probes []*probe
		for i := range b.items {
			it := &b.items[i]
			if !it.open() || it.req.Import != "" || it.profile.shape == nil || it.token != nil && it.token.held() == nil {
				continue
			}
			switch drawn, err := b.drawOne(it, taken); {
			case errors.Is(err, ErrInvalidValue):
				it.settle(err)
			case err != nil:
				return err
			case drawn:
				probes = append(probes, it.token)
			}
		}
		if len(probes) == 0 {
			break
		}
		if err := b.reader.look(ctx, probes...); err != nil {
			return err
		}
	}
	for i := range b.items {
		it := &b.items[i]
		if !it.open() || it.token == nil || it.token.held() == nil {
			continue
		}
		err := b.walk(ctx, it, taken)
		if err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		it.settle(err)
	}
	return nil
}

// draws says whether any item needs a token that is drawn.
func (b *tokenizing) draws() bool {
	for i := range b.items {
		if it := &b.items[i]; it.open() && it.profile.shape != nil {
			return true
		}
	}
	return false
}

// drawOne draws a token that no earlier item has and that is not the value. If
// that takes too long, since nearly all are taken, it is left to walk.
func (b *tokenizing) drawOne(it *item, taken map[string]bool) (drawn bool, err error) {
	frame, err := it.profile.shape.Frame(it.value)
	if err != nil {
		return false, invalidValue(err)
	}
	var token []byte
	for range maxDraws {
		if token, err = frame.Draw(token[:0], rand.Reader); err != nil {
			return false, fmt.Errorf("tokenizer: draw a token: %w", err)
		}
		if b.fits(it, token, taken) {
			return true, b.take(it, token, taken)
		}
	}
	err = b.take(it, token, taken)
	if err == nil {
		it.token.values = [][]byte{present}
	}
	return false, err
}

// fits says whether a token can be that of an item, as far as is known without
// the store.
func (b *tokenizing) fits(it *item, token []byte, taken map[string]bool) bool {
	return string(token) != string(it.value) && !taken[string(tokenContent(it.profile.Name, string(token)))]
}

// take makes a token that of an item, unless the store has it.
func (b *tokenizing) take(it *item, token []byte, taken map[string]bool) (err error) {
	content := tokenContent(it.profile.Name, string(token))
	if it.token, err = newProbe(b.ring, tokenClaim, content); err != nil {
		return err
	}
	taken[string(content)] = true
	it.result.Token = Token(token)
	return nil
}

// walk looks at the tokens that follow the one which was drawn last.
func (b *tokenizing) walk(ctx context.Context, it *item, taken map[string]bool) error {
	frame, err := it.profile.shape.Frame(it.value)
	if err != nil {
		return invalidValue(err)
	}
	token := []byte(it.result.Token)
	first := string(token)
	for seen := 0; seen < maxWalk; seen += walkStep {
		var candidates []string
		var probes []*probe
		for range walkStep {
			if !frame.Next(token) {
				return fmt.Errorf("%w: a token that is none of its frame", ErrDamaged)
			}
			if b.fits(it, token, taken) {
				p, err := newProbe(b.ring, tokenClaim, tokenContent(it.profile.Name, string(token)))
				if err != nil {
					return err
				}
				candidates, probes = append(candidates, string(token)), append(probes, p)
			}
			if string(token) == first {
				break
			}
		}
		if err := b.reader.look(ctx, probes...); err != nil {
			return err
		}
		for i, p := range probes {
			if p.held() == nil {
				it.token, it.result.Token = p, Token(candidates[i])
				taken[string(p.content)] = true
				return nil
			}
		}
		if string(token) == first {
			return ErrFull
		}
	}
	return ErrFull
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
	case p.dataType.Ephemeral():
		return bad("can't be imported: values of this type must not have been kept")
	}
	switch spelt, err := p.dataType.Normalize(nil, string(token)); {
	case string(token) == string(value), err == nil && string(spelt) == string(value):
		return bad("is the value itself")
	case err == nil && p.dataType.Luhn() && (p.shape == nil || p.Shape.Luhn == "" || p.Shape.Luhn == "never"):
		return bad("may be a live card number, which the profile doesn't allow: luhn")
	}
	return nil
}
