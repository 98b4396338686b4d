package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What can't be found out counts against the caller, whatever the rule does.
func TestFailClosed(t *testing.T) {
	good := Request{Caller: "dns:a", Action: "detokenize", Profile: "card", Purpose: "charge", Reveal: Full, Time: noon, Items: 3, Token: &Known{Labels: map[string]string{"team": "a", "n": "x"}}}
	many := make(map[string]string)
	for i := range 20_000 {
		many[fmt.Sprintf("k%d", i)] = strings.Repeat("x", 100)
	}
	as := func(token Token) func(*Request) { return func(q *Request) { q.Token = token } }
	for _, row := range []struct {
		condition string
		change    func(*Request) // nil if the request is as good as it can be
	}{
		{"metadata: {team: a}", as(&broken{metadata: true, Known: Known{Labels: map[string]string{"team": "a"}}})},
		{`when: token.metadata["team"] == "a"`, as(&broken{metadata: true, Known: Known{Labels: map[string]string{"team": "a"}}})},
		{`when: token.metadata["team"] == "a"`, as(new(Known))},
		{`when: token.metadata.team == "a"`, as(new(Known))},
		{`when: token.metadata["team"] == "a"`, as(panicking{new(Known)})},
		{"when: token.has_subject", as(&broken{subject: true, Known: Known{Of: "somebody"}})},
		{"when: token.has_subject", as(panicking{new(Known)})},
		{"when: token.created < time.now", nil},
		{"when: 9223372036854775807 + request.items > 0", nil},
		{"when: 1 / (request.items - 3) == 0", nil},
		{"when: 1 % (request.items - 3) == 0", nil},
		{"when: uint(request.items - 4) == 0u", nil},
		{`when: timestamp(token.metadata["n"]) < time.now`, nil},
		{`when: duration(token.metadata["n"]) > duration("1s")`, nil},
		{`when: int(token.metadata["n"]) > 0`, nil},
		{`when: time.now + duration("2562047h") > time.now && time.now + duration("2562047h") + duration("2562047h") > time.now && timestamp("9999-12-31T23:59:59Z") + duration("1h") > time.now`, nil},
		{"when: dyn(request.reason) + dyn(1) == dyn(2)", nil},
		{"when: dyn(token.metadata).team.deeper == 1", nil},
		{`when: '{"a": 1}[request.profile] == 1'`, nil},
		{"when: '[1][request.items] == 1'", nil},
		{`when: request.address == ""`, nil},
		{"when: time.now.getHours() == 12", func(q *Request) { q.Time = time.Time{} }},
		{`when: token.metadata.all(k, token.metadata[k] == "x")`, as(&Known{Labels: map[string]string{"k": strings.Repeat("y", 1<<20)}})},
		{`when: token.metadata.all(k, token.metadata[k] != "x")`, as(&Known{Labels: many})},
		{`networks: ["10.0.0.0/8"]`, nil},
		{"valid: {from: 2026-01-01}", func(q *Request) { q.Time = time.Time{} }},
		{"valid: {until: 2036-01-01}", func(q *Request) { q.Time = time.Time{} }},
	} {
		q := good
		if row.change != nil {
			row.change(&q)
		}
		allow := func(rest string) string {
			return "- {name: allow, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: [FULL]" + rest + "}\n"
		}
		rule := func(name, effect, rest string) string {
			return fmt.Sprintf("- name: %s\n  effect: %s\n  actions: [detokenize]\n%s  %s\n", name, effect, rest, row.condition)
		}
		for effect, file := range map[string]string{
			"allow":       rule("allow", "allow", "  callers: [\"dns:a\"]\n  profiles: [card]\n  purposes: [charge]\n  reveal: FULL\n"),
			"deny":        allow("") + rule("other", "deny", ""),
			"deny a form": allow("") + rule("other", "deny", "  reveal: FULL\n"),
			"oblige":      allow("") + rule("other", "oblige", "  notify: true\n"),
		} {
			p, err := Parse("p", []byte(head+file), rich)
			if err != nil {
				t.Fatalf("%s: %v", row.condition, err)
			}
			d := p.Decide(q)
			if strings.HasSuffix(row.condition, `== "x")`) {
				if d.Allowed && effect == "allow" { // it isn't a failure, but false
					t.Errorf("%s in a rule with %s: %+v", row.condition, effect, d)
				}
				continue
			}
			rule := "other"
			if effect == "allow" {
				rule = ""
			}
			if d.Allowed || d.Reason != ConditionFailed || d.Rule != rule {
				t.Errorf("%s in a rule with %s: %+v", row.condition, effect, d)
			}
			if e := p.Explain(q); e.Decision != d || effect == "allow" && (len(e.Near) != 1 || len(e.Near[0].Lacks) != 1) {
				t.Errorf("%s in a rule with %s is explained as %+v", row.condition, effect, e)
			}
		}
	}
}

// Nobody is taken to have agreed if that can't be found out.
func TestConsentThatCannotBeFoundOut(t *testing.T) {
	for _, consent := range []string{"respect", "require"} {
		p, err := Parse("p", []byte(head+"- {name: a, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, consent: "+consent+"}\n"), rich)
		if err != nil {
			t.Fatal(err)
		}
		q := ask("dns:a", "detokenize", "card", "charge", Full)
		q.Consents, q.Token = true, &broken{consent: true}
		if d := p.Decide(q); d.Allowed || d.Reason != ConditionFailed {
			t.Errorf("%s: %+v", consent, d)
		}
	}
}

