package tokenizer

import (
	"context"
	"errors"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// Sentinels of Store. A Store wraps them with what it knows; it never adds a
// value, a token or the bytes of an event.
var (
	// ErrNotFound says that nothing is stored under an id or a key.
	ErrNotFound = errors.New("tokenizer: not found")

	// ErrUnavailable says that the store can't be read or written now. After
	// Commit it says that the unit is not durable as far as this process
	// knows; the caller must not answer as if it were.
	ErrUnavailable = errors.New("tokenizer: store unavailable")

	// ErrDamaged says that what is stored is not what was written: a record
	// that doesn't parse or doesn't open. Trying again doesn't help.
	ErrDamaged = errors.New("tokenizer: stored data damaged")

	// ErrIDTaken says that a unit inserts a record under an id that has one.
	// It can only come from a defect: ids are reserved.
	ErrIDTaken = errors.New("tokenizer: record id taken")

	// ErrConflict says that something which a unit rests on is no longer what it
	// was when the unit was prepared: a claim, a state or a record has changed.
	// Prepare it anew.
	ErrConflict = errors.New("tokenizer: changed by somebody else at the same time")

	// ErrBadUnit says that a unit can't be stored as it is: a part of it is against the
	// rules, or has no stored form, or its Event panicked or returned nothing. It can
	// only come from a defect.
	ErrBadUnit = errors.New("tokenizer: the unit can't be stored")
)

// Store keeps records, conditional claims, wrapped keys, budgets, states and the
// audit log, and makes changes to them durable together. Nothing that it holds of
// values is of use without the keystore.
//
// A Store is safe for concurrent use. More than one process may work on the
// same data where the implementation says so (PostgreSQL); with bbolt a second
// opener is refused. Every promise below holds across the processes of one
// store.
//
// What any implementation must do is written as a test in package storetest.
type Store interface {
	// ReserveIDs reserves n consecutive record ids, n from 1 to MaxReserve,
	// and returns the first, which is at least 1.
	//
	// An id MUST NOT be returned twice: not to another process, not after a
	// crash, not after the unit for which it was reserved failed. Ids that are
	// never used are gaps; gaps are fine. Ids should be handed out in
	// ascending order, so that records arrive in the order of their keys.
	//
	// Errors: ErrUnavailable, or that of ctx.
	ReserveIDs(ctx context.Context, n int) (first uint64, err error)

	// Records returns the committed records with the ids, in their order. The
	// result is the caller's own copy.
	//
	// Errors: ErrUnavailable, or that of ctx.
	Records(ctx context.Context, ids ...uint64) ([]Found, error)

	// Claimed returns what the keys hold, in their order: nil for one that holds
	// nothing, and for one whose claim is damaged an empty value, which no claim
	// has. All are read at one moment, unless any is damaged. The result is the
	// caller's own copy.
	//
	// Errors: ErrUnavailable, or that of ctx.
	Claimed(ctx context.Context, keys ...[]byte) (values [][]byte, err error)

	// Claims goes through the claims whose keys begin with the prefix, in the
	// order of the keys, and returns up to limit of those above after, which is
	// nil at first and then the Key of the last. An empty result is the end.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Claims(ctx context.Context, prefix, after []byte, limit int) ([]Claimed, error)

	// Spent returns what the budgets have come to, in their order: 0 for one that
	// nothing was drawn on, or that has been removed. All are read at one moment.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Spent(ctx context.Context, budgets ...Budget) ([]uint64, error)

	// Counted says of each of the members, in their order, whether the budget has
	// counted it. All are read at one moment.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Counted(ctx context.Context, budget Budget, members ...[16]byte) ([]bool, error)

	// State returns a state, nil if there is none. The result is the caller's own
	// copy.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	State(ctx context.Context, key string) ([]byte, error)

	// ListStates goes through the states whose keys begin with the prefix, in the
	// order of the keys, and returns up to limit of those above after, which is ""
	// at first and then the Key of the last. An empty result is the end.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	ListStates(ctx context.Context, prefix, after string, limit int) ([]StateRow, error)

	// Scan goes through the records with ids above after, in order, and returns
	// the ids of up to limit of those that are of the namespace and, unless it is
	// "", of the profile.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Scan(ctx context.Context, namespace, profile string, after uint64, limit int) (Scanned, error)

	// Profiles returns how many records each profile of the namespace has, those
	// that only keep a token from being made again included. It is exact.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Profiles(ctx context.Context, namespace string) (map[string]uint64, error)

	// Commit makes all of the unit durable, or none of it.
	//
	// A unit whose records, or the new forms of whose updates, are under a key
	// that is not stored, because it has been retired since, is refused with
	// keystore.ErrKeyVersion: seal anew. So a key that is retired has nothing
	// under it, ever. So is a unit with a claim under a key that is not the newest
	// of its class: look again, under the newest.
	//
	// A unit that rests on what has changed since is refused with ErrConflict:
	// one of its claims doesn't hold what it should, a state or a record that it
	// changes is not what it was.
	//
	// A unit one of whose spends doesn't fit is refused with a BudgetError, which is
	// an ErrBudgetSpent, and draws on none. If it is in conflict too, it is refused
	// for that.
	//
	// When Commit returns nil, the unit MUST survive a crash of the process
	// and of the machine, and every later read, by any process, MUST see it.
	// When it returns ErrUnavailable, the unit may turn out to be durable after
	// a restart all the same (the machine may fail between the write and the
	// answer), but never a part of it. After any other error nothing of it is
	// written.
	//
	// Units that arrive while another is being written are written together;
	// one that fails does not take another down with it.
	//
	// ctx bounds the wait. A unit whose ctx ends before its write has begun is
	// not written, and the error is that of ctx. If the write has begun, it
	// goes on and the error is ErrUnavailable: the store then keeps the unit,
	// which must not be changed, and may yet call its Event.
	//
	// Errors: ErrUnavailable, ErrConflict, ErrBudgetSpent, ErrIDTaken, ErrDamaged,
	// keystore.ErrKeyVersion, ErrKeyExists, ErrKeyChanged and ErrKeyInUse, that of
	// ctx, or ErrBadUnit for a unit that is against the rules below.
	Commit(ctx context.Context, unit Unit) (Outcome, error)

	// Outdated goes through the records with ids above after, in order, and
	// returns up to limit of those of the namespace whose data key is not of the
	// version.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Outdated(ctx context.Context, namespace string, version uint32, after uint64, limit int) (Outdated, error)

	// Under says whether any record or claim is under a key, by looking at them
	// all, however long that takes. It is for who is about to take the key
	// away, and doesn't want to trust the census alone.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Under(ctx context.Context, key keystore.KeyID) (bool, error)

	// WrappedKeys returns the wrapped keys of a namespace, all classes and
	// versions, in any order; none is not an error.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	WrappedKeys(ctx context.Context, namespace string) ([]keystore.WrappedKey, error)

	// Census returns how many records and claims are under each key version that the
	// namespace has or ever had, in any order. It is exact: it changes with the
	// units that it counts.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error)

	// LogID names the audit log to which Commit of this store appends. It is
	// chosen at random when the log is made and never changes.
	LogID() LogID

	// Entries returns up to limit committed entries of the audit log with
	// sequence numbers above after, in order and without a gap; an empty
	// result says that there are none yet.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Entries(ctx context.Context, after uint64, limit int) ([]Entry, error)

	// Check says whether a Commit would work now, as far as can be told
	// without one; a write that hangs is noticed. It is cheap enough to be
	// called every second.
	//
	// Errors: ErrUnavailable, or that of ctx.
	Check(ctx context.Context) error

	// Scrub overwrites what units that were committed before the call have
	// deleted or replaced, so that it is in no file of the store any more, as far
	// as the store writes files by itself. It may take long; commits may wait for
	// a part of it.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	Scrub(ctx context.Context) error
}

// MaxReserve is the largest number of ids that one ReserveIDs may ask for.
const MaxReserve = 1 << 16

// Unit is what one call changes together with the audit event that tells of
// it. There is no state without its event, and no event without its state.
type Unit struct {
	// Records are inserted under ids from ReserveIDs. Their order is of no
	// matter; the store writes them in the order of ids.
	Records []Record

	// Claims are conditional entries, settled inside the commit: all hold, or the
	// unit is refused.
	Claims []Claim

	// Updates replace records that are still what they were.
	Updates []Update

	// Deletes are records to remove, if they are still what they were.
	Deletes []Record

	// States are small rows to change, settled inside the commit: all are what they
	// were, or the unit is refused.
	States []StateChange

	// Spends draw on budgets, settled inside the commit: all fit, or the unit is
	// refused. No two of a unit draw on the same.
	Spends []Spend

	// ExpireBudgets, unless it is zero, has budgets removed that expired before it,
	// to the second. That is done in small parts, each larger than what units add:
	// if whoever spends says it too, there is an end to it. The unit itself draws on
	// none of those. A budget that is drawn on after it was removed begins anew: so the
	// time has to be as far back as a unit may be on its way that draws on one, and as
	// the clock may be wrong.
	ExpireBudgets time.Time

	// Keys are wrapped keys to add. If the version of any is or ever was taken,
	// the whole unit fails with keystore.ErrKeyExists.
	Keys []keystore.WrappedKey

	// Rewraps replace wrapped keys. If any is no longer what it was, the whole
	// unit fails with keystore.ErrKeyChanged.
	Rewraps []keystore.Rewrapping

	// Retire is a key to take away for good; the zero KeyID is none. Such a unit
	// brings nothing else but its event. If the key is not there, the unit fails
	// with keystore.ErrKeyVersion; if it is the newest of its class, or has
	// records under it, or is an audit key, which events name for ever, with
	// keystore.ErrKeyInUse.
	Retire keystore.KeyID

	// Event returns the body of the audit event, given the outcome. It is
	// required. It is called inside the commit, perhaps more than once (the
	// last result counts), and must be quick, must not block and must return
	// at least one byte, which the caller doesn't change afterwards.
	Event func(Outcome) []byte
}

// Found is what is stored under an id.
type Found struct {
	Record Record
	Err    error // ErrNotFound or ErrDamaged; then Record is zero
}

// Scanned is what a Store found among its records.
type Scanned struct {
	IDs []uint64

	// Next is where to go on: how far it was looked, which is further than before
	// even if nothing was found. It is 0 when there are no more records.
	Next uint64
}

// Outdated is what a Store found among its records.
type Outdated struct {
	Records []Record

	// Unreadable is how many records were passed over since they don't parse. Of
	// which namespace they are is not known.
	Unreadable int

	// Next is where to go on: how far it was looked, which is further than before
	// even if nothing was found. It is 0 when there are no more records.
	Next uint64
}

// Empty says whether the unit changes nothing but the log.
func (u *Unit) Empty() bool {
	return len(u.Records)+len(u.Claims)+len(u.Updates)+len(u.Deletes)+len(u.States)+len(u.Spends)+len(u.Keys)+len(u.Rewraps) == 0 &&
		u.ExpireBudgets.IsZero() && u.Retire == keystore.KeyID{}
}

// Update replaces a record. Old is the record as it was read, New one of the
// SameOrigin. If another unit has changed the record since, the unit is refused
// with ErrConflict; or, if the update is Optional, the update is left out and the
// rest of the unit goes on.
type Update struct {
	Old, New Record
	Optional bool
}

// Claim is a conditional entry: whoever is first to claim a key holds it, and
// whoever changes or removes a claim has to know what it holds.
type Claim struct {
	// Key is what is claimed, 1 to MaxClaim bytes. A key is never derived
	// from a value without a key of the keyring. No two claims of a unit have the
	// same.
	Key []byte

	// Old is what the key has to hold, nil for nothing.
	Old []byte

	// New is what the key holds from then on, 1 to MaxClaim bytes; nil removes
	// it. If it is the same as Old, the claim changes nothing: it says that the
	// unit rests on it.
	New []byte

	// Under is the key from which Key is derived, and is counted in the census
	// for as long as it is claimed; the zero KeyID is none. To be claimed, it
	// has to be the newest of its class.
	Under keystore.KeyID
}

// Claimed is a claim that is held.
type Claimed struct {
	Key   []byte
	Value []byte // empty if the claim is damaged
	Under keystore.KeyID
}

// MaxClaim bounds what a claim is made of, in bytes.
const MaxClaim = 1 << 10

// Outcome says how a unit was settled.
type Outcome struct {
	// Sequence is the number of the unit's event in the audit log, from 1.
	Sequence uint64

	// Stale has an element for each update of the unit: whether it was left out
	// since the record was no longer what it had been, which only happens to
	// optional ones. It is nil for a unit without updates.
	Stale []bool
}
