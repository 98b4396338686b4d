package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Files beside the segments.
const (
	treeName    = "tree"        // the hashes of the tree over the log
	notesName   = "checkpoints" // all signed checkpoints, an empty line behind each
	latestName  = "checkpoint"  // the latest of them
	keyFileName = "audit.pub"   // the public key, for verifiers
)

// Sentinels of Prove and Latest.
var (
	// ErrNoCheckpoint says that nothing has been signed yet.
	ErrNoCheckpoint = errors.New("audit: no checkpoint yet")

	// ErrNoProof says that an event or a tree is asked for that there isn't yet.
	ErrNoProof = errors.New("audit: not in the tree")
)

// CheckpointOptions say when checkpoints are signed, if there are new events. Fields that
// are zero stand for the default.
type CheckpointOptions struct {
	Events uint64        // after so many; default 10,000
	Period time.Duration // after so long; default 10 s
}

func (o CheckpointOptions) withDefaults() CheckpointOptions {
	if o.Events == 0 {
		o.Events = 10_000
	}
	if o.Period == 0 {
		o.Period = 10 * time.Second
	}
	return o
}

// Notary keeps the tree over a log and signs checkpoints of it, of nothing but events
// that are durable in the store and in the segments. It reads the store by itself, off
// the way of calls. Latest, Prove and Status are safe for concurrent use.
type Notary struct {
	dir      string
	store    tokenizer.Store
	segments *Segments
	options  CheckpointOptions
	log      *slog.Logger
	openFile func(path string) (file, error)

	work     sync.Mutex // held by who writes: OpenNotary, Run, Close
	signer   func(context.Context) (tokenizer.Signer, error)
	notes    file
	notesEnd int64          // the end of the last whole note
	edge     edge           // of the tree as it is in its file
	head     tokenizer.Hash // hash of the event that was last added to it
	base     signedNote     // the last note in the file
	trusted  bool           // whether base is known to be of our key
	signedAt time.Time      // when this process last signed
	limit    int            // of entries that are read at once

	opened sync.RWMutex // held to replace tree, and to read it beside work
	tree   file

	grown atomic.Uint64 // events in the tree
	mu    sync.Mutex
	last  signedNote
	key   string // for verifiers; "" until the signer was there
	fault error  // why the latest step failed; nil if it didn't
}

// signedNote is a checkpoint and the note that it stands in.
type signedNote struct {
	Checkpoint
	text []byte
}

// OpenNotary opens the tree and the checkpoints in the directory of the segments. What
// the tree has beyond the last checkpoint is not trusted: it is cut off, and computed
// anew from the store once Run runs. If the rest has not the root that was signed, all of
// it is. Half a note at the end, which a crash leaves, is cut off.
//
// Errors: ErrMismatch if a checkpoint was signed of another log than that of the store,
// or of more than it has, ErrBroken if what stands in the files was changed, that of the
// store, that of ctx, or that of the file system.
func OpenNotary(ctx context.Context, segments *Segments, options CheckpointOptions) (*Notary, error) {
	n := newNotary(segments, options)
	n.work.Lock()
	defer n.work.Unlock()
	if err := n.open(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", n.dir, err)
	}
	return n, nil
}

func newNotary(segments *Segments, options CheckpointOptions) *Notary {
	return &Notary{
		dir: segments.dir, store: segments.store, segments: segments, options: options.withDefaults(),
		log: segments.log, openFile: segments.openFile, limit: 1,
	}
}

