package server

import (
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
)

// maxReason is the longest reason that a caller can state, in bytes.
const maxReason = 256

// deed is what one item of a call asks for, and what becomes of it. A call about
// one thing has one.
type deed struct {
	*audit.Item // of the call; see tell
	err         error
	duties      policy.Duties // where it is allowed
	form        policy.Reveal // which is given then
}

// newDeeds returns deeds of a call, in place of those that it had, and of their alerts.
func (c *call) newDeeds(n int) []deed {
	c.event.Alerts = nil
	if n == 1 {
		one := new(struct {
			deeds [1]deed
			items [1]audit.Item
		})
		one.deeds[0].Item, c.items = &one.items[0], one.items[:]
		return one.deeds[:]
	}
	deeds := make([]deed, n)
	c.items = make([]audit.Item, n)
	for i := range deeds {
		deeds[i].Item = &c.items[i]
	}
	return deeds
}

// fail ends a deed, unless err is nil.
func (d *deed) fail(err error) {
	if err != nil && d.err == nil {
		d.err = err
	}
}

// decide asks policy.
func (d *deed) decide(c *call, r policy.Request) policy.Decision {
	decision := c.policy.Decide(r)
	var err error
	if !decision.Allowed {
		err = denial(decision)
	}
	if c.shadow != nil {
		d.Shadow = c.shadow.compare(decision, r)
	}
	d.decided(c, decision, err)
	return decision
}

// decided records a decision, and why it is denied, if it is. An item that is allowed
// is counted.
func (d *deed) decided(c *call, decision policy.Decision, err error) {
	d.Decision, d.Rule, d.duties, d.form = audit.Allow, decision.Rule, *decision.Duties(), decision.Reveal
	if err != nil {
		d.Decision = audit.Deny
		d.fail(err)
	} else if !decision.Pending && d.err == nil {
		d.fail(c.pay(&d.duties))
	}
}

// stated records the reason that a caller states.
func (d *deed) stated(reason string) {
	if !validReason(reason) {
		d.fail(errInvalidReason)
		return
	}
	d.StatedReason = reason
}

// state records the reason that a caller states for a call without deeds.
func (c *call) state(reason string) error {
	if !validReason(reason) {
		return errInvalidReason
	}
	c.event.StatedReason = reason
	return nil
}

func validReason(reason string) bool {
	return len(reason) <= maxReason && !strings.ContainsFunc(reason, unicode.IsControl)
}

// tell puts what a single deed has to say into the event of its call, which takes over
// its item. It returns err, or else that of the deed, which is how the call ends.
//
//go:noinline so that what it needs of the stack isn't there while the deed is done
func (c *call) tell(d *deed, err error) error {
	d.notify(first(err, d.err))
	c.event.Profile, c.event.Purpose, c.event.Reveal = d.Profile, d.Purpose, d.Reveal
	c.event.Decision, c.event.Rule, c.event.StatedReason, c.event.Shadow = d.Decision, d.Rule, d.StatedReason, d.Shadow
	c.alert(d.Alert)
	c.event.Approval = d.Approval
	c.event.Items = nil
	*d.Item = audit.Item{Token: d.Token, Subject: d.Subject, Reused: d.Reused}
	if *d.Item != (audit.Item{}) {
		c.event.Items = c.items
	}
	if err != nil {
		return err
	}
	return d.err
}

// tellAll puts what many deeds have to say into the event of their call, which takes
// over their items: what they all have in common into the event itself, the rest into
// its items. Nothing of a deed that failed is revealed.
func (c *call) tellAll(deeds []deed) {
	if len(deeds) == 0 {
		return
	}
	items := c.items
	for i := range deeds {
		deeds[i].notify(deeds[i].err)
		c.alert(items[i].Alert)
		if err := deeds[i].err; err != nil {
			r := refuse(err)
			items[i].Code, items[i].Reason, items[i].Reveal = code.Code(r.code).String(), r.reason, ""
			if r.ours() {
				c.defect = err
			}
		}
	}
	for _, f := range []struct {
		event *string
		item  func(*audit.Item) *string
	}{
		{&c.event.Profile, func(i *audit.Item) *string { return &i.Profile }},
		{&c.event.Purpose, func(i *audit.Item) *string { return &i.Purpose }},
		{&c.event.Reveal, func(i *audit.Item) *string { return &i.Reveal }},
		{(*string)(&c.event.Decision), func(i *audit.Item) *string { return (*string)(&i.Decision) }},
		{&c.event.Rule, func(i *audit.Item) *string { return &i.Rule }},
		{&c.event.StatedReason, func(i *audit.Item) *string { return &i.StatedReason }},
		{&c.event.Approval, func(i *audit.Item) *string { return &i.Approval }},
		{&c.event.Shadow, func(i *audit.Item) *string { return &i.Shadow }},
	} {
		*f.event = ""
		common := *f.item(&items[0])
		for i := range items {
			if *f.item(&items[i]) != common {
				common = ""
				break
			}
		}
		if common == "" {
			continue
		}
		*f.event = common
		for i := range items {
			*f.item(&items[i]) = ""
		}
	}
	c.event.Items = items
}
