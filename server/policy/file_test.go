package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var vocabulary = Vocabulary{
	Actions: map[string]ActionKind{
		"tokenize":   ProfileAction,
		"detokenize": RevealAction,
		"export":     RevealAction,
		"reflect":    PlainAction,
	},
	Profiles: map[string]ProfileVocabulary{
		"card": {
			Purposes: []string{"charge", "refund", "support"},
			Parts:    []string{"LAST4", "BIN", "BRAND", "NUMBER", "EXPIRY"},
		},
		"ssn":  {Purposes: []string{"support"}, Parts: []string{"LAST4"}},
		"note": {},
	},
}

// knownReveals ends the errors about what is none of these.
const knownReveals = " (known: MASKED, FULL, LAST4, BIN, BRAND, NUMBER, EXPIRY, NAME, CVV, DOMAIN, COUNTRY, YEAR, ROUTING)"

// head begins the files of the tables below; a rule that follows it is at line 3.
const head = "version: 1\nrules:\n"

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text), vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseRefuses(t *testing.T) {
	const rest = `, callers: ["dns:shop.example"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL}` + "\n"
	for _, row := range []struct {
		name string
		file string
		want string // all errors, without the name of the file
	}{
		// The file as a whole.
		{"empty file", "", `1:1: the file is empty; a policy that denies everything is "version: 1" and "rules: []"`},
		{"only a comment", "# nothing\n", `1:1: the file is empty; a policy that denies everything is "version: 1" and "rules: []"`},
		{"empty document", "---\n", `2:1: must be a mapping, not nothing`},
		{"a list", "- a\n", `1:1: must be a mapping, not a list`},
		{"a string", "policy\n", `1:1: must be a mapping, not a string`},
		{"too large", strings.Repeat("#", 1<<20+1), `1:1: the file has more than 1048576 bytes`},
		{"not UTF-8", "version: 1\nrules: \xff\n", `2:8: not plain text: a byte that is not UTF-8, or a control character`},
		{"UTF-16", "\xff\xfev\x00", `1:1: not plain text: a byte that is not UTF-8, or a control character`},
		{"control character", "version: 1\nrü: \x00\n", `2:5: not plain text: a byte that is not UTF-8, or a control character`},
		{"two documents", head + "---\nversion: 1\n", `3:1: a second YAML document begins here; a policy is one`},
		{"two documents, the second empty", "version: 1\nrules: []\n---\n", `3:1: a second YAML document begins here; a policy is one`},
		{"syntax", "version: 1\nrules: [\n", `3:1: not YAML: did not find expected node content`},
		{"syntax with a beginning", "version: 1\nrules: [a\n", `3:1: not YAML: did not find expected ',' or ']' (while parsing a flow sequence that begins at 2:8)`},
		{"syntax of the second document", "version: 1\nrules: []\n---\n]\n", `4:1: not YAML: did not find expected node content`},
		{"tab", "version: 1\nrules:\n\t- a\n", `3:1: not YAML: found character that cannot start any token`},
		{"too deep", strings.Repeat("[", 100), `1:17: not YAML: exceeded max depth of 16`},
		{"alias", head + "  - &r {name: a" + rest + "  - *r\n",
			"3:5: anchors and aliases are not supported; write it out\n4:5: anchors and aliases are not supported; write it out"},
		{"merge key", "version: 1\n<<: {rules: []}\n", "1:1: \"rules\" is missing; a policy that denies everything has \"rules: []\"\n2:1: a key must be a string, not of the type \"!!merge\""},
		{"billion laughs", "a: &a [x,x,x,x,x,x,x,x,x]\n" + laughs(),
			"1:4: anchors and aliases are not supported; write it out\n" + laughErrors()},

		// Its keys.
		{"no version", "rules: []\n", `1:1: "version" is missing; this is version 1`},
		{"no rules", "version: 1\n", `1:1: "rules" is missing; a policy that denies everything has "rules: []"`},
		{"version 2", "version: 2\nrules: [nonsense]\n", `1:10: "version" must be 1, the only version there is`},
		{"version as a string", "version: \"1\"\nrules: []\n", `1:10: "version" must be 1, the only version there is`},
		{"version 1.0", "version: 1.0\nrules: []\n", `1:10: "version" must be 1, the only version there is`},
		{"unknown key", "version: 1\nrule: []\nrules: []\n", `2:1: unknown key "rule" (known: groups, rules, version)`},
		{"duplicate key", "version: 1\nrules: []\nversion: 1\n", `3:1: key "version" appears twice; it is at line 1 too`},
		{"a key that is a list", "version: 1\nrules: []\n? [a]\n: 1\n", `3:3: a key must be a string, not a list`},
		{"rules is a mapping", "version: 1\nrules: {}\n", `2:8: "rules" must be a list, not a mapping`},
		{"rules is nothing", "version: 1\nrules:\n", `2:7: "rules" must be a list, not nothing`},

		// A rule.
		{"rule is a string", head + "  - a\n", `3:5: rule 1 of the list: must be a mapping, not a string`},
		{"unknown key in a rule", head + "  - {name: a, efect: deny" + rest,
			`3:15: rule "a": unknown key "efect"; did you mean "effect"?`},
		{"duplicate key in a rule", head + "  - {name: a, name: a" + rest, `3:15: rule "a": key "name" appears twice; it is at line 3 too`},
		{"no name", head + "  - {description: x" + rest, `3:5: rule 1 of the list: "name" is missing`},
		{"empty name", head + "  - {name: \"\"" + rest, `3:12: rule 1 of the list: a name is of the form [a-z][a-z0-9-]{0,62}`},
		{"name in capitals", head + "  - {name: Payments" + rest, `3:12: rule "Payments": a name is of the form [a-z][a-z0-9-]{0,62}`},
		{"long name", head + "  - {name: " + strings.Repeat("a", 64) + rest,
			`3:12: rule "` + strings.Repeat("a", 64) + `": a name is of the form [a-z][a-z0-9-]{0,62}`},
		{"very long name", head + "  - {name: " + strings.Repeat("ä", 1000) + rest,
			`3:12: rule "` + strings.Repeat("ä", 80) + `…": a name is of the form [a-z][a-z0-9-]{0,62}`},
		{"name is a number", head + "  - {name: 7" + rest, `3:12: rule 1 of the list: "name" must be a string, not a number (quote it if it is meant as a string)`},
		{"name twice", head + "  - {name: a" + rest + "  - {name: a" + rest, `4:12: rule "a": another rule has this name, at line 3`},
		{"description is a list", head + "  - {name: a, description: []" + rest, `3:28: rule "a": "description" must be a string, not a list`},
		{"custom type", head + "  - {name: !x a" + rest, `3:12: YAML takes "!" for a tag: put what begins with it in quotes`},
		{"everything is missing", head + "  - {name: a}\n", "3:5: rule \"a\": \"callers\" is missing\n3:5: rule \"a\": \"actions\" is missing"},

		// Callers.
		{"no callers", head + "  - {name: a, actions: [reflect]}\n", `3:5: rule "a": "callers" is missing`},
		{"empty callers", head + "  - {name: a, actions: [reflect], callers: []}\n", `3:44: rule "a": "callers" is empty`},
		{"callers is a string", head + "  - {name: a, actions: [reflect], callers: dns:a}\n", `3:44: rule "a": "callers" must be a list of strings, as in [one, two], not a string`},
		{"caller is nothing", head + "  - {name: a, actions: [reflect], callers: [~]}\n", `3:45: rule "a": "callers" must be a list of strings; this is nothing`},
		{"caller twice", head + "  - {name: a, actions: [reflect], callers: [\"dns:a\", \"dns:a\"]}\n", `3:54: rule "a": "callers" names "dns:a" twice`},
		{"caller is a pattern of trust domains", head + "  - {name: a, actions: [reflect], callers: [\"spiffe://*/a\"]}\n",
			`3:45: rule "a": caller "spiffe://*/a": the trust domain of a SPIFFE ID has no "*": whoever may issue one in another domain would be meant`},
		{"caller is a pattern of parts of segments", head + "  - {name: a, actions: [reflect], callers: [\"spiffe://a/b*\"]}\n",
			`3:45: rule "a": caller "spiffe://a/b*": "*" stands for a whole segment, no more and no less`},
		{"caller is a pattern of top-level domains", head + "  - {name: a, actions: [reflect], callers: [\"dns:shop.*\"]}\n",
			`3:45: rule "a": caller "dns:shop.*": the last label of a host name is no "*"`},
		{"caller is a pattern of common names", head + "  - {name: a, actions: [reflect], callers: [\"cn:*\"]}\n",
			`3:45: rule "a": caller "cn:*": "*" stands for a segment of the path of a SPIFFE ID, or for a label of a host name; nothing else has patterns`},
		{"unknown group", head + "  - {name: a, actions: [reflect], callers: [\"group:x\"]}\n",
			`3:45: rule "a": unknown group "x" (there are none)`},
		{"caller without a type", head + "  - {name: a, actions: [reflect], callers: [shop]}\n",
			`3:45: rule "a": caller "shop": a caller is "spiffe://TRUST-DOMAIN/PATH", "dns:NAME" or "cn:NAME"`},

		// Actions.
		{"no actions", head + "  - {name: a, callers: [\"dns:a\"]}\n", `3:5: rule "a": "actions" is missing`},
		{"empty actions", head + "  - {name: a, callers: [\"dns:a\"], actions: []}\n", `3:44: rule "a": "actions" is empty`},
		{"unknown action", head + "  - {name: a, callers: [\"dns:a\"], actions: [reflect, detokenise]}\n",
			`3:54: rule "a": unknown action "detokenise" (known: detokenize, export, reflect, tokenize)`},
		{"action twice", head + "  - {name: a, callers: [\"dns:a\"], actions: [reflect, reflect]}\n", `3:54: rule "a": "actions" names "reflect" twice`},

		// Profiles, purposes and reveal.
		{"unknown profile", head + "  - name: x\n    callers: [\"dns:a\"]\n    actions: [tokenize]\n    profiles: [ssn, carf]\n",
			`6:21: rule "x": unknown profile "carf" (known: card, note, ssn)`},
		{"no profiles", head + "  - {name: a, callers: [\"dns:a\"], actions: [tokenize]}\n",
			`3:5: rule "a": "profiles" is missing: the action "tokenize" needs it`},
		{"empty profiles", head + "  - {name: a, callers: [\"dns:a\"], actions: [tokenize], profiles: []}\n", `3:66: rule "a": "profiles" is empty`},
		{"needless profiles", head + "  - {name: a, callers: [\"dns:a\"], actions: [reflect], profiles: [card]}\n",
			`3:55: rule "a": "profiles" has no meaning here: none of the actions is about a profile`},
		{"needless purposes and reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [tokenize], profiles: [card], purposes: [charge], reveal: FULL}\n",
			"3:74: rule \"a\": \"purposes\" has no meaning here: none of the actions reveals anything\n" +
				"3:94: rule \"a\": \"reveal\" has no meaning here: none of the actions reveals anything"},
		{"no purposes, no reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [tokenize, export], profiles: [card]}\n",
			"3:5: rule \"a\": \"purposes\" is missing: the action \"export\" needs it\n3:5: rule \"a\": \"reveal\" is missing: the action \"export\" needs it"},
		{"purpose of a wrong form", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [Charge], reveal: FULL}\n",
			`3:83: rule "a": purpose "Charge" is not of the form [a-z][a-z0-9-]{0,30}`},
		{"purpose that a profile does not allow", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card, ssn, note], purposes: [charge], reveal: FULL}\n",
			"3:94: rule \"a\": profile \"ssn\" does not allow purpose \"charge\" (allowed: support)\n" +
				"3:94: rule \"a\": profile \"note\" does not allow purpose \"charge\", nor any other"},
		{"unknown reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: full}\n",
			`3:100: rule "a": unknown reveal "full"` + knownReveals},
		{"unspecified reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: UNSPECIFIED}\n",
			`3:100: rule "a": unknown reveal "UNSPECIFIED"` + knownReveals},
		{"unknown reveals in a list", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: [\"\", MASKED, last4]}\n",
			`3:101: rule "a": unknown reveal ""` + knownReveals + "\n" + `3:113: rule "a": unknown reveal "last4"` + knownReveals},
		{"reveal is a mapping", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: {FULL: }}\n",
			`3:100: rule "a": "reveal" must be a string or a list of strings, not a mapping`},
		{"reveal is nothing", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: }\n",
			`3:100: rule "a": "reveal" must be a string or a list of strings, not nothing`},
		{"reveal is a set", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: !set [FULL]}\n",
			`3:100: YAML takes "!" for a tag: put what begins with it in quotes`},
		{"empty reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: []}\n",
			`3:100: rule "a": "reveal" is empty`},
		{"number in reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: [FULL, 4]}\n",
			`3:107: rule "a": "reveal" must be a list of strings; this is a number (quote it if it is meant as a string)`},
		{"list in reveal", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: [[FULL]]}\n",
			`3:101: rule "a": "reveal" must be a list of strings; this is a list`},
		{"reveal twice", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: [LAST4, BIN, LAST4]}\n",
			`3:113: rule "a": "reveal" names "LAST4" twice`},
		{"needless list of reveals", head + "  - {name: a, callers: [\"dns:a\"], actions: [reflect], reveal: [LAST4]}\n",
			`3:55: rule "a": "reveal" has no meaning here: none of the actions reveals anything`},
		{"part that a profile does not have", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card, ssn], purposes: [support], reveal: BIN}\n",
			`3:106: rule "a": profile "ssn" has no part "BIN" (known: LAST4)`},
		{"part that no value of any profile has", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [card, ssn], purposes: [support], reveal: ROUTING}\n",
			"3:106: rule \"a\": profile \"card\" has no part \"ROUTING\" (known: LAST4, BIN, BRAND, NUMBER, EXPIRY)\n" +
				"3:106: rule \"a\": profile \"ssn\" has no part \"ROUTING\" (known: LAST4)"},
		{"part of a profile without parts", head + "  - name: a\n    callers: [\"dns:a\"]\n    actions: [export]\n    profiles: [note]\n    purposes: [charge]\n    reveal:\n      - MASKED\n      - LAST4\n",
			"7:16: rule \"a\": profile \"note\" does not allow purpose \"charge\", nor any other\n" +
				"10:9: rule \"a\": profile \"note\" has no part \"LAST4\", nor any other"},
		{"parts beside FULL", head + "  - {name: a, callers: [\"dns:a\"], actions: [export], profiles: [ssn], purposes: [support], reveal: [FULL, LAST4, YEAR, CVV]}\n",
			"3:114: rule \"a\": profile \"ssn\" has no part \"YEAR\" (known: LAST4)\n" +
				"3:120: rule \"a\": profile \"ssn\" has no part \"CVV\" (known: LAST4)"},

		// All errors are told at once, in the order of the file.
		{"several", "version: 1\nrulez: 1\nrules:\n  - {name: a, callers: [x], actions: [y], profiles: [z]}\n  - 1\n",
			"2:1: unknown key \"rulez\" (known: groups, rules, version)\n" +
				"4:25: rule \"a\": caller \"x\": a caller is \"spiffe://TRUST-DOMAIN/PATH\", \"dns:NAME\" or \"cn:NAME\"\n" +
				"4:39: rule \"a\": unknown action \"y\" (known: detokenize, export, reflect, tokenize)\n" +
				"4:54: rule \"a\": unknown profile \"z\" (known: card, note, ssn)\n" +
				"5:5: rule 2 of the list: must be a mapping, not a number (quote it if it is meant as a string)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			policy, err := Parse("policy.yaml", []byte(row.file), vocabulary)
			if err == nil || policy != nil {
				t.Fatalf("policy %v, error %v", policy, err)
			}
			want := "policy.yaml:" + strings.ReplaceAll(row.want, "\n", "\npolicy.yaml:")
			if err.Error() != want {
				t.Errorf("got:\n%v\nwant:\n%s", err, want)
			}
			var place *Error
			if !errors.As(err, &place) || place.File != "policy.yaml" || place.Line < 1 || place.Column < 1 {
				t.Errorf("no place: %+v", place)
			}
		})
	}
}

