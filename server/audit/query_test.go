package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// made are events as they might come, out of few words, so that queries find some.
type made struct {
	*rand.Rand
	n int
}

var madeBegin = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func (m *made) word(words ...string) string { return words[m.IntN(len(words))] }

func (m *made) digest(kind string, of int) string {
	return fmt.Sprintf("a%d:%s%030d", 1+m.IntN(2), kind, m.IntN(of))
}

func (m *made) item() Item {
	i := Item{Token: m.digest("0a", 40), Subject: m.digest("0b", 20)}
	if m.IntN(3) == 0 {
		i.Profile, i.Purpose = m.word("card", "ssn"), m.word("charge", "refund")
	}
	if m.IntN(4) == 0 {
		i.Code, i.Reason, i.Decision = m.word("NOT_FOUND", "PERMISSION_DENIED"), m.word("TOKEN_NOT_FOUND", "NO_RULE"), Deny
	}
	if m.IntN(8) == 0 {
		i.Subject = ""
	}
	return i
}

func (m *made) event() *Event {
	m.n++
	e := &Event{
		// A few come in before the one before.
		Time:      madeBegin.Add(time.Duration(m.n)*time.Second - time.Duration(m.IntN(3))*time.Minute),
		RequestID: fmt.Sprintf("%016x", m.n), Caller: m.word("spiffe://x/shop", "cn:Köln \"\\\" \u2028", "dns:pay", ""),
		Certificate: strings.Repeat(m.word("ab", "cd"), 32), Action: m.word("tokenize", "detokenize", "sweep"),
		Profile: m.word("card", "", "card\"}"), Purpose: m.word("charge", ""), Decision: Decision(m.word("allow", "deny", "")),
		Rule: m.word("one", "two", ""), Code: "OK", Approval: m.word("", "", "0123"),
	}
	if m.IntN(5) == 0 {
		e.Code, e.Reason = "PERMISSION_DENIED", m.word("NO_RULE", "PURPOSE_NOT_ALLOWED")
	}
	if m.IntN(50) == 0 {
		e.Alerts = []string{m.word(AlertBurst, AlertHoneytoken)}
		if m.IntN(2) == 0 {
			e.Alerts = append(e.Alerts, AlertNotify)
		}
	}
	e.StatedReason = m.word("", `,"subject":"a1:0b000000000000000000000000000000"`, "HONEYTOKEN", "}")
	for range m.IntN(4) {
		e.Items = append(e.Items, m.item())
	}
	return e
}

// query returns a query that finds some of the events, or none.
func (m *made) query() Query {
	var q Query
	some := func(field *string, words ...string) {
		if m.IntN(6) == 0 {
			*field = m.word(words...)
		}
	}
	some(&q.Caller, "spiffe://x/shop", "cn:Köln \"\\\" \u2028", "dns:nobody")
	some(&q.Certificate, strings.Repeat("ab", 32))
	some(&q.Action, "tokenize", "sweep", "never")
	some(&q.Profile, "card", "ssn", "card\"}")
	some(&q.Purpose, "charge", "refund")
	some(&q.Decision, "allow", "deny")
	some(&q.Rule, "one", "two")
	some(&q.Code, "OK", "NOT_FOUND", "PERMISSION_DENIED")
	some(&q.Reason, "NO_RULE", "TOKEN_NOT_FOUND")
	some(&q.Approval, "0123")
	some(&q.Alert, AlertBurst, AlertHoneytoken, AnyAlert)
	switch m.IntN(6) {
	case 0:
		q.Subjects = []string{m.digest("0b", 20), m.digest("0b", 20)}
	case 1:
		q.Tokens = []string{m.digest("0a", 40)}
	case 2:
		q.RequestID = fmt.Sprintf("%016x", m.IntN(m.n+1))
	}
	if m.IntN(4) == 0 {
		q.Since = madeBegin.Add(time.Duration(m.IntN(m.n+1)) * time.Second)
	}
	if m.IntN(4) == 0 {
		q.Until = madeBegin.Add(time.Duration(m.IntN(m.n+1)) * time.Second)
	}
	return q
}

