package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// idBlock is how many ids are reserved in the file at a time. After a crash
// those of the block that were not used are skipped.
const idBlock = 2 * tokenizer.MaxReserve

// idRange hands out ids below a limit that the file already holds.
type idRange struct {
	mu    sync.Mutex
	next  uint64 // the next id to hand out
	limit uint64 // the first that is not reserved in the file
}

// take hands out n ids, if that many are reserved.
func (r *idRange) take(n uint64) (first uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit-r.next < n {
		return 0, false
	}
	first = r.next
	r.next += n
	return first, true
}

// low says whether it is time to reserve more: while the largest request can
// still be served, so that hardly anyone waits.
func (r *idRange) low() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limit-r.next < idBlock/2
}

// extend reserves another block and returns the new limit, which counts once it
// is durable.
func (r *idRange) extend(meta rows) (limit uint64, err error) {
	stored := meta.Get(nextIDKey)
	if len(stored) != 8 {
		return 0, fmt.Errorf("%w: no next id", tokenizer.ErrDamaged)
	}
	limit = binary.BigEndian.Uint64(stored)
	if limit == 0 || limit > math.MaxUint64-idBlock {
		return 0, fmt.Errorf("%w: next id out of range", tokenizer.ErrDamaged)
	}
	limit += idBlock
	return limit, meta.Put(nextIDKey, binary.BigEndian.AppendUint64(nil, limit))
}

// extended takes over a limit that has been committed. If what was left does
// not reach up to the new block (the process has just started, or a commit
// that was thought to have failed took effect), it is skipped.
func (r *idRange) extended(limit uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit != limit-idBlock {
		r.next = limit - idBlock
	}
	r.limit = limit
}

// giveBack takes back in the transaction what is reserved and not handed out.
// From then on none is handed out.
func (r *idRange) giveBack(meta rows) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, limit := r.next, r.limit
	r.next = limit
	if stored := meta.Get(nextIDKey); len(stored) != 8 || binary.BigEndian.Uint64(stored) != limit {
		return nil // more has been reserved than this process knows of
	}
	return meta.Put(nextIDKey, binary.BigEndian.AppendUint64(nil, next))
}

// ReserveIDs hands out ids of a block that the file says is taken.
func (s *Store) ReserveIDs(ctx context.Context, n int) (uint64, error) {
	if n < 1 || n > tokenizer.MaxReserve {
		return 0, fmt.Errorf("boltstore: can't reserve %d ids at once", n)
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if first, ok := s.ids.take(uint64(n)); ok {
			return first, nil
		}
		if err := s.submit(ctx, &write{ctx: ctx, done: make(chan struct{})}); err != nil {
			return 0, err
		}
	}
}
