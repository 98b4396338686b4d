package policy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// rich is a vocabulary with all that rules can speak of.
var rich = Vocabulary{
	Actions: map[string]ActionKind{
		"tokenize": ProfileAction, "detokenize": RevealAction, "revoke": ProfileAction, "list": ProfileAction, "export": ProfileAction, "keys": PlainAction,
	},
	Traits: map[string]ActionTraits{
		"tokenize": {Token: true}, "detokenize": {Token: true, Values: true, Reason: true}, "revoke": {Token: true, Reason: true}, "export": {Values: true},
	},
	Namespaces: []string{"default", "other"},
	Profiles: map[string]ProfileVocabulary{
		"card": {Purposes: []string{"charge", "support"}, Parts: []string{"LAST4", "BIN"}, Classes: []string{"pci", "pii"}},
		"ssn":  {Purposes: []string{"support"}, Parts: []string{"LAST4"}, Classes: []string{"pii"}},
		"note": {Purposes: []string{"support"}},
	},
}

var (
	richGroups  = map[string][]string{"one": {"dns:a.b", "spiffe://x/*/pay"}, "two": {"cn:a"}}
	richCallers = []string{"dns:a.b", "dns:*.b", "cn:a", "spiffe://x/ns/pay", "spiffe://x/*/pay", "spiffe://x/ns/*", "group:one", "group:two"}
	askers      = []string{"dns:a.b", "dns:c.b", "dns:a.c.b", "cn:a", "spiffe://x/ns/pay", "spiffe://x/dev/pay", "spiffe://x/ns/shop", "spiffe://y/ns/pay", "spiffe://x/a/ns/pay", "dns:nobody", ""}
	noon        = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
)

// expressions are what the model knows of CEL.
var expressions = map[string]func(Request) verdict{
	"true":                         func(Request) verdict { return yes },
	"false":                        func(Request) verdict { return no },
	"request.items <= 3":           func(q Request) verdict { return is(q.Items <= 3) },
	"1 / (request.items - 3) == 0": func(q Request) verdict { return knownIf(q.Items != 3, q.Items < 2 || q.Items > 4) },
	`caller.kind == "dns" || caller.trust_domain == "x"`: func(q Request) verdict {
		return is(strings.HasPrefix(q.Caller, "dns:") || strings.HasPrefix(q.Caller, "spiffe://x/"))
	},
	`request.purpose == "charge" || request.items == 7`: func(q Request) verdict { return is(q.Purpose == "charge" || q.Items == 7) },
	`request.reason.matches("^INC")`:                    func(q Request) verdict { return is(strings.HasPrefix(q.StatedReason, "INC")) },
	`request.address.startsWith("10.")`: func(q Request) verdict {
		return knownIf(q.Address.IsValid(), strings.HasPrefix(q.Address.String(), "10."))
	},
	`time.now.getHours() == 12`:                func(q Request) verdict { return knownIf(!q.Time.IsZero(), q.Time.Hour() == 12) },
	`time.now.getHours("Europe/Berlin") == 14`: func(q Request) verdict { return knownIf(!q.Time.IsZero(), q.Time.Hour() == 12) }, // in summer
	`token.metadata["team"] == "a"`: onToken(func(q Request) verdict {
		labels, err := q.Token.Metadata()
		_, has := labels["team"]
		return knownIf(err == nil && has, labels["team"] == "a")
	}),
	`"team" in token.metadata || request.items > 3`: onToken(func(q Request) verdict {
		labels, err := q.Token.Metadata()
		_, has := labels["team"]
		return knownIf(err == nil || q.Items > 3, has || q.Items > 3)
	}),
	`token.has_subject`: onToken(func(q Request) verdict {
		subject, err := q.Token.Subject()
		return knownIf(err == nil, subject != "")
	}),
	`time.now - token.created < duration("24h")`: onToken(func(q Request) verdict {
		return knownIf(!q.Time.IsZero() && !q.Token.Created().IsZero(), q.Time.Sub(q.Token.Created()) < 24*time.Hour)
	}),
	`token.expires.getFullYear() == 9999`: onToken(func(q Request) verdict { return is(q.Token.Expires().IsZero()) }),
}

func is(true bool) verdict {
	if true {
		return yes
	}
	return no
}

