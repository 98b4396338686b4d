// Package tokenizer swaps values for tokens and tokens for values. It knows
// profiles, records and keys; it knows nothing of gRPC, callers or policy.
//
// A Tokenizer only prepares: it checks, computes and reads, and puts what is
// to be written into a Unit. The caller adds the audit event and commits the
// unit; until Commit has returned, neither a token nor a value may leave the
// process (DESIGN.md section 3, "One commit"). A unit rests on what was read for
// it: if the store refuses it with ErrConflict or keystore.ErrKeyVersion, prepare
// another.
package tokenizer

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Sentinels of Tokenizer, beside those of Store and of package keystore.
var (
	// ErrUnknownProfile says that no profile has the name.
	ErrUnknownProfile = errors.New("tokenizer: unknown profile")

	// ErrProfileRequired says that a token doesn't name its profile, and that the
	// caller hasn't either.
	ErrProfileRequired = errors.New("tokenizer: profile required")

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

	// ErrTokenTaken says that a token that is to be imported stands, or once
	// stood, for another value.
	ErrTokenTaken = errors.New("tokenizer: token taken")

	// ErrHasToken says that the value has another token, in the mode Convergent,
	// than the one that is to be imported.
	ErrHasToken = errors.New("tokenizer: value has another token")
)

// InputError says what is wrong with something that a caller sent.
type InputError struct {
	Kind   error  // the sentinel of what is wrong, such as ErrInvalidValue
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
	full     fullFrames
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

// Profile returns the profile with the name, its defaults filled in, which must
// not be changed. The error is ErrUnknownProfile.
func (t *Tokenizer) Profile(name string) (*Profile, error) {
	p, ok := t.profiles[name]
	if !ok {
		return nil, ErrUnknownProfile
	}
	return &p.Profile, nil
}

// invalidValue turns what package format says of a value into an InputError.
func invalidValue(err error) error {
	var input *InputError
	if errors.As(err, &input) {
		return err
	}
	reason := "is not of the profile's type"
	var valueErr *format.ValueError
	if errors.As(err, &valueErr) {
		reason = valueErr.Reason
	}
	return &InputError{ErrInvalidValue, reason}
}

// Digest returns a keyed digest by which the audit trail names a token:
// whoever has the token and the keyring can find its events, and nobody can
// get from the digest to the token. The form is a<key version>:<32 hex digits>,
// of an audit key. Events from before there were audit keys have no a, and
// their digests are under the index key of the version.
//
// Tokens of formats that don't name their profile are digested together with
// it, since two profiles may have the same.
func (t *Tokenizer) Digest(ctx context.Context, namespace, profile string, token Token) (string, error) {
	var buf [96]byte
	return t.digest(ctx, namespace, labelToken, digestContent(buf[:0], profile, token))
}

// Labels of what is digested for the audit trail.
const (
	labelToken   = "audit token"
	labelSubject = "audit subject"
)

// digestContent appends what of a token is digested.
func digestContent(dst []byte, profile string, token Token) []byte {
	if !token.opaque() {
		return tokenContent(profile, string(token))
	}
	return append(dst, token...)
}

// DigestSubject returns a keyed digest by which the audit trail names a subject,
// in the form of Digest.
func (t *Tokenizer) DigestSubject(ctx context.Context, namespace, subject string) (string, error) {
	return t.digest(ctx, namespace, labelSubject, []byte(subject))
}

// Digests returns every digest by which the audit trail may name a token: one for
// each version of the audit key, the newest first, then those under index keys.
func (t *Tokenizer) Digests(ctx context.Context, namespace, profile string, token Token) ([]string, error) {
	return t.digests(ctx, namespace, labelToken, digestContent(nil, profile, token))
}

// SubjectDigests is Digests for a subject. Its errors are ErrInvalidSubject and those of
// keystore.Keystore.Keyring.
func (t *Tokenizer) SubjectDigests(ctx context.Context, namespace, subject string) ([]string, error) {
	if len(subject) > MaxSubject {
		return nil, &InputError{ErrInvalidSubject, "is longer than 256 bytes"}
	}
	return t.digests(ctx, namespace, labelSubject, []byte(subject))
}

func (t *Tokenizer) digests(ctx context.Context, namespace, label string, content []byte) ([]string, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return digests(ring, label, content)
}

func (t *Tokenizer) digest(ctx context.Context, namespace, label string, content []byte) (string, error) {
	ring, err := t.keys.Keyring(ctx, namespace)
	if err != nil {
		return "", err
	}
	return digest(ring, label, content)
}

// digest returns a digest under the newest audit key.
func digest(ring *keystore.Keyring, label string, content []byte) (string, error) {
	sum, version, err := ring.MAC(keystore.Audit, label, content)
	if err != nil {
		return "", err
	}
	return formatDigest("a", version, sum), nil
}

// formatDigest returns the form in which a digest is written.
func formatDigest(prefix string, version uint32, sum [32]byte) string {
	var buf [1 + 10 + 1 + 32]byte
	text := strconv.AppendUint(append(buf[:0], prefix...), uint64(version), 10)
	return string(hex.AppendEncode(append(text, ':'), sum[:16]))
}
