package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

// statsBy are what events can be counted by.
var statsBy = map[string]func(*audit.Event, *audit.Item) string{
	"caller":      func(e *audit.Event, _ *audit.Item) string { return e.Caller },
	"certificate": func(e *audit.Event, _ *audit.Item) string { return e.Certificate },
	"action":      func(e *audit.Event, _ *audit.Item) string { return e.Action },
	"profile":     func(_ *audit.Event, i *audit.Item) string { return i.Profile },
	"purpose":     func(_ *audit.Event, i *audit.Item) string { return i.Purpose },
	"rule":        func(_ *audit.Event, i *audit.Item) string { return i.Rule },
	"reveal":      func(_ *audit.Event, i *audit.Item) string { return i.Reveal },
	"code":        func(_ *audit.Event, i *audit.Item) string { return i.Code },
	"reason":      func(_ *audit.Event, i *audit.Item) string { return i.Reason },
}

// eventCount is how many events there are of a kind.
type eventCount struct {
	By     map[string]string `json:"by"`
	Events uint64            `json:"events"`
	Items  uint64            `json:"items"`  // of those events, as far as they are of the kind
	Failed uint64            `json:"failed"` // of the items, or of the events without items
	First  time.Time         `json:"first"`
	Last   time.Time         `json:"last"`

	key []string
}

func (a *auditCommands) stats() *cobra.Command {
	q := &auditQuestion{auditCommands: a}
	var by []string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count the events that a filter finds",
		Long: `Counts the events that a filter finds, and their items, by what --by names.

  coatcheck audit stats --by caller --action detokenize --since 24h
  coatcheck audit stats --by profile,purpose --caller spiffe://example.org/shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(time.Now()); err != nil {
				return err
			}
			for _, name := range by {
				if statsBy[name] == nil {
					return usageError{fmt.Errorf("--by %q is none of %s", name, strings.Join(slices.Sorted(maps.Keys(statsBy)), ", "))}
				}
			}
			counts := &eventCounts{by: by, query: q.query(), counts: make(map[string]*eventCount)}
			var err error
			if q.dir != "" {
				err = q.read(cmd.Context(), false, counts.add, func() error { return nil })
			} else {
				err = q.connect(func(server coatcheckv1.AuditServiceClient) error {
					return q.ask(cmd.Context(), server, false, 0, counts.add)
				})
			}
			if err != nil {
				return err
			}
			return a.printCounts(by, counts.sorted())
		},
	}
	q.flags(cmd)
	cmd.Flags().StringSliceVar(&by, "by", []string{"action"}, "caller, certificate, action, profile, purpose, rule, reveal, code, reason, or several of them")
	return cmd
}

// eventCounts counts events.
type eventCounts struct {
	by     []string
	query  audit.Query
	counts map[string]*eventCount
}

// add counts an event: once for each kind that it, or an item of it, is of.
func (c *eventCounts) add(e auditEntry) error {
	if e.Event == nil {
		return fmt.Errorf("event %d has %d bytes and doesn't fit into an answer; count in the segments, with --dir", e.Sequence, e.Size)
	}
	var event audit.Event
	if err := json.Unmarshal(e.Event, &event); err != nil {
		return fmt.Errorf("event %d: %w", e.Sequence, err)
	}
	counted := make(map[*eventCount]bool)
	for _, i := range c.query.Items(&event) {
		key := make([]string, len(c.by))
		for n, name := range c.by {
			key[n] = statsBy[name](&event, &i)
		}
		id := strings.Join(key, "\x00")
		count := c.counts[id]
		if count == nil {
			count = &eventCount{key: key, By: make(map[string]string), First: event.Time, Last: event.Time}
			for n, name := range c.by {
				count.By[name] = key[n]
			}
			c.counts[id] = count
		}
		if !counted[count] {
			counted[count] = true
			count.Events++
		}
		if len(event.Items) > 0 {
			count.Items++
		}
		if i.Code != "OK" {
			count.Failed++
		}
		if event.Time.Before(count.First) {
			count.First = event.Time
		}
		if event.Time.After(count.Last) {
			count.Last = event.Time
		}
	}
	return nil
}

// sorted returns the counts, the largest first.
func (c *eventCounts) sorted() []*eventCount {
	return slices.SortedFunc(maps.Values(c.counts), func(a, b *eventCount) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), slices.Compare(a.key, b.key))
	})
}

// printCounts prints counts.
func (a *auditCommands) printCounts(by []string, counts []*eventCount) error {
	if a.json {
		for _, c := range counts {
			if err := json.NewEncoder(a.env.Stdout).Encode(c); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(a.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tEVENTS\tITEMS\tFAILED\tFIRST\tLAST\n", strings.ToUpper(strings.Join(by, "\t")))
	for _, c := range counts {
		for _, k := range c.key {
			fmt.Fprintf(t, "%s\t", printable(orDash(k)))
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\t%s\n", c.Events, c.Items, c.Failed, c.First.UTC().Format(time.RFC3339), c.Last.UTC().Format(time.RFC3339))
	}
	return t.Flush()
}
