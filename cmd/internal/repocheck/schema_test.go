package repocheck

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// policySchema returns the schema of policies, compiled.
func policySchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(policy.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON returns what JSON has for a YAML document, as editors see it.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	return nodeAsJSON(t, document.Content[0])
}

func nodeAsJSON(t *testing.T, n *yaml.Node) any {
	t.Helper()
	switch n.ShortTag() {
	case "!!map":
		object := make(map[string]any)
		for i := 0; i+1 < len(n.Content); i += 2 {
			object[n.Content[i].Value] = nodeAsJSON(t, n.Content[i+1])
		}
		return object
	case "!!seq":
		list := []any{}
		for _, child := range n.Content {
			list = append(list, nodeAsJSON(t, child))
		}
		return list
	case "!!str", "!!timestamp":
		return n.Value
	}
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if i, ok := v.(int); ok {
		return float64(i)
	}
	return v
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)\n```")

// repoPolicies returns every policy that the repository has, by where it is.
func repoPolicies(t *testing.T) map[string]string {
	t.Helper()
	root := repoRoot(t)
	found := map[string]string{"servertest": servertest.Policy}
	sample, err := os.ReadFile(filepath.Join(root, "cmd/internal/devkit/sample/policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found["sample"] = string(sample)
	for _, page := range docPages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(block[1], "version: 1\n") && strings.Contains(block[1], "\nrules:\n") {
				found[fmt.Sprintf("%s, block %d", page, i+1)] = block[1]
			}
		}
	}
	return found
}

// docPages returns the pages of documentation, relative to the root.
func docPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(repoRoot(t), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		pages[i] = filepath.Join("docs", filepath.Base(pages[i]))
	}
	return pages
}

// TestSchemaTakesPolicies validates every policy that the repository has.
func TestSchemaTakesPolicies(t *testing.T) {
	schema := policySchema(t)
	policies := repoPolicies(t)
	if len(policies) < 3 {
		t.Errorf("only %d policies are found", len(policies))
	}
	for where, text := range policies {
		if err := schema.Validate(asJSON(t, text)); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

// full is a policy in which every key is.
const full = `version: 1
groups:
  ops: ["cn:ops", "spiffe://coatcheck.example/ns/*/sa/ops", "dns:*.ops.internal"]
rules:
  - name: out
    description: what for
    effect: allow
    callers: ["group:ops", "dns:a.internal"]
    actions: [detokenize]
    namespaces: [default]
    classes: [pci]
    profiles: [card]
    purposes: [charge]
    reveal: [MASKED, LAST4]
    metadata: {region: eu, tier: ["1", "2"]}
    networks: [10.0.0.0/8, "2001:db8::1"]
    valid: {from: 2026-01-01, until: 2026-12-31T18:00:00+02:00}
    when: "true"
    reason: "INC-[0-9]+"
    consent: require
    notify: true
    limits: {items_per_second: 1, items_per_minute: 2, values_per_hour: 3, values_per_day: 4, subjects_per_hour: 5, subjects_per_day: 6}
    approval: {approvers: ["cn:boss"], for: 1h30m, max_items: 5}
  - name: night
    effect: deny
    reveal: FULL
  - name: tickets
    effect: oblige
    at_most: MASKED
`

// TestSchemaRefuses changes a good policy into bad ones, each in one place.
func TestSchemaRefuses(t *testing.T) {
	schema := policySchema(t)
	vocabulary := server.Vocabulary([]tokenizer.Profile{{Name: "card", Type: "card-number", Purposes: []string{"charge"}, Classes: []string{"pci"}}})
	if err := schema.Validate(asJSON(t, full)); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Parse("full", []byte(full), vocabulary); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"version: 1", "version: 2"},
		{"version: 1\n", ""},
		{"groups:", "group:"},
		{"  ops: [", "  Ops: ["},
		{`["cn:ops", `, `["group:other", `},
		{"    callers: [", "    caller: ["},
		{`"dns:a.internal"`, `"a.internal"`},
		{"name: out", "name: Out"},
		{"  - name: out\n", "  - effect: allow\n"},
		{"effect: allow", "effect: permit"},
		{"actions: [detokenize]", "actions: [detokenise]"},
		{"actions: [detokenize]", "actions: []"},
		{"actions: [detokenize]", "actions: detokenize"},
		{"actions: [detokenize]", "actions: [detokenize, detokenize]"},
		{"    actions: [detokenize]\n", ""},
		{"purposes: [charge]", "purposes: [Charge]"},
		{"reveal: [MASKED, LAST4]", "reveal: [MASKED, LAST5]"},
		{"reveal: [MASKED, LAST4]", "reveal: full"},
		{"region: eu", "region: 7"},
		{"10.0.0.0/8", "ten"},
		{"from: 2026-01-01", "from: tomorrow"},
		{"{from: 2026-01-01, until: 2026-12-31T18:00:00+02:00}", "{}"},
		{"+02:00", ""},
		{"when: \"true\"", "when: true"},
		{"consent: require", "consent: demand"},
		{"notify: true", "notify: yes please"},
		{"values_per_day: 4", "values_per_week: 4"},
		{"values_per_day: 4", "values_per_day: 0"},
		{"values_per_day: 4", "values_per_day: many"},
		{"for: 1h30m", "for: a while"},
		{", max_items: 5", ""},
		{"effect: deny\n", "effect: deny\n    notify: true\n"},
		{"effect: deny\n", "effect: deny\n    consent: ignore\n"},
		{"    at_most: MASKED\n", ""},
		{"at_most: MASKED", "notify: false"},
		{"at_most: MASKED", "at_most: MASKED\n    reveal: FULL"},
		{"effect: allow\n", "effect: allow\n    at_most: MASKED\n"},
		{"    effect: allow\n", "    at_most: MASKED\n"},
	} {
		bad := strings.Replace(full, change[0], change[1], 1)
		if bad == full {
			t.Errorf("there is no %q", change[0])
			continue
		}
		if schema.Validate(asJSON(t, bad)) == nil {
			t.Errorf("%q in place of %q is taken", change[1], change[0])
		}
		if _, err := policy.Parse("bad", []byte(bad), vocabulary); err == nil {
			t.Errorf("%q in place of %q is refused by the schema alone", change[1], change[0])
		}
	}
}

// TestSchemaActions compares the actions of the schema with those that there are.
func TestSchemaActions(t *testing.T) {
	rule := policySchema(t).Properties["rules"].Items2020.Ref
	var have []string
	for _, action := range rule.Properties["actions"].Items2020.Enum.Values {
		have = append(have, action.(string))
	}
	slices.Sort(have)
	if want := slices.Sorted(maps.Keys(server.Vocabulary(nil).Actions)); !slices.Equal(have, want) {
		t.Errorf("policy.schema.json has the actions %v, the server %v", have, want)
	}
}
