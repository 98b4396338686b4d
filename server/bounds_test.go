package server

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A bounded context is over when its time is, or that of the call, whether anybody
// waits or looks; and what is derived from it ends with it.
func TestBoundedContext(t *testing.T) {
	outer, cancel := context.WithCancel(t.Context())
	far := time.Now().Add(time.Hour)
	for name, row := range map[string]struct {
		c    *boundedContext
		over func(*boundedContext)
		want error
	}{
		"its time":   {&boundedContext{Context: t.Context(), deadline: time.Now().Add(20 * time.Millisecond)}, func(*boundedContext) { time.Sleep(30 * time.Millisecond) }, context.DeadlineExceeded},
		"the call":   {&boundedContext{Context: outer, deadline: far}, func(*boundedContext) { cancel() }, context.Canceled},
		"it is over": {&boundedContext{Context: t.Context(), deadline: far}, func(c *boundedContext) { c.end() }, context.Canceled},
	} {
		if err := row.c.Err(); err != nil {
			t.Errorf("%s: %v at first", name, err)
		}
		if deadline, ok := row.c.Deadline(); !ok || deadline != row.c.deadline {
			t.Errorf("%s: the deadline is %v, %v", name, deadline, ok)
		}
		derived, end := context.WithCancel(row.c)
		defer end()
		row.over(row.c)
		select {
		case <-row.c.Done():
		case <-time.After(time.Second):
			t.Errorf("%s: nothing is done", name)
		}
		<-derived.Done()
		if err := row.c.Err(); !errors.Is(err, row.want) || !errors.Is(derived.Err(), row.want) {
			t.Errorf("%s: %v, and %v of what is derived; want %v", name, err, derived.Err(), row.want)
		}
	}
	// Nobody waits: no timer is made.
	c := &boundedContext{Context: t.Context(), deadline: time.Now().Add(-time.Second)}
	if err := c.Err(); !errors.Is(err, context.DeadlineExceeded) || c.waited != nil {
		t.Errorf("late: %v", err)
	}
	c.end()
	early, stop := context.WithDeadline(t.Context(), time.Now().Add(time.Minute))
	defer stop()
	c = &boundedContext{Context: early, deadline: far}
	if deadline, _ := c.Deadline(); !deadline.Before(far) {
		t.Error("the earlier deadline doesn't count")
	}
}

// Commits that begin at about the same time share a bound, which lets each have its
// time, and not much more.
func TestBound(t *testing.T) {
	b := bound{time: 160 * time.Millisecond}
	first := b.context()
	if b.context() != first {
		t.Error("two that begin at once don't share a context")
	}
	time.Sleep(15 * time.Millisecond)
	second := b.context()
	if second == first {
		t.Error("one that begins later has the time of the first")
	}
	began := time.Now()
	<-second.Done()
	if took := time.Since(began); took < 155*time.Millisecond {
		t.Errorf("it is over after %v", took)
	}
}
