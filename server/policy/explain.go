package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Part is a part of a rule that a request has to meet.
type Part string

// Parts, in the order in which they are looked at.
const (
	CallerPart    Part = "caller"
	ActionPart    Part = "action"
	NamespacePart Part = "namespace"
	ProfilePart   Part = "profile"
	PurposePart   Part = "purpose"
	RevealPart    Part = "reveal"
	NetworkPart   Part = "network"
	TimePart      Part = "time"
	ReasonPart    Part = "reason"
	MetadataPart  Part = "metadata"
	WhenPart      Part = "when"
	ConsentPart   Part = "consent"
)

// Miss is a rule that doesn't allow a request, and what the request lacks for it.
type Miss struct {
	Rule  string
	Line  int // of the rule in the file
	Lacks []Part
	Names string // what the rule has for these parts, in words
}

// Explanation is a decision, and if it denies, why: the rules that come nearest.
type Explanation struct {
	Decision

	// Line is where the rule that has decided is in the file; 0 if none has.
	Line int

	// Demands says in words what else is demanded where it is allowed: limits, an
	// approval, an alert; and what it depends on while it is Pending. If a rule that
	// denies or obliges has decided, it is what that rule says.
	Demands []string

	// Near are first the rules that are about the request but for their conditions and
	// forms, which account for the reason; then those that lack fewest. Each are in the
	// order of the file, and all are no more than ten.
	Near []Miss

	// WantsAddress says that the address of the caller isn't known, and a rule that has
	// decided, or that accounts for the reason, depends on it.
	WantsAddress bool
}

// maxNear is how many rules an explanation has at most.
const maxNear = 10

// Explain decides as Decide does, and says why. It looks at each rule, so it is not
// for the way of a call.
func (p *Policy) Explain(r Request) Explanation {
	e := Explanation{Decision: p.Decide(r)}
	if e.Rule != "" {
		e.Line = p.byName[e.Rule].line
	}
	e.Demands = p.demands(&e.Decision, &r)
	if e.Allowed {
		return e
	}
	if e.Rule != "" {
		rule := p.byName[e.Rule]
		e.WantsAddress = rule.wantsAddress(&r)
		if rule.effect != Allow {
			e.Demands = []string{rule.says()}
		}
		return e
	}
	for i := range p.rules {
		rule := &p.rules[i]
		if rule.effect != Allow {
			continue
		}
		m := Miss{Rule: rule.name, Line: rule.line}
		var names []string
		for _, part := range p.lacks(rule, &r) {
			m.Lacks = append(m.Lacks, part)
			names = append(names, fmt.Sprintf("%s %s", part, rule.words(part)))
		}
		m.Names = strings.Join(names, "; ")
		if len(m.Lacks) > 0 {
			e.Near = append(e.Near, m)
		}
		if m.accounts() {
			e.WantsAddress = e.WantsAddress || rule.wantsAddress(&r)
		}
	}
	e.Near = nearRules(e.Near)
	return e
}

// nearRules returns the rules that account for a denial, then those that lack fewest.
func nearRules(all []Miss) (near []Miss) {
	fewest := math.MaxInt
	for _, m := range all {
		fewest = min(fewest, len(m.Lacks))
		if m.accounts() {
			near = append(near, m)
		}
	}
	for _, m := range all {
		if !m.accounts() && len(m.Lacks) == fewest {
			near = append(near, m)
		}
	}
	return near[:min(len(near), maxNear)]
}

// accounts says whether the rule is about the request but for its conditions and forms.
func (m *Miss) accounts() bool {
	return !slices.ContainsFunc(m.Lacks, func(part Part) bool {
		return slices.Contains([]Part{CallerPart, ActionPart, NamespacePart, ProfilePart, PurposePart}, part)
	})
}

// wantsAddress says whether a rule depends on the address of the caller, which isn't known.
func (r *rule) wantsAddress(q *Request) bool {
	return !q.Address.IsValid() && (len(r.networks) > 0 || r.when != nil && strings.Contains(r.when.text, "request.address"))
}

// demands says what a decision demands.
func (p *Policy) demands(d *Decision, q *Request) (demands []string) {
	if !d.Allowed {
		return nil
	}
	if d.Pending {
		demands = append(demands, "it depends on the token: on its metadata, its times or its subject's consent")
	}
	if a := d.duties.Approval(); a != nil {
		demands = append(demands, fmt.Sprintf("rule %s: an approval by %s, good for %d values in %s", a.Rule, strings.Join(a.Approvers(), " or "), a.MaxItems, a.For))
	}
	if allow := d.duties.allow; allow != nil {
		if allow.limits != nil {
			demands = append(demands, fmt.Sprintf("rule %s: limits %s", allow.name, allow.limits))
		}
		if allow.notify {
			demands = append(demands, fmt.Sprintf("rule %s: an alert is raised", allow.name))
		}
	}
	for _, name := range d.duties.obligedBy() {
		demands = append(demands, p.byName[name].says())
	}
	return demands
}

