package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// SignedOptions say against what a log is verified.
type SignedOptions struct {
	// Keys are who may have signed: those of the log, its own or earlier ones.
	Keys []note.Verifier

	// Kept are checkpoints of the log that were kept elsewhere and are believed.
	Kept []Checkpoint

	// Event is the number of an event to prove; 0 for none.
	Event uint64
}

// Signed tells of a log that was verified against its checkpoints.
type Signed struct {
	Summary
	Checkpoints uint64     // how many there are
	Latest      Checkpoint // the last of them
	Note        []byte     // in which that stands
	Torn        bool       // whether the last line is unfinished
	Line        []byte     // that of SignedOptions.Event
	Proof       *Proof     // of it, in the tree of Latest; nil for none
}

// Uncovered returns how many events no checkpoint covers yet. Nothing shows whether
// whoever can write the files has cut some off behind them, or added some.
func (s Signed) Uncovered() uint64 { return s.Last - min(s.Latest.Events, s.Last) }

// VerifySigned verifies the log in a directory as VerifyDir does, and that it is what
// the checkpoints beside it say that it was, each signed by one of the keys, and the kept
// ones too. So whatever was changed, removed, added, moved or cut off is found, however
// it was chained anew, unless it is behind the last checkpoint and nothing else was noted.
// The log may be written meanwhile. It is read once, in bounded memory.
//
// Errors: a Fault where the place is known; ErrBroken, ErrNoCheckpoint, ErrNoProof for an
// event that Latest doesn't cover, or that of the file system. The result that comes with
// an error tells of what is before.
func VerifySigned(dir string, o SignedOptions) (Signed, error) {
	v := verifier{options: o}
	v.each, v.over = v.event, v.overPruned
	if err := v.open(dir); err != nil {
		return v.result(), err
	}
	defer v.close()
	err := v.readDir(dir)
	if errors.Is(err, ErrTorn) {
		v.torn, err = true, v.proven()
	}
	if err == nil {
		err = v.finish()
	}
	return v.result(), err
}

// verifier is a log that is being verified against its checkpoints.
type verifier struct {
	chain
	options SignedOptions
	edge    edge
	at      Place // of the last line
	torn    bool

	notesFile, treeFile *os.File
	notes               *noteReader
	next                *readNote // the checkpoint that comes next; nil behind the last
	passed              signedNote
	count               uint64
	final               signedNote // the last one, before any is verified
	kept                []Checkpoint

	tree      *bufio.Reader // what there is of the file of the tree; nil if there is none
	treeFault *Fault        // where it first differs from the log
	wanted    map[int64]*tlog.Hash
	line      []byte
	hashes    []tlog.Hash
}

