package command

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestPolicyDiff compares policies over what a real server has recorded.
func TestPolicyDiff(t *testing.T) {
	in := newInstance(t)
	in.write("in.csv", "note,card\nfirst,4111111111111111\nsecond,5555555555554444\nthird,4111111111111111\n")
	in.must(0, in.run("checkout", "", "tokenize", "--in", "@in.csv", "--out", "@out.csv", "--map", "card=card", "--map", "note=note"))
	in.must(0, in.run("payments", "", "detokenize", "--in", "@out.csv", "--out", "@back.csv", "--map", "card=card", "--map", "note=note", "--purpose", "charge"))
	if s := in.run("admin", "", "detokenize", "--in", "@out.csv", "--map", "card=card", "--purpose", "charge"); s.code == 0 {
		t.Error("admin may see cards")
	}
	in.halt()

	in.write("new.yaml", `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card]}
  - {name: in-marked, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [note], metadata: {from: web}}
  - {name: out, callers: ["spiffe://coatcheck.example/payments", "spiffe://coatcheck.example/admin"], actions: [detokenize], profiles: [card, note], purposes: [charge], reveal: FULL}
  - {name: no-cards, effect: deny, callers: ["spiffe://coatcheck.example/payments"], profiles: [card]}
`)
	diff := []string{"policy", "diff", "--config", "@instance/coatcheck.yaml", "@instance/policy.yaml", "@new.yaml"}
	s := in.must(1, in.run("admin", "", diff...))
	for _, want := range []string{
		`^spiffe://coatcheck.example/checkout +tokenize +note +- +allow +depends on the token +3 +20.*Z +20.*Z$`,
		`^spiffe://coatcheck.example/payments +detokenize +card +charge +allow FULL +deny DENIED_BY_RULE +3 `,
		`^spiffe://coatcheck.example/admin +detokenize +- +- +deny NO_RULE +depends on the request +1 `,
	} {
		if !regexp.MustCompile(`(?m)` + want).MatchString(s.stdout) {
			t.Errorf("not told: %s\n%s", want, s.stdout)
		}
	}
	if strings.Count(s.stdout, "\n") != 4 || !strings.Contains(s.stderr, "coatcheck: 7 of 13 decisions change\n") {
		t.Errorf("%s%s", s.stdout, s.stderr)
	}
	var found jsonDiff
	s = in.must(1, in.run("admin", "", append(diff, "--json", "--audit", "@instance/audit")...))
	if err := json.Unmarshal([]byte(s.stdout), &found); err != nil || found.Changed != 7 || len(found.Changes) != 3 || found.Changes[0].Count != 3 {
		t.Errorf("%v: %s", err, s.stdout)
	}

	// Where nothing changes: by the same policy, and in another time.
	same := []string{"policy", "diff", "--config", "@instance/coatcheck.yaml", "@instance/policy.yaml", "@instance/policy.yaml"}
	if s := in.must(0, in.run("admin", "", same...)); s.stdout != "" || !strings.Contains(s.stderr, "13 decisions of") {
		t.Errorf("%s%s", s.stdout, s.stderr)
	}
	if s := in.must(2, in.run("admin", "", append(diff, "--until", "2020-01-01")...)); !strings.Contains(s.stderr, "nothing was compared") {
		t.Error(s.stderr)
	}
	if s := in.must(1, in.run("admin", "", append(diff, "--audit", "@instance", "--allow-empty")...)); !strings.Contains(s.stderr, "no segments") {
		t.Error(s.stderr)
	}
	if s := in.must(0, in.run("admin", "", append(diff, "--until", "2020-01-01", "--allow-empty", "--json")...)); !strings.Contains(s.stdout, `"changes": []`) {
		t.Errorf("%s%s", s.stdout, s.stderr)
	}
	in.must(2, in.run("admin", "", append(diff, "--since", "yesterday")...))
	in.must(2, in.run("admin", "", append(diff, "--policy", "@new.yaml")...))
	in.must(1, in.run("admin", "", append(diff, "--audit", "@nowhere")...))
}
