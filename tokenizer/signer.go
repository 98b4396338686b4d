package tokenizer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// Signer signs what leaves a store, so that who gets it knows from where it is.
type Signer struct{ key ed25519.PrivateKey }

// NewSigner returns the signer with a seed, which has ed25519.SeedSize bytes.
func NewSigner(seed []byte) Signer { return Signer{ed25519.NewKeyFromSeed(seed)} }

// The claims that point to the record of a signing key, which has no profile. What
// signs exports signs nothing else, and so does what signs checkpoints of the log.
const (
	signerClaim    claimKind = 'k'
	logSignerClaim claimKind = 'g'
)

// Signer returns the signer of a namespace's exports. If there is none yet, what
// makes it is added to the unit, and nothing that it signs may leave before that is
// committed.
//
// Errors: ErrDamaged, ErrUnavailable, those of keystore.Keystore.Keyring and
// Keyring.Seal, or that of ctx.
func (t *Tokenizer) Signer(ctx context.Context, namespace string, unit *Unit) (Signer, error) {
	return t.signerOf(ctx, namespace, signerClaim, unit)
}

// LogSigner returns what signs checkpoints of the audit log, as Signer does with
// exports.
func (t *Tokenizer) LogSigner(ctx context.Context, namespace string, unit *Unit) (Signer, error) {
	return t.signerOf(ctx, namespace, logSignerClaim, unit)
}

// signerOf returns the signer that a claim points to.
func (t *Tokenizer) signerOf(ctx context.Context, namespace string, kind claimKind, unit *Unit) (Signer, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Signer{}, err
	}
	claim := claimPrefix(kind, namespace)
	held, err := t.store.Claimed(ctx, claim)
	if err != nil {
		return Signer{}, err
	}
	if len(held[0]) == 8 {
		return r.signer(ctx, binary.BigEndian.Uint64(held[0]))
	}
	if held[0] != nil {
		return Signer{}, fmt.Errorf("%w: the claim of the signing key", ErrDamaged)
	}
	id, err := t.store.ReserveIDs(ctx, 1)
	if err != nil {
		return Signer{}, err
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	_, _ = rand.Read(seed) // it never fails
	record := Record{ID: id, Namespace: namespace, Created: t.now().UTC().Truncate(time.Second)}
	if err := record.seal(r.ring, nil, nil, seed, "", nil); err != nil {
		return Signer{}, err
	}
	unit.Records = append(unit.Records, record)
	unit.Claims = append(unit.Claims, Claim{Key: claim, Old: held[0], New: idValue(id)})
	return NewSigner(seed), nil
}

// signer opens the record of the signing key.
func (r *reader) signer(ctx context.Context, id uint64) (Signer, error) {
	found, err := r.fetch(ctx, id)
	if err != nil {
		return Signer{}, err
	}
	if found[0].Err != nil {
		return Signer{}, fmt.Errorf("%w: the signing key: %v", ErrDamaged, found[0].Err)
	}
	o, err := r.open(found[0].Record)
	if err != nil {
		return Signer{}, err
	}
	defer clear(o.value)
	if len(o.value) != ed25519.SeedSize || o.Profile != "" {
		return Signer{}, fmt.Errorf("%w: the signing key", ErrDamaged)
	}
	return NewSigner(o.value), nil
}

// Sign returns the Ed25519 signature of a message (RFC 8032).
func (s Signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

// Public returns the public key.
func (s Signer) Public() []byte { return s.key.Public().(ed25519.PublicKey) }
