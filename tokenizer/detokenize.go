package tokenizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// ErrNoPart says that values of the profile, or this one, have no such part.
var ErrNoPart = errors.New("tokenizer: no such part")

// Reference is a token taken apart but not yet looked up.
type Reference struct {
	Profile *Profile // of which the token claims to be; it must not be changed
	token   Token
	version uint32   // of the token key, if it is a sealed id; else 0
	block   [16]byte // then
}

// Inspect checks the form of a token and says of which profile it claims to
// be. It reads nothing and needs no key, so policy can be asked before
// anything is looked up. expected is the profile that the caller named, or "".
//
// Errors: ErrInvalidToken; ErrProfileRequired if neither the token nor the caller
// names one; ErrUnknownProfile if expected is none of ours; ErrTokenNotFound if
// the token is of another profile than expected, or of one that is no longer
// declared.
func (t *Tokenizer) Inspect(token Token, expected string) (Reference, error) {
	if !token.opaque() {
		return t.inspectShaped(token, expected)
	}
	name, version, block, err := format.ParseOpaque(string(token))
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %w", ErrInvalidToken, err)
	}
	if expected != "" {
		if _, ok := t.profiles[expected]; !ok {
			return Reference{}, ErrUnknownProfile
		}
	}
	p, ok := t.profiles[name]
	if !ok || (expected != "" && expected != name) {
		return Reference{}, ErrTokenNotFound
	}
	return Reference{Profile: &p.Profile, token: token, version: version, block: block}, nil
}

// inspectShaped is Inspect for a token that is no sealed id. Unless it has to be
// deciphered its form tells nothing: a profile may have had another format
// before, or tokens from elsewhere.
func (t *Tokenizer) inspectShaped(token Token, expected string) (Reference, error) {
	if len(token) == 0 || len(token) > MaxToken {
		return Reference{}, ErrInvalidToken
	}
	for i := range len(token) {
		if c := token[i]; c < ' ' || c > '~' {
			return Reference{}, ErrInvalidToken
		}
	}
	if expected == "" {
		return Reference{}, ErrProfileRequired
	}
	p, ok := t.profiles[expected]
	if !ok {
		return Reference{}, ErrUnknownProfile
	}
	if p.Mode == FPE && !p.shape.Like(string(token)) {
		return Reference{}, ErrInvalidToken
	}
	return Reference{Profile: &p.Profile, token: token}, nil
}

// Form says how much of a value is wanted: a part of package format, or one of
// those below. The zero Form shows nothing.
type Form struct {
	part         format.Part
	full, masked bool
}

// Forms beside the parts.
var (
	Full   = Form{full: true}   // the normal form
	Masked = Form{masked: true} // the masked form that the data type defines
)

// PartForm is the form that shows a part alone.
func PartForm(p format.Part) Form { return Form{part: p} }

// DetokenizeRequest asks for the value behind a token.
type DetokenizeRequest struct {
	Reference
	Form Form

	// Judge, if it isn't nil, is asked once the token is found, before a use of it is
	// counted, or is told what has become of it. It returns the form to give, or why
	// the request is refused, which is the error of its result. A request that is
	// refused is no use of the token.
	Judge func(*Facts) (Form, error)

	// Admit, if it isn't nil, is asked last, when nothing else stands against giving
	// the value in the form, and before a use is counted. subject is the id of the
	// record of the person whom it is about, 0 if it is about nobody. Its error is that
	// of the result, or ErrUnavailable that of all. A request that is refused is no use
	// of the token.
	Admit func(form Form, subject uint64) error

	// RedemptionID, if it isn't "", makes the request one use with the others that
	// have the same, where uses are counted.
	RedemptionID string
}

// DetokenizeResult is what became of one of several requests.
type DetokenizeResult struct {
	Value  Value
	Binary bool // the value is bytes, and no text
	Err    error

	// Subject is the digest of whom it is about, as DigestSubject makes it; "" for
	// nobody, and if that can't be told. It may be known of one that failed.
	Subject string
}

// Detokenize looks up a token, opens its record and returns the value in the
// form that is wanted. What has to be written, since the use is counted, is added
// to the unit, which may turn out to be refused with ErrConflict. The result may
// leave the process only when the event that tells of it is durable.
//
// Errors: ErrTokenNotFound, ErrHoneytoken, ErrInvalidToken, ErrNoPart,
// ErrInvalidRedemption, those of Judge and Admit, ErrExpired, ErrRevoked, ErrSpent,
// ErrSubjectErased, ErrDamaged, ErrUnavailable,
// keystore.ErrKeySpent, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Detokenize(ctx context.Context, namespace string, req DetokenizeRequest, unit *Unit) (DetokenizeResult, error) {
	results, err := t.DetokenizeAll(ctx, namespace, []DetokenizeRequest{req}, MaxValue, unit)
	if err != nil {
		return DetokenizeResult{}, err
	}
	return results[0], results[0].Err
}