// Expressions that would take long, or can't be checked beforehand, are refused when the
// file is read.
func TestConditionsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`request.items`: "an expression is true or false; this is of the type int",
		`request.reason.matches(token.metadata["x"])`:                                                           "must be written out",
		`request.reason.matches("(")`:                                                                           "missing closing )",
		`request.reason.matches("(ab?){1000}")`:                                                                 "more than 1000 states",
		`caller.id.matches("a{400}") && caller.id.matches("b{400}")`:                                            "it may cost up to",
		`time.now.getHours("Europe/Nowhere") > 1`:                                                               `unknown time zone "Europe/Nowhere"`,
		`time.now.getHours("../../etc/passwd") > 1`:                                                             "unknown time zone",
		`time.now.getHours("Local") > 1`:                                                                        "unknown time zone",
		`time.now.getHours("25:00") > 1`:                                                                        "is no time zone",
		`time.now.getHours(request.reason) > 1`:                                                                 "must be written out",
		`token.metadata.all(a, token.metadata.all(b, token.metadata.all(c, a == b)))`:                           "nesting",
		`token.metadata.all(a, token.metadata.all(b, token.metadata[a] + token.metadata[b] != request.reason))`: "it may cost up to",
		`timestamp("x") < time.now`:                                                                             "timestamp",
		`caller.nobody == "x"`:                                                                                  "unknown \"caller",
		`caller == "x"`:                                                                                         "unknown \"caller",
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100):                                            "recursion",
		strings.Repeat(" ", 4097):                                                                               "at most 4096 bytes",
	} {
		c, err := compileCondition(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, %v; want %q", text, c, err, want)
		}
	}
}

// What rules have to say of labels, reasons and callers is within the bounds.
func TestConditionsThatAreTaken(t *testing.T) {
	for _, text := range []string{
		`token.metadata["team"].startsWith("a") && token.metadata.team.contains("b")`,
		`token.metadata["team"].matches("^(a|b)-[0-9]{3}$")`,
		`token.metadata.all(k, k.startsWith("x-") || token.metadata[k].contains("y"))`,
		`token.metadata.exists(k, token.metadata[k].matches("^[a-z]+$"))`,
		`caller.id.matches("^spiffe://x/ns/(prod|dev)/.*$")`,
		`request.reason.matches("(INC|CHG)-[0-9]{4,}")`,
		`token.metadata["region"] in ["eu", "us"] && caller.path.endsWith(token.metadata["region"])`,
		`["a", "b"].exists(team, token.metadata["team"] == team)`,
	} {
		if c, err := compileCondition(text); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.needsToken != strings.Contains(text, "token.") {
			t.Errorf("%s needs the token: %t", text, c.needsToken)
		}
	}
}

func TestReasonsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`(`:                      "missing closing )",
		`\Qx`:                    "missing closing )", // would quote what is put around it
		`((a{10}){10}){10}`:      "more than 1000 states",
		`(abcdefghij){200}`:      "more than 1000 states",
		strings.Repeat("a", 257): "more than 256 bytes",
	} {
		file := head + "- name: a\n  effect: oblige\n  actions: [revoke]\n  reason: '" + text + "'\n"
		if _, err := Parse("p", []byte(file), rich); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v; want %q", text, err, want)
		}
	}
}

func TestApprovalsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                                       `"approvers" is missing`,
		`{approvers: ["cn:a"], for: 5m}`:                           `"max_items" is missing`,
		`{approvers: ["cn:a"], max_items: 5}`:                      `"for" is missing`,
		`{approvers: [], for: 5m, max_items: 5}`:                   `"approvers" is empty`,
		`{approvers: ["cn:a"], for: 500h, max_items: 5}`:           "must be a time from 1s to",
		`{approvers: ["group:x"], for: 5m, max_items: 5}`:          `unknown group "x"`,
		`{approvers: ["cn:*"], for: 5m, max_items: 5}`:             "nothing else has patterns",
		`{approvers: ["cn:a"], for: 5m, max_items: 5, self: true}`: `unknown key "self"`,
		"approve": "must be a mapping",
	} {
		file := head + "- {name: a, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, approval: " + text + "}\n"
		if _, err := Parse("p", []byte(file), rich); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

// A time zone is the one that CEL would find.
func TestTimeZones(t *testing.T) {
	for text, want := range map[string]bool{
		`time.now.getHours("Europe/Berlin") == 14`:         true,
		`time.now.getHours("+02:00") == 14`:                true,
		`time.now.getHours("02:00") == 14`:                 true,
		`time.now.getHours("-02:30") == 9`:                 true,
		`time.now.getMinutes("-02:30") == 30`:              true,
		`time.now.getMinutes("-00:30") == 30`:              true,
		`time.now.getHours("UTC") == 12`:                   true,
		`time.now.getDate("Pacific/Kiritimati") == 2`:      true,
		`time.now.getDayOfWeek("Pacific/Kiritimati") == 4`: true,
		`time.now.getFullYear("UTC") == 2026`:              true,
		`time.now.getHours("Europe/Berlin") == 12`:         false,
	} {
		c, err := compileCondition(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got, err := c.met(&Request{Time: noon}); err != nil || got != want {
			t.Errorf("%s: %t, %v", text, got, err)
		}
	}
}
