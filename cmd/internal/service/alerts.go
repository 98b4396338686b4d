package service

import (
	"log/slog"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server/alert"
)

// newDispatcher returns what sends alerts to where the configuration says, after a look
// at all that it names.
func newDispatcher(c config.Alerts, log *slog.Logger) (*alert.Dispatcher, error) {
	var sinks []alert.Sink
	if c.Command != nil {
		command := alert.Command(*c.Command)
		if err := command.Check(); err != nil {
			return nil, err
		}
		sinks = append(sinks, command)
	}
	if c.Webhook != nil {
		webhook := alert.Webhook(*c.Webhook)
		if err := webhook.Check(); err != nil {
			return nil, err
		}
		sinks = append(sinks, webhook)
	}
	return alert.NewDispatcher(log, sinks...), nil
}
