package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// boundedContext is a context with a deadline, whose timer is only made if somebody
// waits for it: of a call that is quick nobody does.
type boundedContext struct {
	context.Context
	deadline time.Time

	mu     sync.Mutex
	waited context.Context // once somebody waits
	ended  context.CancelFunc
}

// Deadline returns the earlier of the two.
func (c *boundedContext) Deadline() (time.Time, bool) {
	if outer, ok := c.Context.Deadline(); ok && outer.Before(c.deadline) {
		return outer, true
	}
	return c.deadline, true
}

// Err says whether it is over: as Done says, if anybody waits.
func (c *boundedContext) Err() error {
	c.mu.Lock()
	waited := c.waited
	c.mu.Unlock()
	if waited != nil {
		return waited.Err()
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Done is closed when it is over, or when the call is.
func (c *boundedContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited == nil {
		c.waited, c.ended = context.WithDeadline(c.Context, c.deadline)
	}
	return c.waited.Done()
}

// end frees what Done has made. Nobody may wait any more.
func (c *boundedContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		c.ended()
	}
}

// bound gives contexts that end after a time. Those that begin in the same part of
// it share one.
type bound struct {
	time    time.Duration
	current atomic.Pointer[boundedFrom]
}

type boundedFrom struct {
	context.Context
	until time.Time // when the next one begins
}

// boundParts is into how many parts the time of a bound is divided: so much longer it
// may be at most.
const boundParts = 16

// context returns a context that ends within the time, and a sixteenth of it.
func (b *bound) context() context.Context {
	now := time.Now()
	if c := b.current.Load(); c != nil && now.Before(c.until) {
		return c
	}
	part := b.time / boundParts
	ctx, cancel := context.WithTimeout(context.Background(), b.time+part)
	context.AfterFunc(ctx, cancel) // it ends by itself
	c := &boundedFrom{ctx, now.Add(part)}
	b.current.Store(c)
	return c
}
