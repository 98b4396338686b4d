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
	"encoding/binary"
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
	now      func() time.Time
}

// New returns a Tokenizer for the profiles, whose names must differ. The error
// is a *ProfileError.
func New(keys *keystore.Keystore, store Store, profiles []Profile) (*Tokenizer, error) {
	t := &Tokenizer{keys: keys, store: store, profiles: make(map[string]*profile), now: time.Now}
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

// Token is the ticket that stands for a value. It is no secret, but it is not
// to be logged either.
type Token string

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
	record := Record{Namespace: req.Namespace, Profile: p.Name, Created: t.now().UTC().Truncate(time.Second)}
	if _, err := rand.Read(record.Check[:]); err != nil {
		return Tokenized{}, fmt.Errorf("tokenizer: read random bytes: %w", err)
	}
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

// seal encrypts value and labels into the record, whose header is complete but
// for the key version, under the ring's newest data key.
func (r *Record) seal(ring *keystore.Keyring, value, labels []byte) error {
	var buf [128]byte
	var err error
	r.Value, r.KeyVersion, err = ring.Seal(nil, value, r.additionalData(buf[:0], partValue))
	if err != nil || len(labels) == 0 {
		return err
	}
	r.Metadata, _, err = ring.Seal(nil, labels, r.additionalData(buf[:0], partMetadata))
	return err
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

// Revealed is a value whose audit event is yet to be committed.
type Revealed struct {
	Value  Value // in its normal form
	Masked string
}

// Detokenize looks up a token and opens its record. The result may leave the
// process only when the event that tells of it is durable.
//
// Errors: ErrTokenNotFound, ErrDamaged, ErrUnavailable, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Detokenize(ctx context.Context, namespace string, ref Reference) (Revealed, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return Revealed{}, err
	}
	id, check, err := openID(ring, ref)
	if err != nil {
		return Revealed{}, err
	}
	record, err := t.store.Record(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Revealed{}, ErrTokenNotFound
	}
	if err != nil {
		return Revealed{}, err
	}
	if record.Check != check || record.Namespace != namespace || record.Profile != ref.Profile.Name {
		return Revealed{}, ErrTokenNotFound
	}
	value, err := record.open(ring, record.Value, partValue)
	if err != nil {
		return Revealed{}, err
	}
	p := t.profiles[ref.Profile.Name]
	return Revealed{
		Value:  NewValue(string(value)),
		Masked: string(p.dataType.Mask(nil, value)),
	}, nil
}

// open decrypts one part of the record. A record that doesn't open under the
// key that it names is ErrDamaged.
func (r Record) open(ring *keystore.Keyring, sealed []byte, p part) ([]byte, error) {
	var buf [128]byte
	plain, err := ring.Open(nil, r.KeyVersion, sealed, r.additionalData(buf[:0], p))
	if errors.Is(err, keystore.ErrOpen) || errors.Is(err, keystore.ErrKeyVersion) {
		return nil, fmt.Errorf("%w: record %d doesn't open: %w", ErrDamaged, r.ID, err)
	}
	return plain, err
}

// A token's block is id(8) ‖ check(4) ‖ tag(4), enciphered (DESIGN.md section
// 4). The tag is the same in all: a block that deciphers to another was not
// made by us.
var blockTag = [4]byte{'c', 'c', 0, 1}

// sealID returns the token of a record.
func sealID(ring *keystore.Keyring, r Record) Token {
	var block [16]byte
	binary.BigEndian.PutUint64(block[:8], r.ID)
	copy(block[8:12], r.Check[:])
	copy(block[12:], blockTag[:])
	version := ring.Permute(&block)
	var buf [format.MaxOpaqueLen]byte
	return Token(format.AppendOpaque(buf[:0], r.Profile, version, &block))
}

// openID returns what a token holds. A token that no key of ours made is
// ErrTokenNotFound: its form is right, so somebody made it up.
func openID(ring *keystore.Keyring, ref Reference) (id uint64, check [4]byte, err error) {
	block := ref.block
	if err := ring.Unpermute(ref.version, &block); err != nil {
		if errors.Is(err, keystore.ErrKeyVersion) {
			return 0, check, ErrTokenNotFound
		}
		return 0, check, err
	}
	if [4]byte(block[12:]) != blockTag {
		return 0, check, ErrTokenNotFound
	}
	return binary.BigEndian.Uint64(block[:8]), [4]byte(block[8:12]), nil
}

// Digest returns a keyed digest by which the audit trail names a token:
// whoever has the token and the keyring can find its events, and nobody can
// get from the digest to the token. The form is <key version>:<32 hex digits>.
func (t *Tokenizer) Digest(ctx context.Context, namespace string, token Token) (string, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return "", err
	}
	sum, version, err := ring.MAC(keystore.Index, "audit token", []byte(token))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%x", version, sum[:16]), nil
}
