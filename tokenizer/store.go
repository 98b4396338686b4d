package tokenizer

import (
	"context"
	"errors"

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
)

// Store keeps records, conditional claims, wrapped keys and the audit log, and
// makes changes to them durable together. It holds nothing that is of use
// without the keystore.
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

	// Record returns the committed record with the id. The result is the
	// caller's own copy.
	//
	// Errors: ErrNotFound, ErrDamaged, ErrUnavailable, or that of ctx.
	Record(ctx context.Context, id uint64) (Record, error)

	// Claimed returns the value of the claim that holds the key: what a later
	// claim of that key would lose to.
	//
	// Errors: ErrNotFound, ErrUnavailable, or that of ctx.
	Claimed(ctx context.Context, key []byte) (value []byte, err error)

	// Commit makes all of the unit durable, or none of it.
	//
	// A unit whose records, or the new forms of whose updates, are under a key
	// that is not stored, because it has been retired since, is refused with
	// keystore.ErrKeyVersion: seal anew. So a key that is retired has nothing
	// under it, ever.
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
	// Errors: ErrUnavailable, ErrIDTaken, keystore.ErrKeyVersion, ErrKeyExists,
	// ErrKeyChanged and ErrKeyInUse, that of ctx, or another for a unit that is
	// against the rules below.
	Commit(ctx context.Context, unit Unit) (Outcome, error)

	// Outdated goes through the records with ids above after, in order, and
	// returns up to limit of those of the namespace whose data key is not of the
	// version.
	//
	// Errors: ErrUnavailable, or that of ctx.
	Outdated(ctx context.Context, namespace string, version uint32, after uint64, limit int) (Outdated, error)

	// Under says whether any record is under a data or token key, by looking at
	// them all, however long that takes. It is for who is about to take the key
	// away, and doesn't want to trust the census alone.
	//
	// Errors: ErrUnavailable, or that of ctx.
	Under(ctx context.Context, key keystore.KeyID) (bool, error)

	// WrappedKeys returns the wrapped keys of a namespace, all classes and
	// versions, in any order; none is not an error.
	//
	// Errors: ErrDamaged, ErrUnavailable, or that of ctx.
	WrappedKeys(ctx context.Context, namespace string) ([]keystore.WrappedKey, error)

	// Census returns how many records are under each key version that the
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
}

// MaxReserve is the largest number of ids that one ReserveIDs may ask for.
const MaxReserve = 1 << 16

// Unit is what one call changes together with the audit event that tells of
// it. There is no state without its event, and no event without its state.
type Unit struct {
	// Records are inserted under ids from ReserveIDs. Their order is of no
	// matter; the store writes them in the order of ids.
	Records []Record

	// Claims are conditional entries, settled in order inside the commit.
	Claims []Claim

	// Updates replace records, each if it is still what it was.
	Updates []Update

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
	return len(u.Records)+len(u.Claims)+len(u.Updates)+len(u.Keys)+len(u.Rewraps) == 0 && u.Retire == keystore.KeyID{}
}

// Update replaces a record. Old is the record as it was read; if another unit
// has changed it since, the update is left out and the rest of the unit goes
// on. The two differ in KeyVersion, Value and Metadata only.
type Update struct{ Old, New Record }

// Claim is a conditional entry: the first to claim a key holds it.
type Claim struct {
	// Key is what is claimed, 1 to MaxClaim bytes. A key is never derived
	// from a value without a key of the keyring.
	Key []byte

	// Value is what the key holds from then on, 1 to MaxClaim bytes.
	Value []byte

	// Record is the position in Unit.Records of the record that is inserted
	// only if this claim is won, or NoRecord.
	Record int
}

// Bounds of a Claim.
const (
	MaxClaim = 1 << 10
	NoRecord = -1
)

// Outcome says how a unit was settled.
type Outcome struct {
	// Sequence is the number of the unit's event in the audit log, from 1.
	Sequence uint64

	// Held has an element for each claim of the unit: nil where the claim was
	// won, else the value of the earlier claim that holds the key. It is nil
	// for a unit without claims.
	Held [][]byte

	// Stale has an element for each update of the unit: whether it was left out
	// since the record was no longer what it had been. It is nil for a unit
	// without updates.
	Stale []bool
}
