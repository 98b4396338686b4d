package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

var (
	ruleForm    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	purposeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

// ruleKeys are the keys that a rule may have.
var ruleKeys = map[string]bool{
	"name": true, "description": true, "effect": true,
	"callers": true, "actions": true, "namespaces": true, "classes": true, "profiles": true, "purposes": true, "reveal": true,
	"metadata": true, "networks": true, "valid": true, "when": true, "reason": true, "consent": true,
	"at_most": true, "notify": true, "limits": true, "approval": true,
}

// ruleReader reads the rules of a file one after the other.
type ruleReader struct {
	*problems
	notes       *problems // what is no error
	vocabulary  Vocabulary
	groups      map[string]*group
	allPurposes map[string]bool       // the purposes of all profiles
	members     map[string][]string   // the profiles of each class
	lines       map[string]int        // where each name was first used
	compiled    map[string]*condition // by their text
	total       *totals
}

// read reads a rule, the index-th of the file. What it returns is of use only
// if there are no problems in the end.
func (rr ruleReader) read(n *yaml.Node, index int) rule {
	s, ok := readSection(n, rr.problems, ruleLabel(n, index), ruleKeys)
	if !ok {
		return rule{}
	}
	r := rule{line: n.Line, column: n.Column, effect: rr.effect(s)}
	r.name = rr.name(s)
	if _, ok := s.keys["description"]; ok {
		s.text("description")
	}
	r.callers = rr.callers(s, r.effect)
	var need needs
	r.actions, need = rr.actions(s, r.effect)
	r.namespaces = rr.namespaces(s, r.effect)
	r.profiles, r.classes = rr.profiles(s)
	r.purposes = rr.purposes(s, r.profiles)
	if r.only(s, "reveal", Allow, Deny) {
		r.reveal = rr.reveal(s, "reveal", r.profiles, r.effect == Allow)
	}
	if need.known {
		need.check(s, r.effect)
	}
	rr.conditions(s, &r)
	rr.duties(s, &r)
	rr.total.combinations += r.size()
	if rr.none() {
		rr.traits(s, &r)
		rr.note(s, r)
	}
	return r
}

// note notes what a rule allows in vain.
func (rr ruleReader) note(s section, r rule) {
	if r.effect != Allow {
		return
	}
	s.problems = rr.notes
	at, ok := s.keys["profiles"]
	if !ok {
		at = s.keys["classes"]
	}
	for _, action := range r.actions {
		profiles := make(map[string][]string) // by why
		for _, profile := range r.profiles {
			if why, vain := rr.vocabulary.Profiles[profile].Vain[action]; vain {
				profiles[why] = append(profiles[why], profile)
			}
		}
		for _, why := range slices.Sorted(maps.Keys(profiles)) {
			s.wrong(at.key, "%s can't succeed on %s: %s", action, strings.Join(profiles[why], ", "), why)
		}
	}
}

// ruleLabel is what errors call a rule: by its name, if it has one that can be
// read, else by its place.
func ruleLabel(n *yaml.Node, index int) string {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "name" && isText(n.Content[i+1]) && n.Content[i+1].Value != "" {
				return "rule " + quote(n.Content[i+1].Value)
			}
		}
	}
	return fmt.Sprintf("rule %d of the list", index+1)
}

func (rr ruleReader) name(s section) string {
	name, ok := s.text("name")
	if !ok {
		return ""
	}
	if !ruleForm.MatchString(name.text) {
		s.wrong(name.node, "a name is of the form [a-z][a-z0-9-]{0,62}")
		return ""
	}
	if line, ok := rr.lines[name.text]; ok {
		s.wrong(name.node, "another rule has this name, at line %d", line)
		return ""
	}
	rr.lines[name.text] = name.node.Line
	return name.text
}

// effects are those that there are.
var effects = map[string]bool{string(Allow): true, string(Deny): true, string(Oblige): true}

func (rr ruleReader) effect(s section) Effect {
	if _, ok := s.keys["effect"]; !ok {
		return Allow
	}
	effect, ok := s.text("effect")
	if ok && !effects[effect.text] {
		s.wrong(effect.node, "unknown effect %s%s", quote(effect.text), known(rr.problems, effect.text, effects))
	}
	return Effect(effect.text)
}

// callers reads whom the rule is about: everybody, if one that doesn't allow names
// nobody.
func (rr ruleReader) callers(s section, effect Effect) (set callerSet) {
	if _, ok := s.keys["callers"]; !ok {
		if set.everybody = effect != Allow; !set.everybody {
			s.wrong(s.node, `"callers" is missing`)
		}
		return set
	}
	return rr.callerList(s, "callers")
}

// callerList reads a list of identities, patterns and groups.
func (rr ruleReader) callerList(s section, key string) (set callerSet) {
	texts := s.texts(key)
	rr.total.callers += len(texts)
	for _, caller := range texts {
		set.names = append(set.names, caller.text)
		if name, ok := strings.CutPrefix(caller.text, groupPrefix); ok {
			g, ok := rr.groups[name]
			if !ok {
				s.wrong(caller.node, "unknown group %s%s", quote(name), known(rr.problems, name, rr.groups))
				continue
			}
			g.used = true
			rr.total.callers += len(g.callers)
			for _, member := range g.callers {
				set.add(member)
			}
			continue
		}
		if err := validateCallers(caller.text); err != nil {
			s.wrong(caller.node, "caller %s: %v", quote(caller.text), err)
			continue
		}
		set.add(caller.text)
	}
	return set
}

