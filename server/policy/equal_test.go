package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// agree fails a test unless a policy decides a request as the model does.
func (m model) agree(t *testing.T, p *Policy, q Request) Decision {
	t.Helper()
	d := p.Decide(q)
	if got, want := outcomeOf(d), m.decide(q); got != want {
		t.Fatalf("Decide(%+v, token %+v)\n = %+v, want\n   %+v", q, q.Token, got, want)
	}
	if rule, ok := p.May(q.Caller, q.namespace(), q.Action); rule != m.may(q.Caller, q.Namespace, q.Action) || ok != (rule != "") || d.Allowed && !ok {
		t.Fatalf("May(%q, %q, %q) = %q, %v", q.Caller, q.Namespace, q.Action, rule, ok)
	}
	return d
}

func TestDecideEqualsModel(t *testing.T) {
	seen := make(map[string]int)
	eachRandom(t, 400, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		m, err := parseModel(file, rich)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() {
				t.Logf("%s", file)
			}
		}()
		for range 300 {
			d := m.agree(t, p, randomRequest(rng))
			seen[fmt.Sprintf("%s allowed=%t pending=%t", d.Reason, d.Allowed, d.Pending)]++
		}
	})
	for _, reason := range Reasons {
		if reason != TooManyRules && seen[fmt.Sprintf("%s allowed=false pending=false", reason)] < 20 {
			t.Errorf("%s is hardly tried: %v", reason, seen)
		}
	}
	if seen[" allowed=true pending=false"] < 1000 || seen[" allowed=true pending=true"] < 1000 {
		t.Errorf("what is allowed is hardly tried: %v", seen)
	}
}

// What is decided before the token is known holds when it is: what isn't pending is
// decided alike, what is denied stays denied, and nothing beyond what is pending is
// revealed. A form that is the most may stand for one of several only if the request
// names none.
func TestTokensOnlyTakeAway(t *testing.T) {
	eachRandom(t, 300, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		for range 100 {
			q := randomRequest(rng)
			q.Token = nil
			before := p.Decide(q)
			if before.Pending && (!before.Allowed || before.Rule != "" || before.Reason != "") {
				t.Fatalf("%+v is %+v\n%s", q, before, file)
			}
			for range 8 {
				if q.Token = randomToken(rng); q.Token == nil {
					continue
				}
				after := p.Decide(q)
				switch {
				case after.Pending:
					t.Fatalf("%+v is pending with the token %+v\n%s", q, q.Token, file)
				case !before.Allowed && after.Allowed:
					t.Fatalf("%+v is %+v, and with the token %+v it is %+v\n%s", q, before, q.Token, after, file)
				case before.Allowed && !before.Pending && after != before:
					t.Fatalf("%+v is %+v, and with the token %+v it is %+v\n%s", q, before, q.Token, after, file)
				case after.Allowed && !includes(before.Reveal, after.Reveal, q.Reveal):
					t.Fatalf("%+v reveals %s at most, and with the token %+v it reveals %s\n%s", q, before.Reveal, q.Token, after.Reveal, file)
				}
			}
		}
	})
}

// includes says whether most, of a decision about a request that asks for a form,
// includes another.
func includes(most, form, asked Reveal) bool {
	return most == form || most == Full && form != Unspecified || most == Unspecified && asked == Unspecified && form != Full
}

// A token that panics has the decision end so, or counts as what can't be found out:
// nothing is allowed that an error wouldn't allow.
func TestPanicsAllowNothing(t *testing.T) {
	panics := 0
	eachRandom(t, 200, func(t *testing.T, rng *rand.Rand, p *Policy, file []byte) {
		for range 100 {
			q := randomRequest(rng)
			q.Token = &broken{metadata: true, subject: true, consent: true}
			want := p.Decide(q)
			q.Token = panicking{new(Known)}
			got, panicked := Decision{}, true
			func() {
				defer func() { _ = recover() }()
				got = p.Decide(q)
				panicked = false
			}()
			if panicked {
				panics++
			} else if got.Allowed && !want.Allowed && want.Reason != RevealAmbiguous {
				t.Fatalf("%+v: %+v, but with errors %+v\n%s", q, got, want, file)
			}
		}
	})
	if panics == 0 {
		t.Error("nothing panics")
	}
}

// panicking is a token all of whose methods panic but those that can't fail.
type panicking struct{ *Known }

func (panicking) Metadata() (map[string]string, error) { panic("injected") }
func (panicking) Subject() (string, error)             { panic("injected") }
func (panicking) Consent(string) (Consent, error)      { panic("injected") }

// FuzzParse looks for files that crash Parse, and for policies that allow what
// their rules, read in another way, don't.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(head + revealRules("[LAST4, EXPIRY]", "BIN", "[MASKED]", "[FULL, NUMBER]")))
	f.Add([]byte(head + revealRules("CVV", "[NAME]")))
	f.Add([]byte("version: 1\nrules: []\n"))
	f.Add([]byte("version: 1\nrules:\n- {name: a, callers: [\"dns:a\"], actions: [keys]}\n"))
	f.Add([]byte("version: 1\nrules:\n- &a {name: a, callers: [\"dns:a\"], actions: [keys]}\n- *a\n"))
	for seed := range uint64(40) {
		f.Add(randomPolicy(rand.New(rand.NewPCG(seed, 7))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("p", data, rich)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v, error %v", p, err)
		}
		if err != nil {
			return
		}
		m, err := parseModel(data, rich)
		if err != nil || m.Version != 1 {
			t.Fatalf("version %d, error %v", m.Version, err)
		}
		modelled := true
		for _, r := range m.Rules {
			modelled = modelled && (r.When == "" || expressions[r.When] != nil)
			for _, name := range list(r.Reveal) {
				for _, profile := range r.Profiles {
					if name != "MASKED" && name != "FULL" && !slices.Contains(rich.Profiles[profile].Parts, name) {
						t.Fatalf("%q grants %q of %q", r.Name, name, profile)
					}
				}
			}
		}
		rng := rand.New(rand.NewPCG(uint64(len(data)), 8))
		for range 200 {
			q := randomRequest(rng)
			if len(m.Rules) > 0 && rng.IntN(2) == 0 {
				if callers := one(rng, m.Rules...).Callers; len(callers) > 0 {
					q.Caller = one(rng, callers...)
				}
			}
			if modelled {
				m.agree(t, p, q)
			} else {
				p.Decide(q)
			}
			p.Explain(q)
		}
		p.Lint(noon)
		p.Who(Query{Profile: "card"})
	})
}

// ask returns a request of a kind that needs no more than these.
func ask(caller, action, profile, purpose string, reveal Reveal) Request {
	return Request{Caller: caller, Action: action, Profile: profile, Purpose: purpose, Reveal: reveal}
}

// decided returns what a policy decides, duties apart.
func decided(p *Policy, r Request) Decision {
	d := p.Decide(r)
	d.duties = Duties{}
	return d
}
