package policy

import (
	"strings"
	"testing"
)

// TestText reads the text of a policy anew: it decides the same, but holds nothing that
// was for people alone.
func TestText(t *testing.T) {
	file := `# who may do what, says Alice
version: 1 # the only one
groups:
  description: [cn:ops] # a group by that name
rules:
  # Bob asked for this
  - name: out
    description: on behalf of Carol
    callers: ["group:description", "spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge]
    reveal: FULL
    metadata: {description: "1"}
    when: |
      request.items < 10
      && request.reason != "" // not a comment of YAML
`
	v := Vocabulary{
		Actions:  map[string]ActionKind{"detokenize": RevealAction},
		Traits:   map[string]ActionTraits{"detokenize": {Token: true, Values: true, Reason: true}},
		Profiles: map[string]ProfileVocabulary{"card": {Purposes: []string{"charge"}}},
	}
	p, err := Parse("p.yaml", []byte(file), v)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"Alice", "Bob", "Carol", "the only one", "by that name"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there:\n%s", gone, text)
		}
	}
	again, err := Parse("again.yaml", []byte(text), v)
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	q := Request{
		Caller: "cn:ops", Action: "detokenize", Profile: "card", Purpose: "charge", Items: 1, StatedReason: "x",
		Token: &Known{Labels: map[string]string{"description": "1"}},
	}
	if !again.Decide(q).Allowed {
		t.Errorf("denied by:\n%s", text)
	}
	q.Items = 10
	if again.Decide(q).Allowed {
		t.Errorf("allowed by:\n%s", text)
	}
}
