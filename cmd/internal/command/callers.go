package command

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// callerCommands are the commands about callers.
type callerCommands struct{ remote }

func callersCommand(env Env) *cobra.Command {
	c := &callerCommands{remote{env: env}}
	cmd := &cobra.Command{
		Use:   "callers",
		Short: "Keep callers out of a running server, and let them in again",
		Long: `Works on a running server, as the caller that --cert names. Who is suspended is refused
whatever the policy says, from the next call on.

  coatcheck callers suspend spiffe://example.org/shop --reason "key leaked, INC-1234"
  coatcheck callers list                who is suspended, since when and why
  coatcheck callers restore spiffe://example.org/shop`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("callers needs a command: list, suspend or restore")}
		},
	}
	c.flags(cmd)
	cmd.AddCommand(c.list(), c.suspend(), c.restore())
	return cmd
}

// jsonSuspension is a suspension as it is printed. Times are in RFC 3339.
type jsonSuspension struct {
	Caller      string    `json:"caller"`
	Since       time.Time `json:"suspend_time"`
	SuspendedBy string    `json:"suspended_by,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	RequestID   string    `json:"request_id"`
}

func (c *callerCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List who is suspended",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.do(cmd.Context(), func(ctx context.Context, callers coatcheckv1.CallerServiceClient) error {
				all := make([]*coatcheckv1.Suspension, 0)
				for page := ""; ; {
					resp, err := callers.ListSuspensions(ctx, &coatcheckv1.ListSuspensionsRequest{PageToken: page})
					if err != nil {
						return err
					}
					all = append(all, resp.GetSuspensions()...)
					if page = resp.GetNextPageToken(); page == "" {
						return c.print(all)
					}
				}
			})
		},
	}
}

func (c *callerCommands) suspend() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend CALLER",
		Short: "Keep a caller out from now on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), func(ctx context.Context, callers coatcheckv1.CallerServiceClient) error {
				resp, err := callers.SuspendCaller(ctx, &coatcheckv1.SuspendCallerRequest{Caller: args[0], Reason: reason})
				if err != nil {
					return err
				}
				return c.print([]*coatcheckv1.Suspension{resp.GetSuspension()})
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people and the audit log")
	return cmd
}

func (c *callerCommands) restore() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "restore CALLER",
		Short: "Let a caller in again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.do(cmd.Context(), func(ctx context.Context, callers coatcheckv1.CallerServiceClient) error {
				_, err := callers.RestoreCaller(ctx, &coatcheckv1.RestoreCallerRequest{Caller: args[0], Reason: reason})
				return err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people and the audit log")
	return cmd
}

// do calls the service.
func (c *callerCommands) do(ctx context.Context, f func(context.Context, coatcheckv1.CallerServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, coatcheckv1.NewCallerServiceClient(conn))
	})
}

// print prints suspensions.
func (c *callerCommands) print(all []*coatcheckv1.Suspension) error {
	if c.json {
		list := make([]jsonSuspension, 0, len(all))
		for _, s := range all {
			list = append(list, jsonSuspension{s.GetCaller(), s.GetSuspendTime().AsTime(), s.GetSuspendedBy(), s.GetReason(), s.GetRequestId()})
		}
		return printJSON(c.env.Stdout, list)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.env.Stdout, "Nobody is suspended.")
		return err
	}
	t := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CALLER\tSINCE\tBY\tREASON\tREQUEST")
	for _, s := range all {
		by := s.GetSuspendedBy()
		if by == "" {
			by = "the server"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", printable(s.GetCaller()), s.GetSuspendTime().AsTime().Format(time.RFC3339), printable(by), printable(s.GetReason()), s.GetRequestId())
	}
	return t.Flush()
}
