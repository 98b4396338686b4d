package tokenizer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Exported is a token with its value.
type Exported struct {
	TokenInfo
	Value  Value
	Binary bool // the value is bytes, and no text
}

// ExportedPage is a page of tokens with their values.
type ExportedPage struct {
	Tokens  []Exported
	Next    string // "" if this is the last page
	Damaged int    // records that don't parse or open, and are left out
}

// Empty says whether there is nothing on the page.
func (p ExportedPage) Empty() bool { return len(p.Tokens) == 0 && p.Damaged == 0 }

// ErrNotExportable says that values of the profile must not be kept elsewhere
// either, or that there are none.
var ErrNotExportable = errors.New("tokenizer: profile can't be exported")

// ErrNotImportable says that nothing is stored of the profile, or that its values
// must not have been kept anywhere.
var ErrNotImportable = errors.New("tokenizer: profile can't be imported into")

// errEnough ends a page before all that was found for it.
var errEnough = errors.New("tokenizer: enough")

// maxExport is after how many bytes of values a page ends.
const maxExport = 1 << 20

// Export returns tokens of a profile with their values, in the order in which
// they were made. Those that have expired, are spent or about somebody who has
// been erased are left out. page is the Next of the page before, "" at first.
//
// admit, if it isn't nil, is asked of each token that is to be returned, with the id of
// the record of the person whom it is about, 0 if it is about nobody. The page ends
// before one that it refuses; if it would be empty then, the error is that of admit.
//
// Errors: ErrUnknownProfile, ErrNotExportable, ErrInvalidPage, ErrUnavailable, that
// of admit, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Export(ctx context.Context, namespace, profile, page string, limit int, admit func(subject uint64) error) (ExportedPage, error) {
	p, ok := t.profiles[profile]
	if !ok {
		return ExportedPage{}, ErrUnknownProfile
	}
	if !p.stored() || p.dataType.Ephemeral() {
		return ExportedPage{}, ErrNotExportable
	}
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return ExportedPage{}, err
	}
	query := queryOf("export", profile)
	after, err := openPage(r.ring, page, query)
	if err != nil {
		return ExportedPage{}, err
	}
	ids, next, err := r.page(ctx, ListRequest{Profile: profile, Limit: limit}, after)
	if err != nil {
		return ExportedPage{}, err
	}
	var result ExportedPage
	size := 0
	err = r.each(ctx, ids, func(i int, f *Found) error {
		if size >= maxExport {
			return errEnough
		}
		if errors.Is(f.Err, ErrNotFound) {
			return nil
		}
		var value Value
		info, ok, err := r.infoIf(f, func(o *opened) bool {
			value = NewValue(string(o.value))
			state := o.stateAt(t.now())
			return o.Profile == profile && (state == Active || state == Revoked)
		})
		if errors.Is(err, ErrDamaged) {
			result.Damaged++
			return nil
		}
		if ok && admit != nil {
			if refused := admit(f.Record.Subject); errors.Is(refused, ErrUnavailable) || refused != nil && result.Empty() {
				return refused
			} else if refused != nil {
				next = ids[i-1] // the page isn't empty, so this is not the first
				return errEnough
			}
		}
		if ok {
			result.Tokens = append(result.Tokens, Exported{info, value, p.dataType.Binary()})
			if size += len(value.Reveal()); size >= maxExport && i+1 < len(ids) {
				next = ids[i] // there are large values: the page ends here
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return ExportedPage{}, err
	}
	if next != 0 {
		result.Next = sealPage(r.ring, next, query)
	}
	return result, nil
}

// Signer signs what leaves a store, so that who gets it knows from where it is.
type Signer struct{ key ed25519.PrivateKey }

// signerClaim is the claim that points to the record of the signing key, which
// has no profile.
const signerClaim claimKind = 'k'

// Signer returns the signer of a namespace. If there is none yet, what makes it
// is added to the unit, and nothing that it signs may leave before that is
// committed.
//
// Errors: ErrDamaged, ErrUnavailable, those of keystore.Keystore.Keyring and
// Keyring.Seal, or that of ctx.
func (t *Tokenizer) Signer(ctx context.Context, namespace string, unit *Unit) (Signer, error) {
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Signer{}, err
	}
	claim := claimPrefix(signerClaim, namespace)
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
	return Signer{ed25519.NewKeyFromSeed(seed)}, nil
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
	return Signer{ed25519.NewKeyFromSeed(o.value)}, nil
}

// Sign returns the Ed25519 signature of a message (RFC 8032).
func (s Signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

// Public returns the public key.
func (s Signer) Public() []byte { return s.key.Public().(ed25519.PublicKey) }
