package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/service"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
)

// policyCommands are the commands about a policy file, with what they share.
type policyCommands struct {
	env        Env
	configFile string
	policyFile string
	json       bool
}

func policyCommand(env Env) *cobra.Command {
	p := &policyCommands{env: env}
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Explain, search, test and lint a policy file",
		Long: `Works on the policy file that --config names, or on another one with --policy. No server
is asked.

  coatcheck policy explain --config coatcheck.yaml --caller cn:shop --action detokenize \
    --profile card --purpose charge     why something is allowed or denied
  coatcheck policy who --config coatcheck.yaml --profile ssn --reveal FULL
                                        who could do something, and by which rule
  coatcheck policy test --config coatcheck.yaml tests.yaml
                                        whether it decides as expected
  coatcheck policy lint --config coatcheck.yaml
                                        what is questionable though it is good`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("policy needs a command: explain, who, test or lint")}
		},
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&p.configFile, "config", "", "the configuration file, which names the policy and declares the profiles")
	flags.StringVar(&p.policyFile, "policy", "", "a policy file in place of the one that the configuration names")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	cmd.AddCommand(p.explain(), p.who(), p.test(), p.lint())
	return cmd
}

// load reads the policy, and returns what it can speak of too.
func (p *policyCommands) load() (*policy.Policy, policy.Vocabulary, error) {
	if p.configFile == "" {
		return nil, policy.Vocabulary{}, usageError{errors.New("policy needs --config FILE")}
	}
	c, err := config.Load(p.configFile)
	if err != nil {
		return nil, policy.Vocabulary{}, err
	}
	if p.policyFile != "" {
		c.Policy = p.policyFile
	}
	rules, err := service.LoadPolicy(c)
	return rules, server.Vocabulary(c.TokenizerProfiles()), err
}

// asked are the flags that say what a question is about.
type asked struct{ action, profile, purpose, reveal string }

func (a *asked) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.action, "action", "", "an action, such as detokenize")
	cmd.Flags().StringVar(&a.profile, "profile", "", "a profile")
	cmd.Flags().StringVar(&a.purpose, "purpose", "", "a purpose")
	cmd.Flags().StringVar(&a.reveal, "reveal", "", "a form, such as FULL or LAST4")
}

// check refuses what the policy can't speak of, and returns the form.
func (a *asked) check(v policy.Vocabulary) (policy.Reveal, error) {
	if _, ok := v.Actions[a.action]; !ok && a.action != "" {
		return 0, fmt.Errorf("unknown action %q", a.action)
	}
	if _, ok := v.Profiles[a.profile]; !ok && a.profile != "" {
		return 0, fmt.Errorf("unknown profile %q", a.profile)
	}
	reveal, ok := policy.ParseReveal(a.reveal)
	if !ok && a.reveal != "" {
		return 0, fmt.Errorf("unknown form %q", a.reveal)
	}
	return reveal, nil
}

type (
	jsonExplained struct {
		Allowed bool       `json:"allowed"`
		Reason  string     `json:"reason,omitempty"`
		Rule    string     `json:"rule,omitempty"`
		Line    int        `json:"line,omitempty"`
		Reveal  string     `json:"reveal,omitempty"`
		Near    []jsonNear `json:"near,omitempty"`
	}
	jsonNear struct {
		Rule  string        `json:"rule"`
		Line  int           `json:"line"`
		Lacks []policy.Part `json:"lacks"`
		Has   string        `json:"has"`
	}
	jsonAccess struct {
		Caller   string   `json:"caller"`
		Rule     string   `json:"rule"`
		Line     int      `json:"line"`
		Actions  []string `json:"actions"`
		Profiles []string `json:"profiles,omitempty"`
		Purposes []string `json:"purposes,omitempty"`
		Reveal   []string `json:"reveal,omitempty"`

		Conditions []string `json:"conditions,omitempty"`
	}
	jsonTested struct {
		Tests     int        `json:"tests"`
		Failed    []jsonCase `json:"failed"`
		Rules     int        `json:"rules"`
		Uncovered []string   `json:"uncovered"`
	}
	jsonCase struct {
		Name  string `json:"name"`
		Line  int    `json:"line"`
		Fault string `json:"fault"`
	}
	jsonFinding struct {
		Flaw    policy.Flaw `json:"flaw"`
		Rule    string      `json:"rule,omitempty"`
		Line    int         `json:"line"`
		Message string      `json:"message"`
	}
)

