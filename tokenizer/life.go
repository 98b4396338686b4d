package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Sentinels of what has become of a token, and of what is asked of it.
var (
	// ErrExpired, ErrRevoked and ErrSpent say that a token can't be used any
	// more, or not until it is restored.
	ErrExpired = errors.New("tokenizer: token expired")
	ErrRevoked = errors.New("tokenizer: token revoked")
	ErrSpent   = errors.New("tokenizer: token used as often as it may be")

	// ErrIdempotency says that an idempotency key was used with other content.
	ErrIdempotency = errors.New("tokenizer: idempotency key used with other content")

	// ErrInvalidIdempotencyKey, ErrInvalidTTL, ErrInvalidMaxUses and
	// ErrInvalidRedemption come inside an *InputError.
	ErrInvalidIdempotencyKey = errors.New("tokenizer: invalid idempotency key")
	ErrInvalidTTL            = errors.New("tokenizer: invalid ttl")
	ErrInvalidMaxUses        = errors.New("tokenizer: invalid number of uses")
	ErrInvalidRedemption     = errors.New("tokenizer: invalid redemption id")
)

// Bounds of what callers choose, in bytes.
const (
	MaxIdempotencyKey = 128
	MaxRedemptionID   = 128
)

// ExpiredKept is for how long it is still known of a token that it has expired.
// Its value is shredded when it does.
const ExpiredKept = 7 * 24 * time.Hour

// stateAt returns the state of a token at a time.
func (r Record) stateAt(now time.Time) State {
	if r.State != Deleted && !r.Expires.IsZero() && !r.Expires.After(now) {
		return Expired
	}
	return r.State
}

// expiry returns when a token that is made now expires, zero for never.
func (p *profile) expiry(now time.Time, ttl time.Duration) (time.Time, error) {
	bad := func(why string) (time.Time, error) { return time.Time{}, &InputError{ErrInvalidTTL, why} }
	switch {
	case ttl < 0 || ttl%time.Second != 0:
		return bad("must be whole seconds, at least one")
	case ttl > maxLife:
		return bad("is longer than a hundred years")
	case p.Retention > 0 && ttl > p.Retention:
		return bad("is longer than the profile allows")
	case ttl == 0 && p.TTL > 0:
		ttl = p.TTL
	case ttl == 0 && p.Retention > 0:
		ttl = p.Retention
	case ttl == 0:
		return time.Time{}, nil
	}
	if p.dataType.Ephemeral() {
		return now.Add(ttl).UTC().Truncate(time.Second), nil // not a moment longer
	}
	// Up to the next whole second, so that no token is good for less than it was
	// asked for.
	return now.Add(ttl + time.Second - 1).UTC().Truncate(time.Second), nil
}

// uses returns how often a token may be used, 0 for as often as one likes.
func (p *profile) uses(asked uint32) (uint32, error) {
	switch {
	case p.MaxUses == 0 || asked == 0:
		return max(asked, p.MaxUses), nil
	case asked > p.MaxUses:
		return 0, &InputError{ErrInvalidMaxUses, "is more than the profile allows"}
	}
	return asked, nil
}

// onceValue is what the claim of an idempotency key holds:
//
//	id(8) sum of the content(16) until(8)
func onceValue(id uint64, sum []byte, until time.Time) []byte {
	value := append(idValue(id), sum...)
	return binary.BigEndian.AppendUint64(value, uint64(until.Unix()))
}

func parseOnce(value []byte) (id uint64, sum []byte, until time.Time, err error) {
	if len(value) != 8+sumSize+8 {
		return 0, nil, time.Time{}, fmt.Errorf("%w: the claim of an idempotency key", ErrDamaged)
	}
	until = time.Unix(int64(binary.BigEndian.Uint64(value[8+sumSize:])), 0)
	return binary.BigEndian.Uint64(value), value[8 : 8+sumSize], until, nil
}