// lacks returns which parts of a rule that allows a request doesn't meet.
func (p *Policy) lacks(rule *rule, r *Request) (lacks []Part) {
	kind := p.actions[r.Action]
	asked := r.Reveal
	if asked == Unspecified {
		asked, _ = rule.reveal.choice()
	}
	when := rule.when
	if when != nil && r.Token == nil && when.needsToken {
		when = nil
	}
	for _, c := range []struct {
		part Part
		ok   bool
	}{
		{CallerPart, rule.callers.has(r.Caller)},
		{ActionPart, slices.Contains(rule.actions, r.Action)},
		{NamespacePart, slices.Contains(rule.namespaces, r.namespace())},
		{ProfilePart, kind == PlainAction || slices.Contains(rule.profiles, r.Profile)},
		{PurposePart, kind != RevealAction || slices.Contains(rule.purposes, r.Purpose)},
		{RevealPart, kind != RevealAction || rule.reveal.has(asked)},
		{NetworkPart, len(rule.networks) == 0 || r.Address.IsValid() && rule.inNetwork(r.Address)},
		{TimePart, !rule.timed() || !r.Time.IsZero() && rule.inForce(r.Time)},
		{ReasonPart, rule.reason == nil || rule.stated(r)},
		{MetadataPart, met(rule.hasLabels(r))},
		{WhenPart, when == nil || when.holds(r)},
		{ConsentPart, kind != RevealAction || rule.agrees(r)},
	} {
		if !c.ok {
			lacks = append(lacks, c.part)
		}
	}
	return lacks
}

// holds says whether an expression is true.
func (c *condition) holds(q *Request) bool {
	is, err := c.met(q)
	return is && err == nil
}

// agrees says whether consent is no obstacle, as far as is known.
func (r *rule) agrees(q *Request) bool {
	v, _ := r.consented(q)
	return met(v)
}

// met says whether a condition is met, as far as is known.
func met(v verdict) bool { return v == yes || v == unknown }

// words returns what a rule has for a part.
func (r *rule) words(part Part) string {
	var list []string
	switch part {
	case CallerPart:
		list = r.callers.names
	case ActionPart:
		list = r.actions
	case NamespacePart:
		list = r.namespaces
	case ProfilePart:
		list = r.profiles
	case PurposePart:
		list = r.purposes
	case RevealPart:
		list = r.reveal.names()
	case NetworkPart:
		for _, network := range r.networks {
			list = append(list, network.String())
		}
	case TimePart:
		return "is " + r.window()
	case ReasonPart:
		return "matches " + r.reasonText()
	case MetadataPart:
		for _, l := range r.metadata {
			list = append(list, l.key+": "+strings.Join(l.values, " or "))
		}
		return "has " + strings.Join(list, ", ")
	case WhenPart:
		return strings.TrimSpace(r.when.text)
	case ConsentPart:
		if r.consent == consentRequire {
			return "is given"
		}
		return "is not withdrawn"
	}
	switch len(list) {
	case 0:
		return "is none"
	case 1:
		return "is " + list[0]
	}
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("is one of %s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return "is one of " + strings.Join(list, ", ")
}

// window says when the rule is in force.
func (r *rule) window() string {
	var parts []string
	if !r.from.IsZero() {
		parts = append(parts, "from "+r.from.Format(time.RFC3339)+" on")
	}
	if !r.until.IsZero() {
		parts = append(parts, "before "+r.until.Format(time.RFC3339))
	}
	return strings.Join(parts, " and ")
}

// reasonText returns the pattern of reasons as the file has it.
func (r *rule) reasonText() string {
	if r.reason == nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(r.reason.String(), `\A(?:`), `)\z`)
}

// list returns the forms, Full alone if that is one.
func (f forms) list() (list []Reveal) {
	if f.has(Full) {
		return []Reveal{Full}
	}
	for form := Masked; int(form) < len(revealNames); form++ {
		if f.has(form) {
			list = append(list, form)
		}
	}
	return list
}

// names returns the names of the forms, as list does.
func (f forms) names() (names []string) {
	for _, form := range f.list() {
		names = append(names, form.String())
	}
	return names
}
