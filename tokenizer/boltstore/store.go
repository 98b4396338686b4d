// Package boltstore keeps a tokenizer.Store in a bbolt file with a journal in
// front of it.
//
// One process at a time may have it open: bbolt's file lock sees to that, and
// a second opener is told at once. Everything that a unit holds, its audit
// event included, is made durable in one frame of the journal, with one sync;
// units that arrive while one is being synced share the next. The file follows in
// large transactions (follow.go), and what it doesn't have yet is in memory
// (layer.go). At a start the journal says what that is.
//
// The file holds nine buckets:
//
//	meta      format, log_id, next_id (the first id that is not reserved),
//	          applied (the latest frame of the journal that the file has, and its
//	          checksum), and open (the file may lack what the journal has)
//	records   id (8 bytes, big endian) → tokenizer.Record
//	claims    key → class, version and namespace of the key that it is under,
//	          and value; see claims.go
//	keys      namespace, class and version → keystore.WrappedKey
//	census    namespace, class and version → what is under the key; see census.go
//	profiles  namespace and profile → how many records it has; see profiles.go
//	log       sequence (8 bytes, big endian) → previous hash ‖ event
//	budgets   expiry, budget and perhaps a member → what has been drawn; see budgets.go
//	states    key → state, as it is
//
// The journal is in files of its own beside it; see package journal. What is deleted
// or replaced is no part of the buckets any more, but of the files until Scrub has
// overwritten it.
package boltstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore/journal"
)

// Sentinels of Open.
var (
	// ErrLocked says that another process has the file open.
	ErrLocked = errors.New("boltstore: in use by another process")

	// ErrFormat says that the file is not a Coatcheck store, or one of a later
	// version.
	ErrFormat = errors.New("boltstore: not a store that this version can read")
)

// storeFormat is the version of the layout described above. Version 1 had no
// census, and neither 1 nor 2 had counts of profiles; Open counts what is missing.
// Claims of these two had another form, but nothing made any. Version 3 had no
// journal, and version 4 neither budgets nor states. Open makes the file one of this
// version.
const storeFormat = 5

var (
	metaBucket     = bucketNames[metaID]
	recordsBucket  = bucketNames[recordsID]
	claimsBucket   = bucketNames[claimsID]
	keysBucket     = bucketNames[keysID]
	censusBucket   = bucketNames[censusID]
	profilesBucket = bucketNames[profilesID]

	formatKey  = []byte("format")
	logIDKey   = []byte("log_id")
	nextIDKey  = []byte("next_id")
	appliedKey = []byte("applied")
	openKey    = []byte("open")
)

// Store is a tokenizer.Store in a bbolt file behind a journal. It is safe for
// concurrent use.
type Store struct {
	db       *bbolt.DB
	bolt     storeFile // that of db, for Scrub
	files    snapshots // of db
	journal  *journal.Journal
	replayed journal.Replayed
	logID    tokenizer.LogID
	ids      idRange
	upgraded bool

	// append appends to the journal, and update runs a transaction that writes to
	// the file; tests put faults in their way.
	append func(pieces ...[]byte) (frame uint64, err error)
	update func(func(*bbolt.Tx) error) error

	// What changed since the file was written: see follow.go.
	state          sync.RWMutex
	active, frozen *layer
	file           chan struct{} // held by who has the file to itself
	behind         chan struct{} // there is something to write to the file
	froze          chan struct{} // the active layer is a new one
	stop, followed chan struct{}

	readers sync.RWMutex // held for reading by who reads; see Scrub

	// Of the commit loop.
	frame       []byte
	firstBudget string // no row of a budget comes before it; see removeExpired

	mu         sync.Mutex
	pending    []*write
	closed     bool         // no more units are taken
	ended      bool         // the file is closed
	broken     error        // set once after a failure that only a restart can mend
	failed     error        // why the latest write failed; nil once one works again
	unfollowed error        // why the file couldn't be written; nil once it could
	writing    atomic.Int64 // when the write that is going on began, in Unix nanoseconds; 0 if none is
	following  atomic.Int64 // likewise for a write to the file
	wake       chan struct{}
	done       chan struct{}
}

