// Package command is Coatcheck's command line.
//
// Data goes to standard output, everything else to standard error. A command
// exits with 0 if it did what it was asked, 1 if it couldn't, and 2 if it was
// not asked properly.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/server/policy"
)

// Env is the world that a command sees.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Version        string

	// Terminal says that Stderr is a terminal, on which progress can be drawn.
	Terminal bool
}

// usageError is a mistake in how the command was called.
type usageError struct{ error }

// Run runs the command line and returns its exit code. When ctx ends, a server
// drains and Run returns.
func Run(ctx context.Context, args []string, env Env) int {
	root := &cobra.Command{
		Use:           "coatcheck",
		Short:         "Tokens for sensitive values, over mutually authenticated gRPC",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("name a command; coatcheck --help lists them")}
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(env), devCommand(env), checkConfigCommand(env), keygenCommand(env),
		keysCommand(env), callersCommand(env), approvalsCommand(env), auditCommand(env), honeytokenCommand(env), policyCommand(env), tokenizeCommand(env), detokenizeCommand(env), exportCommand(env), importCommand(env),
		vaultSetupCommand(env), benchCommand(env), benchWireCommand(env), versionCommand(env))
	markUsage(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	message := printable(err.Error())
	var first *policy.Error
	if errors.As(err, &first) { // each line begins with its place, so that editors find it
		message = fmt.Sprintf("%s has errors:\n%s", printable(first.File), message)
	}
	fmt.Fprintf(env.Stderr, "coatcheck: %s\n", message)
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// printable takes out of a text all that a terminal would act on, but for line
// ends: a server, Vault or a file name may have put it there.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// markUsage makes a usageError of what is wrong with a command's arguments.
func markUsage(c *cobra.Command) {
	accepts := c.Args
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := accepts(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w: %s", err, cmd.UseLine())}
		}
		return nil
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// logger returns the log of a service: a line an event, to standard error.
func (e Env) logger() *slog.Logger { return slog.New(slog.NewTextHandler(e.Stderr, nil)) }

func versionCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(env.Stdout, env.Version) },
	}
}
