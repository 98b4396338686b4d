package policy

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Case is a decision that is expected of a policy, for a test of it.
type Case struct {
	Name    string
	Line    int // in the file
	Request Request
	Allowed bool
	Reason  Reason // why it is denied; "" if that doesn't matter
	Rule    string // by which rule it is allowed; "" likewise
	Reveal  Reveal // which form is given; Unspecified likewise
}

var (
	casesKeys = map[string]bool{"version": true, "tests": true}
	caseKeys  = map[string]bool{
		"name": true, "caller": true, "action": true, "profile": true, "purpose": true, "reveal": true,
		"expect": true, "reason": true, "rule": true, "gives": true,
	}
)

// reasons are those that a case can expect.
var reasons = map[string]bool{string(NoRule): true, string(PurposeNotAllowed): true, string(RevealNotAllowed): true, string(RevealAmbiguous): true}

// ParseCases reads a file of cases, as strictly as Parse reads a policy:
//
//	version: 1
//	tests:
//	  - name: payments may charge a card
//	    caller: spiffe://coatcheck.example/payments
//	    action: detokenize
//	    profile: card
//	    purpose: charge
//	    reveal: FULL    # optional: what is asked for
//	    expect: allow   # or deny
//	    rule: payments  # optional: by which rule it is allowed
//	    gives: FULL     # optional: which form is given
//	    reason: NO_RULE # optional, with deny: why
func ParseCases(file string, data []byte, v Vocabulary) ([]Case, error) {
	p := &problems{file: file}
	root, ok := readDocument(data, p)
	if !ok {
		return nil, p.err()
	}
	s, ok := readSection(root, p, "", casesKeys)
	if !ok || !readVersion(s) {
		return nil, p.err()
	}
	f, ok := s.keys["tests"]
	if !ok || f.value.Kind != yaml.SequenceNode || len(f.value.Content) == 0 {
		s.wrong(root, `"tests" must be a list of at least one`)
		return nil, p.err()
	}
	var cases []Case
	for i, n := range f.value.Content {
		if c, ok := readCase(n, i, p, v); ok {
			cases = append(cases, c)
		}
	}
	if !p.none() {
		return nil, p.err()
	}
	return cases, nil
}

// readCase reads the index-th case of a file.
func readCase(n *yaml.Node, index int, p *problems, v Vocabulary) (c Case, ok bool) {
	s, ok := readSection(n, p, fmt.Sprintf("test %d of the list", index+1), caseKeys)
	if !ok {
		return c, false
	}
	c = Case{Name: s.optional("name"), Line: n.Line}
	if c.Name == "" {
		c.Name = fmt.Sprintf("test %d", index+1)
	}
	if caller, ok := s.text("caller"); ok {
		if err := ValidateCaller(caller.text); err != nil {
			s.wrong(caller.node, "caller %s: %v", quote(caller.text), err)
		}
		c.Request.Caller = caller.text
	}
	if action, ok := s.text("action"); ok {
		if _, ok := v.Actions[action.text]; !ok {
			s.wrong(action.node, "unknown action %s%s", quote(action.text), known(p, action.text, v.Actions))
		}
		c.Request.Action = action.text
	}
	if c.Request.Profile = s.optional("profile"); c.Request.Profile != "" {
		if _, ok := v.Profiles[c.Request.Profile]; !ok {
			s.wrong(s.keys["profile"].value, "unknown profile %s%s", quote(c.Request.Profile), known(p, c.Request.Profile, v.Profiles))
		}
	}
	c.Request.Purpose = s.optional("purpose")
	c.Request.Reveal, c.Reveal = s.form("reveal"), s.form("gives")
	c.Rule, c.Reason = s.optional("rule"), Reason(s.optional("reason"))
	if expect, ok := s.text("expect"); ok {
		switch c.Allowed = expect.text == "allow"; {
		case expect.text != "allow" && expect.text != "deny":
			s.wrong(expect.node, `"expect" must be allow or deny, not %s`, quote(expect.text))
		case c.Allowed && c.Reason != "":
			s.wrong(s.keys["reason"].key, `"reason" has no meaning where it is allowed`)
		case !c.Allowed && c.Rule != "":
			s.wrong(s.keys["rule"].key, `"rule" has no meaning where it is denied: what no rule allows is`)
		case !c.Allowed && c.Reveal != Unspecified:
			s.wrong(s.keys["gives"].key, `"gives" has no meaning where it is denied`)
		}
	}
	if c.Reason != "" && !reasons[string(c.Reason)] {
		s.wrong(s.keys["reason"].value, "unknown reason %s%s", quote(string(c.Reason)), known(p, string(c.Reason), reasons))
	}
	return c, true
}

// optional returns the string under a key, "" if it isn't there.
func (s section) optional(key string) string {
	if _, ok := s.keys[key]; !ok {
		return ""
	}
	found, _ := s.text(key)
	return found.text
}

// form returns the form under a key, Unspecified if it isn't there.
func (s section) form(key string) Reveal {
	name := s.optional(key)
	form, ok := ParseReveal(name)
	if name != "" && !ok {
		s.wrong(s.keys[key].value, "unknown reveal %s (known: %s)", quote(name), strings.Join(revealNames[Masked:], ", "))
	}
	return form
}

// Check says what the policy decides otherwise than the case expects, "" if nothing.
func (p *Policy) Check(c Case) string {
	d := p.Decide(c.Request)
	switch {
	case c.Allowed && !d.Allowed:
		return fmt.Sprintf("denied: %s", d.Reason)
	case !c.Allowed && d.Allowed:
		return fmt.Sprintf("allowed by the rule %s", d.Rule)
	case c.Reason != "" && c.Reason != d.Reason:
		return fmt.Sprintf("denied as %s, not as %s", d.Reason, c.Reason)
	case c.Rule != "" && c.Rule != d.Rule:
		return fmt.Sprintf("allowed by the rule %s, not by %s", d.Rule, c.Rule)
	case c.Reveal != Unspecified && c.Reveal != d.Reveal:
		return fmt.Sprintf("gives %s, not %s", d.Reveal, c.Reveal)
	}
	return ""
}

// Uncovered returns the rules by which none of the cases is allowed, in the order of
// the file.
func (p *Policy) Uncovered(cases []Case) (rules []string) {
	covered := make(map[string]bool)
	for _, c := range cases {
		covered[p.Decide(c.Request).Rule] = true
	}
	for _, r := range p.rules {
		if !covered[r.name] {
			rules = append(rules, r.name)
		}
	}
	return rules
}