func laughs() string {
	var b strings.Builder
	for c := 'b'; c <= 'k'; c++ {
		fmt.Fprintf(&b, "%c: &%c [*%c,*%c]\n", c, c, c-1, c-1)
	}
	return b.String()
}

func laughErrors() string {
	var lines []string
	for line := 2; line <= 11; line++ {
		lines = append(lines, fmt.Sprintf("%d:4: anchors and aliases are not supported; write it out", line))
	}
	return strings.Join(lines, "\n")
}

func TestParseReportsAHundredErrors(t *testing.T) {
	file := head + strings.Repeat("  - 1\n", 250)
	_, err := Parse("p", []byte(file), vocabulary)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 101 || lines[100] != "p: 150 more" {
		t.Fatalf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestParseSuggests(t *testing.T) {
	large := Vocabulary{Actions: vocabulary.Actions, Profiles: make(map[string]ProfileVocabulary)}
	for i := range 20 {
		large.Profiles[fmt.Sprintf("profile-%c", 'a'+i)] = ProfileVocabulary{}
	}
	for name, want := range map[string]string{
		"profil-c":               `unknown profile "profil-c"; did you mean "profile-c"?`,
		"passport":               `unknown profile "passport" (none of the 20 that are known)`,
		strings.Repeat("a", 200): `unknown profile "` + strings.Repeat("a", 80) + `…" (none of the 20 that are known)`,
	} {
		file := head + "  - {name: a, callers: [\"dns:a\"], actions: [tokenize], profiles: [" + name + "]}\n"
		_, err := Parse("p", []byte(file), large)
		if got := `p:3:67: rule "a": ` + want; err == nil || err.Error() != got {
			t.Errorf("got %v, want %s", err, got)
		}
	}
	none := Vocabulary{Actions: vocabulary.Actions}
	_, err := Parse("p", []byte(head+"  - {name: a, callers: [\"dns:a\"], actions: [tokenize], profiles: [x]}\n"), none)
	if want := `p:3:67: rule "a": unknown profile "x" (there are none)`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A file is small enough to be read, but what its rules allow may still be too
// much to keep.
func TestParseBoundsWhatRulesExpandTo(t *testing.T) {
	v := Vocabulary{Actions: map[string]ActionKind{"detokenize": RevealAction}, Profiles: make(map[string]ProfileVocabulary)}
	var purposes, profiles []string
	for i := range 600 {
		purposes = append(purposes, fmt.Sprintf("u%d", i))
		profiles = append(profiles, fmt.Sprintf("p%d", i))
	}
	for _, profile := range profiles {
		v.Profiles[profile] = ProfileVocabulary{Purposes: purposes}
	}
	rule := func(name, callers string, purposes []string) string {
		return fmt.Sprintf("  - {name: %s, callers: [%s], actions: [detokenize], profiles: [%s], purposes: [%s], reveal: FULL}\n",
			name, callers, strings.Join(profiles, ","), strings.Join(purposes, ","))
	}
	// Callers that the same rules name count once.
	if _, err := Parse("p", []byte(head+rule("a", `"dns:a", "dns:b", "dns:c"`, purposes[:300])), v); err != nil {
		t.Error(err)
	}
	want := "p:1:1: the rules make more than 262144 combinations of callers, actions, profiles and purposes"
	for name, file := range map[string]string{
		"one rule":    head + rule("a", `"dns:a"`, purposes),
		"two callers": head + rule("a", `"dns:a"`, purposes[:300]) + rule("b", `"dns:b"`, purposes[:300]),
	} {
		if _, err := Parse("p", []byte(file), v); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestParseTakes(t *testing.T) {
	for name, file := range map[string]string{
		"no rules":         "version: 1\nrules: []\n",
		"JSON":             `{"version": 1, "rules": []}`,
		"byte order mark":  "\ufeffversion: 1\nrules: []\n",
		"Windows":          "version: 1\r\nrules: []\r\n",
		"document markers": "---\nversion: 1\nrules: []\n...\n",
		"mixed actions": head + "  - {name: a, description: \"\", callers: [\"dns:a\"], actions: [reflect, tokenize, export]," +
			" profiles: [card], purposes: [charge], reveal: MASKED}\n",
		"one reveal":               head + revealRules("FULL"),
		"a part":                   head + revealRules("EXPIRY"),
		"a part in quotes":         head + revealRules(`"LAST4"`),
		"a list of one":            head + revealRules("[LAST4]"),
		"several":                  head + revealRules("[MASKED, LAST4, EXPIRY]"),
		"what FULL grants already": head + revealRules("[FULL, MASKED, LAST4]"),
	} {
		t.Run(name, func(t *testing.T) { mustParse(t, file) })
	}
}

func TestHash(t *testing.T) {
	// printf 'version: 1\nrules: []\n' | sha256sum
	const want = "7f2c43106364d8112fcc3060e4ab8b20f5d1a17d9cbf3c2540529663004adff8"
	if got := mustParse(t, "version: 1\nrules: []\n").Hash(); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

// What a rule allows in vain is noted at its place, and is no error.
func TestNotes(t *testing.T) {
	v := Vocabulary{
		Actions: map[string]ActionKind{"look": ProfileAction, "put": ProfileAction},
		Profiles: map[string]ProfileVocabulary{
			"deep": {}, "flat": {Vain: map[string]string{"look": "there is nothing"}},
		},
	}
	const text = "version: 1\nrules:\n  - name: a\n    callers: [\"dns:a.b\"]\n    actions: [put, look]\n    profiles: [deep, flat]\n"
	p, err := Parse("p", []byte(text), v)
	if err != nil {
		t.Fatal(err)
	}
	if want := `p:6:5: rule "a": look can't succeed on flat: there is nothing`; p.Notes() == nil || p.Notes().Error() != want {
		t.Errorf("noted %v, want %s", p.Notes(), want)
	}
	if p, err = Parse("p", []byte(strings.Replace(text, ", flat", "", 1)), v); err != nil || p.Notes() != nil {
		t.Errorf("noted %v, %v", p.Notes(), err)
	}
}

// Many slips don't list all names again and again.
func TestNamesAreListedOnce(t *testing.T) {
	v := Vocabulary{Actions: map[string]ActionKind{"list": PlainAction, "drop": PlainAction}}
	_, err := Parse("p", []byte("version: 1\nrules:\n  - {name: a, callers: [\"dns:a.b\"], actions: [lst, dropp, nothing]}\n"), v)
	want := "p:3:47: rule \"a\": unknown action \"lst\" (known: drop, list)\n" +
		"p:3:52: rule \"a\": unknown action \"dropp\"; did you mean \"drop\"?\n" +
		"p:3:59: rule \"a\": unknown action \"nothing\" (none of the 2 that are known)"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}
