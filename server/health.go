package server

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// healthPeriod is how often the components are checked.
const healthPeriod = time.Second

// healthTimeout is how long a component may take to answer.
const healthTimeout = 3 * time.Second

// A component is something that the service can't do without.
type component struct {
	name  string // the service name under which grpc.health.v1 tells of it
	check func(context.Context) error
}

// componentHealth keeps grpc.health.v1 true: each component has a service name
// of its own, and "" and the API's services are SERVING while all of them are.
type componentHealth struct {
	*health.Server
	log        *slog.Logger
	components []component
	kicked     chan struct{}
	failed     map[string]bool // components that failed when last checked
}

func newHealth(log *slog.Logger, components []component) *componentHealth {
	h := &componentHealth{Server: health.NewServer(), log: log, components: components,
		kicked: make(chan struct{}, 1), failed: make(map[string]bool)}
	h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	return h
}

// run checks the components until ctx ends.
func (h *componentHealth) run(ctx context.Context) {
	tick := time.NewTicker(healthPeriod)
	defer tick.Stop()
	for {
		h.check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.kicked:
		}
	}
}

// kick has the components checked at once. It doesn't wait.
func (h *componentHealth) kick() {
	select {
	case h.kicked <- struct{}{}:
	default:
	}
}

// check asks each component once and publishes the answers. A component that
// doesn't answer in time has failed. Not for concurrent use.
func (h *componentHealth) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	all := grpc_health_v1.HealthCheckResponse_SERVING
	for _, c := range h.components {
		err := c.check(ctx)
		if ctx.Err() == context.Canceled {
			return
		}
		state := grpc_health_v1.HealthCheckResponse_SERVING
		if err != nil {
			state, all = grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		if failed := err != nil; failed != h.failed[c.name] {
			h.failed[c.name] = failed
			if failed {
				h.log.Error("component failed", "component", c.name, "error", err)
			} else {
				h.log.Info("component works again", "component", c.name)
			}
		}
		h.SetServingStatus(c.name, state)
	}
	h.SetServingStatus("", all)
	h.SetServingStatus(coatcheckv1.TokenizationService_ServiceDesc.ServiceName, all)
}
