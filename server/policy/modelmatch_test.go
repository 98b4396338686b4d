package policy

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// matchesNaively says whether a caller is one that a list of callers stands for.
func (m model) matchesNaively(callers []string, caller string) bool {
	return slices.ContainsFunc(callers, func(c string) bool {
		if group, ok := strings.CutPrefix(c, "group:"); ok {
			return m.matchesNaively(m.Groups[group], caller)
		}
		return c == caller || naivePattern(c).MatchString(caller)
	})
}

// naivePattern returns a regular expression for a pattern.
func naivePattern(pattern string) *regexp.Regexp {
	segment := `[^/]+`
	if strings.HasPrefix(pattern, "dns:") {
		segment = `[^.]+`
	}
	return compiled(`^(?s:` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, segment) + `)$`)
}

// compiled compiles a regular expression, once.
func compiled(text string) *regexp.Regexp {
	if found, ok := regexes.Load(text); ok {
		return found.(*regexp.Regexp)
	}
	re := regexp.MustCompile(text)
	re.Longest()
	regexes.Store(text, re)
	return re
}

var regexes sync.Map

// about says whether a rule matches a request, conditions apart: as far as what.
func (m model) about(r modelRule, q Request, what ...string) bool {
	kind, optional := m.vocabulary.Actions[q.Action], r.Effect == "deny" || r.Effect == "oblige"
	in := func(list []string, element string, has bool) bool {
		return optional && len(list) == 0 || has && slices.Contains(list, element)
	}
	profiles := slices.Clone(r.Profiles)
	for name, profile := range m.vocabulary.Profiles {
		if slices.ContainsFunc(profile.Classes, func(class string) bool { return slices.Contains(r.Classes, class) }) {
			profiles = append(profiles, name)
		}
	}
	namespaces, namespace := r.Namespaces, q.Namespace
	if namespaces == nil {
		namespaces = []string{"default"}
		if optional { // of one that denies or obliges, what is left out doesn't matter
			namespaces = []string{"default", "other"}
		}
	}
	if namespace == "" {
		namespace = "default"
	}
	return !slices.ContainsFunc(what, func(part string) bool {
		switch part {
		case "caller":
			return !(optional && r.Callers == nil || m.matchesNaively(r.Callers, q.Caller))
		case "action":
			return !in(r.Actions, q.Action, kind != 0) || !slices.Contains(namespaces, namespace)
		case "profile":
			return kind != PlainAction && !in(profiles, q.Profile, true) || kind == PlainAction && optional && len(profiles) > 0
		default: // purpose
			return kind == RevealAction && !in(r.Purposes, q.Purpose, true) || kind != RevealAction && optional && len(r.Purposes) > 0
		}
	})
}

// conditions says whether the conditions of a rule are met, and for one that isn't which
// reason it gives. What can't be found out is failed; what isn't known yet is unknown.
func (m model) conditions(r modelRule, q Request) (verdict, Reason) {
	allows := r.Effect == "" || r.Effect == "allow"
	if r.Networks != nil && !q.Address.IsValid() || (r.Valid.From != "" || r.Valid.Until != "") && q.Time.IsZero() {
		return failed, ConditionFailed
	}
	if r.Networks != nil && !slices.ContainsFunc(r.Networks, func(network string) bool {
		prefix, err := netip.ParsePrefix(network)
		return err == nil && prefix.Contains(q.Address) || network == q.Address.String()
	}) {
		return no, ConditionNotMet
	}
	if r.Valid.From != "" && q.Time.Before(modelTime(r.Valid.From)) || r.Valid.Until != "" && !q.Time.Before(modelTime(r.Valid.Until)) {
		return no, ConditionNotMet
	}
	if allows && r.Reason != "" && !fullMatch(r.Reason, q.StatedReason) {
		return no, ReasonRequired
	}
	when := yes
	if r.When != "" {
		when = expressions[r.When](q)
	}
	switch when {
	case failed:
		return failed, ConditionFailed
	case no, unknown:
		return when, ConditionNotMet
	}
	if v := labelled(r, q); v == failed {
		return failed, ConditionFailed
	} else if v != yes {
		return v, ConditionNotMet
	}
	if allows && m.vocabulary.Actions[q.Action] == RevealAction && r.Consent != "ignore" && (q.Consents || r.Consent == "require") {
		if q.Token == nil {
			return unknown, ""
		}
		switch consent, err := q.Token.Consent(q.Purpose); {
		case err != nil:
			return failed, ConditionFailed
		case consent == ConsentWithdrawn:
			return no, ConsentIsWithdrawn
		case consent == NoConsent && r.Consent == "require":
			return no, ConsentMissing
		}
	}
	return yes, ""
}

// labelled says whether the token has the labels.
func labelled(r modelRule, q Request) verdict {
	if len(r.Metadata) == 0 {
		return yes
	}
	if q.Token == nil {
		return unknown
	}
	labels, err := q.Token.Metadata()
	if err != nil {
		return failed
	}
	for key, values := range r.Metadata {
		if value, ok := labels[key]; !ok || !slices.Contains(list(values), value) {
			return no
		}
	}
	return yes
}

// fullMatch says whether something is stated, all of which matches.
func fullMatch(pattern, text string) bool {
	at := compiled(pattern).FindStringIndex(text)
	return text != "" && at != nil && at[0] == 0 && at[1] == len(text)
}

func modelTime(text string) time.Time {
	if !strings.Contains(text, "T") {
		text += "T00:00:00Z"
	}
	t, _ := time.Parse(time.RFC3339, text)
	return t
}
