package tokenizer

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// TokenizeRequest asks for a token.
type TokenizeRequest struct {
	Profile  string
	Value    Value // as the caller wrote it
	Subject  string
	Metadata map[string]string
	TTL      time.Duration // 0 stands for the profile's
	MaxUses  uint32        // 0 stands for the profile's

	// IdempotencyKey, if it isn't "", makes the request one with those of the
	// same Caller that have the same.
	IdempotencyKey string
	Caller         string

	// Import, if it isn't "", is the token that the value is to have.
	Import Token
}

// Tokenized is a token that is good once the unit has been committed.
type Tokenized struct {
	Token   Token     // "" in the mode OneWay
	Masked  string    // the masked form of the value
	Reused  bool      // the token had been made before
	Expires time.Time // zero stands for never
}

// TokenizeResult is what became of one of several requests.
type TokenizeResult struct {
	Tokenized
	Err error
}

// Tokenize checks the value, seals it under the namespace's data key and adds
// to the unit what makes a token of it. The unit may turn out to be refused with
// ErrConflict or keystore.ErrKeyVersion, for values and subjects that somebody
// else brought at the same time: then call it again, with a new unit.
//
// Errors: ErrUnknownProfile, ErrInvalidValue, ErrInvalidMetadata,
// ErrInvalidSubject, ErrInvalidTTL, ErrInvalidMaxUses, ErrInvalidIdempotencyKey,
// ErrIdempotency, ErrRevoked, ErrSpent, ErrFull, ErrInvalidToken, ErrTokenTaken,
// ErrNotImportable, ErrHasToken, ErrDamaged, ErrUnavailable, those of keystore.Keystore.Keyring and
// Keyring.Seal, or that of ctx. The unit is unchanged after an error.
func (t *Tokenizer) Tokenize(ctx context.Context, namespace string, req TokenizeRequest, unit *Unit) (Tokenized, error) {
	results, err := t.TokenizeAll(ctx, namespace, []TokenizeRequest{req}, unit)
	if err != nil {
		return Tokenized{}, err
	}
	return results[0].Tokenized, results[0].Err
}

// TokenizeAll is Tokenize for many requests and one unit. Each has a result, in
// the order of the requests; one that is refused fails alone. Requests for the
// same value of a convergent profile, or with the same idempotency key, share a
// token.
//
// Errors, of all requests together: ErrUnavailable, those of
// keystore.Keystore.Keyring and Keyring.Seal, or that of ctx. The unit is
// unchanged after an error.
func (t *Tokenizer) TokenizeAll(ctx context.Context, namespace string, reqs []TokenizeRequest, unit *Unit) ([]TokenizeResult, error) {
	b := newTokenizing(reqs)
	if err := t.tokenize(ctx, namespace, b, unit); err != nil {
		return nil, err
	}
	return b.results(), nil
}

// results returns what has become of the items.
//
//go:noinline so that what it needs of the stack isn't there while they are done
func (b *tokenizing) results() []TokenizeResult {
	results := make([]TokenizeResult, len(b.items))
	for i := range b.items {
		results[i] = b.items[i].outcome()
	}
	return results
}

// tokenize does the work, and adds it to the unit if all of it is done.
func (t *Tokenizer) tokenize(ctx context.Context, namespace string, b *tokenizing, unit *Unit) (err error) {
	if b.ring, err = t.keys.Keyring(ctx, namespace); err != nil {
		return err
	}
	b.t, b.now = t, t.now()
	defer b.wipe()
	for i := range b.items {
		b.items[i].settle(b.check(&b.items[i]))
	}
	if b.probing {
		if err := b.reuse(ctx); err != nil {
			return err
		}
	}
	if b.needsSubjects() {
		if err := b.findSubjects(ctx); err != nil {
			return err
		}
	}
	if err := b.make(ctx); err != nil {
		return err
	}
	if err := b.rememberLike(); err != nil {
		return err
	}
	if unit.Records == nil && unit.Claims == nil {
		unit.Records, unit.Claims = b.records, b.claims
	} else {
		unit.Records, unit.Claims = append(unit.Records, b.records...), append(unit.Claims, b.claims...)
	}
	return nil
}

// newTokenizing begins. What it returns is not on the stack, which is deep enough
// already.
//
//go:noinline
func newTokenizing(reqs []TokenizeRequest) *tokenizing {
	b := &tokenizing{items: make([]item, len(reqs))}
	for i := range reqs {
		b.items[i].req = &reqs[i]
	}
	return b
}

