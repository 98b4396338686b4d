package policy

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"
)

// model is a policy that is interpreted rule by rule, straight from what docs/policy.md
// says, as the YAML library alone reads it.
type model struct {
	Version int
	Groups  map[string][]string
	Rules   []modelRule

	vocabulary Vocabulary
}

type modelRule struct {
	Name, Effect, When, Reason, Consent                                 string
	Callers, Actions, Namespaces, Profiles, Classes, Purposes, Networks []string
	Reveal                                                              any // a string or a list of them
	AtMost                                                              any `yaml:"at_most"`
	Metadata                                                            map[string]any
	Valid                                                               struct{ From, Until string }
	Notify                                                              bool
	Limits                                                              map[string]uint64
	Approval                                                            *struct {
		Approvers []string
		For       string
		MaxItems  uint64 `yaml:"max_items"`
	}
}

// outcome is a decision, with what it demands.
type outcome struct {
	allowed, pending bool
	reason           Reason
	rule             string
	reveal           Reveal
	notify           bool
	approval         string // the rule that needs one
	limits           string // the rules that have some
}

func outcomeOf(d Decision) outcome {
	o := outcome{allowed: d.Allowed, pending: d.Pending, reason: d.Reason, rule: d.Rule, reveal: d.Reveal}
	if !d.Allowed || d.Pending {
		return o
	}
	o.notify = d.duties.Notify()
	if a := d.duties.Approval(); a != nil {
		o.approval = a.Rule
	}
	for _, l := range d.duties.Limits(nil) {
		o.limits += l.Rule + " "
	}
	return o
}

func parseModel(data []byte, v Vocabulary) (m model, err error) {
	err = yaml.Unmarshal(data, &m)
	m.vocabulary = v
	return m, err
}

// list returns the strings of what is one or a list of them.
func list(of any) (names []string) {
	switch of := of.(type) {
	case string:
		return []string{of}
	case []any:
		for _, name := range of {
			names = append(names, name.(string))
		}
	}
	return names
}

// modelForms are the forms that a rule can name.
var modelForms = map[string]Reveal{
	"MASKED": Masked, "FULL": Full, "LAST4": Last4, "BIN": BIN, "BRAND": Brand, "NUMBER": Number, "EXPIRY": Expiry,
	"NAME": Name, "CVV": CVV, "DOMAIN": Domain, "COUNTRY": Country, "YEAR": Year, "ROUTING": Routing,
}

// names says whether a list has a form, or FULL, which has all of them.
func names(of any, form Reveal) bool {
	return slices.ContainsFunc(list(of), func(name string) bool {
		return modelForms[name] == form || name == "FULL" && Masked <= form && form <= Routing
	})
}

// decide decides as "How a request is decided" says.
func (m model) decide(q Request) outcome {
	reveals := m.vocabulary.Actions[q.Action] == RevealAction
	whole := !reveals && m.vocabulary.Traits[q.Action].Values // it gives whole values away
	var allowing, denying, obliging []modelRule
	near := false
	for _, r := range m.Rules {
		allows := r.Effect == "" || r.Effect == "allow"
		near = near || allows && m.about(r, q, "caller", "action", "profile")
		switch {
		case !m.about(r, q, "caller", "action", "profile", "purpose"):
		case allows && !idle(r, allowing, reveals):
			allowing = append(allowing, r)
		case allows:
		case r.Effect == "oblige":
			obliging = append(obliging, r)
		case r.Reveal == nil || reveals || whole:
			denying = append(denying, r)
		}
	}
	switch {
	case !near:
		return outcome{reason: NoRule}
	case len(allowing) == 0:
		return outcome{reason: PurposeNotAllowed}
	}
	var o outcome
	var takers []taker
	for _, r := range denying {
		switch v, _ := m.conditions(r, q); {
		case v == no:
		case v == unknown:
			o.pending = true
		case r.Reveal != nil:
			takers = append(takers, taker{r.Name, map[bool]Reason{true: ConditionFailed, false: DeniedByRule}[v == failed], func(form Reveal) bool {
				return slices.ContainsFunc(list(r.Reveal), func(name string) bool { return modelForms[name] == form })
			}})
		case v == failed:
			return outcome{reason: ConditionFailed, rule: r.Name}
		default:
			return outcome{reason: DeniedByRule, rule: r.Name}
		}
	}
	for _, r := range obliging {
		switch v, _ := m.conditions(r, q); {
		case v == no:
		case v == unknown:
			o.pending = true
		case v == failed:
			return outcome{reason: ConditionFailed, rule: r.Name}
		case r.Reason != "" && !fullMatch(r.Reason, q.StatedReason):
			return outcome{reason: ReasonRequired, rule: r.Name}
		default:
			o.notify = o.notify || r.Notify
			if r.Limits != nil {
				o.limits += r.Name + " "
			}
			if r.AtMost != nil {
				takers = append(takers, taker{r.Name, RevealNotAllowed, func(form Reveal) bool { return !names(r.AtMost, form) }})
			}
		}
	}
	if reveals {
		return m.reveal(q, o, allowing, takers)
	}
	for _, t := range takers {
		if whole && t.takes(Full) {
			return outcome{reason: t.why, rule: t.rule}
		}
	}
	why := NoRule
	for _, r := range allowing {
		switch v, reason := m.conditions(r, q); v {
		case yes:
			return r.allow(o)
		case unknown:
			return outcome{allowed: true, pending: true}
		default:
			why = nearest(why, reason)
		}
	}
	return outcome{reason: why}
}

