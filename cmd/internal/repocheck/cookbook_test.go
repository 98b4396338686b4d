package repocheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
)

// cookbookTime is when the cookbook's policies are good, with its time frames.
var cookbookTime = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// TestCookbook tests each policy of the cookbook as the page says, with the profiles of
// the page. Every rule must be tested, and there must be nothing to say against any.
func TestCookbook(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repoRoot(t), "docs/policy-cookbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(page), "\n## ")
	vocabulary := cookbookVocabulary(t, yamlBlock.FindStringSubmatch(head)[1])
	recipes := strings.Split(rest, "\n## ")
	if len(recipes) < 10 {
		t.Errorf("only %d recipes", len(recipes))
	}
	for _, recipe := range recipes {
		title, text, _ := strings.Cut(recipe, "\n")
		t.Run(title, func(t *testing.T) {
			blocks := yamlBlock.FindAllStringSubmatch(text, -1)
			if len(blocks) != 2 {
				t.Fatalf("%d blocks, not a policy and its tests", len(blocks))
			}
			p, err := policy.Parse("policy.yaml", []byte(blocks[0][1]), vocabulary)
			if err != nil {
				t.Fatal(err)
			}
			for _, finding := range p.Lint(cookbookTime) {
				if finding.Rule != "added-by-mistake" {
					t.Error(finding.Message)
				}
			}
			cases, err := policy.ParseCases("tests.yaml", []byte(blocks[1][1]), vocabulary)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				if fault := p.Check(c); fault != "" {
					t.Errorf("line %d: %s: %s", c.Line, c.Name, fault)
				}
			}
			if rules := p.Uncovered(cases); len(rules) > 0 {
				t.Errorf("not tested: %v", rules)
			}
		})
	}
}

// cookbookVocabulary reads profiles in place of those of the sample configuration.
func cookbookVocabulary(t *testing.T, profiles string) policy.Vocabulary {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "instance")
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: "127.0.0.1:7443"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, devkit.ConfigFile)
	sample, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, _, found := strings.Cut(string(sample), "\nprofiles:")
	if !found {
		t.Fatal("the sample has no profiles")
	}
	if err := os.WriteFile(path, []byte(own+"\n"+profiles+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return server.Vocabulary(c.TokenizerProfiles())
}