// DetokenizeAll is Detokenize for many requests and one unit. Each has a result,
// in the order of the requests; one that is refused fails alone. Together the
// values have at most room bytes: those that have no room left are ErrNoRoom, and
// no use of their tokens.
//
// Errors, of all requests together: ErrUnavailable, keystore.ErrKeySpent, that of
// keystore.Keystore.Keyring, or that of ctx. The unit is unchanged after an
// error.
func (t *Tokenizer) DetokenizeAll(ctx context.Context, namespace string, reqs []DetokenizeRequest, room int, unit *Unit) ([]DetokenizeResult, error) {
	refs := make([]*Reference, len(reqs))
	for i := range reqs {
		refs[i] = &reqs[i].Reference
	}
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return nil, err
	}
	d := &detokenizing{reader: reader{t: t, ring: ring}, now: t.now(), room: room}
	results := make([]DetokenizeResult, len(reqs))
	err = d.find(ctx, refs, func(i int, f *Found) (err error) {
		results[i], err = d.one(&reqs[i], f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, d.finish(ctx, unit)
}

// ErrNoRoom says that a value is left out since there is no room for it.
var ErrNoRoom = errors.New("tokenizer: no room for the value")

// detokenizing is DetokenizeAll on its way.
type detokenizing struct {
	reader
	now  time.Time
	room int               // bytes that are left for values
	used map[uint64]*usage // by record, where uses are counted
}

// one answers a request, and says whom it is about. The error is one that concerns all.
func (d *detokenizing) one(req *DetokenizeRequest, f *Found) (DetokenizeResult, error) {
	result, err := d.answer(req, f)
	if f.Err == nil {
		if about, failed := d.digestOf(f.Record.Subject); failed == nil {
			result.Subject = about
		}
	}
	return result, err
}

// answer answers a request. The error is one that concerns all.
func (d *detokenizing) answer(req *DetokenizeRequest, f *Found) (result DetokenizeResult, err error) {
	p := d.t.profiles[req.Profile.Name]
	if f.Err != nil && (p.Mode != FPE || !errors.Is(f.Err, errNotIndexed)) {
		return DetokenizeResult{Err: f.Err}, nil
	}
	form := req.Form
	if req.Judge != nil {
		if form, err = req.Judge(d.facts(f)); err != nil {
			return DetokenizeResult{Err: err}, nil
		}
	}
	value, use, err := d.value(p, req, form, f)
	if errors.Is(err, ErrUnavailable) || errors.Is(err, keystore.ErrKeySpent) {
		return result, err
	}
	if err != nil {
		return DetokenizeResult{Err: err}, nil
	}
	defer clear(value)
	shown, err := p.show(value, form)
	if err != nil {
		return DetokenizeResult{Err: err}, nil // what can't be shown is no use
	}
	if d.room -= len(shown.Reveal()); d.room < 0 {
		return DetokenizeResult{Err: ErrNoRoom}, nil
	}
	if req.Admit != nil {
		if err := req.Admit(form, f.Record.Subject); errors.Is(err, ErrUnavailable) {
			return result, err
		} else if err != nil {
			d.room += len(shown.Reveal())
			return DetokenizeResult{Err: err}, nil
		}
	}
	if use != nil {
		use.count(p, req.RedemptionID, d.now)
	}
	return DetokenizeResult{Value: shown, Binary: p.dataType.Binary() && form == Full}, nil
}

// value returns the value of a token that was found, or of which nothing is stored,
// in its normal form; and the use that is to be counted if it is given, if one is.
func (d *detokenizing) value(p *profile, req *DetokenizeRequest, form Form, f *Found) ([]byte, *usage, error) {
	if d.room < 0 {
		return nil, nil, ErrNoRoom
	}
	if len(req.RedemptionID) > MaxRedemptionID {
		return nil, nil, &InputError{ErrInvalidRedemption, "is longer than 128 bytes"}
	}
	if f.Err != nil { // of the mode FPE
		block, err := d.fpeKey(p)
		if err != nil {
			return nil, nil, err
		}
		value, err := p.fpe.decipher(nil, block, string(req.token))
		return value, nil, err
	}
	if f.Record.MaxUses > 0 && form != Masked {
		return d.use(req.RedemptionID, f.Record)
	}
	if err := usable(f.Record.stateAt(d.now)); err != nil {
		return nil, nil, err
	}
	secret, err := d.secretOf(f.Record)
	if err != nil {
		return nil, nil, err
	}
	value, err := f.Record.open(d.ring, secret, partValue)
	if err == nil && len(value) == 0 {
		err = fmt.Errorf("%w: record %d is active and has no value", ErrDamaged, f.Record.ID)
	}
	return value, nil, err
}

// show returns a value in a form.
func (p *profile) show(value []byte, form Form) (Value, error) {
	switch {
	case form == Full:
		return NewValue(string(value)), nil
	case !p.isNormal(value):
		return Value{}, fmt.Errorf("%w: a value is not of its profile's type, which may have been another", ErrDamaged)
	case form == Masked:
		return NewValue(string(p.dataType.Mask(nil, value))), nil
	}
	part, ok := p.dataType.AppendPart(nil, value, form.part)
	if !ok {
		return Value{}, ErrNoPart
	}
	return NewValue(string(part)), nil
}

// isNormal says whether a value is in the normal form of the profile's type, which
// is what masks and parts are made for.
func (p *profile) isNormal(value []byte) bool {
	normal, err := p.dataType.Normalize(make([]byte, 0, 64), string(value))
	defer clear(normal)
	return err == nil && bytes.Equal(normal, value)
}

// usable returns the error of a state, nil for Active.
func usable(s State) error {
	switch s {
	case Active:
		return nil
	case Revoked:
		return ErrRevoked
	case Spent:
		return ErrSpent
	case Expired:
		return ErrExpired
	}
	return ErrTokenNotFound
}

// errNotIndexed says that nothing is known of a token that is no sealed id, not
// even that it was deleted.
var errNotIndexed = fmt.Errorf("%w: not in the index", ErrTokenNotFound)

// find looks tokens up and hands on what is found with its place. The error of one
// that is not there, or not of what it claims to be, is ErrTokenNotFound, and that of
// a honeytoken, which is found all the same, ErrHoneytoken.
func (r *reader) find(ctx context.Context, refs []*Reference, do func(i int, f *Found) error) error {
	ids := make([]uint64, len(refs))
	var one [1][4]byte
	checks := one[:]
	if len(refs) > 1 {
		checks = make([][4]byte, len(refs))
	}
	var probes []*probe
	var shaped []int
	for i := range refs {
		if refs[i].version == 0 && refs[i].Profile.Mode == FPE {
			continue // of which nothing is stored
		}
		if refs[i].version == 0 {
			p, err := newProbe(r.ring, tokenClaim, tokenContent(refs[i].Profile.Name, string(refs[i].token)))
			if err != nil {
				return err
			}
			probes, shaped = append(probes, p), append(shaped, i)
			continue
		}
		var err error
		if ids[i], checks[i], err = r.openID(ctx, refs[i]); err != nil && !errors.Is(err, ErrTokenNotFound) {
			return err
		}
	}
	if len(probes) > 0 {
		if err := r.lookNewest(ctx, probes...); err != nil {
			return err
		}
	}
	for k, i := range shaped {
		var err error
		if ids[i], err = probes[k].id(); err != nil {
			return err
		}
	}
	return r.each(ctx, ids, func(i int, f *Found) error {
		f.Err = r.match(f, refs[i], checks[i])
		if refs[i].version == 0 && ids[i] == 0 {
			f.Err = errNotIndexed
		}
		return do(i, f)
	})
}

// match says whether what was found is the record of the token.
func (r *reader) match(f *Found, ref *Reference, check [4]byte) error {
	if errors.Is(f.Err, ErrNotFound) {
		return ErrTokenNotFound
	}
	if f.Err != nil {
		return f.Err
	}
	record := &f.Record
	sealed := record.TokenVersion != 0
	switch {
	case record.Namespace != r.ring.Namespace(), record.Profile != ref.Profile.Name, record.State == Deleted,
		sealed != (ref.version != 0), sealed && record.Check != check:
		return ErrTokenNotFound
	case sealed:
		return r.planted(record)
	}
	// Whoever can write to the store could have the index point elsewhere.
	token, err := record.token(r.ring)
	if err != nil {
		return err
	}
	if token != ref.token {
		return fmt.Errorf("%w: the index points to the record of another token", ErrDamaged)
	}
	return r.planted(record)
}

// openID deciphers a token that is a sealed id.
func (r *reader) openID(ctx context.Context, ref *Reference) (id uint64, check [4]byte, err error) {
	id, check, err = openID(r.ring, ref)
	if !errors.Is(err, keystore.ErrKeyVersion) {
		return id, check, err
	}
	if r.ring, err = r.t.keys.Newer(ctx, r.ring.Namespace(), keystore.Token, ref.version); err != nil {
		return 0, check, err
	}
	if id, check, err = openID(r.ring, ref); errors.Is(err, keystore.ErrKeyVersion) {
		err = ErrTokenNotFound
	}
	return id, check, err
}