var _ tokenizer.Store = (*Store)(nil)

// Open opens the store in the file, which is made if it doesn't exist, as are those
// of its journal beside it; its directory must exist. The files are readable and
// writable to their owner alone.
//
// Errors: ErrLocked, ErrFormat, tokenizer.ErrDamaged, or that of the file
// system, such as fs.ErrPermission or syscall.ENOSPC.
func Open(path string) (*Store, error) {
	_, missing := os.Stat(path)
	db, file, err := openFile(path)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		if err := syncName(path); err != nil {
			_ = db.Close()
			return nil, fmt.Errorf("boltstore: open: %w", err)
		}
	}
	s := &Store{
		db: db, bolt: file, files: snapshots{db: db}, update: db.Update, active: new(layer),
		file: make(chan struct{}, 1), behind: make(chan struct{}, 1), froze: make(chan struct{}, 1),
		stop: make(chan struct{}), followed: make(chan struct{}),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := s.initialize(path); err != nil {
		if s.journal != nil {
			_ = s.journal.Close()
		}
		s.files.suspend()
		_ = db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go s.run()
	go s.follow()
	return s, nil
}

// openFile opens the bbolt file. bbolt panics on some damaged files and would
// crash on reading beyond the end of one that was cut. The file that is returned
// is bbolt's own, which closes it.
func openFile(path string) (db *bbolt.DB, file *os.File, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			db, file, err = nil, nil, fmt.Errorf("%w: %s: bbolt can't read it", tokenizer.ErrDamaged, path)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      time.Nanosecond, // try the lock once
		FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%w: %s", ErrLocked, path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrFormat, path, err)
	case errors.Is(err, bolterrors.ErrChecksum):
		return nil, nil, fmt.Errorf("%w: %s: %w", tokenizer.ErrDamaged, path, err)
	case err != nil:
		return nil, nil, fmt.Errorf("boltstore: open: %w", err)
	}
	info, err := os.Stat(path)
	if err == nil {
		err = db.View(func(tx *bbolt.Tx) error {
			if info.Size() < tx.Size() {
				return fmt.Errorf("%w: %s is cut short: %d bytes of %d", tokenizer.ErrDamaged, path, info.Size(), tx.Size())
			}
			return nil
		})
	}
	if err != nil {
		_ = db.Close()
		return nil, nil, err
	}
	return db, file, nil
}

// syncName makes the name of a new file durable, and that of its directory,
// which may be new too.
func syncName(path string) error {
	dir := filepath.Dir(path)
	for _, name := range []string{dir, filepath.Dir(dir)} {
		d, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// initialize makes the buckets of a new file or checks those of an old one, goes
// through the journal, and reserves the first ids, so that a store that can't be
// written to is found out at the start.
func (s *Store) initialize(path string) error {
	opened := false
	err := s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) (err error) {
			opened, err = s.prepare(tx)
			return err
		})
	})
	if err != nil {
		return err
	}
	name := filepath.Base(path) + journalSuffix
	if s.journal, err = journal.Open(filepath.Dir(path), name, s.logID, journal.Options{}); err != nil {
		if !opened {
			err = fmt.Errorf("%w. The file was closed when it had everything: take the journal away to go on without it, %s-*", err, name)
		}
		return damaged(err)
	}
	if opened && s.journal.Segments() == 0 {
		return fmt.Errorf("%w: the journal is missing, %s-*: it may have what the file has not", tokenizer.ErrDamaged, name)
	}
	s.append = s.journal.Append
	if err := s.guard(s.replay); err != nil {
		return damaged(err)
	}
	if !opened && s.replayed.Frames > 0 {
		return fmt.Errorf("%w: the journal goes on behind the file, which was closed when it had everything: the file is an older copy. "+
			"Take the journal away to go on from there: %s-*", tokenizer.ErrDamaged, name)
	}
	if err := s.journal.Ready(); err != nil {
		return err
	}
	return s.guard(func() error {
		// From now on the file may lack what the journal has.
		if err := s.change(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(openKey, []byte{1}) }); err != nil {
			return err
		}
		_, err := s.writeFrame(nil)
		return err
	})
}

