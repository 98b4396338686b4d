package policy

import "testing"

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
		{"tokenize", Request{checkout, "tokenize", "card", "", 0}, allowed("shop-tokenize", 0)},
		{"second caller of the rule", Request{"dns:checkout.example", "tokenize", "note", "", 0}, allowed("shop-tokenize", 0)},
		{"purpose and reveal don't matter to tokenize", Request{checkout, "tokenize", "card", "none", Full}, allowed("shop-tokenize", 0)},
		{"another profile", Request{checkout, "tokenize", "ssn", "", 0}, denied(NoRule)},
		{"no profile", Request{checkout, "tokenize", "", "", 0}, denied(NoRule)},
		{"tokenize by a rule for more", Request{payments, "tokenize", "card", "", 0}, allowed("payments-again", 0)},

		{"most, by the first rule that grants it", Request{payments, "detokenize", "card", "charge", Unspecified}, allowed("payments-charge", Full)},
		{"full", Request{payments, "detokenize", "card", "charge", Full}, allowed("payments-charge", Full)},
		{"masked, by the first rule that grants it or more", Request{payments, "detokenize", "card", "charge", Masked}, allowed("payments-look", Masked)},
		{"less than granted", Request{payments, "detokenize", "card", "refund", Masked}, allowed("payments-charge", Masked)},
		{"most is masked", Request{support, "detokenize", "ssn", "support", Unspecified}, allowed("support", Masked)},
		{"more than granted", Request{support, "detokenize", "card", "support", Full}, denied(RevealNotAllowed)},
		{"a level that there is not", Request{payments, "detokenize", "card", "charge", Full + 1}, denied(RevealNotAllowed)},
		{"another purpose", Request{payments, "detokenize", "card", "support", Full}, denied(PurposeNotAllowed)},
		{"no purpose", Request{payments, "detokenize", "card", "", Masked}, denied(PurposeNotAllowed)},
		{"reveal of another profile", Request{payments, "detokenize", "ssn", "support", Masked}, denied(NoRule)},
		{"another action", Request{support, "tokenize", "card", "", 0}, denied(NoRule)},
		{"an action without a rule", Request{payments, "export", "card", "charge", Masked}, denied(NoRule)},

		{"plain", Request{support, "reflect", "", "", 0}, allowed("reflection", 0)},
		{"plain by a rule for more", Request{payments, "reflect", "", "", 0}, allowed("payments-again", 0)},
		{"a profile doesn't matter to it", Request{support, "reflect", "none", "none", Full}, allowed("reflection", 0)},
		{"plain denied", Request{checkout, "reflect", "", "", 0}, denied(NoRule)},

		{"stranger", Request{"spiffe://coatcheck.example/stranger", "detokenize", "card", "charge", Masked}, denied(NoRule)},
		{"no caller", Request{"", "reflect", "", "", 0}, denied(NoRule)},
		{"no action", Request{payments, "", "card", "charge", Masked}, denied(NoRule)},
		{"caller in capitals", Request{"spiffe://coatcheck.example/Payments", "detokenize", "card", "charge", Full}, denied(NoRule)},
		{"caller with a slash more", Request{payments + "/", "detokenize", "card", "charge", Full}, denied(NoRule)},
		{"the same name as another kind of caller", Request{"dns:support", "detokenize", "card", "support", Masked}, denied(NoRule)},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := p.Decide(row.request); got != row.want {
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
		rule, ok := p.May(row.caller, row.action)
		if rule != row.rule || ok != (row.rule != "") {
			t.Errorf("May(%s, %s) = %q, %v, want %q", row.caller, row.action, rule, ok, row.rule)
		}
	}
}

func TestNothingIsAllowedWithoutRules(t *testing.T) {
	p := mustParse(t, "version: 1\nrules: []\n")
	for action := range vocabulary.Actions {
		if got := p.Decide(Request{checkout, action, "card", "charge", Masked}); got != (Decision{Reason: NoRule}) {
			t.Errorf("%s: %+v", action, got)
		}
	}
}

// The vocabulary is the caller's; what it does with it later is of no matter.
func TestPolicyIsASnapshot(t *testing.T) {
	actions := map[string]ActionKind{"detokenize": RevealAction}
	profiles := map[string][]string{"card": {"charge"}}
	file := head + "  - {name: a, callers: [\"dns:a\"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: MASKED}\n"
	p, err := Parse("p", []byte(file), Vocabulary{actions, profiles})
	if err != nil {
		t.Fatal(err)
	}
	actions["detokenize"] = PlainAction
	clear(profiles)
	if got := p.Decide(Request{"dns:a", "detokenize", "card", "refund", Full}); got != (Decision{Reason: PurposeNotAllowed}) {
		t.Errorf("got %+v", got)
	}
}

func TestRevealOrderAndNames(t *testing.T) {
	if !(Unspecified < Masked && Masked < Full) {
		t.Error("the levels are out of order")
	}
	for level, want := range map[Reveal]string{0: "UNSPECIFIED", 1: "MASKED", 2: "FULL", 3: "Reveal(3)"} {
		if level.String() != want {
			t.Errorf("%d is called %s, want %s", level, level, want)
		}
	}
}
