package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
)

// eventPrinter prints events as they come: a row each, or an object.
type eventPrinter struct {
	to   io.Writer
	json bool
	rows int
}

// eventRow is the form of a row. The columns don't wait for each other, so each has a
// width of its own; what is wider moves the rest.
const eventRow = "%-9v %-20s %-15s %-10s %-12s %5v %-24s %s\n"

func (p *eventPrinter) printAll(entries []auditEntry) error {
	for _, e := range entries {
		if err := p.print(e); err != nil {
			return err
		}
	}
	return nil
}

// print prints an event.
func (p *eventPrinter) print(e auditEntry) error {
	if p.json {
		encoder := json.NewEncoder(p.to)
		encoder.SetEscapeHTML(false) // an event is printed as it is
		return encoder.Encode(e)
	}
	if p.rows == 0 {
		if _, err := fmt.Fprintf(p.to, eventRow, "EVENT", "TIME", "ACTION", "PROFILE", "PURPOSE", "ITEMS", "RESULT", "CALLER"); err != nil {
			return err
		}
	}
	p.rows++
	if e.Event == nil {
		_, err := fmt.Fprintf(p.to, "%-9d an event of %d bytes, which is in the segments only\n", e.Sequence, e.Size)
		return err
	}
	var event audit.Event
	if err := json.Unmarshal(e.Event, &event); err != nil {
		return fmt.Errorf("event %d: %w", e.Sequence, err)
	}
	row := fmt.Sprintf(eventRow, e.Sequence, event.Time.Format(time.RFC3339), event.Action,
		orDash(shared(&event, event.Profile, func(i *audit.Item) string { return i.Profile })),
		orDash(shared(&event, event.Purpose, func(i *audit.Item) string { return i.Purpose })),
		len(event.Items), result(&event), orDash(event.Caller))
	_, err := io.WriteString(p.to, printable(row))
	return err
}

// shared returns what a field of the event says, "…" if its items differ.
func shared(e *audit.Event, own string, of func(*audit.Item) string) string {
	for i := range e.Items {
		if of(&e.Items[i]) != "" {
			return "…"
		}
	}
	return own
}

// result says in a few words how it went.
func result(e *audit.Event) string {
	words := []string{e.Code}
	if e.Reason != "" {
		words[0] = e.Reason
	}
	failed := 0
	for _, i := range e.Items {
		if i.Code != "" {
			failed++
		}
	}
	if failed > 0 {
		words = append(words, fmt.Sprintf("(%d failed)", failed))
	}
	return strings.Join(append(words, e.Alerts...), " ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
