package tokenizer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coatcheck/coatcheck/keystore"
)

// A honeytoken is a token that nobody should ever use. It is planted where thieves
// look, and whoever brings it has stolen it. By its form it is like any other token
// of its profile. It stands for no value at all, so that there is none to get.
//
// Its record has a flag in the header, where each call that finds the record sees
// it at no cost; sealed, it would have to be opened for that. So whoever steals the
// store sees how many honeytokens there are, and which records they are. Which
// tokens they are can't be seen, as with all tokens: that takes the keys.
//
// Note and maker are labels of the record, sealed as labels are. The flag is bound to
// them, and they are opened where it is seen: whoever can write to the store can't make
// a honeytoken of somebody's token.

// Sentinels of honeytokens.
var (
	// ErrHoneytoken says that a honeytoken was used. It is ErrTokenNotFound, and is to
	// be told as nothing else.
	ErrHoneytoken = fmt.Errorf("%w: a honeytoken", ErrTokenNotFound)

	// ErrNoHoneytokens says that nothing is stored of the profile's tokens, or that it
	// has none, so that no token can be told from the others.
	ErrNoHoneytokens = errors.New("tokenizer: profile can't have honeytokens")

	// ErrInvalidNote says that a note is too long, or has more than one line. It comes
	// inside an *InputError.
	ErrInvalidNote = errors.New("tokenizer: invalid note")
)

// MaxNote is the longest note of a honeytoken in bytes.
const MaxNote = 256

// Labels of honeytokens.
const (
	makerLabel = "by"
	noteLabel  = "note"
)

// HoneytokenRequest asks for a honeytoken.
type HoneytokenRequest struct {
	Profile string
	Note    string        // where it is planted, such as "row 17 of the customers' backup"
	Caller  string        // who makes it
	TTL     time.Duration // 0 stands for ever, whatever the profile says
}

// Honeytoken is what is known of a honeytoken.
type Honeytoken struct {
	Token   Token
	Profile string
	Note    string
	Caller  string // who made it
	Created time.Time
	Expires time.Time // zero stands for never
}

// Honeytokens is a page of honeytokens.
type Honeytokens struct {
	Honeytokens []Honeytoken
	Next        string // "" if this is the last page
	Damaged     int    // records that don't parse or open, and are left out
}

// CreateHoneytoken adds to the unit what makes a honeytoken. The unit may turn out to
// be refused with ErrConflict or keystore.ErrKeyVersion: then call it again, with a
// new unit.
//
// Errors: ErrUnknownProfile, ErrNoHoneytokens, ErrInvalidNote, ErrInvalidTTL, ErrFull,
// ErrUnavailable, those of keystore.Keystore.Keyring and Keyring.Seal, or that of ctx.
// The unit is unchanged after an error.
func (t *Tokenizer) CreateHoneytoken(ctx context.Context, namespace string, req HoneytokenRequest, unit *Unit) (Honeytoken, error) {
	made := Honeytoken{Profile: req.Profile, Note: req.Note, Caller: req.Caller}
	p, ok := t.profiles[req.Profile]
	switch {
	case !ok:
		return made, ErrUnknownProfile
	case !p.stored():
		return made, ErrNoHoneytokens
	case len(req.Note) > MaxNote:
		return made, &InputError{ErrInvalidNote, "is longer than 256 bytes"}
	case !utf8.ValidString(req.Note) || strings.ContainsFunc(req.Note, unicode.IsControl):
		return made, &InputError{ErrInvalidNote, "must be one line of text"}
	}
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return made, err
	}
	b := &tokenizing{reader: reader{t: t, ring: ring}, now: t.now(), items: make([]item, 1)}
	if req.TTL != 0 {
		unbounded := profile{Profile: Profile{dataType: p.dataType}}
		if made.Expires, err = unbounded.expiry(b.now, req.TTL); err != nil {
			return made, err
		}
	}
	if err := b.drawFor(ctx, p); err != nil {
		return made, err
	}
	id, err := t.store.ReserveIDs(ctx, 1)
	if err != nil {
		return made, err
	}
	b.begin(1, 2)
	r := b.record(id)
	r.Profile, r.Expires, r.Honeytoken = p.Name, made.Expires, true
	made.Created = r.Created
	token := b.items[0].result.Token
	if p.shape == nil {
		r.TokenVersion = ring.ActiveVersion(keystore.Token)
	} else {
		b.claims = append(b.claims, b.items[0].token.claim(idValue(id))...)
	}
	if err := r.seal(ring, &b.nonces, nil, nil, token, details{labels: made.labels()}.append(nil)); err != nil {
		return made, err
	}
	if made.Token, err = b.tokenOf(&opened{Record: *r, token: token}); err != nil {
		return made, err
	}
	b.claims = append(b.claims, Claim{Key: honeytokenKey(r), New: present})
	if !r.Expires.IsZero() {
		b.claims = append(b.claims, Claim{Key: dueKey(namespace, r.Expires, dueRecord, idValue(id)), New: present})
	}
	unit.Records, unit.Claims = append(unit.Records, b.records...), append(unit.Claims, b.claims...)
	return made, nil
}

