package service

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// followPeriod is how often files are looked at. What they hold is put to work once it
// has been the same twice, lest a file that is being written is taken for what it isn't
// yet.
const followPeriod = time.Second

// source is something that comes out of files and can be put to work anew. It is not for
// concurrent use.
type source interface {
	// paths returns where the files are.
	paths() []string

	// read returns what the files hold.
	read() ([][]byte, error)

	// working returns the digest of the files that are at work.
	working() string

	// name returns the hash by which the log and the audit log name what files hold.
	name(files [][]byte) string

	// load checks what the files hold. put puts it to work, all at once, as soon as the
	// event that says so is durable; an error of it means that it couldn't be recorded.
	load(files [][]byte) (put func(context.Context) error, err error)

	// refuse records that what is at work stays. The files have a name, unless they can't
	// be read.
	refuse(ctx context.Context, name string) error
}

// digest names what files hold. That of a single file is its SHA-256 hash.
func digest(files [][]byte) string {
	hash := sha256.New()
	for _, f := range files {
		if len(files) > 1 {
			_ = binary.Write(hash, binary.BigEndian, uint64(len(f)))
		}
		hash.Write(f)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// content names what files hold: by its digest, or by why they can't be read.
type content struct{ digest, fault string }

// follower puts to work what files hold when it changes. What isn't good is refused, and
// what is at work stays.
type follower struct {
	source
	what string // for the log, as in "policy file"
	log  *slog.Logger

	marks   []fs.FileInfo // of the files when they were last read; nil if they must be read again
	seen    content       // when the files were last read
	settled content       // what has been decided about: put to work, or refused
	refused atomic.Bool
}

// newFollower returns a follower of a source whose files are at work.
func newFollower(s source, what string, log *slog.Logger) *follower {
	return &follower{source: s, what: what, log: log, settled: content{digest: s.working()}}
}

// group are followers of what is put to work together. They are looked at one after the
// other.
type group struct {
	followers []*follower
	also      func() // is called after each look, if it isn't nil
}

// follow follows files until ctx ends. A signal on reload says that they are as they are
// meant to be: they are looked at right away. No group waits for the files of another,
// which may be where nothing answers.
func follow(ctx context.Context, reload <-chan os.Signal, groups ...group) {
	var running sync.WaitGroup
	defer running.Wait()
	var asked []chan struct{}
	for _, g := range groups {
		ask := make(chan struct{}, 1)
		asked = append(asked, ask)
		running.Go(func() { g.follow(ctx, ask) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
		}
		for _, ask := range asked {
			select {
			case ask <- struct{}{}:
			default: // it will look anyway
			}
		}
	}
}

func (g group) follow(ctx context.Context, ask <-chan struct{}) {
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-ask:
			asked = true
		case <-tick.C:
		}
		for _, f := range g.followers {
			f.look(ctx, asked)
		}
		if g.also != nil {
			g.also()
		}
	}
}

// look looks at the files. It reads them if there may be something to do about them.
func (f *follower) look(ctx context.Context, asked bool) {
	now, marks := time.Now(), marksOf(f.paths())
	if !asked && f.seen == f.settled && sameMarks(f.marks, marks) {
		return
	}
	files, err := f.read()
	f.marks = nil
	if err == nil && tell(marks, now) {
		f.marks = marks
	}
	var found content
	var name string
	if err != nil {
		found.fault = err.Error()
	} else {
		found.digest, name = digest(files), f.name(files)
	}
	steady := found == f.seen
	f.seen = found
	atWork := found == content{digest: f.working()}
	switch {
	case asked && atWork:
		f.log.Info("the "+f.what+" is what is at work", "hash", name)
	case found == f.settled && !asked, !steady && !asked:
		return
	}
	if atWork { // as it was before
		f.settled = found
		f.refused.Store(false)
		return
	}
	var put func(context.Context) error
	if err == nil {
		put, err = f.load(files)
	}
	if why := err; why != nil {
		if err = f.refuse(ctx, name); err == nil {
			f.refused.Store(true)
			f.log.Error("the "+f.what+" is refused; what is at work stays", "refused", name, "error", why)
		}
	} else if err = put(ctx); err == nil {
		f.refused.Store(false)
	}
	if err != nil {
		f.log.Error("a change of the "+f.what+" can't be recorded, so nothing is done about it yet", "error", err)
		return // tried again at the next look
	}
	f.settled = found
}

// again has files that are refused judged once more, since what they are judged by has
// changed.
func (f *follower) again() {
	if f.refused.Load() {
		f.settled = content{}
	}
}

// refusalEvent returns the event of files that are refused. Those that can't be read have
// no name, and another reason.
func refusalEvent(action, policyHash, name, unreadable, invalid string) audit.Event {
	event := audit.SystemEvent(action, "", policyHash)
	event.Code, event.Reason = "INVALID_ARGUMENT", invalid
	if name == "" {
		event.Code, event.Reason = "UNAVAILABLE", unreadable
	}
	return event
}

// commitEvent makes an event durable.
func commitEvent(ctx context.Context, log *audit.Log, event *audit.Event) error {
	ctx, cancel := context.WithTimeout(ctx, systemEventTimeout)
	defer cancel()
	_, err := log.Commit(ctx, tokenizer.Unit{}, event)
	return err
}
