package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// lineTime is what the body of every event begins with; its time follows.
const lineTime = `{"v":1,"time":"`

// Read goes through the events in the segments of a directory, plain and packed, that
// came in from a time on and before another, in the order of the log. A zero time is no
// bound. Each is as Event.Body has written it, and good until the next is asked for. What
// is in memory doesn't grow with the log.
//
// That each line has the form of one is all that is checked; Verify checks the log. An
// unfinished line at the very end is left out: it may be being written. An error ends
// it: ErrBroken, or that of the file; so does a directory without segments.
func Read(dir string, from, until time.Time) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		segments, err := listSegments(dir)
		if err == nil && len(segments) == 0 {
			err = fmt.Errorf("audit: %s has no segments", dir)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		within := newPeriod(from, until)
		for i, s := range segments {
			if !readSegment(s, dir, within, i == len(segments)-1, yield) {
				return
			}
		}
	}
}

// readSegment goes through the events of a segment. It returns false if that was the
// end of it.
func readSegment(s segment, dir string, within period, last bool, yield func([]byte, error) bool) bool {
	lines, s, err := openLines(dir, s, s.first)
	if err != nil {
		yield(nil, err)
		return false
	}
	defer lines.Close()
	for number := 1; ; number++ {
		line, err := lines.next()
		if err == io.EOF {
			return true
		}
		var body []byte
		if err == nil {
			body, err = bodyOf(line)
		}
		switch {
		case last && errors.Is(err, ErrTorn):
			return true
		case errors.Is(err, ErrTorn):
			err = ErrBroken // there is more after it
			fallthrough
		case err != nil:
			yield(nil, fmt.Errorf("%s:%d: %w", s.name, number, err))
			return false
		case within.has(body) && !yield(body, nil):
			return false
		}
	}
}

// bodyOf returns the event of a line, without a look at its hash.
func bodyOf(line []byte) ([]byte, error) {
	if line[len(line)-1] != '\n' {
		return nil, ErrTorn
	}
	_, rest, ok := bytes.Cut(line, []byte(lineEvent))
	body, ends := bytes.CutSuffix(rest, []byte(lineEnd))
	if !ok || !ends || !bytes.HasPrefix(line, []byte(lineLog)) || !bytes.HasPrefix(body, []byte(lineTime)) || len(body) < len(lineTime)+len(timeForm) {
		return nil, errForm
	}
	return body, nil
}

// period is a time in which events may have come in, as they are written.
type period struct{ from, until string }

func newPeriod(from, until time.Time) (p period) {
	if !from.IsZero() {
		p.from = from.UTC().Format(timeForm)
	}
	if !until.IsZero() {
		p.until = until.UTC().Format(timeForm)
	}
	return p
}

// has says whether an event came in then.
func (p period) has(body []byte) bool { return p.contains(bodyTime(body)) }

// contains compares the text of the times, which are all of the same form.
func (p period) contains(at []byte) bool {
	return string(at) >= p.from && (p.until == "" || string(at) < p.until)
}

// noTime stands for the time of what is too short for an event.
var noTime = []byte("0000-00-00T00:00:00.000000000Z")

// bodyTime returns the time of an event as it is written.
func bodyTime(body []byte) []byte {
	if len(body) < len(lineTime)+len(timeForm) {
		return noTime
	}
	return body[len(lineTime) : len(lineTime)+len(timeForm)]
}