// tokenizing is TokenizeAll on its way.
type tokenizing struct {
	reader
	now     time.Time
	items   []item
	probing bool                // there is something to be looked for
	created time.Time           // of new records
	checks  []byte              // of those to come, random
	nonces  keystore.Nonces     // to seal them with
	records []Record            // to be added to the unit
	claims  []Claim             // to be added to the unit
	named   map[string]*subject // by name
}

// item is a request on its way.
type item struct {
	req     *TokenizeRequest
	profile *profile
	value   []byte // in its normal form
	labels  []byte
	expires time.Time
	maxUses uint32

	known  *probe // of its value, in the mode Convergent
	once   *probe // of its idempotency key
	token  *probe // of its token, if that is no sealed id
	hunt   *hunt  // for its token, if that is drawn
	like   *item  // an earlier one that it shares its token with
	id     uint64 // of the record of its token
	result TokenizeResult
	done   bool
}

// settle ends an item, unless err is nil.
func (it *item) settle(err error) {
	if err != nil {
		it.result, it.done = TokenizeResult{Err: err}, true
	}
}

// answer ends an item with a token.
func (it *item) answer(token Token, expires time.Time, reused bool) {
	masked := string(it.profile.dataType.Mask(nil, it.value))
	it.result = TokenizeResult{Tokenized: Tokenized{Token: token, Masked: masked, Reused: reused, Expires: expires}}
	it.done = true
}

func (it *item) outcome() TokenizeResult {
	if it.like == nil {
		return it.result
	}
	result := it.like.outcome()
	result.Reused = result.Err == nil
	return result
}

func (b *tokenizing) wipe() {
	for i := range b.items {
		clear(b.items[i].value)
	}
}

// check does what needs no store: all that can be wrong with the request itself,
// and the modes that keep nothing.
func (b *tokenizing) check(it *item) (err error) {
	p, ok := b.t.profiles[it.req.Profile]
	if !ok {
		return ErrUnknownProfile
	}
	it.profile = p
	if it.value, err = p.dataType.Normalize(make([]byte, 0, 64), it.req.Value.Reveal()); err != nil {
		return invalidValue(err)
	}
	if len(it.req.Metadata) > 0 {
		if it.labels, err = appendMetadata(nil, it.req.Metadata); err != nil {
			return err
		}
	}
	if err := p.checkSubject(it.req.Subject); err != nil {
		return err
	}
	if len(it.req.IdempotencyKey) > MaxIdempotencyKey {
		return &InputError{ErrInvalidIdempotencyKey, "is longer than 128 bytes"}
	}
	if !p.stored() {
		return b.keepNothing(it)
	}
	if it.expires, err = p.expiry(b.now, it.req.TTL); err != nil {
		return err
	}
	if it.maxUses, err = p.uses(it.req.MaxUses); err != nil {
		return err
	}
	return b.probes(it)
}

// keepNothing answers an item of a mode that stores nothing.
func (b *tokenizing) keepNothing(it *item) error {
	switch {
	case it.req.Import != "":
		return ErrNotImportable
	case len(it.labels) > 0:
		return &InputError{ErrInvalidMetadata, "has no meaning for this profile, which stores nothing"}
	case it.req.TTL != 0:
		return &InputError{ErrInvalidTTL, "has no meaning for this profile, which stores nothing"}
	case it.req.MaxUses != 0:
		return &InputError{ErrInvalidMaxUses, "has no meaning for this profile, which stores nothing"}
	case it.profile.Mode == OneWay:
		it.answer("", time.Time{}, false)
		return nil
	}
	block, err := b.fpeKey(it.profile)
	if err != nil {
		return err
	}
	token, err := it.profile.fpe.encipher(nil, block, it.value)
	if err == nil {
		it.answer(Token(token), time.Time{}, false)
	}
	return err
}

