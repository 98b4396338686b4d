package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A block is as large as one of these says.
const (
	// BlockEvents is how many events a block of an Index has at most.
	BlockEvents = 4096
	blockTerms  = 1 << 16 // one event may go beyond it
)

// blockMaker makes a block of events that follow each other.
type blockMaker struct {
	block indexBlock
	size  uint32 // events in it
	terms map[term]struct{}
	last  [fieldCount]struct { // what was there last; most of it comes again and again
		text []byte
		set  bool
	}
}

func (x *Index) newBlockMaker(first uint64) *blockMaker {
	return &blockMaker{block: indexBlock{first: first}, size: x.size, terms: make(map[term]struct{})}
}

// add adds the next event.
func (m *blockMaker) add(e tokenizer.Entry) {
	m.block.count++
	at := bodyTime(e.Body)
	if m.block.count == 1 || string(at) < m.block.earliest {
		m.block.earliest = string(at)
	}
	if m.block.count == 1 || string(at) > m.block.latest {
		m.block.latest = string(at)
	}
	eachText(e.Body, func(name, text []byte) {
		field := termFieldOf(name)
		if field == noField {
			return
		}
		last := &m.last[field]
		if last.set && string(last.text) == string(text) {
			return
		}
		last.text, last.set = append(last.text[:0], text...), true
		m.terms[newTerm(field, text)] = struct{}{}
		if field == fieldAlerts {
			m.terms[newTerm(fieldAlerts, nil)] = struct{}{}
		}
	})
	if m.full() {
		m.block.head = e.Hash()
	}
}

// full says whether the block is to be written.
func (m *blockMaker) full() bool { return m.block.count == m.size || len(m.terms) >= blockTerms }

// finish returns the block and its buckets.
func (m *blockMaker) finish() (indexBlock, []byte) {
	b := m.block
	b.buckets = bucketsFor(len(m.terms))
	return b, makeBuckets(b.first, m.terms)
}

// pass makes what is missing of the index.
func (x *Index) pass(ctx context.Context) error {
	if x.next == nil {
		if err := x.load(ctx); err != nil {
			return err
		}
	}
	for {
		more, err := x.follow(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	for first := x.takeDamaged(); first != 0; first = x.takeDamaged() {
		if err := x.repair(ctx, first); err != nil {
			return err
		}
	}
	return nil
}

// load reads the files, and takes away what is not about this log.
func (x *Index) load(ctx context.Context) error {
	files, blocks, err := openIndexFiles(x.dir, x.store.LogID())
	if err != nil {
		return err
	}
	whole := len(blocks)
	for whole > 0 {
		// The store may be an older copy that has gone on since, so the end has to be
		// looked at, and what is before it only if that is not the store's.
		b := &blocks[whole-1]
		entries, err := x.store.Entries(ctx, b.last()-1, 1)
		if err != nil {
			closeIndexFiles(files)
			return err
		}
		if len(entries) == 1 && entries[0].Hash() == b.head {
			break
		}
		whole--
	}
	if whole < len(blocks) {
		if files, err = cutIndexFiles(files, blocks[whole:]); err != nil {
			closeIndexFiles(files)
			return err
		}
		blocks = blocks[:whole]
	}
	x.mu.Lock()
	x.blocks = blocks
	x.mu.Unlock()
	x.files, x.next = files, x.newBlockMaker(x.Last()+1)
	return nil
}

// cutIndexFiles takes away blocks at the end of the files.
func cutIndexFiles(files []*indexFile, blocks []indexBlock) ([]*indexFile, error) {
	for i := len(blocks) - 1; i >= 0; i-- {
		f := files[len(files)-1]
		f.blocks--
		f.size = blocks[i].offset - int64(blockHeaderSize)
		if f.blocks > 0 && i > 0 {
			continue
		}
		if err := f.Truncate(f.size); err != nil {
			return files, err
		}
		if f.blocks == 0 {
			files = files[:len(files)-1]
			if err := errors.Join(f.Close(), removeFiles("", []string{f.path})); err != nil {
				return files, err
			}
		}
	}
	return files, nil
}

// follow takes in the next events. It says whether there may be more.
func (x *Index) follow(ctx context.Context) (more bool, err error) {
	after := x.next.block.first + uint64(x.next.block.count) - 1
	entries, err := x.store.Entries(ctx, after, x.limit)
	if err != nil {
		return false, err
	}
	more = len(entries) == x.limit
	x.limit = adaptLimit(x.limit, entries)
	for _, e := range entries {
		x.next.add(e)
		if x.next.full() {
			if err := x.write(); err != nil {
				return false, err
			}
		}
	}
	return more, nil
}

// write writes the block that is full. If it fails, all of the index is read again.
func (x *Index) write() (err error) {
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	b, buckets := x.next.finish()
	if n := len(x.files); n > 0 {
		lost, err := isLost(x.files[n-1].File, x.files[n-1].path)
		if err != nil {
			return err
		}
		if lost {
			return fmt.Errorf("audit: %s was deleted or moved away", x.files[n-1].path)
		}
	}
	if n := len(x.files); n == 0 || x.files[n-1].blocks == indexFileBlocks {
		f, err := createIndexFile(x.dir, b.first)
		if err != nil {
			return err
		}
		x.files = append(x.files, f)
	}
	if err := x.files[len(x.files)-1].add(&b, buckets, x.store.LogID()); err != nil {
		return err
	}
	x.add(b)
	x.next = x.newBlockMaker(b.last() + 1)
	return nil
}

// repair makes the buckets of a block again and writes them where they were.
func (x *Index) repair(ctx context.Context, first uint64) error {
	b := blockOf(x.snapshot(), first)
	if b == nil || b.first != first {
		return nil
	}
	m := x.newBlockMaker(first)
	for limit := 1; !m.full() && m.block.count < b.count; {
		entries, err := x.store.Entries(ctx, first+uint64(m.block.count)-1, min(limit, int(b.count-m.block.count)))
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			m.add(e)
		}
		limit = adaptLimit(limit, entries)
	}
	made, buckets := m.finish()
	if made.count != b.count || made.buckets != b.buckets || made.head != b.head {
		return fmt.Errorf("%w: the index is of other events than %d to %d", tokenizer.ErrDamaged, b.first, b.last())
	}
	x.log.Warn("audit index was damaged; a part of it is made anew", "file", b.file.Name(), "first", b.first, "last", b.last())
	if _, err := b.file.WriteAt(buckets, b.offset); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// adaptLimit returns how many entries to read at once by the size of those that were.
func adaptLimit(limit int, entries []tokenizer.Entry) int {
	size := 0
	for _, e := range entries {
		size += len(e.Body)
	}
	switch {
	case size > readAim:
		return max(len(entries)*readAim/size, 1)
	case len(entries) == limit && size < readAim/2:
		return min(2*limit, maxEntries)
	}
	return limit
}
