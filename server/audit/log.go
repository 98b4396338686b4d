package audit

import (
	"context"
	"errors"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Log is where events are committed, each together with the state that it
// tells of. It is safe for concurrent use.
type Log struct {
	store    tokenizer.Store
	segments *Segments
	told     []func(sequence uint64)
}

// NewLog returns a Log that commits to the store and lets the segments know.
func NewLog(store tokenizer.Store, segments *Segments) *Log {
	return &Log{store: store, segments: segments}
}

// Tell has a function called with the number of each event that was committed, in any
// order. It must be called before the first Commit, and the function must not block.
func (l *Log) Tell(committed func(sequence uint64)) { l.told = append(l.told, committed) }

// ErrTooLarge says that an event has more to say than stands in a line.
var ErrTooLarge = errors.New("audit: event too large")

// Commit makes the unit durable together with the event, or neither. The unit
// brings no Event of its own.
//
// Errors: ErrTooLarge, and those of tokenizer.Store.Commit.
func (l *Log) Commit(ctx context.Context, unit tokenizer.Unit, event *Event) (tokenizer.Outcome, error) {
	body := event.Body()
	if len(body) > maxBody {
		return tokenizer.Outcome{}, ErrTooLarge
	}
	return l.CommitFunc(ctx, unit, func(tokenizer.Outcome) []byte { return body })
}

// CommitFunc is Commit with an event that depends on how the unit is settled.
// body must be quick, must not block and may be called more than once.
func (l *Log) CommitFunc(ctx context.Context, unit tokenizer.Unit, body func(tokenizer.Outcome) []byte) (tokenizer.Outcome, error) {
	unit.Event = body
	outcome, err := l.store.Commit(ctx, unit)
	if err != nil {
		return outcome, err
	}
	l.segments.Wake()
	for _, committed := range l.told {
		committed(outcome.Sequence)
	}
	return outcome, nil
}