// drawFor draws a token of a profile for a value at random, unless its tokens are
// sealed ids. The value is forgotten; what the token keeps of it is like that of
// others.
func (b *tokenizing) drawFor(ctx context.Context, p *profile) (err error) {
	if p.shape == nil {
		return nil
	}
	it := &b.items[0]
	it.profile, it.req = p, new(TokenizeRequest)
	if it.value, err = p.dataType.Normalize(nil, p.dataType.Sample()); err != nil {
		return err
	}
	if err := b.draw(ctx); err != nil {
		return err
	}
	return it.result.Err
}

// labels returns what is kept of a honeytoken in its details, in the form of
// appendMetadata.
func (h *Honeytoken) labels() []byte {
	var labels []byte
	for _, s := range [...]string{makerLabel, h.Caller, noteLabel, h.Note} {
		labels = appendField(labels, s)
	}
	return labels
}

// planted returns what is told of a record that was found, if it is that of a
// honeytoken. One that has expired is not there any more.
func (r *reader) planted(record *Record) error {
	switch {
	case !record.Honeytoken:
		return nil
	case record.stateAt(r.t.now()) == Expired:
		return ErrTokenNotFound
	}
	labels, err := r.labelsOf(record)
	if err == nil && len(labels) == 0 {
		err = fmt.Errorf("%w: record %d is that of a honeytoken and has no labels", ErrDamaged, record.ID)
	}
	if err != nil {
		return err
	}
	return ErrHoneytoken
}

// Honeytokens returns honeytokens of a profile in the order in which they were made.
// page is the Next of the page before, "" at first. A page may have fewer than the
// limit without being the last.
//
// Errors: ErrUnknownProfile, ErrInvalidPage, ErrUnavailable, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Honeytokens(ctx context.Context, namespace, profile, page string, limit int) (Honeytokens, error) {
	if _, ok := t.profiles[profile]; !ok {
		return Honeytokens{}, ErrUnknownProfile
	}
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Honeytokens{}, err
	}
	query := queryOf("honeytokens", profile)
	after, err := openPage(r.ring, page, query)
	if err != nil {
		return Honeytokens{}, err
	}
	ids, next, err := r.pageUnder(ctx, honeytokenPrefix(namespace, profile), after, limit)
	if err != nil {
		return Honeytokens{}, err
	}
	var result Honeytokens
	err = r.each(ctx, ids, func(_ int, f *Found) error {
		h, err := r.honeytoken(f)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrTokenNotFound) {
			return nil // it has been deleted meanwhile, or has expired
		}
		if errors.Is(err, ErrDamaged) {
			result.Damaged++
			return nil
		}
		if err == nil {
			result.Honeytokens = append(result.Honeytokens, h)
		}
		return err
	})
	if err != nil {
		return Honeytokens{}, err
	}
	if next != 0 {
		result.Next = sealPage(r.ring, next, query)
	}
	return result, nil
}

// honeytoken returns what is known of a honeytoken. One that is none, or none any
// more, is ErrTokenNotFound.
func (r *reader) honeytoken(f *Found) (Honeytoken, error) {
	if f.Err != nil {
		return Honeytoken{}, f.Err
	}
	switch err := r.planted(&f.Record); {
	case err == nil:
		return Honeytoken{}, ErrTokenNotFound
	case !errors.Is(err, ErrHoneytoken):
		return Honeytoken{}, err
	}
	o, err := r.open(f.Record)
	if err != nil {
		return Honeytoken{}, err
	}
	info, err := r.info(o, r.t.now())
	if err != nil {
		return Honeytoken{}, err
	}
	return Honeytoken{
		Token: info.Token, Profile: info.Profile, Created: info.Created, Expires: info.Expires,
		Note: info.Metadata[noteLabel], Caller: info.Metadata[makerLabel],
	}, nil
}

// DeleteHoneytoken adds to the unit what deletes a honeytoken. Another token is
// ErrTokenNotFound.
//
// Errors: ErrTokenNotFound, ErrDamaged, ErrUnavailable, keystore.ErrKeySpent, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) DeleteHoneytoken(ctx context.Context, namespace string, ref Reference, unit *Unit) error {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return err
	}
	var record Record
	err = r.find(ctx, []*Reference{&ref}, func(_ int, f *Found) error {
		record = f.Record
		return f.Err
	})
	switch {
	case err == nil:
		return ErrTokenNotFound
	case !errors.Is(err, ErrHoneytoken):
		return err
	}
	return r.remove(ctx, record, unit)
}

// honeytokenKey is the key by which a honeytoken is found by its profile.
func honeytokenKey(r *Record) []byte {
	return binary.BigEndian.AppendUint64(honeytokenPrefix(r.Namespace, r.Profile), r.ID)
}

func honeytokenPrefix(namespace, profile string) []byte {
	return appendField(claimPrefix(honeytokenClaim, namespace), profile)
}
