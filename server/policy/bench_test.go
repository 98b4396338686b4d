package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rulesFor returns a policy of n rules, either each for a caller of its own or
// all for the same.
func rulesFor(t testing.TB, n int, sameCaller bool) *Policy {
	v := Vocabulary{Actions: vocabulary.Actions, Profiles: make(map[string]ProfileVocabulary)}
	var file strings.Builder
	file.WriteString("version: 1\nrules:\n")
	for i := range n {
		caller, profile := fmt.Sprintf("spiffe://coatcheck.example/ns/prod/sa/service-%d", i), fmt.Sprintf("profile-%d", i)
		if sameCaller {
			caller = "spiffe://coatcheck.example/ns/prod/sa/service-0"
		}
		v.Profiles[profile] = ProfileVocabulary{Purposes: []string{"charge"}}
		fmt.Fprintf(&file, "  - {name: rule-%d, callers: [%q], actions: [detokenize], profiles: [%s], purposes: [charge], reveal: FULL}\n",
			i, caller, profile)
	}
	p, err := Parse("p", []byte(file.String()), v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var request = ask("spiffe://coatcheck.example/ns/prod/sa/service-0", "detokenize", "profile-0", "charge", Unspecified)

// alikeRules returns a policy of n rules for the same data, all of parts, and a
// request for the one that is granted last.
func alikeRules(t testing.TB, n int) (*Policy, Request) {
	reveals := slices.Repeat([]string{"LAST4", "BIN", "BRAND", "[LAST4, NUMBER]"}, n/4)
	return mustParse(t, head+revealRules(append(reveals, "EXPIRY")...)), ask("dns:a", "export", "card", "charge", Expiry)
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := rulesFor(t, 10, false)
	if n := testing.AllocsPerRun(100, func() { p.Decide(request) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	p, r := alikeRules(t, 100)
	for r.Reveal = range Routing + 2 {
		if n := testing.AllocsPerRun(100, func() { p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations", r.Reveal, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, same := range []bool{false, true} {
			b.Run(fmt.Sprintf("rules=%d/same-caller=%v", n, same), func(b *testing.B) {
				p := rulesFor(b, n, same)
				b.ReportAllocs()
				for b.Loop() {
					if !p.Decide(request).Allowed {
						b.Fatal("denied")
					}
				}
			})
		}
		b.Run(fmt.Sprintf("rules=%d/same-data", n), func(b *testing.B) {
			p, r := alikeRules(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(r).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	data := []byte(sample)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("p", data, vocabulary); err != nil {
			b.Fatal(err)
		}
	}
}
