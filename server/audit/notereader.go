package audit

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"
)

// noteReader reads a file of checkpoints.
type noteReader struct {
	r    *bufio.Reader
	line int // of the file, from 1: where the next note begins
}

func newNoteReader(r io.Reader) *noteReader { return &noteReader{bufio.NewReaderSize(r, 2*maxNote), 1} }

// readNote is a note and where it begins.
type readNote struct {
	signedNote
	line int
}

// next returns the next checkpoint, which one of the keys has to have signed and which
// covers more events than the one before; nil if there is no more, or half a one.
func (n *noteReader) next(before uint64, keys []note.Verifier) (*readNote, error) {
	b, err := n.r.Peek(maxNote)
	if err != nil && err != io.EOF {
		return nil, err
	}
	text, rest := cutNote(b)
	if text == nil {
		if len(b) == maxNote {
			return nil, n.fault(fmt.Errorf("%w: not a checkpoint", ErrBroken))
		}
		return nil, nil
	}
	text = bytes.Clone(text)
	c, err := OpenCheckpoint(text, keys...)
	if err == nil && c.Events <= before {
		err = fmt.Errorf("%w: a checkpoint of %d events follows one of %d", ErrBroken, c.Events, before)
	}
	if err != nil {
		return nil, n.fault(err)
	}
	found := &readNote{signedNote{c, text}, n.line}
	n.line += noteLines + 1
	_, err = n.r.Discard(len(b) - len(rest))
	return found, err
}

func (n *noteReader) fault(err error) error { return &Fault{Place{File: notesName, Line: n.line}, err} }

// ReadCheckpoints returns the checkpoints of a file, each signed by one of the keys, in
// any order: one, or many with an empty line behind each, as the server keeps them.
//
// Errors: ErrBroken.
func ReadCheckpoints(file []byte, keys ...note.Verifier) ([]Checkpoint, error) {
	// What was printed or mailed may lack the empty line behind the last.
	rest := append(bytes.TrimRight(file, "\n"), "\n\n"...)
	var all []Checkpoint
	for len(rest) > 0 {
		var text []byte
		if text, rest = cutNote(rest); text == nil {
			return nil, fmt.Errorf("%w: not a file of checkpoints", ErrBroken)
		}
		c, err := OpenCheckpoint(text, keys...)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}
