package server

import (
	"errors"
	"slices"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// alert adds an alert to the event, unless it is there or empty.
func (c *call) alert(kind string) {
	if kind != "" && !slices.Contains(c.event.Alerts, kind) {
		c.event.Alerts = append(c.event.Alerts, kind)
	}
}

// notify notes the alert that there is about a deed which has ended with err, unless
// there is one already: a honeytoken, or what policy asks for.
func (d *deed) notify(err error) {
	switch {
	case d.Alert != "":
	case err != nil && errors.Is(err, tokenizer.ErrHoneytoken):
		d.Alert = audit.AlertHoneytoken
	case d.Decision == audit.Allow && d.duties.Notify():
		d.Alert = audit.AlertNotify
	}
}

// commitEvent commits a call's unit and event, and sends on the alerts of the event
// once it is durable.
//
// Errors: those of audit.Log.Commit. The event is then as it was.
func (s *Server) commitEvent(c *call) error {
	alone := c.unit.Empty()
	thief, err := s.suspendThief(c)
	if err != nil {
		return err
	}
	before := c.event.Alerts
	n := 0
	if s.bursts != nil {
		n = c.revealed()
	}
	burst := n > 0 && s.bursts.Count(c.event.Caller, n, c.event.Time)
	if burst {
		c.alert(audit.AlertBurst)
	}
	outcome, err := s.audit.Commit(s.commits.context(), c.unit, &c.event)
	if err != nil {
		if n > 0 {
			s.bursts.Withdraw(c.event.Caller, n, burst)
		}
		c.event.Alerts = before
		if thief && alone && errors.Is(err, tokenizer.ErrConflict) {
			// Nothing but the suspension can have been in the way: another call of the
			// thief was first. Of a unit with more to it the call is done again.
			c.unit.States = nil
			return s.commitEvent(c)
		}
		return err
	}
	c.sequence = outcome.Sequence
	if thief {
		s.suspended.set(c.event.Caller, true)
		s.log.Warn("a caller is suspended: it used a honeytoken", "caller", c.event.Caller, "request_id", c.event.RequestID)
	}
	if len(c.event.Alerts) > 0 && s.alerts != nil {
		s.alerts.Raise(s.logID, outcome.Sequence, &c.event)
	}
	return nil
}

// revealed returns how many values the call reveals, masked ones apart. It must have
// been finished.
func (c *call) revealed() int {
	shows := func(reveal string) bool { return reveal != "" && reveal != policy.Masked.String() }
	switch {
	case c.method.kind != policy.RevealAction:
		return 0
	case c.event.Reveal != "" && !shows(c.event.Reveal):
		return 0
	case c.event.Reveal != "":
		return max(len(c.event.Items), 1)
	}
	n := 0
	for i := range c.event.Items {
		if shows(c.event.Items[i].Reveal) {
			n++
		}
	}
	return n
}
