// Package tokenizer swaps values for tokens and tokens for values. It knows
// profiles, records and keys; it knows nothing of gRPC, callers or policy.
//
// A Tokenizer only prepares: it checks, computes and reads, and puts what is
// to be written into a Unit. The caller adds the audit event and commits the
// unit; until Commit has returned, neither a token nor a value may leave the
// process (DESIGN.md section 3, "One commit").
package tokenizer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Sentinels of Tokenizer, beside those of Store and of package keystore.
var (
	// ErrUnknownProfile says that no profile has the name.
	ErrUnknownProfile = errors.New("tokenizer: unknown profile")

	// ErrInvalidValue says that a value is not of the profile's data type. It
	// comes inside an *InputError.
	ErrInvalidValue = errors.New("tokenizer: invalid value")

	// ErrInvalidMetadata says that labels are of the wrong form or too large.
	// It comes inside an *InputError.
	ErrInvalidMetadata = errors.New("tokenizer: invalid metadata")

	// ErrInvalidToken says that a string is not of the form of a token, or was
	// never made under any key of the namespace.
	ErrInvalidToken = errors.New("tokenizer: invalid token")

	// ErrTokenNotFound says that there is no such token, or that it is of
	// another profile or namespace than the one named.
	ErrTokenNotFound = errors.New("tokenizer: token not found")
)

// InputError says what is wrong with something that a caller sent.
type InputError struct {
	Kind   error  // ErrInvalidValue or ErrInvalidMetadata
	Reason string // a fixed text for the caller; it holds nothing of the input
}

// Error returns the kind and the reason.
func (e *InputError) Error() string { return e.Kind.Error() + ": " + e.Reason }

// Unwrap returns the kind.
func (e *InputError) Unwrap() error { return e.Kind }

// Tokenizer makes and opens tokens. It is safe for concurrent use.
type Tokenizer struct {
	keys     *keystore.Keystore
	store    Store
	profiles map[string]*profile
}

// New returns a Tokenizer for the profiles, whose names must differ. The error
// is a *ProfileError.
func New(keys *keystore.Keystore, store Store, profiles []Profile) (*Tokenizer, error) {
	t := &Tokenizer{keys: keys, store: store, profiles: make(map[string]*profile)}
	for _, p := range profiles {
		compiled, err := p.compile()
		if err != nil {
			return nil, err
		}
		if t.profiles[p.Name] != nil {
			return nil, &ProfileError{p.Name, "name", "is declared twice"}
		}
		t.profiles[p.Name] = compiled
	}
	return t, nil
}

// Profile returns the profile with the name; the error is ErrUnknownProfile.
func (t *Tokenizer) Profile(name string) (Profile, error) {
	p, ok := t.profiles[name]
	if !ok {
		return Profile{}, ErrUnknownProfile
	}
	return p.Profile, nil
}

// TokenizeRequest asks for a token.
type TokenizeRequest struct {
	Namespace string
	Profile   string
	Value     Value // as the caller wrote it
	Metadata  map[string]string
}

// Tokenized is a token that is good once the unit has been committed.
type Tokenized struct {
	Token  Token
	Masked string // the masked form of the value
}

// Tokenize checks the value, seals it under the namespace's data key and adds
// its record to the unit.
//
// Errors: ErrUnknownProfile, ErrInvalidValue, ErrInvalidMetadata,
// ErrUnavailable, those of keystore.Keystore.Keyring and Keyring.Seal, or that
// of ctx. The unit is unchanged after an error.
func (t *Tokenizer) Tokenize(ctx context.Context, req TokenizeRequest, unit *Unit) (Tokenized, error) {
	p, ok := t.profiles[req.Profile]
	if !ok {
		return Tokenized{}, ErrUnknownProfile
	}
	var buf [64]byte
	value, err := p.dataType.Normalize(buf[:0], req.Value.Reveal())
	if err != nil {
		return Tokenized{}, invalidValue(err)
	}
	labels, err := appendMetadata(nil, req.Metadata)
	if err != nil {
		return Tokenized{}, err
	}
	ring, err := t.keys.Keyring(ctx, req.Namespace)
	if err != nil {
		return Tokenized{}, err
	}
	record := Record{
		Namespace: req.Namespace, Profile: p.Name, Created: time.Now().UTC().Truncate(time.Second),
		TokenVersion: ring.ActiveVersion(keystore.Token),
	}
	_, _ = rand.Read(record.Check[:]) // it never fails
	if record.ID, err = t.store.ReserveIDs(ctx, 1); err != nil {
		return Tokenized{}, err
	}
	if err := record.seal(ring, value, labels); err != nil {
		return Tokenized{}, err
	}
	token := sealID(ring, record)
	unit.Records = append(unit.Records, record)
	return Tokenized{
		Token:  token,
		Masked: string(p.dataType.Mask(nil, value)),
	}, nil
}

