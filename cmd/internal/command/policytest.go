package command

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/server/policy"
)

func (p *policyCommands) test() *cobra.Command {
	var coverage bool
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Check that a policy decides as a file of tests expects",
		Long: `Decides each request of FILE and compares. Exits with 1 if a decision is another one than
is expected. With --coverage, rules by which no test is decided, and which oblige none, are
listed, and any is a failure too. docs/policy.md has the form of FILE.`,
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
	cmd.Flags().BoolVar(&coverage, "coverage", false, "fail if no test is decided or obliged by some rule, and name it")
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
