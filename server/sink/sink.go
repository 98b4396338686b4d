// Package sink sends the audit log on to other systems: syslog receivers and OTLP
// collectors.
//
// A sink follows the durable log by sequence number. It keeps in a file up to which event
// its receiver has confirmed, and goes on behind it after a restart. So each event is
// delivered at least once and in order, however long the receiver was away, and calls
// never wait for a sink: what it has yet to send waits in the log, not in memory.
package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Source is the log that is followed, as a tokenizer.Store has it. If it begins behind
// the event that was asked for, what is missing has been pruned.
type Source interface {
	LogID() tokenizer.LogID
	Entries(ctx context.Context, after uint64, limit int) ([]tokenizer.Entry, error)
}

// Sender is a way to a receiver. It is used by one goroutine at a time.
type Sender interface {
	// Name names the sink in metrics, in the log and in the name of its file.
	Name() string

	// Bounds says how much is sent at most before it has to be confirmed.
	Bounds() Bounds

	// Send sends events, which are in the order of the log. It says how many of them lost
	// a part, as they are larger than the receiver takes.
	Send(ctx context.Context, events []Event) (reduced int, err error)

	// Confirm returns nil once the receiver has all that was sent since the last Confirm
	// or Close.
	Confirm(ctx context.Context) (Receipt, error)

	// Close ends the connection, if there is one. What wasn't confirmed is sent again.
	Close()
}

// Receipt is what a receiver says of events that it has.
type Receipt struct {
	Rejected int    // of them it doesn't keep, and won't if they are sent again
	Why      string // in its own words
}

// Bounds bound what is sent and not confirmed.
type Bounds struct {
	Bytes int           // of bodies; one event is always sent
	Age   time.Duration // of the first of the events; 0 has each batch confirmed at once
}

// Event is an event of the log with what receivers want to know without reading its JSON.
type Event struct {
	tokenizer.Entry
	Log      tokenizer.LogID
	Hash     tokenizer.Hash
	Severity Severity
	facts
}

// facts are fields of audit.Event.
type facts struct {
	Time      time.Time `json:"time"`
	RequestID string    `json:"request_id"`
	Caller    string    `json:"caller"`
	Peer      string    `json:"peer"`
	Method    string    `json:"method"`
	Action    string    `json:"action"`
	Namespace string    `json:"namespace"`
	Profile   string    `json:"profile"`
	Purpose   string    `json:"purpose"`
	Reveal    string    `json:"reveal"`
	Decision  string    `json:"decision"`
	Rule      string    `json:"rule"`
	Code      string    `json:"code"`
	Reason    string    `json:"reason"`
	Alerts    []string  `json:"alerts"`
}

// Severity is one of syslog.
type Severity int

// Severities.
const (
	Alert  Severity = 1 // the event has alerts
	Notice Severity = 5 // something was denied or failed, be it one item
	Info   Severity = 6
)

// String returns the severity in capital letters.
func (s Severity) String() string {
	switch s {
	case Alert:
		return "ALERT"
	case Notice:
		return "NOTICE"
	}
	return "INFO"
}

// newEvent returns the event of an entry.
func newEvent(log tokenizer.LogID, e tokenizer.Entry) (Event, error) {
	event := Event{Entry: e, Log: log, Hash: e.Hash(), Severity: Info}
	if err := json.Unmarshal(e.Body, &event.facts); err != nil {
		return event, fmt.Errorf("%w: event %d of the audit log is not JSON", tokenizer.ErrDamaged, e.Sequence)
	}
	// A quotation mark inside of a string is escaped, so these are fields, of the event or
	// of an item, which has a code only if it failed.
	_, items, _ := bytes.Cut(e.Body, []byte(itemsBegin))
	switch {
	case len(event.Alerts) > 0:
		event.Severity = Alert
	case event.Code != "OK" || bytes.Contains(e.Body, []byte(`"decision":"deny"`)) || bytes.Contains(items, []byte(`"code":"`)):
		event.Severity = Notice
	}
	return event, nil
}
