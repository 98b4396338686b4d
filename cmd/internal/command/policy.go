package command

import (
	"errors"
	"fmt"
	"io"
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
		Short: "Explain, search, test, compare and lint a policy file",
		Long: `Works on the policy file that --config names, or on another one with --policy. No server
is asked.

  coatcheck policy explain --config coatcheck.yaml --caller cn:shop --action detokenize \
    --profile card --purpose charge     why something is allowed or denied
  coatcheck policy who --config coatcheck.yaml --profile ssn --reveal FULL
                                        who could do something, and by which rule
  coatcheck policy test --config coatcheck.yaml tests.yaml
                                        whether it decides as expected
  coatcheck policy lint --config coatcheck.yaml
                                        what is questionable though it is good
  coatcheck policy diff --config coatcheck.yaml policy.yaml new.yaml
                                        which decisions of the past would be others
  coatcheck policy schema               the JSON Schema of such a file, for editors`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("policy needs a command: explain, who, test, lint, diff or schema")}
		},
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&p.configFile, "config", "", "the configuration file, which names the policy and declares the profiles")
	flags.StringVar(&p.policyFile, "policy", "", "a policy file in place of the one that the configuration names")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	cmd.AddCommand(p.explain(), p.who(), p.test(), p.lint(), p.diff(), p.schema())
	return cmd
}

// load reads the policy, and returns what it can speak of too.
func (p *policyCommands) load() (*policy.Policy, policy.Vocabulary, error) {
	c, rules, err := p.loadAs(p.policyFile)
	if err != nil {
		return nil, policy.Vocabulary{}, err
	}
	return rules, server.Vocabulary(c.TokenizerProfiles()), nil
}

// loadAs reads a policy, "" for the one that the configuration names.
func (p *policyCommands) loadAs(file string) (*config.Config, *policy.Policy, error) {
	if p.configFile == "" {
		return nil, nil, usageError{errors.New("policy needs --config FILE")}
	}
	c, err := config.Load(p.configFile)
	if err != nil {
		return nil, nil, err
	}
	if file != "" {
		c.Policy = file
	}
	rules, err := service.LoadPolicy(c)
	return c, rules, err
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
	if err := v.Check(a.action, a.profile, a.purpose); err != nil {
		return policy.Unspecified, err
	}
	return policy.CheckReveal(a.reveal)
}

type (
	jsonExplained struct {
		Allowed bool       `json:"allowed"` // as far as can be told, if pending
		Pending bool       `json:"pending,omitempty"`
		Reason  string     `json:"reason,omitempty"`
		Rule    string     `json:"rule,omitempty"`
		Line    int        `json:"line,omitempty"`
		Reveal  string     `json:"reveal,omitempty"`
		Demands []string   `json:"demands,omitempty"`
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

func (p *policyCommands) lint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Say what is questionable about a policy though it is good",
		Long: `Tells of rules that are shadowed by those before them, that allow what can't succeed, that
demand an approval which nobody can ask for or grant, and that are broad: that show or
export every profile in FULL, or one to more than ` + fmt.Sprint(policy.MaxFullCallers) + ` callers.
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

func (p *policyCommands) schema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a policy file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(p.env.Stdout, policy.Schema())
			return err
		},
	}
}
