package audit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// AnyAlert stands for every alert in a Query.
const AnyAlert = "ANY"

// Query says which events are wanted: those for which all holds that is set.
//
// Profile, Purpose, Decision, Rule, Code, Reason, Approval, Tokens and Subjects are about
// an item: an event with items is wanted if all of them hold for the same one of them,
// where an item that lacks a field has that of the event.
type Query struct {
	Since, Until time.Time // from the one on and before the other, by Event.Time; zero is no bound

	Caller, Certificate, RequestID, Action string
	Profile, Purpose, Decision, Rule       string
	Code, Reason, Approval                 string
	Tokens, Subjects                       []string // digests, one of which has to be the item's
	Alert                                  string   // one of the event's, or AnyAlert
}

// Filter finds the events of a Query. It is safe for concurrent use.
type Filter struct {
	query  Query
	within period
	wanted []wanted
	parse  bool // whether it takes a look at the items, since more has to hold for one of them
}

// wanted is what has to stand in an event for a field to be as it should.
type wanted struct {
	field termField
	terms []term   // one of which the index has to know
	texts [][]byte // one of which has to stand in the event
}

// NewFilter returns the filter of a query.
func NewFilter(q Query) *Filter {
	f := &Filter{query: q, within: newPeriod(q.Since, q.Until)}
	for _, w := range []struct {
		field  termField
		name   string
		values []string
	}{
		{fieldSubject, "subject", q.Subjects}, {fieldToken, "token", q.Tokens}, {fieldRequestID, "request_id", one(q.RequestID)},
		{fieldApproval, "approval", one(q.Approval)}, {fieldCertificate, "certificate", one(q.Certificate)}, {fieldCaller, "caller", one(q.Caller)},
		{fieldAction, "action", one(q.Action)}, {fieldProfile, "profile", one(q.Profile)}, {fieldPurpose, "purpose", one(q.Purpose)},
		{fieldDecision, "decision", one(q.Decision)}, {fieldRule, "rule", one(q.Rule)}, {fieldCode, "code", one(q.Code)}, {fieldReason, "reason", one(q.Reason)},
	} {
		if len(w.values) == 0 {
			continue
		}
		has := wanted{field: w.field}
		for _, v := range w.values {
			has.texts = append(has.texts, appendString([]byte(`"`+w.name+`":`), v))
			has.terms = append(has.terms, termOf(w.field, v))
		}
		f.wanted = append(f.wanted, has)
	}
	f.parse = slices.ContainsFunc(f.wanted, func(w wanted) bool {
		switch w.field {
		case fieldCaller, fieldCertificate, fieldRequestID, fieldAction: // of the event only
			return false
		case fieldToken, fieldSubject: // of items only
			return len(f.wanted) > 1
		}
		return true
	})
	switch q.Alert {
	case "":
	case AnyAlert:
		f.wanted = append(f.wanted, wanted{fieldAlerts, []term{newTerm(fieldAlerts, nil)}, [][]byte{[]byte(`,"alerts":[`)}})
	default:
		f.parse = true
		f.wanted = append(f.wanted, wanted{fieldAlerts, []term{termOf(fieldAlerts, q.Alert)}, [][]byte{appendString(nil, q.Alert)}})
	}
	return f
}

// one returns a list of the value, empty if it is.
func one(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

// termOf is newTerm of a value that is not escaped yet.
func termOf(field termField, value string) term {
	text := appendString(nil, value)
	return newTerm(field, text[1:len(text)-1])
}

// Match says whether an event is wanted. The body must be as Event.Body writes it; one
// that doesn't parse, though all that is wanted stands in it, is.
func (f *Filter) Match(body []byte) bool {
	if !f.within.contains(bodyTime(body)) {
		return false
	}
	for _, w := range f.wanted {
		// No such text is within another: the quotes in texts are escaped.
		if !slices.ContainsFunc(w.texts, func(text []byte) bool { return bytes.Contains(body, text) }) {
			return false
		}
	}
	if !f.parse {
		return true
	}
	var e Event
	if err := json.Unmarshal(body, &e); err != nil {
		return true
	}
	return f.query.holds(&e)
}

// holds says whether an event is as it should, its time apart.
func (q *Query) holds(e *Event) bool {
	for _, f := range [...]struct{ want, have string }{
		{q.Caller, e.Caller}, {q.Certificate, e.Certificate}, {q.RequestID, e.RequestID}, {q.Action, e.Action},
	} {
		if f.want != "" && f.want != f.have {
			return false
		}
	}
	if q.Alert != "" && !slices.Contains(e.Alerts, q.Alert) && (q.Alert != AnyAlert || len(e.Alerts) == 0) {
		return false
	}
	if len(e.Items) == 0 {
		return q.holdsFor(e, &Item{})
	}
	return slices.ContainsFunc(e.Items, func(i Item) bool { return q.holdsFor(e, &i) })
}

// holdsFor says whether what is wanted of an item holds for one of the event.
func (q *Query) holdsFor(e *Event, i *Item) bool {
	code, reason := i.Code, i.Reason
	if code == "" {
		code, reason = e.Code, e.Reason
	}
	for _, f := range [...]struct{ want, own, shared string }{
		{q.Profile, i.Profile, e.Profile}, {q.Purpose, i.Purpose, e.Purpose},
		{q.Decision, string(i.Decision), string(e.Decision)}, {q.Rule, i.Rule, e.Rule},
		{q.Code, code, ""}, {q.Reason, reason, ""}, {q.Approval, i.Approval, e.Approval},
	} {
		if f.want != "" && f.want != cmp.Or(f.own, f.shared) {
			return false
		}
	}
	return (len(q.Tokens) == 0 || slices.Contains(q.Tokens, i.Token)) &&
		(len(q.Subjects) == 0 || slices.Contains(q.Subjects, i.Subject))
}

// Items returns the items of an event for which all holds that is wanted of one, each with
// what it has from the event. An event without items counts as one without a token.
func (q *Query) Items(e *Event) (items []Item) {
	own := e.Items
	if len(own) == 0 {
		own = []Item{{}}
	}
	for _, i := range own {
		if !q.holdsFor(e, &i) {
			continue
		}
		if i.Code == "" {
			i.Code, i.Reason = e.Code, e.Reason
		}
		i.Profile, i.Purpose, i.Rule = cmp.Or(i.Profile, e.Profile), cmp.Or(i.Purpose, e.Purpose), cmp.Or(i.Rule, e.Rule)
		i.Reveal, i.Decision, i.Approval = cmp.Or(i.Reveal, e.Reveal), cmp.Or(i.Decision, e.Decision), cmp.Or(i.Approval, e.Approval)
		items = append(items, i)
	}
	return items
}
