package audit

import (
	"context"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Index finds events of a store's log. Files beside the segments tell it, for each few
// thousand events, what is not in them, so that it looks only where something may be.
//
// The files are made from the store and are worth nothing by themselves: an event that is
// found was read from the store. One that is missing, or that has the wrong checksum, is
// made again; until then its events are looked at one by one. Find is safe for concurrent
// use, also while Run is running.
type Index struct {
	dir   string
	store LogReader
	log   *slog.Logger
	size  uint32 // events in a block

	mu      sync.RWMutex
	blocks  []indexBlock // of the events from 1 on, without a gap; those that are there stay as they are
	damaged map[uint64]bool

	// What follows is Run's.
	files  []*indexFile
	next   *blockMaker
	limit  int
	failed bool // whether the latest pass failed

	looked atomic.Uint64 // events that Find has looked at
}

// LogReader is what an Index needs of a tokenizer.Store.
type LogReader interface {
	LogID() tokenizer.LogID
	Entries(ctx context.Context, after uint64, limit int) ([]tokenizer.Entry, error)
}

// NewIndex returns the index of the log of a store, with its files in a directory, which
// is that of the segments. It knows nothing until it runs.
func NewIndex(dir string, store LogReader, log *slog.Logger) *Index {
	return &Index{dir: dir, store: store, log: log, size: BlockEvents, damaged: make(map[uint64]bool), limit: 1}
}

// How the index follows the log.
const (
	indexPace  = 250 * time.Millisecond // between two looks for new events
	indexRetry = 5 * time.Second        // after a failure
)

// Run reads the files, makes what is missing of them, and goes on with what is committed
// until ctx ends. The directory must exist. It must run in one goroutine only.
func (x *Index) Run(ctx context.Context) {
	defer x.close()
	for ctx.Err() == nil {
		err := x.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		d := indexPace
		if err != nil {
			d = indexRetry
		}
		if failed := err != nil; failed != x.failed {
			x.failed = failed
			if failed {
				x.log.Warn("audit index can't be made; queries are slower", "dir", x.dir, "error", err)
			} else {
				x.log.Info("audit index is made again", "dir", x.dir)
			}
		}
		wait(ctx, nil, d)
	}
}

// close forgets what the files say.
func (x *Index) close() {
	x.mu.Lock()
	x.blocks = nil
	clear(x.damaged)
	x.mu.Unlock()
	closeIndexFiles(x.files)
	x.files, x.next = nil, nil
}

// Last returns the number of the last event that the files cover, 0 for none.
func (x *Index) Last() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.blocks) == 0 {
		return 0
	}
	return x.blocks[len(x.blocks)-1].last()
}

// Looked returns how many events Find has looked at since the index was made.
func (x *Index) Looked() uint64 { return x.looked.Load() }

// snapshot returns the blocks of now.
func (x *Index) snapshot() []indexBlock {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.blocks
}

// blockOf returns the block that an event is in, nil if it is in none.
func blockOf(blocks []indexBlock, sequence uint64) *indexBlock {
	i := sort.Search(len(blocks), func(i int) bool { return blocks[i].last() >= sequence })
	if i == len(blocks) || blocks[i].first > sequence {
		return nil
	}
	return &blocks[i]
}

// mayMatch says whether a block may have events that a filter finds.
func (x *Index) mayMatch(b *indexBlock, f *Filter) bool {
	if b.latest < f.within.from || f.within.until != "" && b.earliest >= f.within.until {
		return false
	}
	for _, w := range f.wanted {
		may, known := b.mayHold(b.file, w.terms)
		if !known {
			x.mu.Lock()
			x.damaged[b.first] = true
			x.mu.Unlock()
			return true
		}
		if !may {
			return false
		}
	}
	return true
}

// add puts a block behind the others.
func (x *Index) add(b indexBlock) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.blocks = append(x.blocks, b) // who has a snapshot doesn't look behind its end
}

// takeDamaged returns the first event of a block that is to be made anew, 0 if none is.
func (x *Index) takeDamaged() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	for first := range x.damaged {
		delete(x.damaged, first)
		return first
	}
	return 0
}
