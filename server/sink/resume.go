package sink

import (
	"context"
	"errors"
	"io/fs"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// resume returns where to go on.
func (f *Follower) resume(ctx context.Context, fromEnd bool) (place, error) {
	beginning := place{head: tokenizer.Genesis(f.source.LogID())}
	p, err := loadPosition(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fromEnd:
		end, err := f.end(ctx, beginning)
		if err != nil {
			return end, err
		}
		f.log.Info("audit sink begins behind what the log has", "seq", end.last)
		// It has to begin there too if it is never confirmed anything.
		return end, f.position(end).save(f.path)
	case errors.Is(err, fs.ErrNotExist):
		f.log.Info("audit sink begins with the first event of the log")
		return beginning, nil
	case errors.Is(err, errPosition):
		f.log.Error("audit sink has lost its position; it sends the whole log again", "error", err)
		return beginning, nil
	case err != nil:
		return beginning, err
	}
	if p.Log == f.source.LogID().String() {
		found, ok, err := f.find(ctx, p)
		if err != nil || ok {
			return found, err
		}
	}
	f.log.Error("audit sink has a position in another log than the store's; it sends the whole log again", "file", f.path, "seq", p.Sequence)
	return beginning, nil
}

// find returns the place that a position names. It is false if the log has another event
// there, or none.
func (f *Follower) find(ctx context.Context, p position) (place, bool, error) {
	if p.Sequence == 0 {
		return place{head: tokenizer.Genesis(f.source.LogID())}, true, nil
	}
	entries, err := f.source.Entries(ctx, p.Sequence-1, 1)
	if err != nil || len(entries) == 0 {
		return place{}, false, err
	}
	if entries[0].Sequence > p.Sequence { // it has been pruned
		return place{last: p.Sequence}, true, nil
	}
	head := entries[0].Hash()
	return place{p.Sequence, head}, head.String() == p.Hash, nil
}

// end returns the end of the log. It looks for it in steps that are twice as long each
// time, and then half as long.
func (f *Follower) end(ctx context.Context, at place) (place, error) {
	for step, found := uint64(1), true; step > 0; {
		entries, err := f.source.Entries(ctx, at.last+step-1, 1)
		if err != nil {
			return at, err
		}
		if found = found && len(entries) > 0; len(entries) > 0 {
			at = place{entries[0].Sequence, entries[0].Hash()}
		}
		if found {
			step *= 2
		} else {
			step /= 2
		}
	}
	return at, nil
}

func (f *Follower) position(at place) position {
	return position{f.source.LogID().String(), at.last, at.head.String()}
}
