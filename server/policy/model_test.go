package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// modelRule is a rule as the YAML library alone reads it.
type modelRule struct {
	Name     string
	Callers  []string
	Actions  []string
	Profiles []string
	Purposes []string
	Reveal   any // a string or a list of them
}

// reveals returns what the rule says to reveal.
func (r modelRule) reveals() (names []string) {
	switch reveal := r.Reveal.(type) {
	case string:
		names = []string{reveal}
	case []any:
		for _, name := range reveal {
			names = append(names, name.(string))
		}
	}
	return names
}

// grants says whether the rule grants a form: by its name, or by FULL.
func (r modelRule) grants(form Reveal) bool {
	names := r.reveals()
	if slices.Contains(names, "FULL") {
		return Masked <= form && form <= Routing
	}
	return slices.ContainsFunc(names, func(name string) bool { return modelForms[name] == form })
}

// modelForms are the forms that a rule can name.
var modelForms = map[string]Reveal{
	"MASKED": Masked, "FULL": Full, "LAST4": Last4, "BIN": BIN, "BRAND": Brand, "NUMBER": Number, "EXPIRY": Expiry,
	"NAME": Name, "CVV": CVV, "DOMAIN": Domain, "COUNTRY": Country, "YEAR": Year, "ROUTING": Routing,
}

// model is a policy that is interpreted rule by rule, straight from what the
// format says.
type model []modelRule

func (m model) decide(r Request, kinds map[string]ActionKind) Decision {
	kind := kinds[r.Action]
	var byProfile, byPurpose []modelRule
	for _, rule := range m {
		if !slices.Contains(rule.Callers, r.Caller) || !slices.Contains(rule.Actions, r.Action) {
			continue
		}
		if kind == PlainAction || slices.Contains(rule.Profiles, r.Profile) {
			byProfile = append(byProfile, rule)
			if slices.Contains(rule.Purposes, r.Purpose) {
				byPurpose = append(byPurpose, rule)
			}
		}
	}
	switch {
	case len(byProfile) == 0:
		return Decision{Reason: NoRule}
	case kind != RevealAction:
		return Decision{Allowed: true, Rule: byProfile[0].Name}
	case len(byPurpose) == 0:
		return Decision{Reason: PurposeNotAllowed}
	}
	given := r.Reveal
	if given == Unspecified {
		if given = unspecified(byPurpose); given == Unspecified {
			return Decision{Reason: RevealAmbiguous}
		}
	}
	for _, rule := range byPurpose {
		if rule.grants(given) {
			return Decision{Allowed: true, Rule: rule.Name, Reveal: given}
		}
	}
	return Decision{Reason: RevealNotAllowed}
}