// actions reads the actions and says what else they need the rule to name.
func (rr ruleReader) actions(s section, effect Effect) (actions []string, need needs) {
	if _, ok := s.keys["actions"]; !ok {
		if effect == Allow {
			s.wrong(s.node, `"actions" is missing`)
		}
		return nil, needs{}
	}
	found := s.texts("actions")
	need.known = len(found) > 0 && len(found) == len(s.keys["actions"].value.Content)
	for _, action := range found {
		kind := rr.vocabulary.Actions[action.text]
		switch kind {
		case PlainAction:
		case ProfileAction:
			need.profiles = action.text
		case RevealAction:
			need.profiles, need.purposes = action.text, action.text
		default:
			s.wrong(action.node, "unknown action %s%s", quote(action.text), known(rr.problems, action.text, rr.vocabulary.Actions))
			need.known = false
			continue
		}
		actions = append(actions, action.text)
	}
	return actions, need
}

// namespaces reads whose data the rule is about: everybody's, if one that doesn't allow
// names nobody.
func (rr ruleReader) namespaces(s section, effect Effect) (namespaces []string) {
	if _, ok := s.keys["namespaces"]; !ok && effect == Allow {
		return []string{DefaultNamespace}
	}
	all := make(map[string]bool)
	for _, name := range rr.vocabulary.namespaces() {
		all[name] = true
	}
	for _, name := range s.texts("namespaces") {
		if !all[name.text] {
			s.wrong(name.node, "unknown namespace %s%s", quote(name.text), known(rr.problems, name.text, all))
		}
		namespaces = append(namespaces, name.text)
	}
	return namespaces
}

// profiles reads the profiles, those of the classes included.
func (rr ruleReader) profiles(s section) (profiles, classes []string) {
	for _, profile := range s.texts("profiles") {
		if _, ok := rr.vocabulary.Profiles[profile.text]; !ok {
			s.wrong(profile.node, "unknown profile %s%s", quote(profile.text), known(rr.problems, profile.text, rr.vocabulary.Profiles))
			continue
		}
		profiles = append(profiles, profile.text)
	}
	for _, class := range s.texts("classes") {
		if rr.members[class.text] == nil {
			s.wrong(class.node, "no profile is of the class %s%s", quote(class.text), known(rr.problems, class.text, rr.members))
			continue
		}
		classes = append(classes, class.text)
		for _, profile := range rr.members[class.text] {
			if !slices.Contains(profiles, profile) {
				profiles = append(profiles, profile)
			}
		}
	}
	return profiles, classes
}

// purposes reads the purposes, each of which each of the profiles must allow.
func (rr ruleReader) purposes(s section, profiles []string) (purposes []string) {
	for _, purpose := range s.texts("purposes") {
		if !purposeForm.MatchString(purpose.text) {
			s.wrong(purpose.node, "purpose %s is not of the form [a-z][a-z0-9-]{0,30}", quote(purpose.text))
			continue
		}
		if len(profiles) == 0 && !rr.allPurposes[purpose.text] {
			s.wrong(purpose.node, "no profile allows purpose %q", purpose.text)
		}
		for _, profile := range profiles {
			allowed := rr.vocabulary.Profiles[profile].Purposes
			if slices.Contains(allowed, purpose.text) {
				continue
			}
			if rr.full() {
				rr.more++
				continue
			}
			if len(allowed) == 0 {
				s.wrong(purpose.node, "profile %q does not allow purpose %q, nor any other", profile, purpose.text)
				continue
			}
			s.wrong(purpose.node, "profile %q does not allow purpose %q (allowed: %s)",
				profile, purpose.text, strings.Join(allowed, ", "))
		}
		purposes = append(purposes, purpose.text)
	}
	return purposes
}

// reveal reads the forms under a key, of which each of the profiles must have those
// that are parts. Where they are granted, FULL stands for all; else for itself.
func (rr ruleReader) reveal(s section, key string, profiles []string, granted bool) (found forms) {
	for _, name := range s.textOrTexts(key) {
		form, ok := ParseReveal(name.text)
		if !ok {
			s.wrong(name.node, "unknown reveal %s (known: %s)", quote(name.text), strings.Join(revealNames[Masked:], ", "))
			continue
		}
		if granted {
			found |= grantedBy(form)
		} else {
			found |= 1 << form
		}
		if !form.isPart() {
			continue
		}
		for _, profile := range profiles {
			parts := rr.vocabulary.Profiles[profile].Parts
			if slices.Contains(parts, name.text) {
				continue
			}
			if rr.full() {
				rr.more++
				continue
			}
			if len(parts) == 0 {
				s.wrong(name.node, "profile %q has no part %q, nor any other", profile, name.text)
				continue
			}
			s.wrong(name.node, "profile %q has no part %q (known: %s)", profile, name.text, strings.Join(parts, ", "))
		}
	}
	return found
}

// needs says which actions of a rule need it to name what: one of them, or "".
type needs struct {
	known              bool // whether all actions are known, so that the rest holds
	profiles, purposes string
}

// check adds what a rule names in vain and, if it allows, what it fails to name.
func (n needs) check(s section, effect Effect) {
	if _, ok := s.keys["classes"]; ok && n.profiles == "" {
		s.wrong(s.keys["classes"].key, `"classes" has no meaning here: none of the actions is about a profile`)
	} else if ok {
		n.profiles = ""
	}
	for _, c := range []struct{ key, action, vain string }{
		{"profiles", n.profiles, "none of the actions is about a profile"},
		{"purposes", n.purposes, "none of the actions reveals anything"},
		{"reveal", n.purposes, "none of the actions reveals anything"},
	} {
		f, ok := s.keys[c.key]
		_, classes := s.keys["classes"]
		switch {
		case ok && c.action == "" && !(c.key == "profiles" && classes):
			s.wrong(f.key, "%q has no meaning here: %s", c.key, c.vain)
		case !ok && c.action != "" && effect == Allow:
			s.wrong(s.node, "%q is missing: the action %q needs it", c.key, c.action)
		}
	}
}