// open reads what is needed before the lines, all of it before they are: they may grow.
func (v *verifier) open(dir string) error {
	latest, err := os.ReadFile(filepath.Join(dir, latestName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(filepath.Join(dir, notesName))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the directory has no file %s", ErrNoCheckpoint, notesName)
	}
	if err != nil {
		return err
	}
	v.notesFile = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if v.final, err = v.lookAhead(info.Size(), latest); err != nil {
		return err
	}
	v.notes = newNoteReader(io.NewSectionReader(f, 0, info.Size()))
	if v.next, err = v.notes.next(0, v.options.Keys); err != nil {
		return err
	}
	v.kept = slices.SortedFunc(slices.Values(v.options.Kept), func(a, b Checkpoint) int { return int(int64(a.Events) - int64(b.Events)) })
	for _, c := range v.kept {
		if c.Log != v.final.Log {
			return fmt.Errorf("%w: the checkpoint that was kept is of log %s, and this one is %s", ErrBroken, c.Log, v.final.Log)
		}
	}
	if err := v.openTree(dir); err != nil {
		return err
	}
	return v.want()
}

// lookAhead finds the last checkpoint, and holds the file with the latest against it.
func (v *verifier) lookAhead(size int64, latest []byte) (signedNote, error) {
	first := make([]byte, maxNote)
	n, err := v.notesFile.ReadAt(first, 0)
	if err != nil && err != io.EOF {
		return signedNote{}, err
	}
	origin, _, _ := bytes.Cut(first[:n], []byte("\n"))
	last, end, err := lastNote(v.notesFile, size, string(origin))
	if err != nil {
		return signedNote{}, &Fault{Place{File: notesName}, err}
	}
	if last.Events == 0 {
		return signedNote{}, fmt.Errorf("%w: the file %s is empty", ErrNoCheckpoint, notesName)
	}
	// The file is replaced behind the note that is appended, so it may be one behind.
	before := end - int64(len(last.text)) - 1
	var earlier signedNote
	if before > 0 {
		if earlier, _, err = lastNote(io.NewSectionReader(v.notesFile, 0, before), before, string(origin)); err != nil {
			return signedNote{}, &Fault{Place{File: notesName}, err}
		}
	}
	if !bytes.Equal(latest, last.text) && !bytes.Equal(latest, earlier.text) {
		return signedNote{}, &Fault{Place{File: latestName}, fmt.Errorf("%w: it isn't the last one in %s: one of the two was changed, cut off or put back", ErrBroken, notesName)}
	}
	return last, nil
}

// openTree opens the file of the tree, if there is one.
func (v *verifier) openTree(dir string) error {
	f, err := os.Open(filepath.Join(dir, treeName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	v.treeFile = f
	v.tree = bufio.NewReaderSize(io.LimitReader(f, treeBytes(v.final.Events)), 1<<16)
	return nil
}

func (v *verifier) close() {
	for _, f := range []*os.File{v.notesFile, v.treeFile} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// want notes which hashes the proof of the event takes: they are picked up on the way.
func (v *verifier) want() error {
	event, size := v.options.Event, v.final.Events
	if event == 0 {
		return nil
	}
	if event > size {
		return fmt.Errorf("%w: event %d: the last checkpoint covers %d events", ErrNoProof, event, size)
	}
	v.wanted = make(map[int64]*tlog.Hash)
	noting := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		for _, i := range indexes {
			v.wanted[i] = new(tlog.Hash)
		}
		return make([]tlog.Hash, len(indexes)), nil
	})
	_, err := prove(noting, size, event, 0)
	if errors.Is(err, ErrBroken) { // of course: the hashes are not there yet
		err = nil
	}
	return err
}

// event takes an event that is chained to those before.
func (v *verifier) event(at Place, line []byte) error {
	v.at = at
	if v.Log != v.final.Log {
		return &Fault{at, fmt.Errorf("%w: the lines are of log %s, and the checkpoints of %s", ErrBroken, v.Log, v.final.Log)}
	}
	if at.Event == v.options.Event {
		v.line = bytes.Clone(line)
	}
	v.add(leafOf(v.Head))
	if err := v.compareTree(at); err != nil {
		return err
	}
	return v.pass(at)
}

// add adds a leaf to the tree, and picks up the hashes that are wanted.
func (v *verifier) add(leaf tlog.Hash) {
	first := tlog.StoredHashCount(int64(v.edge.size))
	v.hashes = v.edge.add(v.hashes[:0], leaf)
	for i, h := range v.hashes {
		if place := v.wanted[first+int64(i)]; place != nil {
			*place = h
		}
	}
}

// overPruned takes the events of a segment that was pruned: of them there is no more than
// their hashes in the file of the tree, which the next checkpoint vouches for.
func (v *verifier) overPruned(p Pruned) error {
	hash, _ := parseHash(p.Hash) // it was read before
	for v.edge.size < p.Last {
		at := Place{File: treeName, Event: v.edge.size + 1}
		if v.tree == nil || v.treeFault != nil || at.Event > v.final.Events {
			return &Fault{at, fmt.Errorf("%w: events %d to %d were pruned, and their hashes are not in the tree that was signed", ErrBroken, p.First, p.Last)}
		}
		var leaf tlog.Hash
		if _, err := io.ReadFull(v.tree, leaf[:]); err != nil {
			return &Fault{at, fmt.Errorf("%w: events %d to %d were pruned, and the hash of %d can't be read: %w", ErrBroken, p.First, p.Last, at.Event, err)}
		}
		if at.Event == p.Last && leaf != leafOf(hash) {
			return &Fault{Place{File: PrunedFile, Event: at.Event}, fmt.Errorf("%w: event %d, which was pruned, is not the one in the tree", ErrBroken, at.Event)}
		}
		v.add(leaf)
		if err := v.compareHashes(at, v.hashes[1:]); err != nil {
			return err
		}
		if err := v.pass(at); err != nil {
			return err
		}
	}
	return nil
}

// pass holds the tree against the checkpoints of its size.
func (v *verifier) pass(at Place) error {
	var root tlog.Hash
	if len(v.kept) > 0 && v.kept[0].Events == v.edge.size || v.next != nil && v.next.Events == v.edge.size {
		root = v.edge.root()
	}
	if err := v.passKept(at, root); err != nil {
		return err
	}
	return v.passNote(at, root)
}

// compareTree holds the hashes of an event against those in the file of the tree. Which
// of the two was changed is shown by the next checkpoint.
func (v *verifier) compareTree(at Place) error {
	if v.tree == nil || v.treeFault != nil || v.edge.size > v.final.Events {
		return nil
	}
	return v.compareHashes(at, v.hashes)
}

func (v *verifier) compareHashes(at Place, hashes []tlog.Hash) error {
	for _, h := range hashes {
		var there tlog.Hash
		switch _, err := io.ReadFull(v.tree, there[:]); {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			v.treeFault = &Fault{Place{File: treeName, Event: at.Event}, fmt.Errorf("%w: it was cut off before the hashes of event %d", ErrBroken, at.Event)}
			return nil
		case err != nil:
			return err
		case there != h && v.treeFault == nil:
			v.treeFault = &Fault{at, fmt.Errorf("%w: event %d is not the one that was signed, though it is chained: this and what follows was written anew", ErrBroken, at.Event)}
		}
	}
	return nil
}

// passKept holds the tree against the kept checkpoints of its size.
func (v *verifier) passKept(at Place, root tlog.Hash) error {
	for len(v.kept) > 0 && v.kept[0].Events == v.edge.size {
		if c := v.kept[0]; c.Root != root || leafOf(c.Head) != v.hashes[0] {
			return &Fault{at, fmt.Errorf("%w: the first %d events are not those of the checkpoint that was kept, of %s: the history was rewritten, the latest at this event",
				ErrBroken, c.Events, c.Time.Format("2006-01-02T15:04:05Z"))}
		}
		v.kept = v.kept[1:]
	}
	return nil
}

// passNote holds the tree against the checkpoint of its size.
func (v *verifier) passNote(at Place, root tlog.Hash) error {
	if v.next == nil || v.next.Events != v.edge.size {
		return nil
	}
	if v.next.Root != root || leafOf(v.next.Head) != v.hashes[0] {
		if v.treeFault != nil && v.treeFault.File != treeName {
			return v.treeFault
		}
		return &Fault{at, fmt.Errorf("%w: the first %d events are not those that were signed, and the change is behind event %d: %s, line %d",
			ErrBroken, v.next.Events, v.passed.Events, notesName, v.next.line)}
	}
	if v.treeFault != nil {
		return &Fault{Place{File: treeName, Event: v.treeFault.Event},
			fmt.Errorf("%w: its hashes of event %d are not those of the log, or were cut off, and the log is as it was signed", ErrBroken, v.treeFault.Event)}
	}
	v.passed, v.count = v.next.signedNote, v.count+1
	var err error
	v.next, err = v.notes.next(v.passed.Events, v.options.Keys)
	return err
}

// finish says what is missing at the end of the log.
func (v *verifier) finish() error {
	end := Place{File: v.at.File, Line: v.at.Line + 1, Event: v.Last + 1}
	if v.passed.Events != v.final.Events && v.next == nil {
		return &Fault{Place{File: notesName}, fmt.Errorf("%w: what stands behind the checkpoint of %d events is none", ErrBroken, v.passed.Events)}
	}
	if v.next != nil {
		return &Fault{end, fmt.Errorf("%w: the log ends with event %d, and a checkpoint was signed of %d events: what is behind was cut off", ErrBroken, v.Last, v.final.Events)}
	}
	if len(v.kept) > 0 {
		return &Fault{end, fmt.Errorf("%w: the log ends with event %d, and the checkpoint that was kept is of %d events: what is behind was cut off",
			ErrBroken, v.Last, v.kept[len(v.kept)-1].Events)}
	}
	return nil
}

// result returns what there is to tell.
func (v *verifier) result() Signed {
	s := Signed{Summary: v.Summary, Checkpoints: v.count, Latest: v.passed.Checkpoint, Note: v.passed.text, Torn: v.torn}
	if v.wanted != nil && v.passed.Events == v.final.Events {
		found := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			hashes := make([]tlog.Hash, len(indexes))
			for i, index := range indexes {
				hashes[i] = *v.wanted[index]
			}
			return hashes, nil
		})
		if p, err := prove(found, v.final.Events, v.options.Event, 0); err == nil {
			s.Line, s.Proof = v.line, &p
		}
	}
	return s
}
