package policy

import (
	"errors"
	"slices"
	"strings"
)

// groupPrefix marks the name of a group in a list of callers.
const groupPrefix = "group:"

// callerSet says which callers a rule is about.
type callerSet struct {
	everybody bool
	names     []string // as the file has them: identities, patterns, groups
	exact     []string // identities, those of groups included
	patterns  []pattern

	all map[string]bool // of both
}

// has says whether a caller is in the set.
func (c *callerSet) has(caller string) bool {
	return c.everybody || c.all[caller] ||
		slices.ContainsFunc(c.patterns, func(p pattern) bool { return p.matches(caller) })
}

// add adds an identity or a pattern.
func (c *callerSet) add(text string) {
	if c.all[text] {
		return
	}
	if c.all == nil {
		c.all = make(map[string]bool)
	}
	c.all[text] = true
	if p, ok := asPattern(text); ok {
		c.patterns = append(c.patterns, p)
	} else {
		c.exact = append(c.exact, text)
	}
}

// pattern is an identity with "*" in place of whole segments: of the path of a
// SPIFFE ID, or of labels of a host name. Each stands for exactly one.
type pattern struct {
	prefix    string // with which whatever matches begins
	rest      string
	separator string
}

// asPattern takes a pattern apart that validateCallers has let pass, and returns
// false if it is none.
func asPattern(text string) (pattern, bool) {
	if !strings.Contains(text, "*") {
		return pattern{}, false
	}
	if rest, ok := strings.CutPrefix(text, "dns:"); ok {
		return pattern{"dns:", rest, "."}, true
	}
	rest := strings.TrimPrefix(text, "spiffe://")
	domain, path, _ := strings.Cut(rest, "/")
	return pattern{"spiffe://" + domain + "/", path, "/"}, true
}

// matches compares segment by segment.
func (p pattern) matches(caller string) bool {
	rest, ok := strings.CutPrefix(caller, p.prefix)
	if !ok {
		return false
	}
	for want := p.rest; ; {
		segment, after, more := strings.Cut(want, p.separator)
		has, left, follows := strings.Cut(rest, p.separator)
		if segment != has && (segment != "*" || has == "") || more != follows {
			return false
		}
		if !more {
			return true
		}
		want, rest = after, left
	}
}

// validateCallers returns nil for an identity of ValidateCaller and for a pattern of
// some, and else what is wrong with it.
func validateCallers(text string) error {
	if !strings.Contains(text, "*") {
		return ValidateCaller(text)
	}
	name, isHost := strings.CutPrefix(text, "dns:")
	separator := "."
	if !isHost {
		rest, isSPIFFE := strings.CutPrefix(text, "spiffe://")
		if !isSPIFFE {
			return errors.New(`"*" stands for a segment of the path of a SPIFFE ID, or for a label of a host name; nothing else has patterns`)
		}
		domain, path, _ := strings.Cut(rest, "/")
		if strings.Contains(domain, "*") {
			return errors.New(`the trust domain of a SPIFFE ID has no "*": whoever may issue one in another domain would be meant`)
		}
		name, separator = path, "/"
	}
	segments := strings.Split(name, separator)
	for i, segment := range segments {
		switch {
		case segment == "*" && isHost && i == len(segments)-1:
			return errors.New(`the last label of a host name is no "*"`)
		case segment == "*":
			segments[i] = "x"
		case strings.Contains(segment, "*"):
			return errors.New(`"*" stands for a whole segment, no more and no less`)
		}
	}
	return ValidateCaller(strings.TrimSuffix(text, name) + strings.Join(segments, separator))
}