// unspecified returns what rules give to a request that names no form:
// Unspecified if it has to name one.
func unspecified(rules []modelRule) Reveal {
	var names []string
	for _, rule := range rules {
		names = append(names, rule.reveals()...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case slices.Contains(names, "FULL"):
		return Full
	case slices.Contains(names, "MASKED"):
		return Masked
	case len(names) == 1:
		return modelForms[names[0]]
	}
	return Unspecified
}

// may is the model of Policy.May.
func (m model) may(caller, action string) string {
	for _, rule := range m {
		if slices.Contains(rule.Callers, caller) && slices.Contains(rule.Actions, action) {
			return rule.Name
		}
	}
	return ""
}

// compare checks every request that can be made of the vocabulary's words, the
// callers and a few words more.
func (m model) compare(t *testing.T, p *Policy, v Vocabulary, callers []string) {
	t.Helper()
	actions, profiles, purposes := []string{"", "none"}, []string{"", "none"}, []string{"", "none"}
	for action := range v.Actions {
		actions = append(actions, action)
	}
	for name, profile := range v.Profiles {
		profiles, purposes = append(profiles, name), append(purposes, profile.Purposes...)
	}
	slices.Sort(purposes)
	purposes = slices.Compact(purposes)
	for _, caller := range append(callers, "", "dns:nobody") {
		for _, action := range actions {
			if rule, ok := p.May(caller, "default", action); rule != m.may(caller, action) || ok != (rule != "") {
				t.Fatalf("May(%q, %q) = %q, %v", caller, action, rule, ok)
			}
			for _, profile := range profiles {
				for _, purpose := range purposes {
					for reveal := range Routing + 2 {
						r := ask(caller, action, profile, purpose, reveal)
						if got, want := decided(p, r), m.decide(r, v.Actions); got != want {
							t.Fatalf("Decide(%+v) = %+v, want %+v", r, got, want)
						}
					}
				}
			}
		}
	}
}

// some returns between least and all of the words, in random order.
func some(rng *rand.Rand, least int, words ...string) []string {
	rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return words[:least+rng.IntN(len(words)-least+1)]
}

// randomRules returns rules that Parse takes, as a model and as a file.
func randomRules(rng *rand.Rand, callers []string) (model, string) {
	var m model
	var file strings.Builder
	file.WriteString("version: 1\nrules:\n")
	for i := range 1 + rng.IntN(12) {
		r := modelRule{Name: fmt.Sprintf("r%d", i)}
		r.Callers = some(rng, 1, slices.Clone(callers)...)
		r.Actions = some(rng, 1, "tokenize", "detokenize", "export", "reflect")
		fmt.Fprintf(&file, "  - name: %s\n    callers: [%q]\n    actions: [%s]\n",
			r.Name, strings.Join(r.Callers, `", "`), strings.Join(r.Actions, ", "))
		if len(r.Actions) > 1 || r.Actions[0] != "reflect" {
			r.Profiles = some(rng, 1, "card", "ssn")
			fmt.Fprintf(&file, "    profiles: [%s]\n", strings.Join(r.Profiles, ", "))
		}
		if slices.Contains(r.Actions, "detokenize") || slices.Contains(r.Actions, "export") {
			r.Purposes = []string{"support"}
			if !slices.Contains(r.Profiles, "ssn") {
				r.Purposes = some(rng, 1, "charge", "refund", "support")
			}
			var reveal string
			r.Reveal, reveal = randomReveal(rng, r.Profiles)
			fmt.Fprintf(&file, "    purposes: [%s]\n    reveal: %s\n", strings.Join(r.Purposes, ", "), reveal)
		}
		m = append(m, r)
	}
	return m, strings.ReplaceAll(file.String(), `\"`, `"`)
}

// randomReveal returns what a rule about profiles may say to reveal, as the
// YAML library reads it and as a file has it. It rarely says MASKED or FULL,
// for these decide what a request gets that names nothing.
func randomReveal(rng *rand.Rand, profiles []string) (any, string) {
	names := []string{"LAST4", "BIN", "BRAND", "NUMBER", "EXPIRY"}
	if slices.Contains(profiles, "ssn") {
		names = names[:1]
	}
	for _, name := range []string{"MASKED", "FULL"} {
		if rng.IntN(4) == 0 {
			names = append(names, name)
		}
	}
	names = some(rng, 1, names...)
	if len(names) == 1 && rng.IntN(2) == 0 {
		return names[0], names[0]
	}
	var list []any
	for _, name := range names {
		list = append(list, name)
	}
	return list, "[" + strings.Join(names, ", ") + "]"
}

func TestDecideEqualsModel(t *testing.T) {
	callers := []string{"dns:a", "dns:b", "cn:a", "spiffe://a/b", "spiffe://a/c"}
	for seed := range uint64(200) {
		m, file := randomRules(rand.New(rand.NewPCG(seed, 0)), callers)
		p, err := Parse("p", []byte(file), vocabulary)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, file)
		}
		m.compare(t, p, vocabulary, callers)
	}
}

// FuzzParse looks for files that crash Parse, and for policies that allow what
// their rules, read in another way, don't.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(head + revealRules("[LAST4, EXPIRY]", "BIN", "[MASKED]", "[FULL, NUMBER]")))
	f.Add([]byte(head + revealRules("CVV", "[NAME]")))
	f.Add([]byte("version: 1\nrules: []\n"))
	f.Add([]byte("version: 1\nrules:\n- {name: a, callers: [\"dns:a\"], actions: [reflect]}\n"))
	f.Add([]byte("version: 1\nrules:\n- &a {name: a, callers: [\"dns:a\"], actions: [reflect]}\n- *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("p", data, vocabulary)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v, error %v", p, err)
		}
		if err != nil {
			return
		}
		var file struct {
			Version int
			Rules   model
		}
		if err := yaml.Unmarshal(data, &file); err != nil || file.Version != 1 {
			t.Fatalf("version %d, error %v", file.Version, err)
		}
		var callers []string
		for _, r := range file.Rules {
			callers = append(callers, r.Callers...)
			for _, name := range r.reveals() {
				for _, profile := range r.Profiles {
					if name != "MASKED" && name != "FULL" && !slices.Contains(vocabulary.Profiles[profile].Parts, name) {
						t.Fatalf("%q grants %q of %q", r.Name, name, profile)
					}
				}
			}
		}
		for _, caller := range callers {
			if err := ValidateCaller(caller); err != nil {
				t.Fatalf("%q: %v", caller, err)
			}
		}
		file.Rules.compare(t, p, vocabulary, callers)
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