// naive says whether a query wants an event, by what its comment says and nothing else.
func naive(q Query, e *Event) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	if !q.Since.IsZero() && e.Time.Before(q.Since) || !q.Until.IsZero() && !e.Time.Before(q.Until) {
		return false
	}
	if !is(q.Caller, e.Caller) || !is(q.Certificate, e.Certificate) || !is(q.RequestID, e.RequestID) || !is(q.Action, e.Action) {
		return false
	}
	if q.Alert != "" && !(q.Alert == AnyAlert && len(e.Alerts) > 0) && !slices.Contains(e.Alerts, q.Alert) {
		return false
	}
	or := func(own, shared string) string {
		if own != "" {
			return own
		}
		return shared
	}
	items := e.Items
	if len(items) == 0 {
		items = []Item{{}}
	}
	for _, i := range items {
		reason := i.Reason
		if i.Code == "" {
			reason = e.Reason
		}
		if is(q.Profile, or(i.Profile, e.Profile)) && is(q.Purpose, or(i.Purpose, e.Purpose)) &&
			is(q.Decision, or(string(i.Decision), string(e.Decision))) && is(q.Rule, or(i.Rule, e.Rule)) &&
			is(q.Code, or(i.Code, e.Code)) && is(q.Reason, reason) && is(q.Approval, or(i.Approval, e.Approval)) &&
			(q.Subjects == nil || slices.Contains(q.Subjects, i.Subject)) && (q.Tokens == nil || slices.Contains(q.Tokens, i.Token)) {
			return true
		}
	}
	return false
}

func TestMatch(t *testing.T) {
	m := &made{Rand: rand.New(rand.NewPCG(1, 2))}
	var events []*Event
	for range 500 {
		events = append(events, m.event())
	}
	matches := 0
	for range 150 {
		q := m.query()
		f := NewFilter(q)
		for _, e := range events {
			body := e.Body()
			if got, want := f.Match(body), naive(q, e); got != want {
				t.Fatalf("%v, want %v: %+v of %s", got, want, q, body)
			} else if got {
				matches++
			}
		}
	}
	if matches == 0 {
		t.Error("no query found anything")
	}
}

func TestMatchOfAMixedBatch(t *testing.T) {
	e := &Event{Code: "OK", Decision: Allow, Items: []Item{
		{Subject: "a1:1", Profile: "card"},
		{Subject: "a1:2", Profile: "ssn", Code: "PERMISSION_DENIED", Reason: "NO_RULE", Decision: Deny},
	}}
	for _, row := range []struct {
		q    Query
		want bool
	}{
		{Query{Subjects: []string{"a1:1"}, Profile: "card"}, true},
		{Query{Subjects: []string{"a1:1"}, Profile: "ssn"}, false},
		{Query{Subjects: []string{"a1:2"}, Decision: "deny"}, true},
		{Query{Subjects: []string{"a1:1"}, Decision: "deny"}, false},
		{Query{Subjects: []string{"a1:1"}, Code: "OK"}, true},
		{Query{Subjects: []string{"a1:2"}, Code: "OK"}, false},
		{Query{Reason: "NO_RULE"}, true},
	} {
		if got := NewFilter(row.q).Match(e.Body()); got != row.want {
			t.Errorf("%+v: %v", row.q, got)
		}
	}
}

func TestMatchKeepsWhatItCannotParse(t *testing.T) {
	body := []byte(`{"v":1,"time":"2026-11-24T00:00:00.000000000Z","caller":"cn:x","keys":[}`)
	if !NewFilter(Query{Caller: "cn:x"}).Match(body) || NewFilter(Query{Caller: "cn:y"}).Match(body) {
		t.Error("an event that doesn't parse is hidden, or found for another caller")
	}
}
