package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"
)

// Bounds of what rules say.
const (
	maxLimit        = 1 << 40
	maxApprovalTime = 7 * 24 * time.Hour
)

// only adds an error if a key is there though the effect of the rule gives it no
// meaning.
func (r *rule) only(s section, key string, meaning ...Effect) bool {
	f, ok := s.keys[key]
	if ok && !slices.Contains(meaning, r.effect) {
		s.wrong(f.key, "%q has no meaning in a rule whose effect is %s", key, r.effect)
		return false
	}
	return ok
}

// conditions reads what has to be so for the rule to apply.
func (rr ruleReader) conditions(s section, r *rule) {
	r.metadata = readMetadata(s)
	r.networks = readNetworks(s)
	if f, ok := s.keys["valid"]; ok {
		r.from, r.until = readValid(s, f)
	}
	if f, ok := s.keys["when"]; ok && !isText(f.value) {
		s.wrong(f.value, `"when" must be a string, not %s; put the expression in quotes`, kindOf(f.value))
	} else if ok {
		r.when = rr.when(s, item{f.value.Value, f.value})
	}
	if r.only(s, "reason", Allow, Oblige) {
		r.reason = rr.reason(s)
	}
	if r.consent = consentRespect; r.only(s, "consent", Allow) {
		if text, ok := s.text("consent"); ok {
			consents := map[string]bool{string(consentRespect): true, string(consentRequire): true, string(consentIgnore): true}
			if !consents[text.text] {
				s.wrong(text.node, "unknown consent %s%s", quote(text.text), known(rr.problems, text.text, consents))
			}
			r.consent = consentRule(text.text)
		}
	}
}

// given returns the string under a key, and false if the key isn't there.
func (s section) given(key string) (item, bool) {
	if _, ok := s.keys[key]; !ok {
		return item{}, false
	}
	return s.text(key)
}

// labelForm is what labels of tokens are called.
var labelForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)

// readMetadata reads which labels a token must have.
func readMetadata(s section) (labels []label) {
	f, ok := s.keys["metadata"]
	if !ok {
		return nil
	}
	if f.value.Kind != yaml.MappingNode || f.value.ShortTag() != "!!map" {
		s.wrong(f.value, `"metadata" must be a mapping of labels to a value or a list of values, not %s`, kindOf(f.value))
		return nil
	}
	if len(f.value.Content) == 0 {
		s.wrong(f.value, `"metadata" is empty`)
	}
	keys := make(map[string]bool)
	for i := 0; i+1 < len(f.value.Content); i += 2 {
		keys[f.value.Content[i].Value] = true
	}
	list, _ := readSection(f.value, s.problems, s.label, keys)
	for _, key := range slices.Sorted(maps.Keys(list.keys)) {
		if !labelForm.MatchString(key) {
			s.wrong(list.keys[key].key, "no token has a label %s: a label is called [a-z][a-z0-9._-]{0,62}", quote(key))
		}
		l := label{key: key}
		for _, value := range list.textOrTexts(key) {
			l.values = append(l.values, value.text)
		}
		labels = append(labels, l)
	}
	return labels
}

// readNetworks reads from where callers may come.
func readNetworks(s section) (networks []netip.Prefix) {
	for _, text := range s.texts("networks") {
		network, err := netip.ParsePrefix(text.text)
		if err != nil {
			address, fault := netip.ParseAddr(text.text)
			if fault != nil || address.Zone() != "" {
				s.wrong(text.node, "network %s is neither an address nor one with a length, as in 10.0.0.0/8", quote(text.text))
				continue
			}
			network = netip.PrefixFrom(address, address.BitLen())
		}
		switch {
		case network.Masked() != network:
			s.wrong(text.node, "network %s has bits beyond its length: it is %s", quote(text.text), network.Masked())
		case network.Addr().Is4In6():
			s.wrong(text.node, "network %s: write an IPv4 address as one", quote(text.text))
		}
		networks = append(networks, network)
	}
	return networks
}

var validKeys = map[string]bool{"from": true, "until": true}

