package vault

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Pauses before a request is made again, doubled from one to the next.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// budget is how long Vault is waited for, whatever it does.
func (c Config) budget() time.Duration { return c.Timeout * time.Duration(c.tries()) }

// retry says whether a request is worth making again. It is a
// retryablehttp.CheckRetry.
func (b *Backend) retry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if b.life.Err() != nil {
		return false, errClosed
	}
	if err != nil {
		return true, nil
	}
	status := resp.StatusCode
	if status == http.StatusInternalServerError && strings.HasSuffix(resp.Request.URL.Path, "/login") {
		// Some versions say so of a wrong secret id, and count the tries.
		return false, nil
	}
	return status >= 500 || standby(status) ||
		status == http.StatusTooManyRequests || status == http.StatusPreconditionFailed, nil
}

// backoff is how long to wait before a try, which is not at all while there is
// an address that has not been tried. It is a retryablehttp.Backoff.
func (b *Backend) backoff(_, _ time.Duration, failed int, _ *http.Response) time.Duration {
	again := failed - (len(b.cfg.Address) - 1)
	if again < 0 {
		return 0
	}
	pause := min(minBackoff<<min(again, 10), maxBackoff)
	return pause/2 + rand.N(pause/2)
}
