package audit

import (
	"fmt"
	"io"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// The tree over a log is that of RFC 6962, section 2.1, and so of RFC 9162. The data of
// leaf n-1 is the hash of event n in the chain, 32 bytes: it stands for the number, for
// all events before and for the event itself.

// leafOf returns the hash of the leaf of an event, given the hash of the event.
func leafOf(event tokenizer.Hash) tlog.Hash { return tlog.RecordHash(event[:]) }

// edge is the right edge of a tree: all that it takes to grow. The zero value is that of
// an empty tree.
type edge struct {
	size  uint64
	peaks [64]tlog.Hash // by level: the roots of the complete trees that it is made of
}

// add adds a leaf, and appends the hashes that are complete by that to dst: that of the
// leaf, then those above it, as tlog.StoredHashes does.
func (e *edge) add(dst []tlog.Hash, leaf tlog.Hash) []tlog.Hash {
	dst = append(dst, leaf)
	level := 0
	for ; e.size>>level&1 == 1; level++ {
		leaf = tlog.NodeHash(e.peaks[level], leaf)
		dst = append(dst, leaf)
	}
	e.peaks[level] = leaf
	e.size++
	return dst
}

// root returns the hash of the tree, which has at least one leaf.
func (e *edge) root() tlog.Hash {
	level := bits.TrailingZeros64(e.size)
	root := e.peaks[level]
	for level++; e.size>>level > 0; level++ {
		if e.size>>level&1 == 1 {
			root = tlog.NodeHash(e.peaks[level], root)
		}
	}
	return root
}

// treeBytes returns how long the file of a tree with so many leaves is.
func treeBytes(size uint64) int64 { return tlog.StoredHashCount(int64(size)) * tlog.HashSize }

// treeFile reads the hashes of a tree from its file: all that are complete, each once,
// in the order of tlog.StoredHashIndex.
type treeFile struct{ io.ReaderAt }

// ReadHashes implements tlog.HashReader.
func (f treeFile) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if _, err := f.ReadAt(hashes[i][:], index*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("audit: tree: %w", err)
		}
	}
	return hashes, nil
}

// readEdge returns the right edge of the tree of a size.
func readEdge(r tlog.HashReader, size uint64) (edge, error) {
	e := edge{size: size}
	for level := range e.peaks {
		if size>>level&1 == 0 {
			continue
		}
		// The tree of this level is the last one of it that is complete.
		hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(level, int64(size>>level)-1)})
		if err != nil {
			return edge{}, err
		}
		e.peaks[level] = hashes[0]
	}
	return e, nil
}

// Proof shows by hashes what stands in a log, as RFC 6962 has it. What is not asked for
// is empty.
type Proof struct {
	Events      uint64      // of the tree that it is about
	Root        tlog.Hash   // of that tree
	Event       uint64      // that it is about
	Leaf        tlog.Hash   // of the event
	Inclusion   []tlog.Hash // that the event is in the tree: sections 2.1.1
	Old         uint64      // events of an earlier tree
	OldRoot     tlog.Hash   // of that tree
	Consistency []tlog.Hash // that the tree begins with the earlier one: section 2.1.2
}

// prove proves, in the tree of a size, that an event is in it, and that it begins with
// the tree of the old size. Either may be 0; neither is more than size.
func prove(r tlog.HashReader, size, event, old uint64) (Proof, error) {
	p := Proof{Events: size, Event: event, Old: old}
	var err error
	if p.Root, err = tlog.TreeHash(int64(size), r); err != nil {
		return Proof{}, err
	}
	if event > 0 {
		if p.Inclusion, err = tlog.ProveRecord(int64(size), int64(event)-1, r); err != nil {
			return Proof{}, err
		}
		leaf, err := r.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(event)-1)})
		if err != nil {
			return Proof{}, err
		}
		p.Leaf = leaf[0]
	}
	if old > 0 {
		if p.OldRoot, err = tlog.TreeHash(int64(old), r); err != nil {
			return Proof{}, err
		}
		if p.Consistency, err = tlog.ProveTree(int64(size), int64(old), r); err != nil {
			return Proof{}, err
		}
	}
	return p, p.Check()
}

// Check says whether the proof proves what it says. It is ErrBroken if not.
func (p Proof) Check() error {
	if p.Event > 0 {
		if err := tlog.CheckRecord(p.Inclusion, int64(p.Events), p.Root, int64(p.Event)-1, p.Leaf); err != nil {
			return fmt.Errorf("%w: the proof that event %d is in the tree of %d: %w", ErrBroken, p.Event, p.Events, err)
		}
	}
	if p.Old > 0 {
		if err := tlog.CheckTree(p.Consistency, int64(p.Events), p.Root, int64(p.Old), p.OldRoot); err != nil {
			return fmt.Errorf("%w: the proof that the tree of %d begins with that of %d: %w", ErrBroken, p.Events, p.Old, err)
		}
	}
	return nil
}
