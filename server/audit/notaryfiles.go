package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// open opens the files, and finds where they go on.
func (n *Notary) open(ctx context.Context) error {
	notes, err := n.openFile(filepath.Join(n.dir, notesName))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	tree, err := n.openFile(filepath.Join(n.dir, treeName))
	if err != nil {
		return errors.Join(fmt.Errorf("audit: %w", err), notes.Close())
	}
	n.opened.Lock()
	n.notes, n.tree = notes, tree
	n.opened.Unlock()
	n.trusted = false
	if err = n.settleNotes(); err == nil {
		err = n.compare(ctx)
	}
	if err == nil {
		err = n.settleTree()
	}
	if err != nil {
		_ = n.closeFiles()
		return err
	}
	n.publish()
	return nil
}

// closeFiles closes what is open.
func (n *Notary) closeFiles() error {
	n.opened.Lock()
	defer n.opened.Unlock()
	if n.tree == nil {
		return nil
	}
	err := errors.Join(n.notes.Close(), n.tree.Close())
	n.notes, n.tree = nil, nil
	return err
}

// settleNotes finds the last whole note, and leaves nothing behind it.
func (n *Notary) settleNotes() error {
	info, err := n.notes.Stat()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	last, end, err := lastNote(n.notes, info.Size(), Origin(n.store.LogID()))
	if err != nil {
		return err
	}
	if cut := info.Size() - end; cut > 0 {
		n.log.Warn("audit checkpoints ended in an unfinished one, which was cut off", "dir", n.dir, "bytes", cut)
		if err := n.notes.Truncate(end); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	n.base, n.notesEnd = last, end
	latest, err := os.ReadFile(filepath.Join(n.dir, latestName))
	switch {
	case errors.Is(err, fs.ErrNotExist) && last.Events == 0:
		return nil
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("audit: %w", err)
	case bytes.Equal(latest, last.text):
		return nil
	default:
		c, err := unverified(latest)
		if err != nil {
			return fmt.Errorf("%s: %w. Keep the directory as evidence; %s", latestName, err, remedy)
		}
		if c.Events >= last.Events {
			return fmt.Errorf("%w: the file %s has a checkpoint of %d events that the file %s lacks. Keep the directory as evidence; %s",
				ErrBroken, latestName, c.Events, notesName, remedy)
		}
	}
	return n.replace(latestName, last.text) // a crash came between the two
}

// compare holds the last checkpoint against the store.
func (n *Notary) compare(ctx context.Context) error {
	n.head = tokenizer.Genesis(n.store.LogID())
	if n.base.Events == 0 {
		return nil
	}
	entries, err := n.store.Entries(ctx, n.base.Events-1, 1)
	if err != nil {
		return err
	}
	if len(entries) == 0 || entries[0].Hash() != n.base.Head {
		return fmt.Errorf("%w: a checkpoint was signed of %d events, and they are not those of the store: the store was restored from an older copy, "+
			"or one of the two was changed. Keep the directory as evidence; %s", ErrMismatch, n.base.Events, remedy)
	}
	return nil
}

// settleTree takes over the tree up to the last checkpoint, if it has the root that was
// signed, and leaves nothing behind it.
func (n *Notary) settleTree() error {
	n.edge = edge{}
	info, err := n.tree.Stat()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if signed := n.base.Events; signed > 0 {
		var e edge
		if info.Size() >= treeBytes(signed) {
			if e, err = readEdge(treeFile{n.tree}, signed); err != nil {
				return err
			}
		}
		if e.size == signed && e.root() == n.base.Root {
			n.edge, n.head = e, n.base.Head
		} else {
			n.log.Warn("audit tree is not the one that was signed; it is computed anew from the store", "dir", n.dir, "events", signed)
		}
	}
	if err := n.tree.Truncate(treeBytes(n.edge.size)); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	n.grown.Store(n.edge.size)
	return nil
}

// lastWindow is how much of the end of the checkpoints is read: more than a few of them.
const lastWindow = 16 * maxNote

// lastNote finds the last whole note in a file of checkpoints, and its end; neither in an
// empty file. What is behind it is what a crash leaves: less than a note, or NULs.
//
// Errors: ErrBroken, or that of r.
func lastNote(r io.ReaderAt, size int64, origin string) (signedNote, int64, error) {
	from := max(size-lastWindow, 0)
	window := make([]byte, size-from)
	if _, err := r.ReadAt(window, from); err != nil && err != io.EOF {
		return signedNote{}, 0, fmt.Errorf("audit: %w", err)
	}
	begin := "\n" + origin + "\n"
	for end := len(window); ; {
		at := bytes.LastIndex(window[:end], []byte(begin)) + 1
		if at == 0 && from > 0 {
			return signedNote{}, 0, fmt.Errorf("%w: %s: no checkpoint at its end", ErrBroken, notesName)
		}
		text, rest := cutNote(window[at:])
		if text == nil && at > 0 {
			end = at
			continue
		}
		if bytes.Count(rest, []byte("\n")) > noteLines && bytes.IndexByte(rest, 0) < 0 {
			return signedNote{}, 0, fmt.Errorf("%w: %s: what stands behind the last checkpoint is none", ErrBroken, notesName)
		}
		if text == nil {
			return signedNote{}, 0, nil
		}
		c, err := unverified(text)
		if err != nil {
			return signedNote{}, 0, fmt.Errorf("%s: %w", notesName, err)
		}
		return signedNote{c, text}, size - int64(len(rest)), nil
	}
}

// cutNote cuts the note off with which b begins, and the empty line behind it. There is
// none if it isn't whole.
func cutNote(b []byte) (text, rest []byte) {
	end := 0
	for range noteLines {
		length := bytes.IndexByte(b[end:], '\n') + 1
		if length == 0 {
			return nil, b
		}
		end += length
	}
	if end >= len(b) || b[end] != '\n' {
		return nil, b
	}
	return b[:end], b[end+1:]
}

// meet holds the last note in the file against the key that is to sign the next, and
// writes down the public key.
func (n *Notary) meet(signer tokenizer.Signer) error {
	if n.trusted {
		return nil
	}
	key, err := VerifierKey(n.store.LogID(), signer.Public())
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	if n.base.Events > 0 {
		if _, err := OpenCheckpoint(n.base.text, verifier); err != nil {
			return fmt.Errorf("%w: the last checkpoint is not signed by the key of the store: %w. Keep the directory as evidence; %s", ErrMismatch, err, remedy)
		}
	}
	if err := n.replace(keyFileName, []byte(key+"\n")); err != nil {
		return err
	}
	n.mu.Lock()
	n.key = key
	n.mu.Unlock()
	n.trusted = true
	return nil
}

// keep makes a note durable, behind the tree that it speaks of.
func (n *Notary) keep(text []byte) error {
	if err := n.tree.Sync(); err != nil {
		return err
	}
	if _, err := n.notes.WriteAt(append(bytes.Clone(text), '\n'), n.notesEnd); err != nil {
		return errors.Join(err, n.notes.Truncate(n.notesEnd))
	}
	if err := n.notes.Sync(); err != nil {
		return errors.Join(err, n.notes.Truncate(n.notesEnd))
	}
	n.notesEnd += int64(len(text)) + 1
	return n.replace(latestName, text)
}

// replace writes a file in one go: whoever reads it finds the one or the other.
func (n *Notary) replace(name string, content []byte) error {
	path := filepath.Join(n.dir, name)
	f, err := n.openFile(path + ".new")
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(n.dir)
	}
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
