package command

import (
	"errors"

	"github.com/spf13/cobra"
)

// auditCommands are the commands about the audit log.
type auditCommands struct{ remote }

func auditCommand(env Env) *cobra.Command {
	a := &auditCommands{remote{env: env}}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Look after the audit log of a running server",
		Long: `Works on a running server, as the caller that --cert names.

  coatcheck audit prune --keep 400d --reason "INC-1234"
                                        remove segments whose events are all older`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("audit needs a command: prune")}
		},
	}
	a.flags(cmd)
	cmd.AddCommand(a.prune())
	return cmd
}