// invalidValue turns what package format says of a value into an InputError.
func invalidValue(err error) error {
	reason := "is not of the profile's type"
	var valueErr *format.ValueError
	if errors.As(err, &valueErr) {
		reason = valueErr.Reason
	}
	return &InputError{ErrInvalidValue, reason}
}

// Reference is a token taken apart but not yet looked up.
type Reference struct {
	Profile Profile // the one that the token names
	version uint32
	block   [16]byte
}

// Inspect checks the form of a token and says of which profile it claims to
// be. It reads nothing and needs no key, so policy can be asked before
// anything is looked up. expected is the profile that the caller named, or "".
//
// Errors: ErrInvalidToken; ErrUnknownProfile if expected is none of ours;
// ErrTokenNotFound if the token is of another profile than expected, or of one
// that is no longer declared.
func (t *Tokenizer) Inspect(token Token, expected string) (Reference, error) {
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
	return Reference{Profile: p.Profile, version: version, block: block}, nil
}

// Form says how much of a value is wanted.
type Form uint8

// Forms.
const (
	Masked Form = iota // the masked form that the data type defines
	Full               // the normal form
)

// Detokenize looks up a token, opens its record and returns the value in the
// form that is wanted. The result may leave the process only when the event
// that tells of it is durable.
//
// Errors: ErrTokenNotFound, ErrDamaged, ErrUnavailable, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Detokenize(ctx context.Context, namespace string, ref Reference, form Form) (Value, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return Value{}, err
	}
	id, check, err := openID(ring, ref)
	if errors.Is(err, keystore.ErrKeyVersion) {
		if ring, err = t.keys.Newer(ctx, namespace, keystore.Token, ref.version); err != nil {
			return Value{}, err
		}
		id, check, err = openID(ring, ref)
	}
	if errors.Is(err, keystore.ErrKeyVersion) {
		return Value{}, ErrTokenNotFound
	}
	if err != nil {
		return Value{}, err
	}
	record, ring, err := t.read(ctx, id, ring)
	if err != nil {
		return Value{}, err
	}
	if record.Check != check || record.Namespace != namespace || record.Profile != ref.Profile.Name {
		return Value{}, ErrTokenNotFound
	}
	value, err := record.open(ring, record.Value, partValue)
	if err != nil {
		return Value{}, err
	}
	if form == Full {
		return NewValue(string(value)), nil
	}
	return NewValue(string(t.profiles[ref.Profile.Name].dataType.Mask(nil, value))), nil
}

// read reads a record, and returns it with a keyring that has its data key: the
// one given, or a newer one. Records move from key to key, so one of the two may
// be behind the other.
func (t *Tokenizer) read(ctx context.Context, id uint64, ring *keystore.Keyring) (Record, *keystore.Keyring, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		record, err := t.store.Record(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return Record{}, nil, ErrTokenNotFound
		}
		if err != nil || attempt == attempts || ring.Has(keystore.Data, record.KeyVersion) {
			return record, ring, err
		}
		if ring, err = t.keys.Newer(ctx, ring.Namespace(), keystore.Data, record.KeyVersion); err != nil {
			return Record{}, nil, err
		}
	}
}

// Digest returns a keyed digest by which the audit trail names a token:
// whoever has the token and the keyring can find its events, and nobody can
// get from the digest to the token. The form is a<key version>:<32 hex digits>,
// of an audit key. Events from before there were audit keys have no a, and
// their digests are under the index key of the version.
func (t *Tokenizer) Digest(ctx context.Context, namespace string, token Token) (string, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return "", err
	}
	sum, version, err := ring.MAC(keystore.Audit, "audit token", []byte(token))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a%d:%x", version, sum[:16]), nil
}
