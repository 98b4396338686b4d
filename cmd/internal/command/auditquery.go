package command

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

func (a *auditCommands) query() *cobra.Command {
	q := &auditQuestion{auditCommands: a}
	var newest bool
	var limit int
	cmd := &cobra.Command{
		Use:   "query",
		Short: "Print the events that a filter finds",
		Long: `Prints the events for which all holds that is named, the oldest first; all of them if
nothing is named. With --json, an object a line, whose event is the text of the log.

  coatcheck audit query --subject customer-7 --since 2026-11-01
  coatcheck audit query --caller spiffe://example.org/shop --decision deny --newest --limit 20
  coatcheck audit query --dir /backup/audit --request 0011223344556677 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(time.Now()); err != nil {
				return err
			}
			if limit < 0 {
				return usageError{errors.New("--limit must not be negative")}
			}
			out := &eventPrinter{to: a.env.Stdout, json: a.json}
			if q.dir == "" {
				return q.connect(func(server coatcheckv1.AuditServiceClient) error {
					return q.ask(cmd.Context(), server, newest, limit, out.print)
				})
			}
			if newest && limit == 0 {
				return usageError{errors.New("--newest with --dir needs --limit")}
			}
			return q.readOut(cmd.Context(), newest, limit, out)
		},
	}
	q.flags(cmd)
	cmd.Flags().BoolVar(&newest, "newest", false, "the newest first")
	cmd.Flags().IntVar(&limit, "limit", 0, "how many at most; 0 for all")
	return cmd
}

// errEnough ends a read that has found what was wanted.
var errEnough = errors.New("enough")

// readOut prints what is found in the directory.
func (q *auditQuestion) readOut(ctx context.Context, newest bool, limit int, out *eventPrinter) error {
	if newest {
		var last []auditEntry
		end := func() error {
			slices.Reverse(last)
			return out.printAll(last)
		}
		return q.read(ctx, false, keepLast(&last, limit), end)
	}
	found := 0
	err := q.read(ctx, false, func(e auditEntry) error {
		if err := out.print(e); err != nil {
			return err
		}
		if found++; found == limit {
			return errEnough
		}
		return nil
	}, func() error { return nil })
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// keepLast returns what keeps the last n events that it is called with.
func keepLast(last *[]auditEntry, n int) func(auditEntry) error {
	return func(e auditEntry) error {
		if len(*last) == n {
			*last = slices.Delete(*last, 0, 1)
		}
		*last = append(*last, e)
		return nil
	}
}

func (a *auditCommands) tail() *cobra.Command {
	q := &auditQuestion{auditCommands: a}
	var follow bool
	var number int
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print the last events, and with -f those that come",
		Long: `Prints the last events that a filter finds, and with -f each that comes, until it is
interrupted.

  coatcheck audit tail -f --alert ANY
  coatcheck audit tail -n 50 --caller spiffe://example.org/shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(time.Now()); err != nil {
				return err
			}
			if number < 1 {
				return usageError{errors.New("-n must be at least 1")}
			}
			out := &eventPrinter{to: a.env.Stdout, json: a.json}
			if q.dir != "" {
				return q.readTail(cmd.Context(), follow, number, out)
			}
			return q.connect(func(server coatcheckv1.AuditServiceClient) error {
				return q.tail(cmd.Context(), server, follow, number, out)
			})
		},
	}
	q.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come")
	cmd.Flags().IntVarP(&number, "number", "n", 10, "how many of the last")
	return cmd
}

// tail prints the last events of a server and what comes. It watches before it asks, so
// that none is lost between the two.
func (q *auditQuestion) tail(ctx context.Context, server coatcheckv1.AuditServiceClient, follow bool, number int, out *eventPrinter) error {
	var last []auditEntry
	keep := func(e auditEntry) error {
		last = append(last, e)
		return nil
	}
	if !follow {
		if err := q.ask(ctx, server, true, number, keep); err != nil {
			return err
		}
		slices.Reverse(last)
		return out.printAll(last)
	}
	stream, err := server.WatchEvents(ctx, &coatcheckv1.WatchEventsRequest{Filter: &q.filter})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := q.ask(ctx, server, true, number, keep); err != nil {
		return err
	}
	slices.Reverse(last)
	for _, e := range last {
		if e.Sequence < first.GetNextSequence() {
			if err := out.print(e); err != nil {
				return err
			}
		}
	}
	return q.watch(ctx, server, stream, first.GetNextSequence(), out.print)
}

// readTail prints the last events in the directory and what comes.
func (q *auditQuestion) readTail(ctx context.Context, follow bool, number int, out *eventPrinter) error {
	var last []auditEntry
	keep, ended := keepLast(&last, number), false
	return q.read(ctx, follow, func(e auditEntry) error {
		if ended {
			return out.print(e)
		}
		return keep(e)
	}, func() error {
		if ended {
			return nil
		}
		ended = true
		return out.printAll(last)
	})
}
