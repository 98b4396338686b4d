package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
)

// remote is what commands that call a running server share.
type remote struct {
	env     Env
	server  client.Options
	timeout time.Duration
	json    bool
}

// flags adds the flags that say which server, as whom, and how it is printed.
func (r *remote) flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	r.server.Flags(flags, r.env.Getenv)
	flags.DurationVar(&r.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
	flags.BoolVar(&r.json, "json", false, "print JSON")
}

// call calls the server.
func (r *remote) call(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	conn, err := dial(&r.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return client.Explain(f(ctx, conn))
}
