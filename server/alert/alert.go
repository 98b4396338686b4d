// Package alert tells of calls that somebody should hear of at once: those whose audit
// events carry alerts.
//
// An alert is a part of the event of its call and committed with it; the audit log is
// the record. What this package does comes after: it sends each such event to the
// configured sinks, in the background and as well as it can. An alert is lost if the
// process ends before it is delivered, if a sink fails again and again, or if there are
// more of them than a sink can take. What must be complete is read from the log.
package alert

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Alert is a committed event that carries alerts. It is not changed any more.
type Alert struct {
	Kinds     []string // of audit.Event.Alerts
	RequestID string
	Caller    string
	Rule      string
	Sequence  uint64 // of the event in the log

	// Payload is what sinks send on, one JSON object in printable ASCII:
	//
	//	{"log":"…","seq":1,"event":{…}}
	//
	// log and seq are what the line of the audit log has, event the very bytes that
	// stand there.
	Payload []byte
}

// newAlert returns the alert of an event at its place in a log.
func newAlert(log tokenizer.LogID, sequence uint64, e *audit.Event) *Alert {
	body := e.Body()
	payload := make([]byte, 0, len(body)+96)
	payload = append(append(payload, `{"log":"`...), log.String()...)
	payload = strconv.AppendUint(append(payload, `","seq":`...), sequence, 10)
	payload = append(append(payload, `,"event":`...), body...)
	return &Alert{
		Kinds: slices.Clone(e.Alerts), RequestID: e.RequestID, Caller: e.Caller, Rule: e.Rule,
		Sequence: sequence, Payload: append(payload, '}'),
	}
}

// urgent says whether there is more to it than what policy asks for.
func (a *Alert) urgent() bool {
	return slices.ContainsFunc(a.Kinds, func(kind string) bool { return kind != audit.AlertNotify })
}

// Sink is a way out for alerts.
type Sink interface {
	// Name names the sink in metrics and in the log. No two sinks of a Dispatcher
	// have the same.
	Name() string

	// Deliver delivers an alert before ctx ends. It is not called concurrently, and
	// may be called with an alert again after it has failed. The error must not hold
	// secrets.
	//
	// Errors: ErrRefused if it is of no use to try again, or any other.
	Deliver(ctx context.Context, a *Alert) error
}

// ErrRefused says that a sink doesn't want an alert, and won't if it is sent again.
var ErrRefused = errors.New("alert: refused")
