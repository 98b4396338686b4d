package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// A claim is stored under its key. What it holds stands behind the name of the
// key of the keyring that it is under, which is counted for as long as it is:
//
//	class(1) version(uvarint) namespace(uvarint length, bytes) value
//
// If it is under none, the class is 0 and the value follows at once.

// claimForm appends the stored form of a claim.
func claimForm(dst []byte, under keystore.KeyID, value []byte) []byte {
	if under == (keystore.KeyID{}) {
		return append(append(dst, 0), value...)
	}
	dst = binary.AppendUvarint(append(dst, byte(under.Class)), uint64(under.Version))
	dst = binary.AppendUvarint(dst, uint64(len(under.Namespace)))
	return append(append(dst, under.Namespace...), value...)
}

// claimFormSize is room for the stored form of a claim.
func claimFormSize(c *tokenizer.Claim) int { return 8 + len(c.Under.Namespace) + len(c.New) }

var errClaim = fmt.Errorf("%w: a claim", tokenizer.ErrDamaged)

// parseClaim takes the stored form of a claim apart; value is a part of it.
func parseClaim(stored []byte) (under keystore.KeyID, value []byte, err error) {
	if len(stored) < 2 {
		return keystore.KeyID{}, nil, errClaim
	}
	class, rest := keystore.Class(stored[0]), stored[1:]
	if class == 0 {
		return keystore.KeyID{}, rest, nil
	}
	version, rest, ok := takeUvarint(rest, math.MaxUint32)
	length, rest, ok2 := takeUvarint(rest, uint64(len(rest)))
	if !ok || !ok2 || !ofClaims(class) || version == 0 || length >= uint64(len(rest)) {
		return keystore.KeyID{}, nil, errClaim
	}
	return keystore.KeyID{Class: class, Version: uint32(version), Namespace: string(rest[:length])}, rest[length:], nil
}

// takeUvarint takes a number in its shortest form, up to a bound.
func takeUvarint(b []byte, most uint64) (n uint64, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > most || size > 1 && b[size-1] == 0 {
		return 0, nil, false
	}
	return n, b[size:], true
}

// ofClaims says whether keys of the class are those that claims are under.
func ofClaims(class keystore.Class) bool { return class == keystore.Index || class == keystore.Subject }

// validateClaim refuses what no claim can be.
func validateClaim(c *tokenizer.Claim) error {
	for _, part := range [...][]byte{c.Key, c.Old, c.New} {
		if len(part) > tokenizer.MaxClaim || part != nil && len(part) == 0 {
			return fmt.Errorf("%w: a part of a claim is empty or too long", tokenizer.ErrBadUnit)
		}
	}
	if c.Key == nil {
		return fmt.Errorf("%w: a claim without a key", tokenizer.ErrBadUnit)
	}
	if c.Under != (keystore.KeyID{}) && !ofClaims(c.Under.Class) {
		return fmt.Errorf("%w: a claim under a key that is neither an index key nor a subject key", tokenizer.ErrBadUnit)
	}
	return nil
}

// txClaims are the claims as the units of a group have left them.
type txClaims struct {
	bucket *txBucket
	held   map[string]*heldClaim
	newest map[shelfClass]uint32 // see txGroup.newest
	unit   int                   // counts units that have claims
}

// heldClaim is what a key holds as the units before have left it.
type heldClaim struct {
	key    []byte
	stored []byte // nil for nothing
	unit   int    // the latest that speaks of the key
	dirty  bool
}

// claimChange is what a unit makes of a claim.
type claimChange struct {
	held     *heldClaim
	stored   []byte // nil for nothing
	from, to *row   // where it is counted no more, and from now on; nil for nowhere
}

func (c claimChange) apply() {
	c.held.stored, c.held.dirty = c.stored, true
	if c.from != nil {
		c.from.records--
		c.from.dirty = true
	}
	if c.to != nil {
		c.to.records++
		c.to.dirty = true
	}
}

// ready prepares for a unit with claims.
func (t *txClaims) ready() {
	t.unit++
	if t.held == nil {
		t.held = make(map[string]*heldClaim)
	}
}

