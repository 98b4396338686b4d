package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestExplain(t *testing.T) {
	p := mustParse(t, sample)
	for _, row := range []struct {
		name    string
		request Request
		want    string // reason or rule, then the nearest rules and what they lack
	}{
		{"allowed", ask(payments, "detokenize", "card", "refund", Full), "payments-charge"},
		{"no purpose", ask(payments, "detokenize", "card", "fraud", Full), "PURPOSE_NOT_ALLOWED payments-charge:purpose payments-again:purpose"},
		{"too much", ask(support, "detokenize", "card", "support", Full), "REVEAL_NOT_ALLOWED support:reveal"},
		{"another profile", ask(checkout, "tokenize", "ssn", "", Unspecified), "NO_RULE shop-tokenize:profile"},
		{"another caller", ask("cn:nobody", "reflect", "", "", Unspecified), "NO_RULE payments-again:caller reflection:caller"},
		{"another action", ask(support, "tokenize", "card", "", Unspecified), "NO_RULE shop-tokenize:caller payments-again:caller support:action"},
		{"nothing near", ask("cn:nobody", "detokenize", "note", "marketing", Full), "NO_RULE payments-charge:caller,profile,purpose payments-again:caller,profile,purpose"},
	} {
		e := p.Explain(row.request)
		if e.Decision != p.Decide(row.request) {
			t.Errorf("%s: it explains another decision, %+v", row.name, e.Decision)
		}
		got := string(e.Reason) + e.Rule
		for _, m := range e.Near {
			got += " " + m.Rule + ":"
			for i, part := range m.Lacks {
				if i > 0 {
					got += ","
				}
				got += string(part)
			}
		}
		if got != row.want {
			t.Errorf("%s: %s; want %s", row.name, got, row.want)
		}
	}
	if e := p.Explain(ask(support, "detokenize", "card", "support", Full)); e.Near[0].Line != 27 || e.Near[0].Names != "reveal is MASKED" {
		t.Errorf("where and what the nearest rule is: %+v", e.Near[0])
	}
	if e := p.Explain(ask(payments, "detokenize", "card", "refund", Full)); e.Line != 15 {
		t.Errorf("the rule that allows is at line %d", e.Line)
	}
	many := new(strings.Builder)
	many.WriteString("version: 1\nrules:\n")
	for i := range 50 {
		fmt.Fprintf(many, "  - {name: r%d, callers: [\"cn:c%d\"], actions: [reflect]}\n", i, i)
	}
	if e := mustParse(t, many.String()).Explain(ask("cn:x", "reflect", "", "", Unspecified)); len(e.Near) != maxNear {
		t.Errorf("%d of 50 rules that are as near are told", len(e.Near))
	}
}

