package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// full says whether the next event belongs into another segment than one that is written
// up to a mark: it is large enough, or its first event is old enough.
func (s *Segments) full(end mark) bool {
	switch {
	case end.offset == 0:
		return false
	case end.offset >= s.options.Size:
		return true
	}
	return s.written.offset > 0 && time.Since(s.first) >= s.options.Age
}

// rotate has the log go on in another segment, once all of this one is on disk.
func (s *Segments) rotate(ctx context.Context) error {
	if err := s.sync(ctx); err != nil {
		return err
	}
	if !s.full(s.written) { // it was lost, and begun anew
		return nil
	}
	if err := s.enter(ctx, plainSegment(s.written.last+1)); err != nil {
		return err
	}
	select {
	case s.closed <- struct{}{}:
	default:
	}
	return nil
}

// firstTime returns when the first event of a segment was written, about: by the time
// that it tells of, but never in the future, however the clock was set since.
func firstTime(f io.ReaderAt, end mark) time.Time {
	now := time.Now()
	if end.offset == 0 {
		return now
	}
	line, err := newLineReader(io.NewSectionReader(f, 0, end.offset)).next()
	if err != nil {
		return now
	}
	t, err := timeOf(line)
	if err != nil || t.IsZero() {
		return now
	}
	return now.Add(-max(now.Sub(t), 0))
}

// timeOf returns the time of the event in a line.
func timeOf(line []byte) (time.Time, error) {
	_, body, found := bytes.Cut(line, []byte(lineEvent))
	if !found {
		return time.Time{}, errForm
	}
	var event struct {
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal(bytes.TrimSuffix(body, []byte(lineEnd)), &event); err != nil {
		return time.Time{}, fmt.Errorf("%w: the time of an event: %w", ErrBroken, err)
	}
	return event.Time, nil
}

// tellGaps logs which events are in no segment, nor were pruned. It doesn't look into the
// plain segments beyond their last line, so what is missing within is left to a verifier.
func (s *Segments) tellGaps() error {
	gaps, err := findGaps(s.dir, s.segment)
	if errors.Is(err, ErrBroken) {
		s.log.Error("audit segment can't be read; verify the directory", "dir", s.dir, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	for _, gap := range gaps {
		s.log.Error("audit events are in no segment; "+remedy, "dir", s.dir, "first", gap.first, "last", gap.last)
	}
	return nil
}