// appendChanges appends what has changed.
func (t *txClaims) appendChanges(changes []change) []change {
	for key, h := range t.held {
		if h.dirty {
			changes = append(changes, change{claimsID, key, h.stored})
		}
	}
	return changes
}

// checkClaims plans the claims of a unit. It refuses them all if one doesn't
// hold what it should, or is to be under a key that is not the newest.
func (g *txGroup) checkClaims(claims []tokenizer.Claim, p *plan) error {
	if len(claims) == 0 {
		return nil
	}
	g.claims.ready()
	size := 0
	for i := range claims {
		size += claimFormSize(&claims[i])
	}
	forms, fresh := make([]byte, 0, size), make([]heldClaim, 0, len(claims))
	p.claims = make([]claimChange, 0, len(claims))
	for i := range claims {
		c := &claims[i]
		h := g.claims.held[string(c.Key)]
		if h == nil {
			fresh = append(fresh, heldClaim{key: c.Key, stored: g.claims.bucket.Get(c.Key)})
			h = &fresh[len(fresh)-1] // which never moves: there is room for all
			g.claims.held[string(c.Key)] = h
		}
		if h.unit == g.claims.unit {
			return fmt.Errorf("%w: two claims with one key", tokenizer.ErrBadUnit)
		}
		h.unit = g.claims.unit
		change, err := g.planClaim(c, h, &p.leaving)
		if err != nil {
			return err
		}
		if bytes.Equal(c.Old, c.New) {
			continue
		}
		if c.New != nil {
			start := len(forms)
			forms = claimForm(forms, c.Under, c.New)
			change.stored = forms[start:len(forms):len(forms)]
		}
		p.claims = append(p.claims, change)
	}
	return nil
}

// planClaim refuses a claim that doesn't hold what it should. It returns where
// the claim is counted, before and after.
func (g *txGroup) planClaim(c *tokenizer.Claim, h *heldClaim, leaving *leaving) (change claimChange, err error) {
	var under keystore.KeyID
	var value []byte
	if h.stored != nil {
		if under, value, err = parseClaim(h.stored); err != nil {
			return claimChange{}, err
		}
	}
	if !bytes.Equal(value, c.Old) {
		return claimChange{}, fmt.Errorf("%w: a claim", tokenizer.ErrConflict)
	}
	change.held = h
	if bytes.Equal(c.Old, c.New) {
		return change, nil
	}
	if under != (keystore.KeyID{}) {
		if change.from, err = g.counts.row(under); err != nil {
			return claimChange{}, err
		}
		if err := leaving.take(change.from); err != nil {
			return claimChange{}, err
		}
	}
	if c.New == nil || c.Under == (keystore.KeyID{}) {
		return change, nil
	}
	if g.newest(c.Under.Namespace, c.Under.Class) != c.Under.Version {
		return claimChange{}, fmt.Errorf("%w: %v is not the newest", keystore.ErrKeyVersion, c.Under)
	}
	if change.to, err = g.counts.row(c.Under); err == nil && change.to == nil {
		err = fmt.Errorf("%w: the census lacks %v", tokenizer.ErrDamaged, c.Under)
	}
	return change, err
}

// shelfClass is a class of a namespace's keys.
type shelfClass struct {
	namespace string
	class     keystore.Class
}

// newest returns the newest version of a class on the shelf, 0 if there is none,
// as the units before have left it.
func (g *txGroup) newest(namespace string, class keystore.Class) (version uint32) {
	at := shelfClass{namespace, class}
	if version, ok := g.claims.newest[at]; ok {
		return version
	}
	prefix := append(keysPrefix(namespace), byte(class))
	for _, name := range g.keys.withPrefix(prefix) {
		if len(name) == len(prefix)+4 {
			version = max(version, binary.BigEndian.Uint32([]byte(name[len(prefix):])))
		}
	}
	if g.claims.newest == nil {
		g.claims.newest = make(map[shelfClass]uint32)
	}
	g.claims.newest[at] = version
	return version
}
