package policy

import (
	"math/rand/v2"
	"slices"
	"testing"

	"go.yaml.in/yaml/v4"
)

// What explains a decision agrees with it: the rule that allows lacks nothing, the one that
// denies is one that may, and where no rule has decided, each of those that are near lacks
// something.
func TestExplanationsAgree(t *testing.T) {
	eachRandom(t, 300, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		for range 100 {
			q := randomRequest(rng)
			e := p.Explain(q)
			if e.Decision != p.Decide(q) {
				t.Fatalf("%+v: %+v is explained as %+v\n%s", q, p.Decide(q), e, file)
			}
			if (e.Rule != "") != (e.Line > 0) || e.Allowed && len(e.Near) > 0 || e.Pending && len(e.Demands) == 0 {
				t.Fatalf("%+v: %+v\n%s", q, e, file)
			}
			var by *rule
			if e.Rule != "" {
				by = p.byName[e.Rule]
			}
			switch {
			case e.Allowed && by != nil:
				lacks := p.lacks(by, &q)
				if q.Reveal == Unspecified && by.reveal.has(e.Reveal) {
					lacks = slices.DeleteFunc(lacks, func(part Part) bool { return part == RevealPart })
				}
				if len(lacks) > 0 || by.effect != Allow {
					t.Fatalf("%+v is allowed by %s, which lacks %v\n%s", q, e.Rule, lacks, file)
				}
			case by != nil && (by.effect == Allow || e.Reason == NoRule || e.Reason == PurposeNotAllowed):
				t.Fatalf("%+v is denied by %s: %s\n%s", q, e.Rule, e.Reason, file)
			case by == nil && !e.Allowed && len(e.Near) == 0 && e.Reason != RevealAmbiguous:
				if slices.ContainsFunc(p.rules, func(r rule) bool { return r.effect == Allow }) {
					t.Fatalf("%+v: %s, and nothing is near\n%s", q, e.Reason, file)
				}
			}
			for _, m := range e.Near {
				near := p.byName[m.Rule]
				if len(m.Lacks) == 0 || m.Names == "" || near.effect != Allow || near.line != m.Line {
					t.Fatalf("%+v: %+v is near\n%s", q, m, file)
				}
				if out := slices.ContainsFunc(m.Lacks, func(part Part) bool {
					return slices.Contains([]Part{CallerPart, ActionPart, NamespacePart, ProfilePart}, part)
				}); e.Reason == NoRule && !out {
					t.Fatalf("%+v: %s, but %s lacks %v only\n%s", q, e.Reason, m.Rule, m.Lacks, file)
				}
			}
		}
	})
}

// Whoever is allowed something is among those who could; and who could, without
// conditions, may.
func TestWhoAgreesWithDecide(t *testing.T) {
	eachRandom(t, 200, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		for range 100 {
			q := randomRequest(rng)
			q.Namespace = ""
			d := p.Decide(q)
			query := Query{Action: q.Action, Profile: q.Profile, Purpose: q.Purpose, Reveal: d.Reveal}
			switch p.actions[q.Action] {
			case PlainAction:
				query.Profile, query.Purpose = "", ""
			case ProfileAction:
				query.Purpose = ""
			}
			if d.Allowed && !d.Pending && !slices.ContainsFunc(p.Who(query), func(a Access) bool {
				return a.Rule == d.Rule && (a.Caller == q.Caller || naivePattern(a.Caller).MatchString(q.Caller))
			}) {
				t.Fatalf("%+v: %+v, but who could is %+v\n%s", q, d, p.Who(query), file)
			}
		}
		for _, form := range []Reveal{Unspecified, Masked, Full, Last4} {
			for _, a := range p.Who(Query{Reveal: form}) {
				if len(a.Conditions) > 0 || ValidateCaller(a.Caller) != nil {
					continue
				}
				for _, action := range a.Actions {
					for _, profile := range append(a.Profiles, "")[:max(len(a.Profiles), 1)] {
						for _, purpose := range append(a.Purposes, "")[:max(len(a.Purposes), 1)] {
							q := ask(a.Caller, action, profile, purpose, form)
							if d := p.Decide(q); !d.Allowed && d.Reason != RevealAmbiguous {
								t.Fatalf("%+v, but %+v is %+v\n%s", a, q, d, file)
							}
						}
					}
				}
			}
		}
	})
}

// A rule that is shadowed or unreachable can go, and nothing is decided otherwise.
func TestRulesThatLintCallsUselessAre(t *testing.T) {
	found := make(map[Flaw]int)
	eachRandom(t, 800, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		for _, f := range p.Lint(noon) {
			found[f.Flaw]++
			if f.Flaw != Shadowed && f.Flaw != Unreachable {
				continue
			}
			without, err := Parse("p", withoutRule(t, file, f.Rule), rich)
			if err != nil {
				t.Fatal(err)
			}
			for range 150 {
				q := randomRequest(rng)
				got, want := outcomeOf(without.Decide(q)), outcomeOf(p.Decide(q))
				if !got.allowed && !want.allowed {
					continue // the reason may be another
				}
				if got != want {
					t.Fatalf("without %s, which is %s, %+v is %+v, not %+v\n%s", f.Rule, f.Flaw, q, got, want, file)
				}
			}
		}
	})
	if found[Shadowed] < 20 || found[Unreachable] < 20 {
		t.Errorf("hardly any is found: %v", found)
	}
}

// withoutRule returns a file without a rule.
func withoutRule(t *testing.T, file []byte, name string) []byte {
	var all map[string]any
	if err := yaml.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	all["rules"] = slices.DeleteFunc(all["rules"].([]any), func(r any) bool { return r.(map[string]any)["name"] == name })
	text, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
