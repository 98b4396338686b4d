package boltstore

import (
	"errors"
	"sync"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A snapshot is a transaction that reads the file. It is used by one at a time.
type snapshot struct {
	tx      *bbolt.Tx
	cursors [buckets]*bbolt.Cursor // those that have been needed
	version uint64
}

// cursor returns the snapshot's cursor of a bucket, which is wherever it was last.
func (s *snapshot) cursor(id bucketID) *bbolt.Cursor {
	if s.cursors[id] == nil {
		s.cursors[id] = s.tx.Bucket(bucketNames[id]).Cursor()
	}
	return s.cursors[id]
}

// maxIdle is how many snapshots are kept for those who come next.
const maxIdle = 64

// snapshots hands out snapshots. To begin a transaction costs more than to look
// something up, and the file changes a few times a second: so until it does those that
// have been used are used again.
//
// bbolt can't write a free page again that an open transaction may look at, nor map
// more of the file while there is any. So none is kept while the file changes.
type snapshots struct {
	db *bbolt.DB

	mu       sync.Mutex
	idle     []*snapshot
	changing bool
	version  uint64 // of the file
}

// take returns a snapshot of the file as it is. It has to be given back.
func (p *snapshots) take() (*snapshot, error) {
	p.mu.Lock()
	version := p.version
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	tx, err := p.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		err = errClosed
	}
	if err != nil {
		return nil, err
	}
	return &snapshot{tx: tx, version: version}, nil
}

// give takes back a snapshot that nobody looks at any more.
func (p *snapshots) give(s *snapshot) {
	p.mu.Lock()
	keep := !p.changing && s.version == p.version && len(p.idle) < maxIdle
	if keep {
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		_ = s.tx.Rollback()
	}
}

// change runs what may change the file.
func (p *snapshots) change(fn func() error) error {
	p.suspend()
	defer func() {
		p.mu.Lock()
		p.changing = false
		p.version++
		p.mu.Unlock()
	}()
	return fn()
}

// suspend ends the snapshots that nobody uses, and has none kept.
func (p *snapshots) suspend() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.changing = nil, true
	p.mu.Unlock()
	for _, s := range idle {
		_ = s.tx.Rollback()
	}
}