// probes prepares what is looked for.
func (b *tokenizing) probes(it *item) (err error) {
	b.probing = b.probing || it.req.Import != "" || it.profile.Mode == Convergent || it.req.IdempotencyKey != ""
	if it.req.Import != "" {
		if err := it.profile.checkImport(it.req.Import, it.value); err != nil {
			return err
		}
		if it.token, err = newProbe(b.ring, tokenClaim, tokenContent(it.profile.Name, string(it.req.Import))); err != nil {
			return err
		}
	}
	if it.profile.Mode == Convergent {
		it.known, err = newProbe(b.ring, convergentClaim, convergentContent(it.profile.Name, it.req.Subject, it.value))
		if err != nil {
			return err
		}
	}
	if it.req.IdempotencyKey != "" && it.req.Import == "" {
		it.once, err = newProbe(b.ring, idempotencyClaim, idempotencyContent(it.req.Caller, it.req.IdempotencyKey))
	}
	return err
}

// content is all that makes two requests the same. The values of ephemeral types
// are compared with the record, for as long as that has one.
func (it *item) content() []byte {
	content := convergentContent(it.profile.Name, it.req.Subject, nil)
	content = appendField(content, it.labels)
	content = binary.BigEndian.AppendUint64(content, uint64(it.req.TTL))
	content = binary.BigEndian.AppendUint32(content, it.req.MaxUses)
	if !it.profile.dataType.Ephemeral() { // of which nothing may outlive the record, not even this
		content = append(content, it.value...)
	}
	return content
}

// contentSum returns the sum of the content that is kept with the idempotency key.
func (it *item) contentSum(version uint32) ([]byte, error) {
	content := it.content()
	defer clear(content)
	sum, err := it.once.ring.MACVersion(keystore.Index, version, "idempotent content", content)
	return sum[:sumSize], err
}

// open says whether an item still needs a token.
func (it *item) open() bool { return !it.done && it.like == nil }

// way is how an item may be led to a token that was made before.
type way int

const (
	byKey   way = iota // the idempotency key
	byToken            // of an import
	byValue            // in the mode Convergent
)

// probe returns what an item is looked for by, nil for nothing.
func (it *item) probe(by way) *probe {
	switch by {
	case byKey:
		return it.once
	case byToken:
		return it.token
	}
	return it.known
}

// reuse answers the items that have a token already, and finds those that are
// alike. One that is refused stands in the way of no other.
func (b *tokenizing) reuse(ctx context.Context) error {
	if err := b.reuseBy(ctx, byKey); err != nil {
		return err
	}
	b.share(byKey)
	if err := b.reuseBy(ctx, byToken); err != nil {
		return err
	}
	if err := b.reuseBy(ctx, byValue); err != nil {
		return err
	}
	b.share(byToken, byValue)
	return nil
}

// share has items that still need a token share that of an earlier one.
func (b *tokenizing) share(ways ...way) {
	if len(b.items) == 1 {
		return
	}
	first := make(map[string]*item, len(b.items))
	for i := range b.items {
		it := &b.items[i]
		for _, by := range ways {
			if p := it.probe(by); p != nil && it.open() {
				if earlier := first[string(p.newest())]; earlier != nil {
					it.settle(it.shareWith(earlier, by))
				}
			}
		}
		for _, by := range ways {
			if p := it.probe(by); p != nil && it.open() {
				first[string(p.newest())] = it
			}
		}
	}
}

// shareWith has an item share the token of an earlier one, to which the same way
// leads.
func (it *item) shareWith(earlier *item, by way) error {
	switch by {
	case byKey:
		if !bytes.Equal(it.content(), earlier.content()) {
			return ErrIdempotency
		}
		it.once = nil // the earlier one sees to it
	case byToken:
		if it.profile != earlier.profile || subtle.ConstantTimeCompare(it.value, earlier.value) == 0 {
			return ErrTokenTaken
		}
	case byValue:
		if it.req.Import != earlier.req.Import && it.req.Import != "" {
			return ErrHasToken
		}
	}
	it.like = earlier
	return nil
}

