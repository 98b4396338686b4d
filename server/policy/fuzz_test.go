package policy

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Bounds of one expression or pattern. They are far above what is measured, since
// machines that test may be busy.
const (
	longestCompile = 5 * time.Second
	longestMet     = time.Second
)

// compileCondition compiles an expression, as reading a rule does.
func compileCondition(text string) (*condition, error) {
	parsed, _, err := parseCondition(text)
	if err != nil {
		return nil, err
	}
	return checkCondition(text, parsed)
}

// FuzzCondition looks for expressions that crash or stall when they are compiled or
// evaluated.
func FuzzCondition(f *testing.F) {
	for _, text := range slices.Sorted(maps.Keys(expressions)) {
		f.Add(text, uint64(1))
	}
	for _, text := range []string{
		`request.reason.matches("(a|aa)+$")`, `caller.id.matches("(.*)(.*)(.*)(.*)x")`, `"x".matches("\\pL{50}")`,
		`token.metadata.all(a, token.metadata.exists(b, token.metadata[a] == b))`, `token.metadata.map(k, k + "x").exists_one(v, v.contains("x"))`,
		`[1,2,3].map(x, [x, x]).filter(y, y[0] > 1).size() > request.items`, `request.reason + request.reason + caller.id != ""`,
		`has(token.metadata.team) && token.metadata.team in ["a", "b"]`, `{"a": 1}[request.profile] == 1`, `type(request.items) == int`,
		`dyn(request.reason) == 1`, `b"\xff" == bytes(request.reason)`, `string(request.items * request.items).size() < 1000`, `timestamp(request.reason) < time.now`,
		`time.now.getHours("+02:00") > 1 || time.now.getDayOfYear("Asia/Tokyo") > 1`, `duration("9223372036s") + duration("9223372036s") > duration("1s")`,
		`request.items == 9223372036854775807 + 1`, `true ? token.has_subject : false`, `"` + strings.Repeat("a", 4000) + `" == ""`, `((((((true))))))`, `!!!!true`, `request.items in [1,2,3]`,
		`cel.bind(x, 1, x == 1)`, `request.address.startsWith("10.") || request.address.endsWith("1")`, `optional.none().hasValue()`, `google.protobuf.Timestamp{seconds: 1} < time.now`,
		"request.reason == \"\x00\"", `request.reason == r"\"`, `1.0 / 0.0 > 1.0`, `[[[[[[[[[[1]]]]]]]]]].size() == 1`,
	} {
		f.Add(text, uint64(2))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		start := time.Now()
		c, err := compileCondition(text)
		if took := time.Since(start); took > longestCompile {
			t.Fatalf("compiling takes %s", took)
		}
		if (c == nil) == (err == nil) {
			t.Fatalf("condition %v, error %v", c, err)
		}
		if err != nil {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 9))
		for i := range 4 {
			q := randomRequest(rng)
			if c.needsToken != strings.Contains(text, "token.") && !c.needsToken && q.Token == nil {
				t.Logf("%q doesn't need the token", text)
			}
			if i == 0 {
				q = largest(rng)
			}
			if q.Token == nil && c.needsToken {
				q.Token = new(Known)
			}
			start := time.Now()
			is, err := c.met(&q)
			if took := time.Since(start); took > longestMet {
				t.Fatalf("evaluating takes %s: %t, %v", took, is, err)
			}
			if err != nil && is {
				t.Fatalf("true, and %v", err)
			}
		}
	})
}

// largest returns a request with as much in it as there can be.
func largest(rng *rand.Rand) Request {
	q := randomRequest(rng)
	labels := make(map[string]string)
	for range 64 {
		labels[strings.Repeat(string(rune('a'+rng.IntN(26))), 1+rng.IntN(64))] = strings.Repeat("a", 256)
	}
	q.Caller, q.StatedReason, q.Items = "spiffe://x/"+strings.Repeat("a", maxSPIFFE-11), strings.Repeat("a", 256), 1<<62
	q.Token = &Known{Labels: labels, Of: "somebody", Made: noon, Ends: noon}
	return q
}

// FuzzCallers looks for patterns that match what isn't equal segment by segment.
func FuzzCallers(f *testing.F) {
	for _, pattern := range append(slices.Clone(richCallers), "spiffe://x/*", "spiffe://x/*/*", "dns:*.*.b", "dns:a.*.b", "cn:*", "spiffe://*/a", "dns:*", "dns:a.*", "spiffe://x/a*", "*", "spiffe://x/*/", "spiffe://x//*") {
		for _, caller := range append(slices.Clone(askers), pattern, "spiffe://x/a/b/", "spiffe://x//pay", "spiffe://x/ns%2Fpay/pay", "spiffe://x/../pay", "spiffe://X/ns/pay", "dns:.b", "dns:a.b.", "dns:A.b", "dns:x/y.b", "spiffe://x/a.b/pay", "spiffe://x/a\n/pay") {
			f.Add(pattern, caller)
		}
	}
	f.Fuzz(func(t *testing.T, text, caller string) {
		if err := validateCallers(text); err != nil {
			return
		}
		var set callerSet
		set.add(text)
		got := set.has(caller)
		if want := naivePattern(text).MatchString(caller); got != want {
			t.Fatalf("%q matches %q: %t, want %t", text, caller, got, want)
		}
		if !got {
			return
		}
		separator := "/"
		if strings.HasPrefix(text, "dns:") {
			separator = "."
		}
		want, has := strings.Split(text, separator), strings.Split(caller, separator)
		if len(want) != len(has) {
			t.Fatalf("%q matches %q", text, caller)
		}
		for i := range want {
			if want[i] != has[i] && !(strings.TrimPrefix(want[i], "dns:") == "*" && has[i] != "" && has[i] != "dns:") {
				t.Fatalf("%q matches %q", text, caller)
			}
		}
	})
}

// FuzzCases looks for files of tests that crash.
func FuzzCases(f *testing.F) {
	p, err := Parse("p", randomPolicy(rand.New(rand.NewPCG(1, 7))), rich)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("version: 1\ntests:\n- {caller: \"cn:a\", action: keys, expect: allow}\n"))
	f.Add([]byte("version: 1\ntests:\n- {name: x, caller: \"dns:a.b\", action: detokenize, profile: card, purpose: charge, reveal: FULL, expect: allow, rule: r1, gives: FULL, notifies: true, needs_approval: false}\n"))
	f.Add([]byte("version: 1\ntests:\n- {caller: \"dns:a.b\", action: detokenize, profile: card, namespace: other, stated_reason: INC-1, address: 10.0.0.1, time: 2026-01-01, items: 3, metadata: {team: a}, subject: s, created: 2026-01-01T00:00:00Z, consent: withdrawn, expect: deny, reason: CONSENT_WITHDRAWN}\n"))
	f.Add([]byte("version: 1\ntests:\n- {caller: \"cn:a\", action: keys, expect: deny, gives: X, reason: [], items: 0, metadata: {a: [b, c]}, metadata: 1, notifies: 3, time: x, address: \"::1%eth0\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, err := ParseCases("cases", data, rich)
		if (len(cases) == 0) == (err == nil) {
			t.Fatalf("%d cases, error %v", len(cases), err)
		}
		for _, c := range cases {
			p.Check(c)
		}
		p.Uncovered(cases)
	})
}