// Run keeps the tree and signs checkpoints until ctx ends. The signer is asked for before
// each checkpoint, and may have made its key by then; while it isn't there, the tree
// grows all the same. What fails is tried again.
func (n *Notary) Run(ctx context.Context, signer func(context.Context) (tokenizer.Signer, error)) {
	n.work.Lock()
	n.signer = signer
	n.work.Unlock()
	tick := time.NewTicker(min(syncPeriod, n.options.Period))
	defer tick.Stop()
	for {
		err := n.step(ctx, false)
		if ctx.Err() != nil {
			return
		}
		n.report(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close signs what is not signed yet, if Run was called, and closes the files. Run must
// have returned, and the segments' too.
func (n *Notary) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finalBound)
	defer cancel()
	n.work.Lock()
	hasSigner := n.signer != nil
	n.work.Unlock()
	if hasSigner {
		// A key that can't be reached is no reason to end with an error: the next start
		// signs.
		n.report(n.step(ctx, true))
	}
	n.work.Lock()
	defer n.work.Unlock()
	return n.closeFiles()
}

// report notes how a step went, and logs it if that is new.
func (n *Notary) report(err error) {
	n.mu.Lock()
	before := n.fault
	n.fault = err
	n.mu.Unlock()
	switch {
	case err != nil && before == nil:
		n.log.Warn("audit checkpoints can't be signed for now; the log goes on", "dir", n.dir, "error", err)
	case err == nil && before != nil:
		n.log.Info("audit checkpoints are signed again", "dir", n.dir)
	}
}

// step adds to the tree what is durable, and signs a checkpoint if that is due, or final.
func (n *Notary) step(ctx context.Context, final bool) error {
	n.work.Lock()
	defer n.work.Unlock()
	if n.tree != nil {
		lost, err := isLost(n.tree, filepath.Join(n.dir, treeName))
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if lost {
			n.log.Warn("audit tree was deleted or moved away; it is begun anew", "dir", n.dir)
			_ = n.closeFiles()
		}
	}
	if n.tree == nil {
		if err := n.open(ctx); err != nil {
			return err
		}
	}
	for {
		more, err := n.grow(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if !n.due(final) {
		return nil
	}
	return n.sign(ctx)
}

// grow adds some events to the tree. It says whether there are more.
func (n *Notary) grow(ctx context.Context) (more bool, err error) {
	size, durable := n.edge.size, n.segments.Durable()
	if size > 0 && size == n.base.Events && n.edge.root() != n.base.Root {
		return false, fmt.Errorf("%w: the last checkpoint, of %d events, is of another log. Keep the directory as evidence; %s",
			ErrMismatch, size, remedy)
	}
	if size >= durable {
		return false, nil
	}
	most := min(uint64(n.limit), durable-size)
	if size < n.base.Events {
		most = min(most, n.base.Events-size)
	}
	entries, err := n.store.Entries(ctx, size, int(most))
	if err != nil {
		return false, err
	}
	if len(entries) == 0 {
		return false, fmt.Errorf("%w: event %d of the audit log is missing", tokenizer.ErrDamaged, size+1)
	}
	n.limit = adapted(n.limit, entries, len(entries) == n.limit)
	return true, n.add(entries)
}

// add adds entries to the tree.
func (n *Notary) add(entries []tokenizer.Entry) error {
	grown, head := n.edge, n.head
	var hashes []tlog.Hash
	for _, e := range entries {
		if e.Sequence != grown.size+1 || e.Prev != head {
			return fmt.Errorf("%w: event %d of the audit log can't be the one that follows", tokenizer.ErrDamaged, grown.size+1)
		}
		head = e.Hash()
		hashes = grown.add(hashes, leafOf(head))
	}
	buf := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		buf = append(buf, h[:]...)
	}
	// A write that fails is done again at the same place.
	if _, err := n.tree.WriteAt(buf, treeBytes(n.edge.size)); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	n.edge, n.head = grown, head
	n.grown.Store(grown.size)
	return nil
}

// due says whether it is time for a checkpoint.
func (n *Notary) due(final bool) bool {
	switch fresh := n.edge.size - n.base.Events; {
	case n.edge.size <= n.base.Events:
		return false
	case final, n.base.Events == 0, fresh >= n.options.Events:
		return true
	}
	return time.Since(n.signedAt) >= n.options.Period
}

// sign signs a checkpoint of the tree as it is.
func (n *Notary) sign(ctx context.Context) error {
	if n.signer == nil {
		return nil
	}
	signer, err := n.signer(ctx)
	if err != nil {
		return fmt.Errorf("audit: the key of the checkpoints: %w", err)
	}
	if err := n.meet(signer); err != nil {
		return err
	}
	c := Checkpoint{Log: n.store.LogID(), Events: n.edge.size, Root: n.edge.root(), Time: time.Now().UTC().Truncate(time.Second), Head: n.head}
	text, err := c.signed(signer)
	if err != nil {
		return err
	}
	if err := n.keep(text); err != nil {
		_ = n.closeFiles() // nobody knows what is on disk: see what the files hold
		return fmt.Errorf("audit: %w", err)
	}
	n.base, n.signedAt = signedNote{c, text}, time.Now()
	n.publish()
	return nil
}

// publish has Latest return the last note.
func (n *Notary) publish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = n.base
}

// Latest returns the latest checkpoint, the note that it stands in and the key to verify
// it with.
//
// Errors: ErrNoCheckpoint.
func (n *Notary) Latest() (c Checkpoint, text []byte, key string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last.Events == 0 || n.key == "" {
		return Checkpoint{}, nil, "", ErrNoCheckpoint
	}
	return n.last.Checkpoint, n.last.text, n.key, nil
}

// Prove proves by the tree of so many events that an event is in it, and that it begins
// with the tree of old events. Either may be 0, for none; events may be 0 too, for as
// many as the latest checkpoint covers.
//
// Errors: ErrNoCheckpoint, ErrNoProof, or that of the file system.
func (n *Notary) Prove(events, event, old uint64) (Proof, error) {
	if events == 0 {
		n.mu.Lock()
		events = n.last.Events
		n.mu.Unlock()
		if events == 0 {
			return Proof{}, ErrNoCheckpoint
		}
	}
	if event > events || old > events || events > n.grown.Load() {
		return Proof{}, ErrNoProof
	}
	n.opened.RLock()
	defer n.opened.RUnlock()
	if n.tree == nil {
		return Proof{}, ErrNoProof
	}
	return prove(treeFile{n.tree}, events, event, old)
}

// NotaryStatus tells how far a log is signed.
type NotaryStatus struct {
	Signed    time.Time // when the latest checkpoint was; zero if there is none
	Events    uint64    // that it covers
	Uncovered uint64    // events behind them
	Failing   bool      // whether the latest try to sign failed
}

// Status returns how far the log is signed.
func (n *Notary) Status() NotaryStatus {
	durable := n.segments.Durable()
	n.mu.Lock()
	defer n.mu.Unlock()
	return NotaryStatus{
		Signed: n.last.Time, Events: n.last.Events, Failing: n.fault != nil,
		Uncovered: max(durable, n.last.Events) - n.last.Events,
	}
}
