package boltstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// What is deleted or replaced stays in the file: bbolt never writes to a page
// that is in use. It writes what has changed to other pages, and takes those that
// it was on before for free. Scrub overwrites the free pages with zeros, and what
// is in the file behind the pages that it speaks of: a transaction that failed
// may have written there.
//
// Pages in use hold nothing else than what is stored. bbolt builds each in a
// buffer of zeros and writes it whole, so nothing of what was there before is
// left in the room that it doesn't need.
//
// # Why no crash can hurt
//
// The file has two meta pages, each the root of a tree with its own list of free
// pages. The newer one counts, unless its checksum is wrong; then the older does.
// A transaction writes its pages, syncs, overwrites the older meta page, and
// syncs. Let T be the latest transaction. Scrub writes to pages that are free for
// T. So does the transaction after T, and all that either needs for it is that T
// is on the disk, whole. Pages that T has freed belong to the tree of the older
// meta page, which is of no use any more: it would count again only if that of T
// were lost, and nothing writes to that one before a later one is on the disk.
// So Scrub may do at any moment, and stop anywhere, what the next transaction may
// do: kill -9, a power cut and a torn page leave nothing but free pages that are
// partly zeros.
//
// It all rests on T being on the disk. Who has the file to itself sees to that: the
// steps of Scrub run between transactions, and none once a sync has failed.
// The first transaction after a start is that of Open, whose syncs bring what a
// killed process had merely handed to the kernel to the disk too.
//
// Readers don't notice. Those that began before T may still look at pages that T
// has freed; so a step waits for them to finish. Those that begin later look at
// what T left, which has no free pages in it.

// Bounds of a step, after which commits come before the next.
const (
	stepZeros = 4 << 20               // bytes that are written, then synced
	stepPages = 1 << 14               // pages that are looked at
	stepTime  = 10 * time.Millisecond // that is taken to look
)

// scrubChunk is how much is read at a time.
const scrubChunk = 64 << 10

// storeFile is the file of the store, beneath bbolt.
type storeFile interface {
	io.ReaderAt
	io.WriterAt
	Stat() (os.FileInfo, error)
	Sync() error
}

// Scrub writes what the journal has into the file, overwrites the pages that are
// free then, some at a time, and what the journal needs no more. What file systems
// and disks keep of what was overwritten (snapshots, copies on write, spare
// blocks), and copies of the files, are beyond it.
//
// When ctx ends it returns, though a sync hangs that it has begun.
func (s *Store) Scrub(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.scrub(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) scrub(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			s.journal.GoOn() // else what was kept for Scrub would be kept for ever
		}
	}()
	// What is committed from now on goes elsewhere in the journal, or it would keep what
	// is there already.
	for last := s.journal.Turn(); ; s.pause(time.Millisecond) {
		if err := s.withFile(ctx, s.checkpointAll); err != nil {
			return err
		}
		if s.journal.Released() >= last {
			break // else the latest frame is only just on its way into memory
		}
	}
	sc := &scrubber{store: s, next: 2}
	for !sc.done {
		if err := s.withFile(ctx, sc.step); err != nil {
			return err
		}
	}
	if err := s.journal.Scrub(ctx); err != nil {
		return unavailable(err)
	}
	return nil
}

// scrubber goes once through the file.
type scrubber struct {
	store      *Store
	next       int64 // page; those of meta data, 0 and 1, hold nothing else
	done       bool
	pageSize   int64
	buf, zeros []byte
	written    int64 // bytes in this step
}

// step overwrites some free pages, by who has the file to itself. Its transaction
// changes nothing; it is there to say which pages are free.
func (sc *scrubber) step() error {
	tx, err := sc.store.db.Begin(true)
	if err != nil {
		return fmt.Errorf("%w: %w", tokenizer.ErrUnavailable, err)
	}
	defer func() { _ = tx.Rollback() }()
	sc.store.waitForReaders()
	if sc.pageSize == 0 { // bbolt tells it safely only while nothing else goes on
		sc.pageSize = int64(sc.store.db.Info().PageSize)
		chunk := max(scrubChunk, sc.pageSize)
		sc.buf, sc.zeros = make([]byte, chunk), make([]byte, chunk)
	}
	info, err := sc.store.bolt.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", tokenizer.ErrUnavailable, err)
	}
	sc.written = 0
	began, seen := time.Now(), int64(0)
	for seen < stepPages && sc.written < stepZeros && time.Since(began) < stepTime {
		if sc.next*sc.pageSize >= info.Size() {
			sc.done = true
			break
		}
		n, free := sc.run(tx, info.Size())
		if free {
			if err := sc.zero(sc.next*sc.pageSize, min(n*sc.pageSize, info.Size()-sc.next*sc.pageSize)); err != nil {
				return err
			}
		}
		sc.next += n
		seen += n
	}
	if sc.written == 0 && !sc.done {
		return nil
	}
	// The last step syncs in any case: what was zeros already may have been
	// written by a process that was killed before it came to this.
	if err := sc.store.bolt.Sync(); err != nil {
		return sc.store.failure(err)
	}
	return nil
}

// waitForReaders returns when who reads, reads what the latest transaction left.
func (s *Store) waitForReaders() {
	s.readers.Lock()
	defer s.readers.Unlock()
}

// run returns how many pages from the next on are alike, either free or not, up
// to as many as are read at a time.
func (sc *scrubber) run(tx *bbolt.Tx, size int64) (n int64, free bool) {
	most := int64(len(sc.buf)) / sc.pageSize
	for n = 0; n < most && (sc.next+n)*sc.pageSize < size; n++ {
		is := true
		if (sc.next+n)*sc.pageSize < tx.Size() {
			page, err := tx.Page(int(sc.next + n))
			is = err == nil && page.Type == "free"
		}
		if n > 0 && is != free {
			return n, free
		}
		free = is
	}
	return n, free
}

// zero overwrites what is not zeros in a part of the file. What is zeros may be a
// hole, which would need room if it were written.
func (sc *scrubber) zero(offset, length int64) error {
	for length > 0 {
		b := sc.buf[:min(length, int64(len(sc.buf)))]
		if _, err := sc.store.bolt.ReadAt(b, offset); err != nil {
			return fmt.Errorf("%w: %w", tokenizer.ErrUnavailable, err)
		}
		for at := 0; at < len(b); {
			end := at
			for end < len(b) && !sc.isZero(b[end:min(end+int(sc.pageSize), len(b))]) {
				end = min(end+int(sc.pageSize), len(b))
			}
			if end == at {
				at = min(at+int(sc.pageSize), len(b))
				continue
			}
			if _, err := sc.store.bolt.WriteAt(sc.zeros[:end-at], offset+int64(at)); err != nil {
				return sc.store.failure(err)
			}
			sc.written += int64(end - at)
			at = end
		}
		offset += int64(len(b))
		length -= int64(len(b))
	}
	return nil
}

func (sc *scrubber) isZero(b []byte) bool { return bytes.Equal(b, sc.zeros[:len(b)]) }
