package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// rule is a rule of the file. It allows each combination of what it names.
type rule struct {
	line, column int
	name         string
	callers      []string
	actions      []string
	profiles     []string
	purposes     []string
	reveal       forms // none unless an action is a RevealAction
}

var (
	ruleForm    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	purposeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

// ruleKeys are the keys that a rule may have.
var ruleKeys = map[string]bool{
	"name": true, "description": true, "callers": true, "actions": true,
	"profiles": true, "purposes": true, "reveal": true,
}

// ruleReader reads the rules of a file one after the other.
type ruleReader struct {
	*problems
	notes      *problems // what is no error
	vocabulary Vocabulary
	lines      map[string]int // where each name was first used
}

// read reads a rule, the index-th of the file. What it returns is of use only
// if there are no problems in the end.
func (rr ruleReader) read(n *yaml.Node, index int) rule {
	s, ok := readSection(n, rr.problems, ruleLabel(n, index), ruleKeys)
	if !ok {
		return rule{}
	}
	r := rule{line: n.Line, column: n.Column}
	r.name = rr.name(s)
	if _, ok := s.keys["description"]; ok {
		s.text("description")
	}
	r.callers = rr.callers(s)
	var need needs
	r.actions, need = rr.actions(s)
	r.profiles = rr.profiles(s)
	r.purposes = rr.purposes(s, r.profiles)
	r.reveal = rr.reveal(s, r.profiles)
	if need.known {
		need.check(s)
	}
	rr.note(s, r)
	return r
}

// note notes what a rule allows in vain.
func (rr ruleReader) note(s section, r rule) {
	s.problems = rr.notes
	for _, action := range r.actions {
		profiles := make(map[string][]string) // by why
		for _, profile := range r.profiles {
			if why, vain := rr.vocabulary.Profiles[profile].Vain[action]; vain {
				profiles[why] = append(profiles[why], profile)
			}
		}
		for _, why := range slices.Sorted(maps.Keys(profiles)) {
			s.wrong(s.keys["profiles"].key, "%s can't succeed on %s: %s", action, strings.Join(profiles[why], ", "), why)
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

func (rr ruleReader) callers(s section) (callers []string) {
	if _, ok := s.keys["callers"]; !ok {
		s.wrong(s.node, `"callers" is missing`)
	}
	for _, caller := range s.texts("callers") {
		if err := ValidateCaller(caller.text); err != nil {
			s.wrong(caller.node, "caller %s: %v", quote(caller.text), err)
			continue
		}
		callers = append(callers, caller.text)
	}
	return callers
}

// actions reads the actions and says what else they need the rule to name.
func (rr ruleReader) actions(s section) (actions []string, need needs) {
	if _, ok := s.keys["actions"]; !ok {
		s.wrong(s.node, `"actions" is missing`)
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

func (rr ruleReader) profiles(s section) (profiles []string) {
	for _, profile := range s.texts("profiles") {
		if _, ok := rr.vocabulary.Profiles[profile.text]; !ok {
			s.wrong(profile.node, "unknown profile %s%s", quote(profile.text), known(rr.problems, profile.text, rr.vocabulary.Profiles))
			continue
		}
		profiles = append(profiles, profile.text)
	}
	return profiles
}

// purposes reads the purposes, each of which each of the profiles must allow.
func (rr ruleReader) purposes(s section, profiles []string) (purposes []string) {
	for _, purpose := range s.texts("purposes") {
		if !purposeForm.MatchString(purpose.text) {
			s.wrong(purpose.node, "purpose %s is not of the form [a-z][a-z0-9-]{0,30}", quote(purpose.text))
			continue
		}
		for _, profile := range profiles {
			allowed := rr.vocabulary.Profiles[profile].Purposes
			if slices.Contains(allowed, purpose.text) {
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

// reveal reads the forms, of which each of the profiles must have those that
// are parts.
func (rr ruleReader) reveal(s section, profiles []string) (granted forms) {
	for _, name := range s.textOrTexts("reveal") {
		form, ok := ParseReveal(name.text)
		if !ok {
			s.wrong(name.node, "unknown reveal %s (known: %s)", quote(name.text), strings.Join(revealNames[Masked:], ", "))
			continue
		}
		granted |= grantedBy(form)
		if !form.isPart() {
			continue
		}
		for _, profile := range profiles {
			parts := rr.vocabulary.Profiles[profile].Parts
			if slices.Contains(parts, name.text) {
				continue
			}
			if len(parts) == 0 {
				s.wrong(name.node, "profile %q has no part %q, nor any other", profile, name.text)
				continue
			}
			s.wrong(name.node, "profile %q has no part %q (known: %s)", profile, name.text, strings.Join(parts, ", "))
		}
	}
	return granted
}

// needs says which actions of a rule need it to name what: one of them, or "".
type needs struct {
	known              bool // whether all actions are known, so that the rest holds
	profiles, purposes string
}

// check adds what a rule names in vain and what it fails to name.
func (n needs) check(s section) {
	for _, c := range []struct{ key, action, vain string }{
		{"profiles", n.profiles, "none of the actions is about a profile"},
		{"purposes", n.purposes, "none of the actions reveals anything"},
		{"reveal", n.purposes, "none of the actions reveals anything"},
	} {
		f, ok := s.keys[c.key]
		switch {
		case ok && c.action == "":
			s.wrong(f.key, "%q has no meaning here: %s", c.key, c.vain)
		case !ok && c.action != "":
			s.wrong(s.node, "%q is missing: the action %q needs it", c.key, c.action)
		}
	}
}
