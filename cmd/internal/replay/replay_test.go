package replay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

var vocabulary = server.Vocabulary([]tokenizer.Profile{
	{Name: "card", Type: "card-number", Purposes: []string{"charge", "support"}},
	{Name: "note", Type: "text", Purposes: []string{"support"}},
})

func parse(t testing.TB, rules string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte("version: 1\nrules:\n"+rules), vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const oldRules = `
  - {name: in, callers: ["cn:shop"], actions: [tokenize], profiles: [card, note]}
  - {name: out, callers: ["cn:pay"], actions: [detokenize], profiles: [card], purposes: [charge, support], reveal: FULL}
  - {name: notes, callers: ["cn:pay"], actions: [detokenize], profiles: [note], purposes: [support], reveal: MASKED}
  - {name: keys, callers: ["cn:ops"], actions: [list-keys]}
  - {name: list, callers: ["cn:ops"], actions: [list-tokens], profiles: [card]}
`

const newRules = `
  - {name: in-by-another-name, callers: ["cn:shop"], actions: [tokenize], profiles: [card, note]}
  - {name: out, callers: ["cn:pay"], actions: [detokenize], profiles: [card], purposes: [charge], reveal: FULL, networks: [10.0.0.0/8]}
  - {name: bulk, effect: deny, actions: [detokenize], when: request.items > 2}
  - {name: some, callers: ["cn:pay"], actions: [detokenize], profiles: [card], purposes: [support], reveal: LAST4}
  - {name: notes, callers: ["cn:pay"], actions: [detokenize], profiles: [note], purposes: [support], reveal: MASKED, metadata: {public: "yes"}}
  - {name: late, callers: ["cn:late"], actions: [tokenize], profiles: [card]}
  - {name: list, callers: ["cn:ops"], actions: [list-tokens], profiles: [card], valid: {until: 2026-01-01}}
`

func at(minute int) time.Time { return time.Date(2026, 5, 1, 12, minute, 0, 0, time.UTC) }

func call(caller, action string) audit.Event {
	return audit.Event{Time: at(0), Caller: caller, Peer: "10.1.1.1:999", Method: "/x/Y", Action: action, Decision: audit.Allow, Code: "OK"}
}

// TestReplay replays what each kind of event tells of.
func TestReplay(t *testing.T) {
	r := New(parse(t, oldRules), parse(t, newRules), vocabulary)
	add := func(e audit.Event, change func(*audit.Event)) {
		t.Helper()
		change(&e)
		if err := r.Add(e.Body()); err != nil {
			t.Fatal(err)
		}
	}
	charge := func(e *audit.Event) { e.Profile, e.Purpose, e.Reveal = "card", "charge", "FULL" }

	add(call("cn:shop", "tokenize"), func(e *audit.Event) { e.Profile = "card" }) // by a rule of another name: no change
	add(call("cn:pay", "detokenize"), charge)
	for _, minute := range []int{7, 3, 5} { // from elsewhere
		add(call("cn:pay", "detokenize"), func(e *audit.Event) { charge(e); e.Time, e.Peer = at(minute), "192.0.2.1:999" })
	}
	add(call("cn:pay", "detokenize"), func(e *audit.Event) { // a batch, in which each is decided by itself
		e.Purpose, e.Items = "support", []audit.Item{
			{Profile: "card", Reveal: "FULL", Decision: audit.Allow}, {Profile: "note", Reveal: "MASKED", Decision: audit.Allow},
		}
		e.Decision = ""
	})
	add(call("cn:pay", "detokenize"), func(e *audit.Event) { // too many, in common
		charge(e)
		e.Items = make([]audit.Item, 3)
	})
	add(call("cn:pay", "detokenize"), func(e *audit.Event) { // denied, and still
		e.Profile, e.Decision, e.Code = "note", audit.Deny, "PERMISSION_DENIED"
	})
	add(call("cn:ops", "list-keys"), func(e *audit.Event) {})
	add(call("cn:ops", "list-tokens"), func(e *audit.Event) { e.Profile, e.Items = "card", make([]audit.Item, 50) }) // one decision
	add(call("cn:late", "tokenize"), func(e *audit.Event) { e.Decision = audit.Deny })                               // before the profile was read
	add(call("cn:pay", "detokenize"), func(e *audit.Event) { e.Decision = audit.Deny })                              // which must have been under another policy still
	add(call("cn:shop", "tokenize"), func(e *audit.Event) { e.Profile = "gone" })
	add(call("cn:shop", "fly"), func(e *audit.Event) {})

	// What decides nothing.
	add(call("cn:shop", "tokenize"), func(e *audit.Event) { e.Decision = "" })
	add(call("", "tokenize"), func(e *audit.Event) { e.Decision = audit.Deny })
	add(audit.SystemEvent(audit.ActionStart, "", ""), func(*audit.Event) {})

	got := r.Result()
	if got.Events != 14 || got.Decisions != 15 || got.Unknown != 2 || got.Undecided != 1 || got.Changed != 11 {
		t.Errorf("%+v", got)
	}
	want := []Change{
		{"cn:pay", "detokenize", "card", "charge", "allow FULL", "deny CONDITION_NOT_MET", 3, at(3), at(7)},
		{"cn:pay", "detokenize", "card", "charge", "allow FULL", "deny DENIED_BY_RULE", 3, at(0), at(0)},
		{"cn:late", "tokenize", "", "", "deny NO_RULE", Call, 1, at(0), at(0)},
		{"cn:ops", "list-keys", "", "", "allow", "deny NO_RULE", 1, at(0), at(0)},
		{"cn:ops", "list-tokens", "card", "", "allow", "deny CONDITION_NOT_MET", 1, at(0), at(0)},
		{"cn:pay", "detokenize", "card", "support", "allow FULL", "deny REVEAL_NOT_ALLOWED", 1, at(0), at(0)},
		{"cn:pay", "detokenize", "note", "support", "allow MASKED", Token, 1, at(0), at(0)},
	}
	for i, c := range got.Changes {
		if i >= len(want) || c != want[i] {
			t.Errorf("change %d is %+v", i, c)
		}
	}
	if len(got.Changes) != len(want) {
		t.Errorf("%d changes, not %d", len(got.Changes), len(want))
	}
	if r := New(parse(t, oldRules), parse(t, oldRules), vocabulary); r.Add([]byte("{")) == nil {
		t.Error("half an event is read")
	}
}

// TestReplayApproval tells of an approval, which is a change of its own.
func TestReplayApproval(t *testing.T) {
	now := strings.Replace(oldRules, "reveal: FULL", `reveal: FULL, approval: {approvers: ["cn:boss"], for: 1h, max_items: 5}`, 1)
	r := New(parse(t, oldRules), parse(t, now), vocabulary)
	e := call("cn:pay", "detokenize")
	e.Profile, e.Purpose, e.Reveal = "card", "charge", "FULL"
	if err := r.Add(e.Body()); err != nil {
		t.Fatal(err)
	}
	if got := r.Result().Changes; len(got) != 1 || got[0].New != "allow FULL after approval" {
		t.Errorf("%+v", got)
	}
}

// TestReplayRows has more changes than there may be.
func TestReplayRows(t *testing.T) {
	r := New(parse(t, oldRules), parse(t, `  - {name: all, callers: ["dns:*.internal"], actions: [tokenize], profiles: [card]}`), vocabulary)
	r.most = 10
	for i := 0; ; i++ {
		e := call(fmt.Sprintf("dns:c%d.internal", i), "tokenize")
		e.Profile = "card"
		err := r.Add(e.Body())
		if i < r.most && err != nil || i > r.most {
			t.Fatal(i, err)
		}
		if err != nil {
			if !errors.Is(err, ErrRows) {
				t.Error(err)
			}
			return
		}
	}
}

// BenchmarkReplay replays an event about one token.
func BenchmarkReplay(b *testing.B) {
	r := New(parse(b, oldRules), parse(b, newRules), vocabulary)
	e := call("cn:pay", "detokenize")
	e.RequestID, e.Certificate, e.Rule, e.Policy = "0123456789abcdef", strings.Repeat("ab", 32), "out", strings.Repeat("cd", 32)
	e.Profile, e.Purpose, e.Reveal, e.Items = "card", "charge", "FULL", []audit.Item{{Token: strings.Repeat("ef", 16)}}
	body := e.Body()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Add(body); err != nil {
			b.Fatal(err)
		}
	}
}
