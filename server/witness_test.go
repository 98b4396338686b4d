package server

import (
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// asked is a token that counts what it is asked.
type asked struct {
	policy.Known
	metadata, subject, consent int
}

func (a *asked) Metadata() (map[string]string, error) {
	a.metadata++
	return a.Known.Metadata()
}

func (a *asked) Subject() (string, error) {
	a.subject++
	return a.Known.Subject()
}

func (a *asked) Consent(purpose string) (policy.Consent, error) {
	a.consent++
	return a.Known.Consent(purpose)
}

// TestShadowLooksNothingUp judges a token by a policy that needs its labels: a shadow
// policy decides by them too, but has nothing else looked up.
func TestShadowLooksNothingUp(t *testing.T) {
	v := Vocabulary([]tokenizer.Profile{{Name: "card", Type: "card-number", Purposes: []string{"charge"}}})
	parse := func(conditions string) *policy.Policy {
		p, err := policy.Parse("policy.yaml", []byte("version: 1\nrules:\n"+
			`  - {name: out, callers: ["cn:x"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, `+conditions+`}`), v)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	live := parse("metadata: {region: eu}")
	for conditions, want := range map[string]string{
		"metadata: {region: eu}":                                      "",
		"metadata: {region: us}":                                      "deny CONDITION_NOT_MET",
		`when: "token.metadata.region == 'eu'"`:                       "",
		`when: "token.created > timestamp('2026-01-01T00:00:00Z')"`:   "",
		`when: "token.has_subject"`:                                   "pending",
		"consent: require":                                            "pending",
		`when: "request.items > 1"`:                                   "deny CONDITION_NOT_MET",
		`when: "request.items > 1 || token.has_subject"`:              "pending",
		`metadata: {region: us}, when: "token.metadata.region != ''"`: "deny CONDITION_NOT_MET",
	} {
		s := new(Shadow)
		s.Replace(parse(conditions))
		token := &asked{Known: policy.Known{Labels: map[string]string{"region": "eu"}, Of: "somebody", Made: time.Now()}}
		q := policy.Request{Caller: "cn:x", Action: "detokenize", Profile: "card", Purpose: "charge", Items: 1}
		if note := s.compare(live.Decide(q), q); note != "" || len(s.Differences()) != 0 {
			t.Errorf("%s: before the token is known: %q", conditions, note)
		}
		q.Token = &witness{Token: token}
		if note := s.compare(live.Decide(q), q); note != want {
			t.Errorf("%s: %q, not %q", conditions, note, want)
		}
		if token.metadata != 1 || token.subject != 0 || token.consent != 0 {
			t.Errorf("%s: %d, %d, %d look-ups", conditions, token.metadata, token.subject, token.consent)
		}
	}
}
