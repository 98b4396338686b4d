package policy

import "strings"

// says returns what a rule that denies or obliges does, and where it does, in words, with
// what else that depends on.
func (r *rule) says(where ...string) string {
	text := "rule " + r.name + " denies"
	if r.effect == Oblige {
		text = "rule " + r.name + " obliges: " + strings.Join(r.obligations(), ", ")
	} else if r.reveal != 0 {
		text += " " + strings.Join(r.reveal.formNames(), ", ")
	}
	for _, condition := range r.conditionsMet() {
		where = append(where, strings.TrimPrefix(condition, string(WhenPart)+" "))
	}
	if len(where) > 0 {
		text += ", if " + strings.Join(where, "; ")
	}
	return text
}

// obligations returns what a rule that obliges demands, in words.
func (r *rule) obligations() (words []string) {
	if r.reason != nil {
		words = append(words, "reason "+r.words(ReasonPart))
	}
	if r.atMost != 0 {
		words = append(words, "at most "+strings.Join(r.atMost.names(), " or "))
	}
	if r.limits != nil {
		words = append(words, "limits "+r.limits.String())
	}
	if r.notify {
		words = append(words, "an alert is raised")
	}
	return words
}

// conditionsMet returns the conditions of a rule in words.
func (r *rule) conditionsMet() (words []string) {
	for _, c := range []struct {
		is   bool
		part Part
	}{
		{len(r.networks) > 0, NetworkPart},
		{r.timed(), TimePart},
		{r.reason != nil && r.effect != Oblige, ReasonPart},
		{len(r.metadata) > 0, MetadataPart},
		{r.when != nil, WhenPart},
		{r.consent == consentRequire, ConsentPart},
	} {
		if c.is {
			words = append(words, string(c.part)+" "+r.words(c.part))
		}
	}
	return words
}

// conditionWords returns the conditions and duties of a rule in words.
func (r *rule) conditionWords() []string {
	words := r.conditionsMet()
	if r.effect == Oblige && r.reason != nil {
		words = append(words, "reason "+r.words(ReasonPart))
	}
	if r.approval != nil {
		words = append(words, "approved by "+strings.Join(r.approval.Approvers(), " or "))
	}
	if r.limits != nil {
		words = append(words, "limits "+r.limits.String())
	}
	return words
}

// narrower returns in words to what of an access a rule that denies or obliges is bound.
func (p *Policy) narrower(r *rule, a *Access) (words []string) {
	add := func(is bool, part Part) {
		if is {
			words = append(words, string(part)+" "+r.words(part))
		}
	}
	add(!r.callers.has(a.Caller), CallerPart)
	add(!covers(r.actions, a.Actions), ActionPart)
	add(!covers(r.profiles, a.Profiles), ProfilePart)
	add(!covers(r.purposes, a.Purposes), PurposePart)
	return words
}

// onlyBounds says whether a rule does no more than to bound which forms are revealed.
func (r *rule) onlyBounds() bool {
	return r.atMost != 0 && r.reason == nil && r.limits == nil && !r.notify && !r.conditional()
}

// formNames returns the names of the forms, each by itself.
func (f forms) formNames() (names []string) {
	for form := Masked; int(form) < len(revealNames); form++ {
		if f.has(form) {
			names = append(names, form.String())
		}
	}
	return names
}
