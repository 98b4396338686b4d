package server

import (
	"context"
	"testing"

	"github.com/coatcheck/coatcheck/server/audit"
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