// readValid reads when the rule is in force.
func readValid(s section, f field) (from, until time.Time) {
	if f.value.Kind != yaml.MappingNode {
		s.wrong(f.value, `"valid" must have "from", "until" or both, as in {until: 2026-12-31}, and not be %s`, kindOf(f.value))
		return from, until
	}
	valid, ok := readSection(f.value, s.problems, s.label, validKeys)
	if !ok {
		return from, until
	}
	if len(f.value.Content) == 0 {
		s.wrong(f.value, `"valid" needs "from", "until" or both`)
	}
	from, until = valid.moment("from"), valid.moment("until")
	if !from.IsZero() && !until.IsZero() && !from.Before(until) {
		s.wrong(valid.keys["until"].value, `"until" must be later than "from"`)
	}
	return from, until
}

// moment returns the time under a key; a day stands for its beginning in UTC.
func (s section) moment(key string) time.Time {
	f, ok := s.keys[key]
	if !ok {
		return time.Time{}
	}
	if f.value.Kind == yaml.ScalarNode {
		for _, form := range [...]string{time.RFC3339, time.DateOnly} {
			if at, err := time.Parse(form, f.value.Value); err == nil && !at.IsZero() {
				return at
			}
		}
	}
	s.wrong(f.value, "%q must be a day or a time with its zone, as in 2026-12-31 or 2026-12-31T18:00:00Z", key)
	return time.Time{}
}

// when reads an expression. What rules have in common is compiled once.
func (rr ruleReader) when(s section, text item) *condition {
	if c, ok := rr.compiled[text.text]; ok {
		return c
	}
	if rr.full() {
		return nil
	}
	rr.total.expressions += len(text.text)
	parsed, loops, err := parseCondition(text.text)
	rr.total.loops += loops
	var c *condition
	if err == nil {
		c, err = checkCondition(text.text, parsed)
	}
	if err == nil {
		rr.total.states += c.states
		rr.compiled[text.text] = c
	}
	var at *celError
	switch {
	case errors.As(err, &at) && text.node.Style == 0 && at.line == 1: // what YAML calls plain
		s.at(text.node.Line, text.node.Column+at.column, "%s: \"when\": %s", s.label, at.message)
	case errors.As(err, &at):
		s.wrong(text.node, "\"when\": at %d:%d of the expression: %s", at.line, at.column+1, at.message)
	case err != nil:
		s.wrong(text.node, "\"when\": %v", err)
	}
	return c
}

// readReason reads what a reason that is stated must look like.
func (rr ruleReader) reason(s section) *regexp.Regexp {
	text, ok := s.text("reason")
	if !ok || rr.full() {
		return nil
	}
	compiled, states, err := compileRegex(text.text)
	if err != nil {
		s.wrong(text.node, `"reason" is no regular expression that can be used: %v`, err)
	}
	rr.total.states += states
	return compiled
}

// duties reads what is demanded where the rule applies.
func (rr ruleReader) duties(s section, r *rule) {
	if r.only(s, "at_most", Oblige) {
		r.atMost = rr.reveal(s, "at_most", r.profiles, true)
	}
	if r.only(s, "notify", Allow, Oblige) {
		f := s.keys["notify"]
		if r.notify = f.value.Value == "true"; f.value.ShortTag() != "!!bool" {
			s.wrong(f.value, `"notify" must be true or false, not %s`, kindOf(f.value))
		}
	}
	if r.only(s, "limits", Allow, Oblige) {
		r.limits = readLimits(s, r.name)
	}
	if r.only(s, "approval", Allow) {
		r.approval = rr.approval(s, r.name)
	}
	if r.effect == Oblige && r.reason == nil && r.atMost == 0 && !r.notify && r.limits == nil && rr.none() {
		s.wrong(s.node, `a rule that obliges needs "reason", "at_most", "limits" or "notify: true"`)
	}
}

// readLimits reads the limits of a rule.
func readLimits(s section, rule string) *Limits {
	f := s.keys["limits"]
	l := &Limits{Rule: rule}
	bounds := map[string]*uint64{
		"items_per_second": &l.ItemsPerSecond, "items_per_minute": &l.ItemsPerMinute,
		"values_per_hour": &l.ValuesPerHour, "values_per_day": &l.ValuesPerDay,
		"subjects_per_hour": &l.SubjectsPerHour, "subjects_per_day": &l.SubjectsPerDay,
	}
	limits, ok := readSection(f.value, s.problems, s.label, keysOf(bounds))
	if !ok {
		return nil
	}
	if len(f.value.Content) == 0 {
		s.wrong(f.value, `"limits" is empty`)
	}
	for key := range limits.keys {
		*bounds[key] = limits.count(key)
	}
	return l
}