func knownIf(known, true bool) verdict {
	if !known {
		return failed
	}
	return is(true)
}

func onToken(of func(Request) verdict) func(Request) verdict {
	return func(q Request) verdict {
		if q.Token == nil {
			return unknown
		}
		return of(q)
	}
}

// broken is a token of which something can't be found out.
type broken struct {
	Known
	metadata, subject, consent bool
}

var errBroken = errors.New("injected")

func (b *broken) Metadata() (map[string]string, error) {
	if b.metadata {
		return b.Labels, errBroken
	}
	return b.Labels, nil
}

func (b *broken) Subject() (string, error) {
	if b.subject {
		return b.Of, errBroken
	}
	return b.Of, nil
}

func (b *broken) Consent(string) (Consent, error) {
	if b.consent {
		return ConsentGiven, errBroken
	}
	return b.Agreed, nil
}

func one[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// some returns between least and all of the words, in random order.
func some(rng *rand.Rand, least int, words ...string) []string {
	words = slices.Clone(words)
	rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return words[:least+rng.IntN(len(words)-least+1)]
}

// randomToken returns a token, nil if nothing is known of it.
func randomToken(rng *rand.Rand) Token {
	if rng.IntN(4) == 0 {
		return nil
	}
	t := &broken{Known: Known{
		Labels: one(rng, nil, map[string]string{"team": "a"}, map[string]string{"team": "b"}, map[string]string{"env": "x", "team": "a"}),
		Of:     one(rng, "", "somebody"), Made: one(rng, time.Time{}, noon.Add(-time.Hour), noon.Add(-48*time.Hour)),
		Ends: one(rng, time.Time{}, noon.Add(time.Hour)), Agreed: one(rng, NoConsent, ConsentGiven, ConsentWithdrawn),
	}}
	t.metadata, t.subject, t.consent = rng.IntN(8) == 0, rng.IntN(8) == 0, rng.IntN(8) == 0
	return t
}

// likely returns the first of some with some likelihood, else any of them.
func likely[T any](rng *rand.Rand, of ...T) T {
	if rng.IntN(3) > 0 {
		return of[0]
	}
	return one(rng, of...)
}

func randomRequest(rng *rand.Rand) Request {
	return Request{
		Caller: likely(rng, append(askers[:0:0], append([]string{one(rng, "dns:a.b", "cn:a", "spiffe://x/ns/pay")}, askers...)...)...),
		Action: likely(rng, "detokenize", "tokenize", "revoke", "list", "export", "keys", "none", ""), Profile: likely(rng, one(rng, "card", "ssn", "note"), "", "none"),
		Purpose: likely(rng, one(rng, "support", "charge"), "", "none"), Reveal: likely(rng, one(rng, Unspecified, Masked, Full, Last4), BIN, Routing, 99),
		Namespace: likely(rng, "", "default", "other", "none"), StatedReason: one(rng, "", "INC-1", "CHG-22", "because"),
		Address: likely(rng, netip.MustParseAddr("10.1.2.3"), netip.Addr{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")),
		Time:    likely(rng, noon, time.Time{}, noon.AddDate(0, 0, 1), noon.Add(-13*time.Hour)), Items: 1 + rng.IntN(5),
		Consents: rng.IntN(2) == 0, Token: randomToken(rng),
	}
}

// randomPolicy returns a file with rules that Parse takes.
func randomPolicy(rng *rand.Rand) []byte {
	var rules []map[string]any
	for i := range 1 + rng.IntN(9) {
		rules = append(rules, randomRule(rng, fmt.Sprintf("r%d", i)))
	}
	text, err := yaml.Marshal(map[string]any{"version": 1, "groups": richGroups, "rules": rules})
	if err != nil {
		panic(err)
	}
	return text
}

func randomRule(rng *rand.Rand, name string) map[string]any {
	r := map[string]any{"name": name}
	effect := one(rng, "allow", "allow", "allow", "deny", "oblige")
	allows := effect == "allow"
	if !allows || rng.IntN(2) == 0 {
		r["effect"] = effect
	}
	maybe := func(one int, set func()) {
		if rng.IntN(one) == 0 {
			set()
		}
	}
	if allows || rng.IntN(2) == 0 {
		r["callers"] = some(rng, 3, richCallers...)
	}
	var actions []string
	if allows || rng.IntN(4) > 0 {
		actions = one(rng, []string{"detokenize"}, []string{"detokenize"}, []string{"detokenize", "revoke"}, []string{"tokenize", "detokenize"}, []string{"list", "keys"}, []string{"revoke", "tokenize"}, []string{"keys"}, []string{"export", "detokenize"})
		r["actions"] = actions
	}
	every := func(has func(ActionTraits) bool) bool {
		return actions != nil && !slices.ContainsFunc(actions, func(action string) bool { return !has(rich.Traits[action]) })
	}
	reveals := actions == nil || slices.Contains(actions, "detokenize")
	profiles := slices.Collect(maps.Keys(rich.Profiles))
	slices.Sort(profiles)
	about := profiles
	if actions == nil || !slices.Equal(actions, []string{"keys"}) {
		switch {
		case rng.IntN(4) == 0:
			r["classes"], about = []string{"pii"}, []string{"card", "ssn"}
		case allows || rng.IntN(2) == 0:
			about = some(rng, 1, profiles...)
			r["profiles"] = about
		}
	}
	onlyCard := slices.Equal(about, []string{"card"})
	if reveals && (allows || rng.IntN(3) == 0) {
		r["purposes"] = []string{"support"}
		if onlyCard {
			r["purposes"] = some(rng, 1, "support", "charge")
		}
	}
	forms := []string{"MASKED", "FULL"}
	switch {
	case onlyCard:
		forms = append(forms, "LAST4", "BIN", "LAST4", "BIN")[rng.IntN(3):]
	case !slices.Contains(about, "note"):
		forms = append(forms, "LAST4")[rng.IntN(3):]
	}
	slices.Sort(forms)
	forms = slices.Compact(forms)
	if reveals && (allows || effect == "deny" && rng.IntN(3) == 0) {
		r["reveal"] = some(rng, 1, forms...)
	}
	maybe(6, func() { r["namespaces"] = some(rng, 1, "default", "other") })
	maybe(6, func() { r["networks"] = some(rng, 1, "10.0.0.0/8", "192.0.2.1", "2001:db8::/32") })
	maybe(6, func() {
		r["valid"] = one(rng, map[string]string{"from": "2026-07-01"}, map[string]string{"until": "2026-07-02T00:00:00+02:00"}, map[string]string{"from": "2026-06-01", "until": "2026-07-01T13:00:00Z"})
	})
	ofToken := every(func(t ActionTraits) bool { return t.Token })
	maybe(4, func() {
		when := one(rng, slices.Sorted(maps.Keys(expressions))...)
		if ofToken || !strings.Contains(when, "token.") {
			r["when"] = when
		}
	})
	if ofToken {
		maybe(5, func() {
			r["metadata"] = one[any](rng, map[string]any{"team": "a"}, map[string]any{"team": []string{"a", "b"}, "env": "x"})
		})
	}
	if effect != "deny" {
		if every(func(t ActionTraits) bool { return t.Reason }) {
			maybe(4, func() { r["reason"] = one(rng, "(INC|CHG)-[0-9]+", ".*", `INC.*|\QCHG-22\E`) })
		}
		maybe(5, func() { r["notify"] = true })
		maybe(6, func() { r["limits"] = map[string]int{"items_per_second": 5} })
	}
	if allows && reveals {
		maybe(3, func() { r["consent"] = one(rng, "respect", "require", "ignore") })
	}
	if allows && every(func(t ActionTraits) bool { return t.Values }) {
		maybe(6, func() { r["approval"] = map[string]any{"approvers": []string{"cn:a"}, "for": "5m", "max_items": 3} })
	}
	if effect == "oblige" {
		if reveals {
			maybe(2, func() { r["at_most"] = some(rng, 1, forms...) })
		}
		if r["reason"] == nil && r["notify"] == nil && r["limits"] == nil && r["at_most"] == nil {
			r["notify"] = true
		}
	}
	return r
}

// eachRandom runs a test on random policies.
func eachRandom(t *testing.T, policies uint64, test func(t *testing.T, rng *rand.Rand, p *Policy, file []byte)) {
	for seed := range policies {
		rng := rand.New(rand.NewPCG(seed, 6))
		file := randomPolicy(rng)
		p, err := Parse("p", file, rich)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, file)
		}
		test(t, rng, p, file)
	}
}
