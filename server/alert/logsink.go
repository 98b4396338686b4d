package alert

import (
	"context"
	"log/slog"
	"strings"
)

// logSink writes a line about each alert to the server's log.
type logSink struct{ log *slog.Logger }

// Name implements Sink.
func (logSink) Name() string { return "log" }

// Deliver implements Sink.
func (s logSink) Deliver(_ context.Context, a *Alert) error {
	s.log.Warn("alert", "kinds", strings.Join(a.Kinds, ","), "request_id", a.RequestID, "caller", a.Caller, "rule", a.Rule, "seq", a.Sequence)
	return nil
}
