package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const sample = `
version: 1
rules:
  - name: shop-tokenize
    description: The shop hands in what customers type.
    callers: ["spiffe://coatcheck.example/checkout", "dns:checkout.example"]
    actions: [tokenize]
    profiles: [card, note]
  - name: payments-look
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge]
    reveal: MASKED
  - name: payments-charge
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge, refund]
    reveal: FULL
  - name: payments-again
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize, tokenize, reflect]
    profiles: [card]
    purposes: [charge]
    reveal: FULL
  - name: support
    callers: ["cn:support"]
    actions: [detokenize]
    profiles: [card, ssn]
    purposes: [support]
    reveal: MASKED
  - name: reflection
    callers: ["cn:support", "spiffe://coatcheck.example/payments"]
    actions: [reflect]
`

const (
	checkout = "spiffe://coatcheck.example/checkout"
	payments = "spiffe://coatcheck.example/payments"
	support  = "cn:support"
)

func TestDecide(t *testing.T) {
	p := mustParse(t, sample)
	denied := func(reason Reason) Decision { return Decision{Reason: reason} }
	allowed := func(rule string, reveal Reveal) Decision { return Decision{Allowed: true, Rule: rule, Reveal: reveal} }
	for _, row := range []struct {
		name    string
		request Request
		want    Decision
	}{
		{"tokenize", ask(checkout, "tokenize", "card", "", 0), allowed("shop-tokenize", 0)},
		{"second caller of the rule", ask("dns:checkout.example", "tokenize", "note", "", 0), allowed("shop-tokenize", 0)},
		{"purpose and reveal don't matter to tokenize", ask(checkout, "tokenize", "card", "none", Full), allowed("shop-tokenize", 0)},
		{"another profile", ask(checkout, "tokenize", "ssn", "", 0), denied(NoRule)},
		{"no profile", ask(checkout, "tokenize", "", "", 0), denied(NoRule)},
		{"tokenize by a rule for more", ask(payments, "tokenize", "card", "", 0), allowed("payments-again", 0)},

		{"most, by the first rule that grants it", ask(payments, "detokenize", "card", "charge", Unspecified), allowed("payments-charge", Full)},
		{"full", ask(payments, "detokenize", "card", "charge", Full), allowed("payments-charge", Full)},
		{"masked, by the first rule that grants it or more", ask(payments, "detokenize", "card", "charge", Masked), allowed("payments-look", Masked)},
		{"less than granted", ask(payments, "detokenize", "card", "refund", Masked), allowed("payments-charge", Masked)},
		{"most is masked", ask(support, "detokenize", "ssn", "support", Unspecified), allowed("support", Masked)},
		{"more than granted", ask(support, "detokenize", "card", "support", Full), denied(RevealNotAllowed)},
		{"a form that there is not", ask(payments, "detokenize", "card", "charge", Routing+1), denied(RevealNotAllowed)},
		{"the last number of a form", ask(payments, "detokenize", "card", "charge", 255), denied(RevealNotAllowed)},
		{"a part by a rule for all", ask(payments, "detokenize", "card", "charge", Expiry), allowed("payments-charge", Expiry)},
		{"a part that is not granted", ask(support, "detokenize", "card", "support", Last4), denied(RevealNotAllowed)},
		{"another purpose", ask(payments, "detokenize", "card", "support", Full), denied(PurposeNotAllowed)},
		{"no purpose", ask(payments, "detokenize", "card", "", Masked), denied(PurposeNotAllowed)},
		{"reveal of another profile", ask(payments, "detokenize", "ssn", "support", Masked), denied(NoRule)},
		{"another action", ask(support, "tokenize", "card", "", 0), denied(NoRule)},
		{"an action without a rule", ask(payments, "export", "card", "charge", Masked), denied(NoRule)},

		{"plain", ask(support, "reflect", "", "", 0), allowed("reflection", 0)},
		{"plain by a rule for more", ask(payments, "reflect", "", "", 0), allowed("payments-again", 0)},
		{"a profile doesn't matter to it", ask(support, "reflect", "none", "none", Full), allowed("reflection", 0)},
		{"plain denied", ask(checkout, "reflect", "", "", 0), denied(NoRule)},

		{"stranger", ask("spiffe://coatcheck.example/stranger", "detokenize", "card", "charge", Masked), denied(NoRule)},
		{"no caller", ask("", "reflect", "", "", 0), denied(NoRule)},
		{"no action", ask(payments, "", "card", "charge", Masked), denied(NoRule)},
		{"caller in capitals", ask("spiffe://coatcheck.example/Payments", "detokenize", "card", "charge", Full), denied(NoRule)},
		{"caller with a slash more", ask(payments+"/", "detokenize", "card", "charge", Full), denied(NoRule)},
		{"the same name as another kind of caller", ask("dns:support", "detokenize", "card", "support", Masked), denied(NoRule)},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := decided(p, row.request); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestMay(t *testing.T) {
	p := mustParse(t, sample)
	for _, row := range []struct{ caller, action, rule string }{
		{checkout, "tokenize", "shop-tokenize"},
		{checkout, "detokenize", ""},
		{payments, "detokenize", "payments-look"},
		{payments, "tokenize", "payments-again"},
		{payments, "reflect", "payments-again"},
		{support, "reflect", "reflection"},
		{support, "", ""},
		{"", "reflect", ""},
		{"cn:stranger", "reflect", ""},
	} {
		rule, ok := p.May(row.caller, DefaultNamespace, row.action)
		if rule != row.rule || ok != (row.rule != "") {
			t.Errorf("May(%s, %s) = %q, %v, want %q", row.caller, row.action, rule, ok, row.rule)
		}
	}
}

func TestNothingIsAllowedWithoutRules(t *testing.T) {
	p := mustParse(t, "version: 1\nrules: []\n")
	for action := range vocabulary.Actions {
		if got := decided(p, ask(checkout, action, "card", "charge", Masked)); got != (Decision{Reason: NoRule}) {
			t.Errorf("%s: %+v", action, got)
		}
	}
}

// The vocabulary is the caller's; what it does with it later is of no matter.
func TestPolicyIsASnapshot(t *testing.T) {
	actions := map[string]ActionKind{"detokenize": RevealAction}
	profiles := map[string]ProfileVocabulary{"card": {Purposes: []string{"charge"}}}
	file := head + "  - {name: a, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: MASKED}\n"
	p, err := Parse("p", []byte(file), Vocabulary{Actions: actions, Profiles: profiles})
	if err != nil {
		t.Fatal(err)
	}
	actions["detokenize"] = PlainAction
	clear(profiles)
	if got := decided(p, ask("dns:a", "detokenize", "card", "refund", Full)); got != (Decision{Reason: PurposeNotAllowed}) {
		t.Errorf("got %+v", got)
	}
}

// revealRules returns rules for the same caller, profile and purpose, called r1,
// r2 and so on, each with what is given as its reveal.
func revealRules(reveals ...string) string {
	var file strings.Builder
	for i, reveal := range reveals {
		fmt.Fprintf(&file, "  - {name: r%d, callers: [\"dns:a\"], actions: [export], profiles: [card], purposes: [charge], reveal: %s}\n", i+1, reveal)
	}
	return file.String()
}

func TestDecideReveal(t *testing.T) {
	denied := func(reason Reason) Decision { return Decision{Reason: reason} }
	allowed := func(rule string, reveal Reveal) Decision { return Decision{Allowed: true, Rule: rule, Reveal: reveal} }
	for _, row := range []struct {
		name  string
		rules []string // what each rule says to reveal
		asked Reveal
		want  Decision
	}{
		{"a part", []string{"LAST4"}, Last4, allowed("r1", Last4)},
		{"a part of a list", []string{"[MASKED, LAST4, EXPIRY]"}, Expiry, allowed("r1", Expiry)},
		{"a part is not the masked form", []string{"LAST4"}, Masked, denied(RevealNotAllowed)},
		{"a part is not the value", []string{"[LAST4, BIN, BRAND, NUMBER, EXPIRY]"}, Full, denied(RevealNotAllowed)},
		{"the masked form has no parts", []string{"MASKED"}, Last4, denied(RevealNotAllowed)},
		{"one part is not another", []string{"[LAST4, EXPIRY]"}, BIN, denied(RevealNotAllowed)},
		{"the value has all parts", []string{"FULL"}, Number, allowed("r1", Number)},
		{"even those that the profile has not", []string{"FULL"}, Routing, allowed("r1", Routing)},
		{"but none that there is not", []string{"FULL"}, Routing + 1, denied(RevealNotAllowed)},

		{"unspecified is the value", []string{"[LAST4, MASKED, FULL]"}, Unspecified, allowed("r1", Full)},
		{"else the masked form", []string{"[LAST4, EXPIRY, MASKED]"}, Unspecified, allowed("r1", Masked)},
		{"else the one part", []string{"EXPIRY"}, Unspecified, allowed("r1", Expiry)},
		{"else it is not clear which", []string{"[LAST4, EXPIRY]"}, Unspecified, denied(RevealAmbiguous)},
		{"not clear either over several rules", []string{"LAST4", "EXPIRY"}, Unspecified, denied(RevealAmbiguous)},
		{"the same part by several rules", []string{"EXPIRY", "[EXPIRY]"}, Unspecified, allowed("r1", Expiry)},
		{"the masked form of another rule", []string{"[LAST4, EXPIRY]", "MASKED"}, Unspecified, allowed("r2", Masked)},
		{"the value of another rule", []string{"[LAST4, MASKED]", "BIN", "FULL"}, Unspecified, allowed("r3", Full)},

		{"by the first rule that grants it", []string{"BIN", "[MASKED, LAST4]", "LAST4", "FULL"}, Last4, allowed("r2", Last4)},
		{"or all", []string{"BIN", "FULL", "[MASKED, LAST4]"}, Last4, allowed("r2", Last4)},
		{"by the rule that adds it", []string{"[BIN, LAST4]", "[BIN, LAST4]", "[LAST4, EXPIRY]"}, Expiry, allowed("r3", Expiry)},
		{"all after each one", []string{"[MASKED, LAST4, BIN, BRAND, NUMBER, EXPIRY]", "FULL"}, Full, allowed("r2", Full)},
		{"each one before all", []string{"[MASKED, LAST4, BIN, BRAND, NUMBER, EXPIRY]", "FULL"}, Number, allowed("r1", Number)},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := mustParse(t, head+revealRules(row.rules...))
			if got := decided(p, ask("dns:a", "export", "card", "charge", row.asked)); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// However many rules grant something on the same data, a decision looks at no
// more of them than there are forms.
func TestFewRulesAreKept(t *testing.T) {
	reveals := slices.Repeat([]string{"LAST4", "[LAST4, BIN]", "BIN", "BRAND", "MASKED", "[NUMBER, BRAND]", "EXPIRY", "FULL"}, 200)
	p := mustParse(t, head+revealRules(reveals...))
	kept := p.tables.of(DefaultNamespace, "dns:a").targets[target{"export", "card"}].purposes["charge"].allowing
	if len(kept) != 7 {
		t.Errorf("%d rules are kept", len(kept))
	}
}

func TestRevealNames(t *testing.T) {
	names := []string{
		"UNSPECIFIED", "MASKED", "FULL", "LAST4", "BIN", "BRAND", "NUMBER", "EXPIRY", "NAME", "CVV", "DOMAIN", "COUNTRY",
		"YEAR", "ROUTING",
	}
	for i, name := range names {
		form := Reveal(i)
		if form.String() != name {
			t.Errorf("%d is called %s, want %s", i, form, name)
		}
		if got, ok := ParseReveal(name); got != form || ok != (form != Unspecified) {
			t.Errorf("ParseReveal(%q) = %v, %v", name, got, ok)
		}
		if form.isPart() != (i > 2) {
			t.Errorf("%s is a part: %v", name, form.isPart())
		}
	}
	if Routing != Reveal(len(names)-1) {
		t.Errorf("the last form is %d", Routing)
	}
	for _, form := range []Reveal{Routing + 1, 255} {
		if want := fmt.Sprintf("Reveal(%d)", uint8(form)); form.String() != want || form.isPart() {
			t.Errorf("%d is called %s, want %s", uint8(form), form, want)
		}
	}
	for _, name := range []string{"", "full", " FULL", "FULL ", "LAST 4", "Reveal(3)"} {
		if got, ok := ParseReveal(name); got != Unspecified || ok {
			t.Errorf("ParseReveal(%q) = %v, %v", name, got, ok)
		}
	}
}
