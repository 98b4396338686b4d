package command

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/replay"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
)

type (
	jsonDiff struct {
		Events    uint64       `json:"events"`
		Decisions uint64       `json:"decisions"`
		Changed   uint64       `json:"changed"`
		Undecided uint64       `json:"undecided"`
		Unknown   uint64       `json:"unknown"`
		Changes   []jsonChange `json:"changes"`
	}
	jsonChange struct {
		Caller  string    `json:"caller"`
		Action  string    `json:"action"`
		Profile string    `json:"profile,omitempty"`
		Purpose string    `json:"purpose,omitempty"`
		Old     string    `json:"old"`
		New     string    `json:"new"`
		Count   uint64    `json:"count"`
		First   time.Time `json:"first"`
		Last    time.Time `json:"last"`
	}
)

func (p *policyCommands) diff() *cobra.Command {
	var dir, since, until string
	var allowEmpty bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say which decisions of the past another policy would change",
		Long: `Decides what the audit log tells of again, by the policy file OLD and by NEW, and lists where
they differ. The log is only read, and nothing is revealed. Exits with 0 if nothing
changes, with 1 if something does, and with 2 if there was nothing to compare, unless
--allow-empty is given.

The log holds neither metadata nor consent: what depends on them is told as such. Nor does
it hold which form was asked for: of what was allowed, it is taken for the one that was
given; of what was denied, for none. Limits are not part of it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if p.policyFile != "" {
				return usageError{errors.New("diff takes both policies as arguments, not --policy")}
			}
			from, err := moment("since", since)
			if err != nil {
				return usageError{err}
			}
			to, err := moment("until", until)
			if err != nil {
				return usageError{err}
			}
			c, old, err := p.loadAs(args[0])
			if err != nil {
				return err
			}
			_, next, err := p.loadAs(args[1])
			if err != nil {
				return err
			}
			if dir == "" {
				dir = c.Audit.Directory
			}
			r := replay.New(old, next, server.Vocabulary(c.TokenizerProfiles()))
			for body, err := range audit.Read(dir, from, to) {
				if err == nil {
					err = r.Add(body)
				}
				if errors.Is(err, replay.ErrRows) {
					err = fmt.Errorf("more than %s different changes: name a shorter time by --since and --until", grouped(replay.MaxRows))
				}
				if err != nil {
					return err
				}
			}
			found := r.Result()
			if found.Decisions == 0 && !allowEmpty {
				return usageError{fmt.Errorf("nothing was compared: %s has no such calls in that time (%s left out, whose profile or action there is no more); --allow-empty lets that be", dir, grouped(found.Unknown))}
			}
			return p.printDiff(found)
		},
	}
	cmd.Flags().StringVar(&dir, "audit", "", "the directory of the audit log (default the configured one)")
	cmd.Flags().StringVar(&since, "since", "", "only calls from then on: a day, or a time as in 2026-12-31T18:00:00Z")
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "that there is nothing to compare is no error")
	cmd.Flags().StringVar(&until, "until", "", "only calls before then")
	return cmd
}

// moment reads a day or a time, zero for none.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("--%s %q is neither a day nor a time of the form 2026-12-31T18:00:00Z", flag, text)
}

// printDiff prints what has been found. It returns an error if anything changes.
func (p *policyCommands) printDiff(found replay.Result) error {
	var err error
	if p.json {
		out := jsonDiff{found.Events, found.Decisions, found.Changed, found.Undecided, found.Unknown, []jsonChange{}}
		for _, c := range found.Changes {
			out.Changes = append(out.Changes, jsonChange(c))
		}
		err = printJSON(p.env.Stdout, out)
	} else {
		err = printChanges(p.env.Stdout, found.Changes)
		fmt.Fprintf(p.env.Stderr, "coatcheck: %s decisions of %s calls compared", grouped(found.Decisions), grouped(found.Events))
		if found.Undecided > 0 {
			fmt.Fprintf(p.env.Stderr, "; %s of them can't be told by either policy", grouped(found.Undecided))
		}
		if found.Unknown > 0 {
			fmt.Fprintf(p.env.Stderr, "; %s left out, whose profile or action there is no more", grouped(found.Unknown))
		}
		fmt.Fprintln(p.env.Stderr)
	}
	if err == nil && found.Changed > 0 {
		err = fmt.Errorf("%s of %s decisions change", grouped(found.Changed), grouped(found.Decisions))
	}
	return err
}

// printChanges prints a table of changes; nothing if there are none.
func printChanges(w io.Writer, changes []replay.Change) error {
	if len(changes) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CALLER\tACTION\tPROFILE\tPURPOSE\tOLD\tNEW\tCOUNT\tFIRST\tLAST")
	for _, c := range changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(c.Caller), c.Action, oneLine(c.Profile), oneLine(c.Purpose),
			c.Old, c.New, grouped(c.Count), c.First.UTC().Format(time.RFC3339), c.Last.UTC().Format(time.RFC3339))
	}
	return t.Flush()
}
