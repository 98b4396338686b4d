package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// limitsTrailer is the key of the trailer that tells what is left of each limit.
const limitsTrailer = "coatcheck-limits"

// Limited returns how many items have been refused for a limit of a rule.
func (s *Server) Limited() []limit.Count { return s.limiter.Counts() }

// limits appends the limits that duties bring. If there are any, the call has a meter
// from now on.
func (c *call) limits(to []*policy.Limits, duties *policy.Duties) []*policy.Limits {
	if !duties.Any() {
		return to
	}
	if to = duties.Limits(to); len(to) > 0 && c.meter == nil {
		c.meter = c.limiter.Meter(DefaultNamespace, c.event.Caller)
	}
	return to
}

// pay counts an item that is allowed. The error is that of one too many.
func (c *call) pay(duties *policy.Duties) error {
	var room [4]*policy.Limits
	if limits := c.limits(room[:0], duties); len(limits) > 0 {
		return c.meter.Pay(limits)
	}
	return nil
}

// draw counts a value that is revealed. subject is the id of the record of the person
// whom it is about, 0 for nobody. The error is that of one too many, or of the store.
func (c *call) draw(ctx context.Context, duties *policy.Duties, subject uint64) error {
	var room [4]*policy.Limits
	if limits := c.limits(room[:0], duties); len(limits) > 0 {
		return c.meter.Draw(ctx, limits, subject)
	}
	return nil
}

// admit returns what the tokenizer asks before it gives the value of a deed. To limits the
// masked form is none.
func (c *call) admit(ctx context.Context, d *deed) func(tokenizer.Form, uint64) error {
	return func(form tokenizer.Form, subject uint64) error {
		h, err := c.grants.ask(ctx, d)
		if err == nil && form != tokenizer.Masked {
			err = c.draw(ctx, &d.duties, subject)
		}
		if err == nil && h != nil {
			d.Approval = h.ID
			c.grants.take(h, 1)
		}
		return err
	}
}

// settle adds to the unit what has been drawn on limits and on grants. It is called once
// all of the unit is prepared.
func (c *call) settle(ctx context.Context) error {
	c.grants.draw(&c.unit)
	if c.meter == nil {
		return nil
	}
	return c.meter.Settle(ctx, &c.unit)
}

// remeasure forgets what has been drawn, for a call that is done again.
func (c *call) remeasure() {
	if c.meter != nil {
		c.meter.Restart()
	}
}

// redraw forgets what has been drawn, for a page that is made anew.
func (c *call) redraw() {
	if c.meter != nil {
		c.meter.Undo()
	}
}

// measured ends what a call, or a group of a stream, has drawn; committed says whether
// that has been committed.
func (c *call) measured(committed bool) {
	if c.meter != nil {
		c.meter.Done(committed)
	}
}

// tellLimits sets the trailer that tells what is left, if any limit applied.
func (c *call) tellLimits(ctx context.Context) {
	if c.meter != nil {
		_ = grpc.SetTrailer(ctx, metadata.MD{limitsTrailer: c.meter.Left()})
	}
}
