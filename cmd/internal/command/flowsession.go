package command

import (
	"context"
	"errors"
	"io"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
)

// session works over one stream. It returns nil once all is done.
func (f *flow) session(ctx context.Context, patience *persistence) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := f.open(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := f.sendAll(ctx, s)
		if err != nil {
			cancel() // ends receiving too
		}
		sent <- err
	}()
	err = f.receiveAll(s, patience)
	cancel()
	if own := <-sent; own != nil {
		return finalError{own}
	}
	return err
}

// sendAll asks again what was not answered, and then row by row. Its errors are
// of the outputs; those of the stream are told to who receives.
func (f *flow) sendAll(ctx context.Context, s asker) error {
	if broken, err := sendEach(ctx, s, f.unanswered()); broken {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r, more := <-f.read:
			if !more {
				f.mu.Lock()
				f.ended = true
				f.mu.Unlock()
				_ = s.end()
				return nil
			}
			questions, err := f.admit(r)
			if err != nil {
				return err
			}
			if broken, err := sendEach(ctx, s, questions); broken {
				return err
			}
		}
	}
}

// sendEach sends questions. A stream that breaks is no error.
func sendEach(ctx context.Context, s asker, questions []*question) (broken bool, err error) {
	for _, q := range questions {
		if err := s.send(q); errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil {
			return true, nil
		} else if err != nil {
			return true, client.Explain(err)
		}
	}
	return false, nil
}

// unanswered returns what has to be asked again.
func (f *flow) unanswered() (open []*question) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.questions {
		if !q.done {
			open = append(open, q)
		}
	}
	return open
}

// receiveAll takes answers until all is done.
func (f *flow) receiveAll(s asker, patience *persistence) error {
	for {
		a, err := s.receive()
		if errors.Is(err, io.EOF) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.ended && len(f.rows) == 0 {
				return nil
			}
			return errEnded
		}
		if err != nil {
			return err
		}
		if err := f.take(a); err != nil {
			return err
		}
		patience.progress()
	}
}