// idle says whether a rule can never decide, since those before it allow all that it
// does whatever the circumstances. It isn't asked then.
func idle(r modelRule, before []modelRule, reveals bool) bool {
	left := make(map[Reveal]bool)
	for form := Masked; form <= Routing && reveals; form++ {
		left[form] = names(r.Reveal, form)
	}
	any := false
	for _, b := range before {
		if b.Networks == nil && b.Valid.From == "" && b.Valid.Until == "" && b.When == "" && b.Metadata == nil && b.Reason == "" &&
			(b.Consent == "ignore" || b.Consent != "require" && r.Consent != "require" && r.Consent != "ignore") {
			any = true
			for form := range left {
				left[form] = left[form] && !names(b.Reveal, form)
			}
		}
	}
	return any && !slices.Contains(slices.Collect(maps.Values(left)), true)
}

// taker is a rule that takes forms away.
type taker struct {
	rule  string
	why   Reason
	takes func(Reveal) bool
}

// reveal decides in which form something comes back.
func (m model) reveal(q Request, o outcome, allowing []modelRule, takers []taker) outcome {
	taken := func(form Reveal) bool {
		return slices.ContainsFunc(takers, func(t taker) bool { return t.takes(form) })
	}
	why := RevealNotAllowed
	sure, possible := make(map[Reveal]string), make(map[Reveal]bool) // by which rule first
	restricted := o.pending
	for _, r := range allowing {
		var left []Reveal
		for form := Masked; form <= Routing; form++ {
			if names(r.Reveal, form) && !taken(form) && (q.Reveal == Unspecified || q.Reveal == form) {
				left = append(left, form)
			}
		}
		if left == nil {
			continue
		}
		v, reason := m.conditions(r, q)
		for _, form := range left {
			if _, ok := sure[form]; v == yes && !ok {
				sure[form] = r.Name
			}
			possible[form] = possible[form] || v == yes || v == unknown
		}
		switch o.pending = o.pending || v == unknown; v {
		case no, failed:
			why = nearest(why, reason)
		}
	}
	for form, is := range possible {
		if !is {
			delete(possible, form)
		}
	}
	given := chosen(possible)
	if q.Reveal != Unspecified {
		given = q.Reveal
	}
	switch {
	case len(possible) == 0 && why == RevealNotAllowed:
		for _, t := range takers {
			for _, r := range allowing {
				for form := Masked; form <= Routing; form++ {
					if t.takes(form) && names(r.Reveal, form) && (q.Reveal == Unspecified || q.Reveal == form) {
						return outcome{reason: t.why, rule: t.rule}
					}
				}
			}
		}
		return outcome{reason: why}
	case len(possible) == 0:
		return outcome{reason: why}
	case o.pending:
		_, masked := sure[Masked]
		if q.Reveal == Unspecified && len(possible) > 1 && !possible[Full] && (restricted || !masked) {
			given = Unspecified // it is open which
		}
		return outcome{allowed: true, pending: true, reveal: given}
	case given == Unspecified:
		return outcome{reason: RevealAmbiguous}
	}
	o.reveal = given
	at := slices.IndexFunc(allowing, func(r modelRule) bool { return r.Name == sure[given] })
	return allowing[at].allow(o)
}

// chosen returns the form for a request that names none: Unspecified if it has to.
func chosen(of map[Reveal]bool) Reveal {
	switch {
	case of[Full]:
		return Full
	case of[Masked]:
		return Masked
	case len(of) == 1:
		for form := range of {
			return form
		}
	}
	return Unspecified
}

// allow is the outcome where a rule allows.
func (r modelRule) allow(o outcome) outcome {
	if o.pending {
		return outcome{allowed: true, pending: true}
	}
	o.allowed, o.rule, o.notify = true, r.Name, o.notify || r.Notify
	if r.Approval != nil {
		o.approval = r.Name
	}
	if r.Limits != nil {
		o.limits = r.Name + " " + o.limits
	}
	return o
}

// nearest returns the reason of the rule that came nearer.
func nearest(a, b Reason) Reason {
	order := []Reason{NoRule, RevealNotAllowed, ConditionNotMet, ConditionFailed, ReasonRequired, ConsentMissing, ConsentIsWithdrawn}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// may is the model of Policy.May.
func (m model) may(caller, namespace, action string) string {
	for _, r := range m.Rules {
		if (r.Effect == "" || r.Effect == "allow") && m.about(r, Request{Caller: caller, Namespace: namespace, Action: action}, "caller", "action") {
			return r.Name
		}
	}
	return ""
}
