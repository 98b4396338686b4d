package command

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/server/policy"
)

func (p *policyCommands) explain() *cobra.Command {
	var about asked
	var s supposed
	var caller string
	cmd := &cobra.Command{
		Use:   "explain --caller CALLER --action ACTION [--profile P] [--purpose P] [--reveal FORM]",
		Short: "Say how a request would be decided, by which rule, or what it lacks",
		Long: `Says whether a request would be allowed, by which rule, and what else is demanded then; or
why not, and which rules come nearest and what it lacks for them. Exits with 0 either way.

Nothing is known of the token unless one of --metadata, --subject, --created and --consent
says something; what depends on it is left open then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if caller == "" || about.action == "" {
				return usageError{errors.New("explain needs --caller and --action")}
			}
			rules, vocabulary, err := p.load()
			if err != nil {
				return err
			}
			q := policy.Request{Caller: caller, Action: about.action, Profile: about.profile, Purpose: about.purpose}
			q.Reveal, err = about.check(vocabulary)
			if err == nil && about.purpose == "" && vocabulary.Actions[about.action] == policy.RevealAction {
				err = fmt.Errorf("%s needs --purpose; a server says PURPOSE_REQUIRED", about.action)
			}
			if err == nil {
				err = policy.ValidateCaller(caller)
			}
			if err == nil {
				err = s.fill(&q, cmd)
			}
			if err != nil {
				return usageError{err}
			}
			e := rules.Explain(q)
			if p.json {
				return printJSON(p.env.Stdout, explained(e))
			}
			return printExplanation(p.env.Stdout, e)
		},
	}
	cmd.Flags().StringVar(&caller, "caller", "", "who calls, such as spiffe://example.org/shop")
	about.flags(cmd)
	s.flags(cmd)
	return cmd
}

// supposed are the flags that say in which circumstances something is asked.
type supposed struct {
	reason, address, time     string
	items                     int
	metadata                  []string
	subject, created, consent string
}

func (s *supposed) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.reason, "reason", "", "why the caller says that it does it")
	f.StringVar(&s.address, "address", "", "from where it calls, an IP address")
	f.StringVar(&s.time, "time", "", "when, as in 2026-12-31T18:00:00Z (default now)")
	f.IntVar(&s.items, "items", 1, "how many items the call has")
	f.StringArrayVar(&s.metadata, "metadata", nil, "a label of the token, KEY=VALUE; can be repeated")
	f.StringVar(&s.subject, "subject", "", "whom the token is about, anything but nothing")
	f.StringVar(&s.created, "created", "", "when the token was made, as in 2026-12-31T18:00:00Z")
	f.StringVar(&s.consent, "consent", "", "what the person says to the purpose: none, given or withdrawn")
}

// fill puts the circumstances into a request.
func (s *supposed) fill(q *policy.Request, cmd *cobra.Command) (err error) {
	q.StatedReason, q.Items, q.Time = s.reason, s.items, time.Now()
	if s.items < 1 {
		return errors.New("--items is at least 1")
	}
	if s.address != "" {
		if q.Address, err = netip.ParseAddr(s.address); err != nil {
			return fmt.Errorf("--address %q is no IP address", s.address)
		}
	}
	if s.time != "" {
		if q.Time, err = time.Parse(time.RFC3339, s.time); err != nil {
			return fmt.Errorf("--time %q is not of the form 2026-12-31T18:00:00Z", s.time)
		}
	}
	known := false
	for _, name := range []string{"metadata", "subject", "created", "consent"} {
		known = known || cmd.Flags().Changed(name)
	}
	if !known {
		return nil
	}
	token := &policy.Known{Of: s.subject}
	if token.Labels, err = labels(s.metadata); err != nil {
		return err
	}
	if s.created != "" {
		if token.Made, err = time.Parse(time.RFC3339, s.created); err != nil {
			return fmt.Errorf("--created %q is not of the form 2026-12-31T18:00:00Z", s.created)
		}
	}
	if s.consent != "" {
		if token.Agreed, q.Consents = policy.ParseConsent(s.consent); !q.Consents {
			return fmt.Errorf("--consent is none, given or withdrawn, not %q", s.consent)
		}
	}
	q.Token = token
	return nil
}

// labels reads labels of the form KEY=VALUE.
func labels(pairs []string) (map[string]string, error) {
	found := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--metadata %q is not of the form KEY=VALUE", pair)
		}
		if _, ok := found[key]; ok {
			return nil, fmt.Errorf("--metadata has %q twice", key)
		}
		found[key] = value
	}
	return found, nil
}

func explained(e policy.Explanation) jsonExplained {
	j := jsonExplained{Allowed: e.Allowed, Pending: e.Pending, Reason: string(e.Reason), Rule: e.Rule, Line: e.Line, Demands: e.Demands}
	if e.Reveal != policy.Unspecified {
		j.Reveal = e.Reveal.String()
	}
	for _, m := range e.Near {
		j.Near = append(j.Near, jsonNear{m.Rule, m.Line, m.Lacks, m.Names})
	}
	return j
}

func printExplanation(w io.Writer, e policy.Explanation) error {
	if e.Allowed {
		return printAllowed(w, e)
	}
	fmt.Fprintf(w, "denied: %s", e.Reason)
	if e.Rule != "" {
		fmt.Fprintf(w, ", by the rule %s (line %d)", e.Rule, e.Line)
	}
	fmt.Fprintln(w)
	if e.Reason == policy.RevealAmbiguous {
		fmt.Fprintln(w, "Several parts are granted, and none of them is more than another: name one.")
	}
	for _, says := range e.Demands {
		fmt.Fprintln(w, "-", oneLine(says))
	}
	if e.WantsAddress {
		fmt.Fprintln(w, "It depends on from where the caller calls: give --address.")
	}
	if len(e.Near) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NEAREST RULE\tLINE\tWHAT THE RULE WANTS")
	for _, m := range e.Near {
		fmt.Fprintf(t, "%s\t%d\t%s\n", m.Rule, m.Line, oneLine(m.Names))
	}
	return t.Flush()
}

// printAllowed tells of what is allowed, or may be.
func printAllowed(w io.Writer, e policy.Explanation) error {
	switch {
	case e.Pending:
		fmt.Fprint(w, "may be allowed")
	case e.Duties().Approval() != nil:
		fmt.Fprintf(w, "allowed, once approved, by the rule %s (line %d)", e.Rule, e.Line)
	default:
		fmt.Fprintf(w, "allowed by the rule %s (line %d)", e.Rule, e.Line)
	}
	switch {
	case e.Reveal == policy.Unspecified:
	case e.Pending:
		fmt.Fprintf(w, ", and gives %s at most", e.Reveal)
	default:
		fmt.Fprintf(w, ", which gives %s", e.Reveal)
	}
	fmt.Fprintln(w)
	for _, demand := range e.Demands {
		fmt.Fprintln(w, "-", oneLine(demand))
	}
	if e.Pending {
		fmt.Fprintln(w, "Say what is known of the token: give --metadata, --subject, --created or --consent.")
	}
	_, err := fmt.Fprintln(w, "Not looked at: what limits and grants have left, and who is suspended.")
	return err
}
