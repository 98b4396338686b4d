package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

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

	Notifies, NeedsApproval *bool // whether there is such a duty; nil likewise
}

var (
	casesKeys = map[string]bool{"version": true, "tests": true}
	caseKeys  = map[string]bool{
		"name": true, "caller": true, "action": true, "profile": true, "purpose": true, "reveal": true,
		"namespace": true, "stated_reason": true, "address": true, "time": true, "items": true, "metadata": true, "subject": true, "created": true, "consent": true,
		"expect": true, "reason": true, "rule": true, "gives": true, "notifies": true, "needs_approval": true,
	}
)

// Reasons are all reasons.
var Reasons = []Reason{
	NoRule, PurposeNotAllowed, RevealNotAllowed, RevealAmbiguous, DeniedByRule,
	ConditionNotMet, ConditionFailed, ReasonRequired, ConsentIsWithdrawn, ConsentMissing, TooManyRules,
}

// consents are what a case can say of the subject's consent.
var consents = map[string]Consent{"none": NoConsent, "given": ConsentGiven, "withdrawn": ConsentWithdrawn}

// ParseConsent returns the consent that a case gives a name: none, given or withdrawn.
func ParseConsent(name string) (Consent, bool) {
	consent, ok := consents[name]
	return consent, ok
}

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
//	    rule: payments  # optional: by which rule it is decided
//	    gives: FULL     # optional: which form is given
//	    reason: NO_RULE # optional, with deny: why
//
// A request is of the namespace default, from no address, now, about one item, and
// about a token without labels, subject and times, unless there are namespace,
// address, time, items, metadata, subject or created. stated_reason is what the caller
// states; consent is none, given or withdrawn, and has consents be kept. notifies and
// needs_approval, true or false, say what else is expected of what is allowed.
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
	purposes := v.purposes()
	var cases []Case
	for i, n := range f.value.Content {
		if c, ok := readCase(n, i, p, v, purposes); ok {
			cases = append(cases, c)
		}
	}
	if !p.none() {
		return nil, p.err()
	}
	return cases, nil
}

// readCase reads the index-th case of a file, where the purposes are those of all profiles.
func readCase(n *yaml.Node, index int, p *problems, v Vocabulary, purposes map[string]bool) (c Case, ok bool) {
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
	c.Request.Purpose, c.Request.Namespace = s.optional("purpose"), s.optional("namespace")
	if err := oneOf("purpose", c.Request.Purpose, purposes); err != nil {
		s.wrong(s.keys["purpose"].value, "%v", err)
	} else if c.Request.Purpose == "" && v.Actions[c.Request.Action] == RevealAction {
		s.wrong(n, `"purpose" is missing: the action %q needs it`, c.Request.Action)
	}
	c.Request.Reveal, c.Reveal = s.form("reveal"), s.form("gives")
	s.circumstances(&c.Request)
	c.Rule, c.Reason = s.optional("rule"), Reason(s.optional("reason"))
	c.Notifies, c.NeedsApproval = s.flag("notifies"), s.flag("needs_approval")
	if expect, ok := s.text("expect"); ok {
		switch c.Allowed = expect.text == "allow"; {
		case expect.text != "allow" && expect.text != "deny":
			s.wrong(expect.node, `"expect" must be allow or deny, not %s`, quote(expect.text))
		case c.Allowed && c.Reason != "":
			s.wrong(s.keys["reason"].key, `"reason" has no meaning where it is allowed`)
		case !c.Allowed && c.Reveal != Unspecified:
			s.wrong(s.keys["gives"].key, `"gives" has no meaning where it is denied`)
		}
	}
	all := make(map[string]bool)
	for _, reason := range Reasons {
		all[string(reason)] = true
	}
	if c.Reason != "" && !all[string(c.Reason)] {
		s.wrong(s.keys["reason"].value, "unknown reason %s%s", quote(string(c.Reason)), known(p, string(c.Reason), all))
	}
	return c, true
}

// circumstances reads what a request depends on beside what it asks for.
func (s section) circumstances(r *Request) {
	token := &Known{Of: s.optional("subject"), Made: s.moment("created")}
	r.Token, r.StatedReason, r.Time, r.Items = token, s.optional("stated_reason"), time.Now(), 1
	if at := s.moment("time"); !at.IsZero() {
		r.Time = at
	}
	if _, ok := s.keys["items"]; ok {
		r.Items = int(s.count("items"))
	}
	if address, ok := s.given("address"); ok {
		var err error
		if r.Address, err = netip.ParseAddr(address.text); err != nil {
			s.wrong(address.node, "%s is no address", quote(address.text))
		}
	}
	for _, l := range readMetadata(s) {
		if len(l.values) != 1 {
			s.wrong(s.keys["metadata"].value, "the label %s of a token has one value", quote(l.key))
			continue
		}
		if token.Labels == nil {
			token.Labels = make(map[string]string)
		}
		token.Labels[l.key] = l.values[0]
	}
	if text, ok := s.given("consent"); ok {
		if token.Agreed, r.Consents = consents[text.text]; !r.Consents {
			s.wrong(text.node, "unknown consent %s%s", quote(text.text), known(s.problems, text.text, consents))
		}
	}
}

// flag returns whether true or false is under a key, nil if the key isn't there.
func (s section) flag(key string) *bool {
	f, ok := s.keys[key]
	if !ok {
		return nil
	}
	if f.value.ShortTag() != "!!bool" {
		s.wrong(f.value, "%q must be true or false, not %s", key, kindOf(f.value))
	}
	is := f.value.Value == "true"
	return &is
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
	case c.Rule != "" && d.Rule == "":
		return fmt.Sprintf("no rule has decided, not %s", c.Rule)
	case c.Rule != "" && c.Rule != d.Rule:
		return fmt.Sprintf("decided by the rule %s, not by %s", d.Rule, c.Rule)
	case c.Reveal != Unspecified && c.Reveal != d.Reveal:
		return fmt.Sprintf("gives %s, not %s", d.Reveal, c.Reveal)
	case c.Notifies != nil && *c.Notifies != d.duties.Notify():
		return fmt.Sprintf("an alert is raised: %t", d.duties.Notify())
	case c.NeedsApproval != nil && *c.NeedsApproval != (d.duties.Approval() != nil):
		return fmt.Sprintf("needs an approval: %t", d.duties.Approval() != nil)
	}
	return ""
}

// Uncovered returns the rules by which none of the cases is decided, and that oblige
// none of those that are allowed, in the order of the file.
func (p *Policy) Uncovered(cases []Case) (rules []string) {
	covered := make(map[string]bool)
	for _, c := range cases {
		d := p.Decide(c.Request)
		covered[d.Rule] = true
		for _, name := range d.duties.obligedBy() {
			covered[name] = true
		}
	}
	for _, r := range p.rules {
		if !covered[r.name] {
			rules = append(rules, r.name)
		}
	}
	return rules
}
