package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/semaphore"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// roomInFlight is how much of a file is in memory at once, in bytes; and what a
// row takes of it beside its own.
const (
	roomInFlight = 32 << 20
	rowOverhead  = 1 << 10
)

// maxMessage is the largest message that is sent: any value that a profile can
// take fits. A larger one would end the stream.
const maxMessage = 1<<20 + 64<<10

// asker is a stream of the API: a question for each field.
type asker interface {
	// send sends a question. An error means that the stream is over; receive
	// says why.
	send(q *question) error
	// receive returns the next answer. At the end of the stream it is io.EOF.
	receive() (answer, error)
	// end says that there are no more questions.
	end() error
}

// question is a field of a row on its way.
type question struct {
	id    uint64
	of    *rowInFlight
	field int
	done  bool
}

// answer is what became of a question.
type answer struct {
	correlation string
	text        string
	refused     *rpcstatus.Status
}

// rowInFlight is a row that has been read and not been written.
type rowInFlight struct {
	*rows.Row
	number  int64 // counted from the beginning of the file
	weight  int64
	waiting int      // fields without an answer
	texts   []string // the answers
	refused *rows.Refusal
}

// flow moves rows from the reader of a job to the server and to the job's
// outputs, in order. What is between is bounded. A stream that breaks is opened
// again, and what was not answered is asked again.
type flow struct {
	job    *job
	fields []string
	stops  []string // reasons that are not about an item
	open   func(context.Context) (asker, error)
	large  func(*question) bool             // the message would be larger than maxMessage
	check  func(*rowInFlight) *rows.Refusal // before a row is sent
	accept func(field int, text string) *rows.Refusal

	inFlight int
	room     *semaphore.Weighted
	read     chan *rowInFlight
	readErr  error // why read was closed, nil at the end of the file; set before it is

	mu        sync.Mutex
	ended     bool           // there are no more rows to read
	rows      []*rowInFlight // in order
	questions []*question    // in order, from the first without an answer
	next      uint64         // id of the next question
}

// run works until all rows are done.
func (f *flow) run(ctx context.Context, patience *persistence) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.room = semaphore.NewWeighted(roomInFlight)
	f.read = make(chan *rowInFlight, 64)
	go f.readAll(ctx)
	for {
		err := f.session(ctx, patience)
		if err == nil {
			return f.readErr
		}
		var final finalError
		if errors.As(err, &final) {
			return final.error
		}
		if err := patience.wait(ctx, err); err != nil {
			return err
		}
	}
}

// finalError is one after which the server isn't asked again.
type finalError struct{ error }

// readAll reads rows as far as there is room.
func (f *flow) readAll(ctx context.Context) {
	defer close(f.read)
	for number := f.job.state.Rows + 1; ; number++ {
		row, err := f.job.reader.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				f.readErr = err
			}
			return
		}
		r := &rowInFlight{Row: row, number: number}
		// Many small rows or a few large ones.
		r.weight = min(max(4*int64(len(row.Raw))+rowOverhead, roomInFlight/int64(f.inFlight)), roomInFlight)
		if f.room.Acquire(ctx, r.weight) != nil {
			f.readErr = errStopped // so that nobody takes this for the end of the file
			return
		}
		select {
		case f.read <- r:
		case <-ctx.Done():
			f.readErr = errStopped
			return
		}
	}
}

// admit makes questions of a row. One that has none may be done at once.
func (f *flow) admit(r *rowInFlight) (questions []*question, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.texts = make([]string, len(f.fields))
	f.rows = append(f.rows, r)
	if r.Problem != "" {
		r.refused = malformed("", r.Problem)
	} else {
		r.refused = f.check(r)
	}
	if r.refused != nil {
		return nil, f.settle()
	}
	for i := range f.fields {
		if r.Fields[i].Empty() {
			continue
		}
		q := &question{of: r, field: i}
		if f.large(q) {
			r.refused = malformed(f.fields[i], "is longer than any value can be")
			return nil, f.settle()
		}
		questions = append(questions, q)
	}
	for _, q := range questions {
		q.id = f.next
		f.next++
	}
	f.questions = append(f.questions, questions...)
	r.waiting = len(questions)
	return questions, f.settle()
}

// take takes an answer.
func (f *flow) take(a answer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, err := strconv.ParseUint(a.correlation, 10, 64)
	if len(f.questions) == 0 || err != nil || id < f.questions[0].id || id-f.questions[0].id >= uint64(len(f.questions)) {
		return finalError{errors.New("the server answers what was not asked")}
	}
	q := f.questions[id-f.questions[0].id]
	if q.done {
		return finalError{errors.New("the server answers twice")}
	}
	refused := f.accept(q.field, a.text)
	if a.refused != nil {
		if refused, err = judge(a.refused, f.stops); err != nil {
			var e *client.Error
			if errors.As(err, &e) && slices.Contains(f.stops, e.Reason) {
				err = finalError{fmt.Errorf("%s: %w", f.fields[q.field], e)}
			}
			return err
		}
	}
	if refused != nil && q.of.refused == nil {
		refused.Field = f.fields[q.field]
		q.of.refused = refused
	}
	q.of.texts[q.field] = a.text
	q.done = true
	q.of.waiting--
	for len(f.questions) > 0 && f.questions[0].done {
		f.questions[0] = nil
		f.questions = f.questions[1:]
	}
	if err := f.settle(); err != nil {
		return finalError{err}
	}
	return nil
}

// judge says whether a row is rejected for a refusal of the server. An error is
// not about the row: it may pass, or it is a finalError.
func judge(refused *rpcstatus.Status, stops []string) (*rows.Refusal, error) {
	err := status.ErrorProto(refused)
	if err == nil {
		return nil, finalError{errors.New("the server gives no answer")}
	}
	var e *client.Error
	if transient(err) || !errors.As(client.Explain(err), &e) {
		return nil, err
	}
	if !rejects(e, stops) {
		return nil, finalError{e}
	}
	return &rows.Refusal{Code: e.Code.String(), Reason: e.Reason, Message: e.Message}, nil
}

// settle writes the rows that are done and have none before them that isn't.
func (f *flow) settle() error {
	for len(f.rows) > 0 && f.rows[0].waiting == 0 {
		r := f.rows[0]
		f.rows[0] = nil
		f.rows = f.rows[1:]
		var err error
		if r.refused != nil {
			err = f.job.reject(r.Row, *r.refused)
		} else {
			err = f.job.write(r.Row, r.texts)
		}
		if err != nil {
			return err
		}
		f.room.Release(r.weight)
	}
	if len(f.rows) == 0 {
		return f.job.idle()
	}
	return nil
}
