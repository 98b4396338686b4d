package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/server/policy"
)

func (p *policyCommands) who() *cobra.Command {
	var about asked
	cmd := &cobra.Command{
		Use:   "who [--action ACTION] [--profile P] [--purpose P] [--reveal FORM]",
		Short: "List every caller that could do something, and by which rule",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rules, vocabulary, err := p.load()
			if err != nil {
				return err
			}
			reveal, err := about.check(vocabulary)
			if err != nil {
				return usageError{err}
			}
			found := rules.Who(policy.Query{Action: about.action, Profile: about.profile, Purpose: about.purpose, Reveal: reveal})
			if p.json {
				list := make([]jsonAccess, 0, len(found))
				for _, a := range found {
					list = append(list, jsonAccess(a))
				}
				return printJSON(p.env.Stdout, list)
			}
			if len(found) == 0 {
				_, err := fmt.Fprintln(p.env.Stdout, "Nobody.")
				return err
			}
			return printAccess(p.env.Stdout, found)
		},
	}
	about.flags(cmd)
	return cmd
}

// printAccess prints a table of who could, with a column of conditions if there are any.
func printAccess(w io.Writer, found []policy.Access) error {
	conditional := slices.ContainsFunc(found, func(a policy.Access) bool { return len(a.Conditions) > 0 })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "CALLER\tRULE\tLINE\tACTIONS\tPROFILES\tPURPOSES\tREVEAL")
	if conditional {
		fmt.Fprint(t, "\tCONDITIONS")
	}
	fmt.Fprintln(t)
	for _, a := range found {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s", printable(a.Caller), a.Rule, a.Line,
			listed(a.Actions), listed(a.Profiles), listed(a.Purposes), listed(a.Reveal))
		if conditional {
			fmt.Fprint(t, "\t", oneLine(strings.Join(a.Conditions, "; ")))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// oneLine shows what a policy may have written on several lines; "-" for nothing.
func oneLine(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Join(strings.Fields(printable(text)), " ")
}

// listed shows a list in a table, "-" for an empty one.
func listed(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}
