package policy

import "testing"

// TestHint compiles expressions with names that there aren't.
func TestHint(t *testing.T) {
	for text, want := range map[string]string{
		`request.item < 10`:                       `unknown "request.item"; did you mean "request.items"?`,
		"true &&\n  (reqest.items == 3)":          `unknown "reqest.items"; did you mean "request.items"?`,
		`caller.id == "ü" + caller.idd`:           `unknown "caller.idd"; did you mean "caller.id"?`,
		`caller == "x"`:                           `unknown "caller" (known: caller.id, caller.kind, caller.path, caller.trust_domain)`,
		`metadata.region == "eu"`:                 `unknown "metadata.region" (known: token.metadata)`,
		`now > timestamp("2026-01-01T00:00:00Z")`: `unknown "now" (known: time.now)`,
		`token.created > foo(3)`:                  `unknown "foo"; an expression speaks of caller, request, token and time`,
		`true and false`:                          `Syntax error: mismatched input 'and' expecting <EOF>; for "and" write &&`,
		`request.items < "3"`:                     `found no matching overload for '_<_' applied to '(int, string)'`,
	} {
		if _, err := compileCondition(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}
