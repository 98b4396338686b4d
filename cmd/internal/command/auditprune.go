package command

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// jsonPruned is what was pruned, as it is printed.
type jsonPruned struct {
	First    uint64 `json:"first_event"`
	Last     uint64 `json:"last_event"`
	Segments int    `json:"segments"`
	DryRun   bool   `json:"dry_run,omitempty"`
	More     bool   `json:"more,omitempty"` // of a dry run, which looks at a bounded number of segments
}

func (a *auditCommands) prune() *cobra.Command {
	var before, keep, reason string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove segments whose events are all older than a time",
		Long: `Removes segments of the audit log from the server's directory: closed ones, from the oldest
on, as far as audit.retention lets it. First and last number and hash of each are left in
pruned.jsonl, so that what is there can still be verified. The store keeps its copy.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			until, err := pruneTime(before, keep, time.Now())
			if err != nil {
				return usageError{err}
			}
			req := &coatcheckv1.PruneRequest{Before: timestamppb.New(until), ValidateOnly: dryRun, Reason: reason}
			done := jsonPruned{DryRun: dryRun}
			for more := true; more; {
				err := a.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
					resp, err := coatcheckv1.NewAuditServiceClient(conn).Prune(ctx, req)
					if err != nil {
						return err
					}
					done.add(resp)
					more = resp.GetMore() && !dryRun
					return nil
				})
				if err != nil {
					return errors.Join(a.printPruned(done), err)
				}
			}
			return a.printPruned(done)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&before, "before", "", "remove what is older than this: a date, as in 2026-01-31, which begins in UTC, or a time of RFC 3339")
	flags.StringVar(&keep, "keep", "", "remove what is older than so long, as in 400d or 9600h")
	flags.BoolVar(&dryRun, "dry-run", false, "only tell what would be removed")
	flags.StringVar(&reason, "reason", "", "why, for people and the audit log")
	return cmd
}

// add counts what another call has removed.
func (p *jsonPruned) add(resp *coatcheckv1.PruneResponse) {
	if resp.GetSegments() == 0 {
		return
	}
	if p.Segments == 0 {
		p.First = resp.GetFirstEvent()
	}
	p.Last, p.More = resp.GetLastEvent(), resp.GetMore()
	p.Segments += int(resp.GetSegments())
}

// pruneTime returns the time that the flags name.
func pruneTime(before, keep string, now time.Time) (time.Time, error) {
	switch {
	case (before == "") == (keep == ""):
		return time.Time{}, errors.New("audit prune needs --before or --keep, and not both")
	case keep != "":
		d, err := parseDays(keep)
		if err != nil || d <= 0 {
			return time.Time{}, fmt.Errorf("--keep %q is not a time, such as 400d or 9600h", keep)
		}
		return now.Add(-d), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, before); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--before %q is neither a date, such as 2026-01-31, nor a time of RFC 3339", before)
}

// parseDays reads a duration that may be in days.
func parseDays(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	number, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n > math.MaxInt64/uint64(day) {
		return 0, fmt.Errorf("%q is not a number of days", text)
	}
	return time.Duration(n) * day, nil
}

// printPruned prints what was pruned.
func (a *auditCommands) printPruned(p jsonPruned) error {
	if a.json {
		return printJSON(a.env.Stdout, p)
	}
	var err error
	switch {
	case p.Segments == 0:
		_, err = fmt.Fprintln(a.env.Stdout, "Nothing is to be pruned.")
	case p.DryRun && p.More:
		_, err = fmt.Fprintf(a.env.Stdout, "Events %d to %d would be pruned, in %d segments, and more behind them.\n", p.First, p.Last, p.Segments)
	case p.DryRun:
		_, err = fmt.Fprintf(a.env.Stdout, "Events %d to %d would be pruned, in %d segments.\n", p.First, p.Last, p.Segments)
	default:
		_, err = fmt.Fprintf(a.env.Stdout, "Events %d to %d were pruned, in %d segments.\n", p.First, p.Last, p.Segments)
	}
	return err
}