// TestExplainAccounts denies for a reason that comes of a rule which lacks more than
// another does.
func TestExplainAccounts(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`version: 1
rules:
  - {name: other, callers: ["cn:b"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL}
  - {name: mine, callers: ["cn:a"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, networks: [10.0.0.0/8], reason: "INC-[0-9]+"}
  - {name: secret, effect: deny, profiles: [ssn], reveal: [FULL, LAST4], networks: [10.0.0.0/8]}
  - {name: tickets, effect: oblige, callers: ["cn:b"], actions: [detokenize], reason: "CHG-[0-9]+", at_most: MASKED, limits: {items_per_minute: 3}, notify: true}
`), rich)
	if err != nil {
		t.Fatal(err)
	}
	q := Request{Caller: "cn:a", Action: "detokenize", Profile: "card", Purpose: "charge", Address: netip.MustParseAddr("192.0.2.1"), Token: new(Known)}
	e := p.Explain(q)
	if e.Reason != ConditionNotMet || len(e.Near) != 2 || e.Near[0].Rule != "mine" || e.Near[1].Rule != "other" || e.WantsAddress {
		t.Errorf("from elsewhere: %+v", e)
	}
	if q.Address = (netip.Addr{}); !p.Explain(q).WantsAddress {
		t.Errorf("from nowhere: %+v", p.Explain(q))
	}
	for i, want := range []string{
		"rule secret denies FULL, LAST4, if network is 10.0.0.0/8",
		"rule tickets obliges: reason matches CHG-[0-9]+, at most MASKED, limits items_per_minute: 3, an alert is raised",
	} {
		if got := p.rules[i+2].says(); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

// For each request there is: one that is denied lacks something of each rule, or could
// not choose among parts; one that is allowed lacks nothing of the rule that allows it.
func TestExplainAgreesWithDecide(t *testing.T) {
	p := mustParse(t, sample)
	for _, caller := range []string{checkout, payments, support, "dns:checkout.example", "cn:x"} {
		for action, kind := range vocabulary.Actions {
			for profile := range vocabulary.Profiles {
				for _, purpose := range []string{"charge", "refund", "support", "x"} {
					for reveal := range Routing + 1 {
						r := ask(caller, action, profile, purpose, reveal)
						e, met := p.Explain(r), []string(nil)
						for _, rule := range p.rules {
							if len(p.lacks(&rule, &r)) == 0 {
								met = append(met, rule.name)
							}
						}
						if e.Allowed != (len(met) > 0) || e.Allowed && kind != RevealAction && met[0] != e.Rule || e.Allowed && !slices.Contains(met, e.Rule) {
							t.Errorf("%+v: %+v, and the rules %v are met", r, e.Decision, met)
						}
					}
				}
			}
		}
	}
}

func TestWho(t *testing.T) {
	p := mustParse(t, sample)
	for _, row := range []struct {
		query Query
		want  []string
	}{
		{Query{Profile: "ssn"}, []string{"cn:support by support"}},
		{Query{Profile: "card", Reveal: Full}, []string{payments + " by payments-charge", payments + " by payments-again"}},
		{Query{Profile: "card", Reveal: Masked}, []string{"cn:support by support", payments + " by payments-look", payments + " by payments-charge", payments + " by payments-again"}},
		{Query{Action: "tokenize"}, []string{"dns:checkout.example by shop-tokenize", checkout + " by shop-tokenize", payments + " by payments-again"}},
		{Query{Purpose: "refund"}, []string{payments + " by payments-charge"}},
		{Query{Action: "reflect", Profile: "card"}, nil},
	} {
		var got []string
		for _, a := range p.Who(row.query) {
			got = append(got, a.Caller+" by "+a.Rule)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%+v: %v; want %v", row.query, got, row.want)
		}
	}
	all := p.Who(Query{Action: "detokenize", Profile: "card", Reveal: Full, Purpose: "charge"})
	if a := all[1]; !slices.Equal(a.Actions, []string{"detokenize"}) || !slices.Equal(a.Profiles, []string{"card"}) ||
		!slices.Equal(a.Purposes, []string{"charge"}) || !slices.Equal(a.Reveal, []string{"FULL"}) || a.Line != 21 {
		t.Errorf("an access is not narrowed to what was asked: %+v", a)
	}
}

func TestLint(t *testing.T) {
	flaws := func(text string) (got []string) {
		for _, f := range mustParse(t, text).Lint(time.Now()) {
			got = append(got, fmt.Sprintf("%s %s", f.Rule, f.Flaw))
		}
		return got
	}
	callers := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"cn:c%d"`, i))
		}
		return strings.Join(list, ", ")
	}
	rule := func(name, callers, actions, rest string) string {
		return fmt.Sprintf("  - {name: %s, callers: [%s], actions: [%s]%s}\n", name, callers, actions, rest)
	}
	const cards = ", profiles: [card], purposes: [charge], reveal: "
	for _, row := range []struct {
		name, rules string
		want        []string
	}{
		{"nothing", rule("a", callers(1), "reflect", ""), nil},
		{"the same again", rule("a", callers(2), "reflect", "") + rule("b", callers(1), "reflect", ""), []string{"b shadowed"}},
		{"one caller more", rule("a", callers(1), "reflect", "") + rule("b", callers(2), "reflect", ""), nil},
		{"less of it", rule("a", callers(1), "detokenize", cards+"FULL") + rule("b", callers(1), "detokenize", cards+"MASKED"), []string{"b shadowed"}},
		{"more of it", rule("a", callers(1), "detokenize", cards+"MASKED") + rule("b", callers(1), "detokenize", cards+"FULL"), nil},
		{"two together", rule("a", callers(1), "detokenize", cards+"MASKED") + rule("b", callers(1), "detokenize", cards+"LAST4") +
			rule("c", callers(1), "detokenize", cards+"[MASKED, LAST4]"), []string{"c shadowed"}},
		{"two callers, two rules", rule("a", `"cn:c0"`, "reflect", "") + rule("b", `"cn:c1"`, "reflect", "") + rule("c", callers(2), "reflect", ""), []string{"c shadowed"}},
		{"many see it", rule("a", callers(MaxFullCallers+1), "detokenize", cards+"FULL"), []string{"a broad"}},
		{"some see it", rule("a", callers(MaxFullCallers), "detokenize", cards+"FULL"), nil},
		{"many see the mask", rule("a", callers(MaxFullCallers+1), "detokenize", cards+"MASKED"), nil},
	} {
		if got := flaws("version: 1\nrules:\n" + row.rules); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v; want %v", row.name, got, row.want)
		}
	}
}

// TestExports asks who sees values, and what is broad, where they can be exported too.
func TestExports(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`version: 1
rules:
  - {name: moves, callers: ["spiffe://t.example/*"], actions: [export], profiles: [card]}
  - {name: both, callers: ["cn:b"], actions: [detokenize, export], profiles: [card], purposes: [charge], reveal: MASKED}
  - {name: masks, effect: oblige, actions: [detokenize], at_most: MASKED}
`), rich)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		query Query
		want  []string
	}{
		{Query{Profile: "card", Reveal: Full}, []string{"both [export] [FULL] []", "moves [export] [FULL] []"}},
		{Query{Purpose: "refund"}, []string{"both [export] [FULL] []", "moves [export] [FULL] []"}},
		{Query{Profile: "card"}, []string{"both [detokenize export] [MASKED FULL by export] [rule masks obliges: at most MASKED, if action is detokenize]", "moves [export] [FULL] []"}},
		{Query{Action: "detokenize"}, []string{"both [detokenize] [MASKED] [rule masks obliges: at most MASKED]"}},
	} {
		var got []string
		for _, a := range p.Who(row.query) {
			got = append(got, fmt.Sprint(a.Rule, " ", a.Actions, " ", a.Reveal, " ", a.Conditions))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%+v: %q; want %q", row.query, got, row.want)
		}
	}
	if findings := p.Lint(time.Now()); len(findings) != 1 || findings[0].Flaw != Broad || findings[0].Rule != "moves" {
		t.Errorf("found: %+v", findings)
	}
}

// What takes FULL away takes exports away, and so their answer to who sees values.
func TestNobodyExports(t *testing.T) {
	const rules = `version: 1
rules:
  - {name: moves, callers: ["cn:a"], actions: [export], profiles: [card]}
  - `
	for _, taker := range []string{
		"{name: masks, effect: oblige, actions: [detokenize, export], at_most: MASKED}",
		"{name: masks, effect: oblige, at_most: [MASKED, LAST4]}",
		"{name: denies, effect: deny, profiles: [card], reveal: FULL}",
		"{name: denies, effect: deny, actions: [detokenize, export], reveal: [FULL, LAST4]}",
	} {
		p, err := Parse("p.yaml", []byte(rules+taker+"\n"), rich)
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(ask("cn:a", "export", "card", "", Unspecified)); d.Allowed || d.Rule == "" {
			t.Errorf("%s: %+v", taker, d)
		}
		for _, q := range []Query{{Profile: "card"}, {Reveal: Full}, {Reveal: Masked}} {
			if found := p.Who(q); len(found) > 0 {
				t.Errorf("%s: %+v finds %+v", taker, q, found)
			}
		}
	}
	p, err := Parse("p.yaml", []byte(rules+"{name: parts, effect: deny, actions: [detokenize], reveal: FULL}\n"), rich)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(ask("cn:a", "export", "card", "", Unspecified)); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

// TestLintApprovals says who can't ask, and who can't decide.
func TestLintApprovals(t *testing.T) {
	v := rich
	v.Actions = maps.Clone(rich.Actions)
	v.Actions["request-approval"], v.Actions["decide-approval"] = PlainAction, PlainAction
	p, err := Parse("p.yaml", []byte(`version: 1
rules:
  - {name: self, callers: ["cn:a"], actions: [export], profiles: [card], approval: {approvers: ["cn:a"], for: 5m, max_items: 3}}
  - {name: good, callers: ["cn:a"], actions: [export], profiles: [ssn], approval: {approvers: ["cn:b", "dns:*.b"], for: 5m, max_items: 3}}
  - {name: cannot, callers: ["cn:c"], actions: [export], profiles: [note], approval: {approvers: ["cn:d"], for: 5m, max_items: 3}}
  - {name: asks, callers: ["cn:a"], actions: [request-approval, decide-approval]}
  - {name: decides, callers: ["cn:b"], actions: [decide-approval], when: 1 + 1 == 2}
`), v)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range p.Lint(time.Now()) {
		got = append(got, f.Message)
	}
	want := []string{
		`p.yaml:3:5: rule "self" is unapprovable: its only caller is its only approver, and nobody grants anything to themselves`,
		`p.yaml:5:5: rule "cannot" is unapprovable: no rule allows its approver cn:d decide-approval`,
		`p.yaml:5:5: rule "cannot" is unapprovable: no rule allows its caller cn:c request-approval`,
		`p.yaml:7:5: rule "decides" is constant: its "when" speaks of nothing that a request could be asked about`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// TestSlips reads rules with what is easily mistaken.
func TestSlips(t *testing.T) {
	for rule, want := range map[string]string{
		`effect: deny, when: ! request.items > 3`:              `YAML takes "!" for a tag`,
		`effect: deny, when: !x`:                               `YAML takes "!" for a tag`,
		`effect: deny, when: [true]`:                           `put the expression in quotes`,
		`effect: deny, when: true ? false : true`:              `has to be in quotes`,
		`effect: deny, when: true or false`:                    `for "or" write ||`,
		`effect: deny, valid: 2026-12-31`:                      `"valid" must have "from", "until" or both`,
		`effect: deny, actions: [tokenize], metadata: {A: eu}`: `no token has a label "A"`,
		`callers: ["cn:a"], actions: [export], profiles: [card], approval: {approvers: ["cn:b"], for: 15, max_items: 3}`: `must be a time from 1s to 168h0m0s, as in 15m`,
	} {
		text := "version: 1\nrules:\n  - name: r\n"
		depth, start := 0, 0
		for i, c := range rule + "," {
			switch {
			case strings.ContainsRune("[{", c):
				depth++
			case strings.ContainsRune("]}", c):
				depth--
			case c == ',' && depth == 0:
				text += "    " + strings.TrimSpace(rule[start:i]) + "\n"
				start = i + 1
			}
		}
		if _, err := Parse("p.yaml", []byte(text), rich); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}