// journalSuffix stands between the name of the file and the number of a file of
// the journal.
const journalSuffix = ".journal"

// damaged says of damage to the journal that it is tokenizer.ErrDamaged.
func damaged(err error) error {
	if errors.Is(err, journal.ErrDamaged) {
		return fmt.Errorf("%w: %w", tokenizer.ErrDamaged, err)
	}
	return err
}

// prepare makes or checks the buckets. It says whether the file was left without
// having been closed.
func (s *Store) prepare(tx *bbolt.Tx) (opened bool, err error) {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return false, ErrFormat
		}
		if err := create(tx); err != nil {
			return false, err
		}
		meta = tx.Bucket(metaBucket)
	}
	if s.upgraded, err = upgrade(tx); err != nil {
		return false, err
	}
	for _, name := range bucketNames {
		if tx.Bucket(name) == nil {
			return false, fmt.Errorf("%w: no bucket %s", tokenizer.ErrDamaged, name)
		}
	}
	if n := copy(s.logID[:], meta.Get(logIDKey)); n != len(s.logID) {
		return false, fmt.Errorf("%w: no log id", tokenizer.ErrDamaged)
	}
	return meta.Get(openKey) != nil, nil
}

// Recovered returns what Open found in the journal.
func (s *Store) Recovered() journal.Replayed { return s.replayed }

// create lays out a new store.
func create(tx *bbolt.Tx) error {
	for _, name := range bucketNames {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	var logID tokenizer.LogID
	if _, err := rand.Read(logID[:]); err != nil {
		return err
	}
	meta := tx.Bucket(metaBucket)
	return errors.Join(
		meta.Put(formatKey, []byte{storeFormat}),
		meta.Put(logIDKey, logID[:]),
		meta.Put(nextIDKey, binary.BigEndian.AppendUint64(nil, 1)),
	)
}

// Close writes what has been handed to Commit, and closes the files when the bbolt
// file has it all. Commits that come later fail with tokenizer.ErrUnavailable.
// Readers must be done.
//
// It returns an error if the file doesn't have it all, or may not: what was committed is
// in the journal then, and nothing is lost that is not taken away.
func (s *Store) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	s.signal()
	<-s.done
	close(s.stop)
	<-s.followed
	err := s.withFile(context.Background(), func() error {
		if err := s.checkpointAll(); err != nil {
			return err
		}
		return s.change(func(tx *bbolt.Tx) error {
			// Ids that nobody has been given are given back. If that fails they are
			// skipped, as after a crash.
			meta := tx.Bucket(metaBucket)
			return errors.Join(s.ids.giveBack(meta), meta.Delete(openKey))
		})
	})
	if err != nil {
		err = fmt.Errorf("the file has not all that is in the journal: %w", err)
	}
	s.file <- struct{}{}
	defer func() { <-s.file }()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.files.suspend()
	return errors.Join(err, s.journal.Close(), s.db.Close())
}

// guard runs fn and turns a panic of bbolt, which is how it reports a damaged
// page, into an error; so too a fault, where a page points outside the file.
func (s *Store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%w: bbolt: %v", tokenizer.ErrDamaged, fault)
		}
	}()
	return fn()
}

// slowWrite is how long a write may take before Check complains.
const slowWrite = 5 * time.Second

// Check reports why the latest write failed, or, when it did, whether one works by
// now; and why the file doesn't follow the journal, if it doesn't.
func (s *Store) Check(ctx context.Context) error {
	s.mu.Lock()
	failed, broken, closed, unfollowed := s.failed, s.broken, s.closed, s.unfollowed
	s.mu.Unlock()
	if closed {
		return errClosed
	}
	for _, since := range [...]*atomic.Int64{&s.writing, &s.following} {
		if began := since.Load(); began != 0 && time.Since(time.Unix(0, began)) > slowWrite {
			return fmt.Errorf("%w: a write hangs", tokenizer.ErrUnavailable)
		}
	}
	switch {
	case broken != nil:
		return broken
	case unfollowed != nil:
		return unfollowed
	case failed == nil:
		return nil
	}
	return s.submit(ctx, &write{ctx: ctx, done: make(chan struct{})})
}
