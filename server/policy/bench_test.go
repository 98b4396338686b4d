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

// rulesFor returns a policy of n rules, either each for a caller of its own or
// all for the same.
func rulesFor(t testing.TB, n int, sameCaller bool) *Policy {
	v := Vocabulary{Actions: vocabulary.Actions, Profiles: make(map[string]ProfileVocabulary)}
	var file strings.Builder
	file.WriteString("version: 1\nrules:\n")
	for i := range n {
		caller, profile := fmt.Sprintf("spiffe://coatcheck.example/ns/prod/sa/service-%d", i), fmt.Sprintf("profile-%d", i)
		if sameCaller {
			caller = "spiffe://coatcheck.example/ns/prod/sa/service-0"
		}
		v.Profiles[profile] = ProfileVocabulary{Purposes: []string{"charge"}}
		fmt.Fprintf(&file, "  - {name: rule-%d, callers: [%q], actions: [detokenize], profiles: [%s], purposes: [charge], reveal: FULL}\n",
			i, caller, profile)
	}
	p, err := Parse("p", []byte(file.String()), v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var request = ask("spiffe://coatcheck.example/ns/prod/sa/service-0", "detokenize", "profile-0", "charge", Unspecified)

// alikeRules returns a policy of n rules for the same data, all of parts, and a
// request for the one that is granted last.
func alikeRules(t testing.TB, n int) (*Policy, Request) {
	reveals := slices.Repeat([]string{"LAST4", "BIN", "BRAND", "[LAST4, NUMBER]"}, n/4)
	return mustParse(t, head+revealRules(append(reveals, "EXPIRY")...)), ask("dns:a", "export", "card", "charge", Expiry)
}

// decisions are what a decision may have to look at, each a policy and a request that it
// allows. Those whose name begins with CEL have expressions, which allocate.
func decisions(t testing.TB) map[string]func() (*Policy, Request) {
	const allow = "  - {name: a, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL"
	q := Request{
		Caller: "dns:a", Action: "detokenize", Profile: "card", Purpose: "charge", StatedReason: "INC-12345", Address: netip.MustParseAddr("10.1.2.3"), Time: noon, Items: 1,
		Token: &Known{Labels: map[string]string{"team": "a", "env": "prod"}, Of: "somebody", Made: noon.Add(-time.Hour)},
	}
	parsed := func(rules string) func() (*Policy, Request) {
		return func() (*Policy, Request) {
			p, err := Parse("p", []byte(head+rules), rich)
			if err != nil {
				t.Fatal(err)
			}
			return p, q
		}
	}
	when := func(text string) func() (*Policy, Request) {
		return parsed(fmt.Sprintf("%s, when: %q}\n", allow, text))
	}
	return map[string]func() (*Policy, Request){
		"simple":           parsed(allow + "}\n"),
		"10 rules":         func() (*Policy, Request) { return rulesFor(t, 10, false), request },
		"1000 rules":       func() (*Policy, Request) { return rulesFor(t, 1000, false), request },
		"10 of a caller":   func() (*Policy, Request) { return rulesFor(t, 10, true), request },
		"1000 of a caller": func() (*Policy, Request) { return rulesFor(t, 1000, true), request },
		"10 alike":         func() (*Policy, Request) { return alikeRules(t, 10) },
		"1000 alike":       func() (*Policy, Request) { return alikeRules(t, 1000) },
		"a pattern": func() (*Policy, Request) {
			p, q := parsed(strings.Replace(allow, "dns:a", "spiffe://x/*/pay", 1) + "}\n")()
			q.Caller = "spiffe://x/ns/pay"
			p.Decide(q)
			return p, q
		},
		"all but CEL": parsed(allow + `, networks: ["10.0.0.0/8"], valid: {from: 2026-01-01}, metadata: {team: a, env: [dev, prod]}, reason: "(INC|CHG)-[0-9]{4,}", notify: true}
  - {name: d, effect: deny, networks: ["192.0.2.0/24"]}
  - {name: e, effect: deny, reveal: FULL, valid: {until: 2026-01-01}}
  - {name: o, effect: oblige, actions: [detokenize], reason: "(INC|CHG)-[0-9]{4,}", at_most: FULL, limits: {items_per_minute: 100}}
`),
		"consent":      parsed(allow + ", consent: require}\n  - {name: b, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: MASKED, consent: ignore}\n"),
		"CEL short":    when(`request.items <= 100 && caller.kind == "dns"`),
		"CEL metadata": when(`token.metadata["team"] == "a" && request.items < 10`),
		"CEL hours":    when(`request.items <= 100 && time.now.getHours("Europe/Berlin") >= 8`),
		"CEL matches":  when(`request.reason.matches("^(INC|CHG)-[0-9]{4,}$") && request.address.startsWith("10.")`),
		"CEL long":     when(`request.items <= 100 && caller.kind == "dns" && token.metadata["env"] in ["dev", "prod"] && token.has_subject && time.now - token.created < duration("24h") && request.purpose != "support"`),
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	for name, of := range decisions(t) {
		p, q := of()
		if !p.Decide(q).Allowed {
			t.Errorf("%s: %+v", name, p.Decide(q))
		}
		if n := testing.AllocsPerRun(100, func() { p.Decide(q) }); n != 0 && !strings.HasPrefix(name, "CEL") {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	p, r := alikeRules(t, 100)
	for r.Reveal = range Routing + 2 {
		if n := testing.AllocsPerRun(100, func() { p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations", r.Reveal, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	of := decisions(b)
	for _, name := range slices.Sorted(maps.Keys(of)) {
		b.Run(name, func(b *testing.B) {
			p, q := of[name]()
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(q).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	data := []byte(sample)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("p", data, vocabulary); err != nil {
			b.Fatal(err)
		}
	}
}