func keysOf[V any](m map[string]V) map[string]bool {
	keys := make(map[string]bool, len(m))
	for key := range m {
		keys[key] = true
	}
	return keys
}

// count returns the whole number under a key, from 1.
func (s section) count(key string) uint64 {
	f, ok := s.keys[key]
	if !ok {
		s.wrong(s.node, "%q is missing", key)
		return 0
	}
	n, err := strconv.ParseUint(f.value.Value, 10, 64)
	if f.value.ShortTag() != "!!int" || err != nil || n == 0 || n > maxLimit {
		s.wrong(f.value, "%q must be a whole number from 1 to %d", key, uint64(maxLimit))
	}
	return n
}

var approvalKeys = map[string]bool{"approvers": true, "for": true, "max_items": true}

// approval reads who has to agree, and to what.
func (rr ruleReader) approval(s section, name string) *Approval {
	f := s.keys["approval"]
	about, ok := readSection(f.value, s.problems, s.label, approvalKeys)
	if !ok {
		return nil
	}
	a := &Approval{Rule: name, approvers: rr.callerList(about, "approvers"), MaxItems: about.count("max_items")}
	if _, ok := about.keys["approvers"]; !ok {
		about.wrong(f.value, `"approvers" is missing`)
	}
	length, ok := about.keys["for"]
	if !ok {
		about.wrong(f.value, `"for" is missing`)
		return a
	}
	var err error
	a.For, err = time.ParseDuration(length.value.Value)
	if !isText(length.value) || err != nil || a.For < time.Second || a.For > maxApprovalTime {
		about.wrong(length.value, `"for" must be a time from 1s to %s, as in 15m`, maxApprovalTime)
	}
	return a
}

// traits checks that what the rule demands can be known, stated and counted for each of
// its actions.
func (rr ruleReader) traits(s section, r *rule) {
	for _, c := range []struct {
		key  string
		used bool
		has  func(ActionTraits) bool
		why  string
	}{
		{"metadata", len(r.metadata) > 0, func(t ActionTraits) bool { return t.Token }, "is not about one token, whose labels would be known"},
		{"when", r.when != nil && r.when.needsToken, func(t ActionTraits) bool { return t.Token }, "is not about one token, of which the expression speaks"},
		{"reason", r.reason != nil, func(t ActionTraits) bool { return t.Reason }, "has no reason that could be stated"},
		{"limits", r.limits.countsValues(), func(t ActionTraits) bool { return t.Values }, "gives no values away that could be counted"},
		{"approval", r.approval != nil, func(t ActionTraits) bool { return t.Values }, "gives no values away that somebody could approve of"},
	} {
		if !c.used {
			continue
		}
		if len(r.actions) == 0 {
			s.wrong(s.keys[c.key].key, `%q needs "actions": not every action has what it is about`, c.key)
		}
		for _, action := range r.actions {
			if !c.has(rr.vocabulary.Traits[action]) {
				s.wrong(s.keys[c.key].key, "%q has no meaning for the action %q: it %s", c.key, action, c.why)
			}
		}
	}
	for _, key := range []string{"consent", "at_most"} {
		reveals := len(r.actions) == 0 || slices.ContainsFunc(r.actions, func(action string) bool {
			return rr.vocabulary.Actions[action] == RevealAction || key == "at_most" && rr.vocabulary.Traits[action].Values
		})
		if f, ok := s.keys[key]; ok && !reveals {
			s.wrong(f.key, "%q has no meaning here: none of the actions reveals anything", key)
		}
	}
}

// countsValues says whether there is a budget among the limits.
func (l *Limits) countsValues() bool {
	return l != nil && l.ValuesPerHour|l.ValuesPerDay|l.SubjectsPerHour|l.SubjectsPerDay != 0
}

// String says what the limits are, for people.
func (l *Limits) String() string {
	text := ""
	for _, b := range l.bounds() {
		if b.most > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%s: %d", b.name, b.most)
		}
	}
	return text
}

type bound struct {
	name string
	most uint64
}

// bounds returns the limits by what the file calls them.
func (l *Limits) bounds() [6]bound {
	return [...]bound{
		{"items_per_second", l.ItemsPerSecond}, {"items_per_minute", l.ItemsPerMinute},
		{"values_per_hour", l.ValuesPerHour}, {"values_per_day", l.ValuesPerDay},
		{"subjects_per_hour", l.SubjectsPerHour}, {"subjects_per_day", l.SubjectsPerDay},
	}
}
