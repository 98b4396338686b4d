package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coatcheck/coatcheck/server/metrics"
)

// serveMetrics answers GET /metrics on the listener until ctx ends.
func serveMetrics(ctx context.Context, listener net.Listener, sources metrics.Sources) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(sources))
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
