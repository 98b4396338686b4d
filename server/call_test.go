package server

import (
	"context"
	"testing"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
)

// An event says of nothing that it was revealed if the call failed in the end.
func TestFailedCallsRevealNothing(t *testing.T) {
	for _, err := range []error{context.Canceled, audit.ErrTooLarge} {
		c := &call{event: audit.Event{Reveal: "FULL", Items: []audit.Item{{Reveal: "MASKED"}, {Reveal: "FULL"}}}}
		c.finish(refuse(err), err)
		if c.event.Reveal != "" {
			t.Errorf("%v: the event says %s", err, c.event.Reveal)
		}
		for _, item := range c.event.Items {
			if item.Reveal != "" {
				t.Errorf("%v: an item says %s", err, item.Reveal)
			}
		}
	}
}

// What an item is alerted of stands in the event, once, and of many in the item too.
func TestAlertsOfItems(t *testing.T) {
	c := new(call)
	deeds := c.newDeeds(1)
	deeds[0].Token, deeds[0].Alert = "a", audit.AlertHoneytoken
	if err := c.tell(&deeds[0], nil); err != nil {
		t.Fatal(err)
	}
	if len(c.event.Alerts) != 1 || c.event.Alerts[0] != audit.AlertHoneytoken || c.event.Items[0] != (audit.Item{Token: "a"}) {
		t.Errorf("of one item: %+v", c.event)
	}
	deeds = c.newDeeds(4)
	for i, alert := range []string{"", audit.AlertNotify, audit.AlertHoneytoken, audit.AlertNotify} {
		deeds[i].Alert = alert
	}
	c.tellAll(deeds)
	if got := c.event.Alerts; len(got) != 2 || got[0] != audit.AlertNotify || got[1] != audit.AlertHoneytoken {
		t.Errorf("of many items: %v", got)
	}
	if c.event.Items[0].Alert != "" || c.event.Items[2].Alert != audit.AlertHoneytoken {
		t.Errorf("items: %+v", c.event.Items)
	}
	if g := c.group(new(policy.Policy)); g.event.Alerts != nil {
		t.Errorf("a part of a stream begins with %v", g.event.Alerts)
	}
	c.again()
	if c.event.Alerts != nil {
		t.Errorf("what is done again begins with %v", c.event.Alerts)
	}
}

func TestRevealed(t *testing.T) {
	reveal := method{action: "detokenize", kind: policy.RevealAction}
	items := func(reveals ...string) (all []audit.Item) {
		for _, r := range reveals {
			all = append(all, audit.Item{Reveal: r})
		}
		return all
	}
	for name, row := range map[string]struct {
		method method
		event  audit.Event
		want   int
	}{
		"one":              {reveal, audit.Event{Reveal: "FULL", Items: items("")}, 1},
		"a part of one":    {reveal, audit.Event{Reveal: "LAST4", Items: items("")}, 1},
		"one masked":       {reveal, audit.Event{Reveal: "MASKED", Items: items("")}, 0},
		"one that failed":  {reveal, audit.Event{Items: items("")}, 0},
		"many alike":       {reveal, audit.Event{Reveal: "FULL", Items: items("", "", "")}, 3},
		"many masked":      {reveal, audit.Event{Reveal: "MASKED", Items: items("", "", "")}, 0},
		"many of a kind":   {reveal, audit.Event{Items: items("FULL", "", "MASKED", "LAST4")}, 2},
		"something else":   {method{action: "tokenize", kind: policy.ProfileAction}, audit.Event{Reveal: "FULL", Items: items("")}, 0},
		"nothing to count": {reveal, audit.Event{}, 0},
	} {
		if got := (&call{method: row.method, event: row.event}).revealed(); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}
