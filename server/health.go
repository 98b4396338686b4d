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

	// spare marks one that the service can do without for a while: when it
	// fails, only its own name says so.
	spare bool

	// keys marks that of the keys: KeyService, by which they are looked after, is
	// there without them too.
	keys bool
}

// componentHealth keeps grpc.health.v1 true: each component has a service name
// of its own, and "" and the API's services are SERVING while all of them are,
// those apart that can be spared.
type componentHealth struct {
	*health.Server
	log        *slog.Logger
	components []component
	failed     map[string]bool // components that failed when last checked
}

func newHealth(log *slog.Logger, components []component) *componentHealth {
	h := &componentHealth{Server: health.NewServer(), log: log, components: components, failed: make(map[string]bool)}
	h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	return h
}

// run checks the components until ctx ends.
func (h *componentHealth) run(ctx context.Context) {
	tick := time.NewTicker(healthPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.check(ctx)
		}
	}
}

// check asks all components at once and publishes the answers. Not for
// concurrent use.
func (h *componentHealth) check(ctx context.Context) {
	answers := make([]chan error, len(h.components))
	for i, c := range h.components {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- c.checkInTime(ctx) }()
	}
	const serving, down = grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING
	all, keyless := serving, serving
	for i, c := range h.components {
		err := <-answers[i]
		if ctx.Err() != nil {
			return
		}
		state := serving
		if err != nil {
			state = down
		}
		if err != nil && !c.spare {
			all = down
			if !c.keys {
				keyless = down
			}
		}
		h.logChange(c.name, err)
		h.SetServingStatus(c.name, state)
	}
	h.SetServingStatus("", all)
	h.SetServingStatus(coatcheckv1.TokenizationService_ServiceDesc.ServiceName, all)
	h.SetServingStatus(coatcheckv1.TokenService_ServiceDesc.ServiceName, all)
	h.SetServingStatus(coatcheckv1.HoneytokenService_ServiceDesc.ServiceName, all)
	h.SetServingStatus(coatcheckv1.KeyService_ServiceDesc.ServiceName, keyless)
}

// checkInTime asks a component; one that doesn't answer in time has failed,
// whether it heeds its context or not.
func (c component) checkInTime(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- c.check(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logChange logs when a component fails, and when it works again.
func (h *componentHealth) logChange(name string, err error) {
	if failed := err != nil; failed == h.failed[name] {
		return
	}
	h.failed[name] = err != nil
	if err != nil {
		h.log.Error("component failed", "component", name, "error", err)
	} else {
		h.log.Info("component works again", "component", name)
	}
}