// reuseBy answers the items that one way leads to a token that can still be used.
func (b *tokenizing) reuseBy(ctx context.Context, by way) error {
	var probes []*probe
	for i := range b.items {
		if p := b.items[i].probe(by); p != nil && b.items[i].open() {
			probes = append(probes, p)
		}
	}
	if len(probes) == 0 {
		return nil
	}
	if err := b.look(ctx, probes...); err != nil {
		return err
	}
	var ids []uint64
	var items []*item
	for i := range b.items {
		it := &b.items[i]
		if it.probe(by) == nil || !it.open() {
			continue
		}
		id, err := b.known(it, by)
		if it.settle(err); id != 0 && err == nil {
			ids, items = append(ids, id), append(items, it)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := b.fetch(ctx, ids...)
	if err != nil {
		return err
	}
	for i, it := range items {
		it.settle(b.reuseOne(it, found[i], by))
		if it.done && it.result.Err == nil {
			it.id = ids[i]
			if err := b.remember(it, it.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// known returns the id of the record that a way leads to, 0 for none.
func (b *tokenizing) known(it *item, by way) (uint64, error) {
	if by == byKey {
		return b.answered(it)
	}
	return it.probe(by).id()
}

// answered returns the id that a call with the idempotency key was answered
// with, 0 if that is too long ago.
func (b *tokenizing) answered(it *item) (uint64, error) {
	versions := it.once.versions()
	for i, value := range it.once.values {
		if value == nil {
			continue
		}
		id, sum, until, err := parseOnce(value)
		if err != nil || !until.After(b.now) {
			return 0, err
		}
		want, err := it.contentSum(versions[i])
		if err != nil {
			return 0, err
		}
		if subtle.ConstantTimeCompare(sum, want) == 0 {
			return 0, ErrIdempotency
		}
		return id, nil
	}
	return 0, nil
}

// reuseOne answers an item with the token of a record to which a way has led, if
// that can still be used. If it is gone, the item goes on.
func (b *tokenizing) reuseOne(it *item, f Found, by way) error {
	o, err := b.openFound(f)
	gone := errors.Is(err, ErrNotFound) || isErased(err)
	if err != nil && !gone {
		return err
	}
	state := Deleted
	var token Token
	if !gone {
		defer clear(o.value)
		state = o.stateAt(b.now)
		if token, err = b.tokenOf(o); err != nil {
			return err
		}
	}
	if it.req.Import != "" {
		err = it.takeOver(o, state, token, by)
	} else {
		err = it.useAgain(o, state, by)
	}
	if err == nil && (state == Active || state == Revoked) {
		it.answer(token, o.Expires, true)
	}
	return err
}

// useAgain says why an item can't have the token that was made before, if there
// is a reason. One that is gone is no reason.
func (it *item) useAgain(o *opened, state State, by way) error {
	switch {
	case state == Revoked:
		return ErrRevoked
	case state == Spent:
		return ErrSpent
	case state != Active, it.same(o):
		return nil
	case by == byKey && it.profile.dataType.Ephemeral():
		return ErrIdempotency
	}
	return ErrDamaged // the index points to the record of something else
}

// takeOver says why an import can't be what is there already, if there is a
// reason. A token that is no more must never mean something else, so that is one.
func (it *item) takeOver(o *opened, state State, token Token, by way) error {
	usable := state == Active || state == Revoked
	switch {
	case by == byToken && (!usable || o.Honeytoken || !it.same(o)):
		return ErrTokenTaken
	case by == byValue && (state == Spent || usable && token != it.req.Import):
		return ErrHasToken
	case usable && !it.same(o):
		return ErrDamaged // the index points to the record of something else
	}
	return nil
}

// same says whether a record is that of the item's value.
func (it *item) same(o *opened) bool {
	return o.Profile == it.profile.Name && subtle.ConstantTimeCompare(o.value, it.value) == 1
}

// rememberLike does what remember does for items that share the token of an
// earlier one on account of their value.
func (b *tokenizing) rememberLike() error {
	for i := range b.items {
		it := &b.items[i]
		if it.like == nil || it.once == nil {
			continue
		}
		first := it.like
		for first.like != nil {
			first = first.like
		}
		if first.result.Err == nil && first.id != 0 {
			if err := b.remember(it, first.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// remember has an idempotency key stand for what its call is answered with.
func (b *tokenizing) remember(it *item, id uint64) error {
	if it.once == nil {
		return nil
	}
	if held := it.once.held(); held != nil && binary.BigEndian.Uint64(held) == id {
		return nil // it is remembered, and for how long is settled
	}
	sum, err := it.contentSum(it.once.versions()[0])
	if err != nil {
		return err
	}
	until := b.now.Add(it.profile.Idempotency)
	b.claims = append(b.claims, it.once.claim(onceValue(id, sum, until))...)
	// With the id, since the key may be used again within the same second.
	due := dueKey(b.ring.Namespace(), until, dueIdempotency, slices.Concat(it.once.newest(), idValue(id)))
	b.claims = append(b.claims, Claim{Key: due, New: present})
	return nil
}