func (p *policyCommands) explain() *cobra.Command {
	var about asked
	var caller string
	cmd := &cobra.Command{
		Use:   "explain --caller CALLER --action ACTION [--profile P] [--purpose P] [--reveal FORM]",
		Short: "Say how a request would be decided, by which rule, or what it lacks",
		Long: `Says whether a request would be allowed, and by which rule; or why not, and which rules
come nearest and what it lacks for them. Exits with 0 either way.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if caller == "" || about.action == "" {
				return usageError{errors.New("explain needs --caller and --action")}
			}
			rules, vocabulary, err := p.load()
			if err != nil {
				return err
			}
			reveal, err := about.check(vocabulary)
			if err == nil {
				err = policy.ValidateCaller(caller)
			}
			if err != nil {
				return usageError{err}
			}
			e := rules.Explain(policy.Request{Caller: caller, Action: about.action, Profile: about.profile, Purpose: about.purpose, Reveal: reveal})
			if p.json {
				return printJSON(p.env.Stdout, explained(e))
			}
			return printExplanation(p.env.Stdout, e)
		},
	}
	cmd.Flags().StringVar(&caller, "caller", "", "who calls, such as spiffe://example.org/shop")
	about.flags(cmd)
	return cmd
}

func explained(e policy.Explanation) jsonExplained {
	j := jsonExplained{Allowed: e.Allowed, Reason: string(e.Reason), Rule: e.Rule, Line: e.Line}
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
		form := ""
		if e.Reveal != policy.Unspecified {
			form = ", which gives " + e.Reveal.String()
		}
		_, err := fmt.Fprintf(w, "allowed by the rule %s (line %d)%s\n", e.Rule, e.Line, form)
		return err
	}
	fmt.Fprintf(w, "denied: %s\n", e.Reason)
	if e.Reason == policy.RevealAmbiguous {
		fmt.Fprintln(w, "Several parts are granted, and none of them is more than another: name one.")
	}
	if len(e.Near) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NEAREST RULE\tLINE\tWHAT DOESN'T MATCH")
	for _, m := range e.Near {
		fmt.Fprintf(t, "%s\t%d\t%s\n", m.Rule, m.Line, printable(m.Names))
	}
	return t.Flush()
}

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
			t := tabwriter.NewWriter(p.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "CALLER\tRULE\tLINE\tACTIONS\tPROFILES\tPURPOSES\tREVEAL")
			for _, a := range found {
				fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", printable(a.Caller), a.Rule, a.Line,
					listed(a.Actions), listed(a.Profiles), listed(a.Purposes), listed(a.Reveal))
			}
			return t.Flush()
		},
	}
	about.flags(cmd)
	return cmd
}

// listed shows a list in a table, "-" for an empty one.
func listed(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

func (p *policyCommands) test() *cobra.Command {
	var coverage bool
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Check that a policy decides as a file of tests expects",
		Long: `Decides each request of FILE and compares. Exits with 1 if a decision is another one than
is expected. With --coverage, rules by which no test is allowed are listed, and any is
a failure too. docs/policy.md has the form of FILE.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			rules, vocabulary, err := p.load()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			cases, err := policy.ParseCases(args[0], data, vocabulary)
			if err != nil {
				return err
			}
			result := jsonTested{Tests: len(cases), Failed: []jsonCase{}, Rules: rules.Count(), Uncovered: []string{}}
			for _, c := range cases {
				if fault := rules.Check(c); fault != "" {
					result.Failed = append(result.Failed, jsonCase{c.Name, c.Line, fault})
				}
			}
			result.Uncovered = append(result.Uncovered, rules.Uncovered(cases)...)
			if p.json {
				err = printJSON(p.env.Stdout, result)
			} else {
				err = printTested(p.env.Stdout, args[0], result, coverage)
			}
			switch {
			case err != nil:
				return err
			case len(result.Failed) > 0:
				return fmt.Errorf("%s of %d failed", counted(len(result.Failed), "test"), len(cases))
			case coverage && len(result.Uncovered) > 0:
				return fmt.Errorf("%s without a test", counted(len(result.Uncovered), "rule"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&coverage, "coverage", false, "fail if no test is allowed by some rule, and name it")
	return cmd
}

func printTested(w io.Writer, file string, result jsonTested, coverage bool) error {
	for _, c := range result.Failed {
		fmt.Fprintf(w, "%s:%d: %s: %s\n", file, c.Line, printable(c.Name), c.Fault)
	}
	covered := result.Rules - len(result.Uncovered)
	_, err := fmt.Fprintf(w, "%s, %d failed; %d of %s covered\n", counted(result.Tests, "test"), len(result.Failed), covered, counted(result.Rules, "rule"))
	if coverage && len(result.Uncovered) > 0 {
		_, err = fmt.Fprintf(w, "not covered: %s\n", strings.Join(result.Uncovered, ", "))
	}
	return err
}

func (p *policyCommands) lint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Say what is questionable about a policy though it is good",
		Long: `Tells of rules that are shadowed by those before them, that allow what can't succeed, and
that are broad: that show every profile in FULL, or one to more than ` + fmt.Sprint(policy.MaxFullCallers) + ` callers.
Exits with 1 if there are any.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rules, _, err := p.load()
			if err != nil {
				return err
			}
			findings := rules.Lint(time.Now())
			if p.json {
				list := make([]jsonFinding, 0, len(findings))
				for _, f := range findings {
					list = append(list, jsonFinding(f))
				}
				err = printJSON(p.env.Stdout, list)
			} else {
				for _, f := range findings {
					fmt.Fprintln(p.env.Stdout, printable(f.Message))
				}
			}
			if err == nil && len(findings) > 0 {
				err = fmt.Errorf("%s about %s", counted(len(findings), "note"), counted(rules.Count(), "rule"))
			}
			return err
		},
	}
}
