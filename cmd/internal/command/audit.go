package command

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// auditCommands are the commands about the audit log of a running server.
type auditCommands struct{ remote }

func auditCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Ask the audit log, find out whose data was shown, verify it, get what shows that it is whole, and prune it",
		Long: `Verifies the audit log in a directory, which needs no server:

  coatcheck audit verify /var/lib/coatcheck/audit --public-key audit.pub

The others work on a running server, as the caller that --cert names.

  coatcheck audit tail -f                     the last events, and those that come
  coatcheck audit query --subject customer-7  the events that a filter finds
  coatcheck audit stats --by caller           how many there are
  coatcheck audit checkpoint                  the latest signed checkpoint, to be kept elsewhere
  coatcheck audit checkpoint --public-key     the key that it is signed with
  coatcheck audit proof --event 4711          that an event is in the log
  coatcheck audit exposure --since 2026-03-01T10:00:00Z --certificate SHA256
                                              whose data was shown to whom
  coatcheck audit prune --keep 400d --reason "INC-1234"
                                              remove segments whose events are all older`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("audit needs a command: tail, query, stats, exposure, verify, checkpoint, proof or prune")}
		},
	}
	cmd.AddCommand(auditVerifyCommand(env))
	a := &auditCommands{remote{env: env}}
	for _, c := range []*cobra.Command{a.tail(), a.query(), a.stats(), a.exposure(), a.checkpoint(), a.proof(), a.prune()} {
		a.flags(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// do calls the service.
func (a *auditCommands) do(ctx context.Context, f func(context.Context, coatcheckv1.AuditServiceClient) error) error {
	return a.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, coatcheckv1.NewAuditServiceClient(conn))
	})
}
