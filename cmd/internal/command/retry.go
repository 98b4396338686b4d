package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
)

// Pauses before a server that is away is asked again.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// persistence is how a command goes on when the server goes away.
type persistence struct {
	env    Env
	conn   *grpc.ClientConn
	limit  time.Duration // how long the server may be away
	always bool          // also before it has answered anything

	answered bool
	since    time.Time // since when it is away; zero if it isn't
	pause    time.Duration
}

// progress says that the server is there.
func (p *persistence) progress() { p.answered, p.since, p.pause = true, time.Time{}, 0 }

// wait waits before the next attempt. It returns the error if there is to be
// none: it isn't one that passes, or the server is away for too long, or it has
// never been there.
func (p *persistence) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errStopped
	}
	if !transient(err) || !p.answered && !p.always {
		return client.Explain(err)
	}
	if p.since.IsZero() {
		p.since, p.pause = time.Now(), firstPause
		fmt.Fprintf(p.env.Stderr, "coatcheck: the server is away, trying again for %s: %s\n", p.limit, printable(client.Explain(err).Error()))
	}
	if time.Since(p.since) >= p.limit {
		return client.Explain(err)
	}
	pause := min(p.pause, time.Until(p.since.Add(p.limit)))
	select {
	case <-ctx.Done():
		return errStopped
	case <-time.After(pause/2 + rand.N(pause/2+1)):
	}
	p.pause = min(2*p.pause, lastPause)
	p.conn.ResetConnectBackoff()
	return nil
}

// errStopped says that the command was told to end.
var errStopped = errors.New("interrupted")

// errEnded says that a server ended a stream before it had answered everything.
var errEnded = status.Error(codes.Unavailable, "the server ended the stream")

// transient says whether the same may work later: the server or what it needs is
// away, or has too much to do.
func transient(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	st, ok := status.FromError(err)
	if !ok {
		return false
	}
	if slices.ContainsFunc(st.Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok }) {
		return true
	}
	switch st.Code() {
	case codes.Unavailable, codes.Aborted, codes.DeadlineExceeded:
		return true
	case codes.Internal, codes.Unknown, codes.Canceled:
		// That is how grpc calls some connections that break; a defect of the
		// server has a reason.
		var e *client.Error
		return errors.As(client.Explain(err), &e) && e.Reason == ""
	}
	return false
}

// rejects says whether an error is about the item alone, and not about the
// server or about the whole command. stops has the reasons that are about the
// command though their codes don't say so.
func rejects(err *client.Error, stops []string) bool {
	if slices.Contains(stops, err.Reason) {
		return false
	}
	switch codes.Code(err.Code) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.PermissionDenied,
		codes.ResourceExhausted, codes.DataLoss, codes.OutOfRange:
		return true
	}
	return false
}
