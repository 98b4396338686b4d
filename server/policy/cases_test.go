package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestCases(t *testing.T) {
	p := mustParse(t, sample)
	cases, err := ParseCases("cases", []byte(`version: 1
tests:
  - {name: charge, caller: "spiffe://coatcheck.example/payments", action: detokenize, profile: card, purpose: charge, expect: allow, gives: FULL, rule: payments-charge}
  - {caller: "cn:support", action: detokenize, profile: card, purpose: support, reveal: FULL, expect: deny, reason: REVEAL_NOT_ALLOWED}
  - {caller: "cn:support", action: reflect, expect: allow}
`), vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if got := p.Check(c); got != "" {
			t.Errorf("%s: %s", c.Name, got)
		}
	}
	if got, want := p.Uncovered(cases), []string{"shop-tokenize", "payments-look", "payments-again", "support"}; !slices.Equal(got, want) {
		t.Errorf("uncovered: %v; want %v", got, want)
	}
	for name, row := range map[string]struct {
		change func(*Case)
		want   string
	}{
		"denied":       {func(c *Case) { c.Request.Purpose = "marketing" }, "denied: PURPOSE_NOT_ALLOWED"},
		"allowed":      {func(c *Case) { c.Allowed = false }, "allowed by the rule payments-charge"},
		"another rule": {func(c *Case) { c.Rule = "payments-again" }, "decided by the rule payments-charge, not by payments-again"},
		"another form": {func(c *Case) { c.Reveal = Masked }, "gives FULL, not MASKED"},
	} {
		c := cases[0]
		if row.change(&c); p.Check(c) != row.want {
			t.Errorf("%s: %q; want %q", name, p.Check(c), row.want)
		}
	}
	c := cases[1]
	if c.Reason = NoRule; p.Check(c) != "denied as REVEAL_NOT_ALLOWED, not as NO_RULE" {
		t.Errorf("another reason: %q", p.Check(c))
	}
}

func TestBadCases(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "the file is empty",
		"version: 1\n":                 `"tests" must be a list`,
		"version: 1\ntests: []\n":      `"tests" must be a list`,
		"version: 2\ntests: [{}]\n":    `"version" must be 1`,
		"version: 1\ntests: [{}]\n":    `cases:2:9: test 1 of the list: "caller" is missing`,
		"version: 1\ntests: [{x: 1}]":  `unknown key "x"`,
		"version: 1\ntests: [hello]\n": "must be a mapping",
		"version: 1\ntests:\n- {caller: \"cn:a\", action: fly, expect: allow}":                                                  `unknown action "fly"`,
		"version: 1\ntests:\n- {caller: \"*\", action: reflect, expect: allow}":                                                 "patterns are not supported",
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: maybe}":                                              "must be allow or deny",
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: allow, reason: NO_RULE}":                             `"reason" has no meaning`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: deny, address: x}":                                   `"x" is no address`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: deny, consent: x}":                                   `unknown consent "x"`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: deny, notifies: x}":                                  `must be true or false`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: deny, gives: FULL}":                                  `"gives" has no meaning`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: reflect, expect: deny, reason: BECAUSE}":                              `unknown reason "BECAUSE"`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: detokenize, profile: crad, purpose: charge, expect: deny}":            `unknown profile "crad"`,
		"version: 1\ntests:\n- {caller: \"cn:a\", action: detokenize, profile: card, purpose: charge, reveal: X, expect: deny}": `unknown reveal "X"`,
	} {
		if _, err := ParseCases("cases", []byte(text), vocabulary); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}
