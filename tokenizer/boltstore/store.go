// Package boltstore keeps a tokenizer.Store in one bbolt file.
//
// One process at a time may have it open: bbolt's file lock sees to that, and
// a second opener is told at once. Everything that a unit holds, its audit
// event included, is written in one bbolt transaction; units that arrive while
// one is being synced share the next. Records are appended in the order of
// their ids, so that the tree grows at its right edge.
//
// The file holds seven buckets:
//
//	meta      format, log_id, next_id (the first id that is not reserved),
//	          and for moments probe (see Check)
//	records   id (8 bytes, big endian) → tokenizer.Record
//	claims    key → class, version and namespace of the key that it is under,
//	          and value; see claims.go
//	keys      namespace, class and version → keystore.WrappedKey
//	census    namespace, class and version → what is under the key; see census.go
//	profiles  namespace and profile → how many records it has; see profiles.go
//	log       sequence (8 bytes, big endian) → previous hash ‖ event
//
// What is deleted or replaced is no part of these any more, but of the file until
// Scrub has overwritten it.
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
// census, and neither 1 nor 2 had counts of profiles; Open counts what is missing
// and makes the file one of version 3. Claims of earlier versions had another
// form, but nothing made any.
const storeFormat = 3

var (
	metaBucket     = []byte("meta")
	recordsBucket  = []byte("records")
	claimsBucket   = []byte("claims")
	keysBucket     = []byte("keys")
	censusBucket   = []byte("census")
	profilesBucket = []byte("profiles")
	logBucket      = []byte("log")

	formatKey = []byte("format")
	logIDKey  = []byte("log_id")
	nextIDKey = []byte("next_id")
	probeKey  = []byte("probe")
)

// Store is a tokenizer.Store in a bbolt file. It is safe for concurrent use.
type Store struct {
	db       *bbolt.DB
	file     storeFile // that of db, for Scrub
	logID    tokenizer.LogID
	ids      idRange
	upgraded bool

	// update runs a write transaction; tests put faults in its way.
	update func(func(*bbolt.Tx) error) error

	readers sync.RWMutex // held for reading by read transactions; see Scrub

	mu      sync.Mutex
	pending []*write
	closed  bool
	broken  error        // set once after a failure that only a restart can mend
	failed  error        // why the latest write failed; nil once one works again
	writing atomic.Int64 // when the write that is going on began, in Unix nanoseconds; 0 if none is
	wake    chan struct{}
	done    chan struct{}
}

var _ tokenizer.Store = (*Store)(nil)

// Open opens the store in the file, which is made if it doesn't exist; its
// directory must exist. The file is readable and writable to its owner alone.
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
	s := &Store{db: db, file: file, update: db.Update, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := s.initialize(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go s.run()
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

// initialize makes the buckets of a new file or checks those of an old one,
// and reserves the first ids, so that a store that can't be written to is
// found out at the start.
func (s *Store) initialize() error {
	return s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(metaBucket)
			if meta == nil {
				if name, _ := tx.Cursor().First(); name != nil {
					return ErrFormat
				}
				if err := create(tx); err != nil {
					return err
				}
				meta = tx.Bucket(metaBucket)
			}
			var err error
			if s.upgraded, err = upgrade(tx); err != nil {
				return err
			}
			for _, name := range [][]byte{recordsBucket, claimsBucket, keysBucket, censusBucket, profilesBucket, logBucket} {
				if tx.Bucket(name) == nil {
					return fmt.Errorf("%w: no bucket %s", tokenizer.ErrDamaged, name)
				}
			}
			if n := copy(s.logID[:], meta.Get(logIDKey)); n != len(s.logID) {
				return fmt.Errorf("%w: no log id", tokenizer.ErrDamaged)
			}
			limit, err := s.ids.extend(tx)
			if err == nil {
				tx.OnCommit(func() { s.ids.extended(limit) })
			}
			return err
		})
	})
}

// create lays out a new store.
func create(tx *bbolt.Tx) error {
	for _, name := range [][]byte{metaBucket, recordsBucket, claimsBucket, keysBucket, censusBucket, profilesBucket, logBucket} {
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

// Close writes what has been handed to Commit and closes the file. Commits
// that come later fail with tokenizer.ErrUnavailable. Readers must be done.
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
	if s.broken == nil {
		// Ids that nobody has been given are given back. If that fails they are
		// skipped, as after a crash.
		_ = s.guard(func() error { return s.db.Update(s.ids.giveBack) })
	}
	return s.db.Close()
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

// Check reports why the latest write failed, or, when it did, whether one
// works by now: one that is large enough to need room on the disk.
func (s *Store) Check(ctx context.Context) error {
	s.mu.Lock()
	failed, broken, closed := s.failed, s.broken, s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("%w: closed", tokenizer.ErrUnavailable)
	}
	if began := s.writing.Load(); began != 0 && time.Since(time.Unix(0, began)) > slowWrite {
		return fmt.Errorf("%w: a write hangs", tokenizer.ErrUnavailable)
	}
	if broken != nil || failed == nil {
		return broken
	}
	if err := s.submit(ctx, &write{ctx: ctx, probe: true, done: make(chan struct{})}); err != nil {
		return err
	}
	return s.submit(ctx, &write{ctx: ctx, done: make(chan struct{})}) // takes the probe away
}
