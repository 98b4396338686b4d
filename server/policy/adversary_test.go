//go:build !race

package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// adversarial are files of up to 1 MiB that are made to be slow, or large, as far as their
// vocabulary lets them.
var adversarial = map[string]func() string{
	"rules": fill(head, func(i int) string { return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [keys]}\n", i) }, ""),
	"conditions": fill(head, func(i int) string {
		return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [keys], networks: [\"1.1.1.1\"]}\n", i)
	}, ""),
	"rules that deny": fill(head+"- {name: a, callers: [\"cn:a\"], actions: [detokenize], classes: [pii], purposes: [support], reveal: FULL}\n",
		func(i int) string { return fmt.Sprintf("- {name: r%d, effect: deny}\n", i) }, ""),
	"rules that deny many": fill(head+manyCallers("a", 3000), func(i int) string { return fmt.Sprintf("- {name: r%d, effect: deny}\n", i) }, ""),
	"rules that oblige":    fill(head+manyCallers("a", 10), func(i int) string { return fmt.Sprintf("- {name: r%d, effect: oblige, notify: true}\n", i) }, ""),
	"callers":              fill(head+"- {name: r, actions: [keys], callers: [", func(i int) string { return fmt.Sprintf("\"cn:%x\",", i) }, "]}\n"),
	"a caller in each":     fill(head, func(i int) string { return fmt.Sprintf("- {name: r%d, callers: [\"cn:%d\"], actions: [keys]}\n", i, i) }, ""),
	"callers and patterns": fill(head+manyCallers("a", 20_000)+"- {name: r, actions: [keys], callers: [", func(i int) string { return fmt.Sprintf("\"dns:*.x%d.a\",", i) }, "]}\n"),
	"alike patterns":       fill(head+manyCallers("a", 5_000)+"- {name: r, actions: [keys], callers: [", func(i int) string { return fmt.Sprintf("\"dns:*.*.*.x%d\",", i) }, "]}\n"),
	"long patterns":        fill(head+"- {name: r, actions: [keys], callers: [", func(i int) string { return fmt.Sprintf("\"spiffe://a%s/%d\",", strings.Repeat("/*", 900), i) }, "]}\n"),
	"a group in each":      fill(groupOf(50_000), func(i int) string { return fmt.Sprintf("- {name: r%d, callers: [\"group:g\"], actions: [keys]}\n", i) }, ""),
	"groups":               fill("version: 1\nrules: []\ngroups:\n", func(i int) string { return fmt.Sprintf("  g%d: [\"cn:a\"]\n", i) }, ""),
	"short expressions": fill(head, func(i int) string {
		return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [keys], when: request.items<%d}\n", i, i)
	}, ""),
	"long expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d", i)+strings.Repeat(" && request.items > 1", 180))
	}, ""),
	"nested expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d || ", i)+strings.Repeat("(", 30)+"true"+strings.Repeat(")", 30))
	}, ""),
	"nested ternaries": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d || ", i)+strings.Repeat("true?(", 14)+"true"+strings.Repeat("):false", 14))
	}, ""),
	"deep expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d || ", i)+strings.Repeat("!(", 1500)+"true"+strings.Repeat(")", 1500))
	}, ""),
	"macros": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d", i)+strings.Repeat(" && [1,2].all(x,[1,2].exists(y,x<y))", 90))
	}, ""),
	"nested maps": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d", i)+strings.Repeat("||[1].map(x,[1].map(y,1))==[[1]]", 8))
	}, ""),
	"many nested maps": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d", i)+strings.Repeat("||[1].map(x,[1].map(y,1))==[[1]]", 120))
	}, ""),
	"lists": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items in [%d", i)+strings.Repeat(",1", 1900)+"]")
	}, ""),
	"strings": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.reason == '%d", i)+strings.Repeat("x", 3900)+"'")
	}, ""),
	"wrong expressions":     fill(head, func(i int) string { return whenRule(i, fmt.Sprintf("%d", i)+strings.Repeat("+", 3900)) }, ""),
	"unknown in expression": fill(head, func(i int) string { return whenRule(i, fmt.Sprintf("a%d", i)+strings.Repeat("+b", 1900)) }, ""),
	"regexes":               fill(head, func(i int) string { return reasonRule(i, fmt.Sprintf("%da{900}", i)) }, ""),
	"huge regexes":          fill(head, func(i int) string { return reasonRule(i, fmt.Sprintf("%d(%s){1000}", i, strings.Repeat("a?b", 60))) }, ""),
	"classes in expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf(`request.reason.matches("%d%s")`, i, strings.Repeat(`\\pL`, 80)))
	}, ""),
	"some classes in expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf(`"x".matches("%d%s")`, i, strings.Repeat(`\\pL`, 10)))
	}, ""),
	"classes in regexes": fill(head, func(i int) string { return reasonRule(i, fmt.Sprintf(`%d%s`, i, strings.Repeat(`\\pL`, 70))) }, ""),
	"regexes in expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.reason.matches('%d(%s){1000}')", i, strings.Repeat("a?b", 60)))
	}, ""),
	"many regexes in expressions": fill(head, func(i int) string {
		return whenRule(i, fmt.Sprintf("request.items<%d", i)+strings.Repeat("||'x'.matches('a{900}')", 150))
	}, ""),
	"networks":    fill(head+"- {name: r, effect: deny, networks: [", func(i int) string { return fmt.Sprintf("\"%d.%d.%d.%d\",", i>>24, i>>16&255, i>>8&255, i&255) }, "]}\n"),
	"labels":      fill(head+"- {name: r, effect: deny, actions: [revoke], metadata: {", func(i int) string { return fmt.Sprintf("k%d: [a, b],", i) }, "}}\n"),
	"lists in it": fill("version: 1\nrules: [", func(int) string { return "[]," }, "]"),
	"mappings":    fill("version: 1\nrules: [", func(int) string { return "{}," }, "]"),
	"keys":        fill("version: 1\nrules: []\n", func(i int) string { return fmt.Sprintf("k%d: 1\n", i) }, ""),
	"comments":    fill("version: 1\nrules: []\n", func(int) string { return "#\n" }, ""),
	"a string":    fill("version: 1\nrules: [\"", func(int) string { return "a" }, "\"]"),
	"a plain one": fill("version: 1\nrules:\n - a", func(int) string { return "\n   a" }, "\n"),
	"indented":    fill("version: 1\nrules:\n", func(i int) string { return strings.Repeat(" ", i%1000) + "- a\n" }, ""),
	"anchors":     fill("version: 1\nrules: [", func(i int) string { return fmt.Sprintf("&a%d x,", i) }, "]"),
	"aliases":     fill("version: 1\na: &a 1\nrules: [", func(int) string { return "*a," }, "]"),
	"tags":        fill("version: 1\nrules: [", func(int) string { return "!a x," }, "]"),
	"blocks":      fill("version: 1\nrules:\n", func(int) string { return "- |\n   a\n" }, ""),
	"questions":   fill("version: 1\nrules: []\n", func(i int) string { return fmt.Sprintf("? k%d\n: 1\n", i) }, ""),
	"wrong rules": fill(head, func(i int) string { return "- {nam: a, callers: [x, y, z], actions: [a, b], profiles: [q, w, e]}\n" }, ""),
	"wrong purposes": fill(head, func(i int) string {
		return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [detokenize], classes: [pii], purposes: [charge, x, y, z], reveal: [BIN, CVV]}\n", i)
	}, ""),
}

// fill returns a file of about a MiB.
func fill(head string, line func(int) string, tail string) func() string {
	return func() string {
		var file strings.Builder
		file.WriteString(head)
		for i := 0; ; i++ {
			next := line(i)
			if file.Len()+len(next)+len(tail) > maxFile {
				break
			}
			file.WriteString(next)
		}
		file.WriteString(tail)
		return file.String()
	}
}

func manyCallers(name string, n int) string {
	var rule strings.Builder
	fmt.Fprintf(&rule, "- {name: %s, actions: [keys], callers: [", name)
	for i := range n {
		fmt.Fprintf(&rule, "\"dns:a%d.a\",", i)
	}
	return rule.String() + "]}\n"
}

func groupOf(n int) string {
	var file strings.Builder
	file.WriteString("version: 1\ngroups:\n  g: [")
	for i := range n {
		fmt.Fprintf(&file, "\"cn:%x\",", i)
	}
	return file.String() + "]\nrules:\n"
}

func whenRule(i int, text string) string {
	return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [keys], when: %q}\n", i, text)
}

func reasonRule(i int, text string) string {
	return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [revoke], profiles: [card], reason: \"%s\"}\n", i, text)
}

// Whatever is in a file, reading it takes bounded time and memory.
func TestParseIsBounded(t *testing.T) {
	for name, file := range adversarial {
		t.Run(name, func(t *testing.T) {
			bounded(t, []byte(file()), rich)
		})
	}
}

// bounded reads a file, and fails the test if that takes too long or too much.
func bounded(t *testing.T, data []byte, v Vocabulary) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	p, err := Parse("p", data, v)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
	runtime.GC()
	runtime.ReadMemStats(&after)
	kept := int64(after.HeapAlloc-before.HeapAlloc) >> 20
	first := "taken"
	if err != nil {
		first, _, _ = strings.Cut(err.Error(), "\n")
		first = first[:min(len(first), 120)]
	}
	t.Logf("%.2f s, %d MiB made, %d MiB kept: %s", took.Seconds(), allocated, kept, first)
	if took > 10*time.Second || allocated > 2048 || kept > 256 {
		t.Errorf("%d bytes took %s, %d MiB, %d of them kept", len(data), took, allocated, kept)
	}
	runtime.KeepAlive(p)
}

// The same with many profiles, each with many purposes, so that few bytes make many
// combinations.
func TestParseIsBoundedWithManyProfiles(t *testing.T) {
	wide := Vocabulary{Actions: rich.Actions, Traits: rich.Traits, Profiles: make(map[string]ProfileVocabulary)}
	var purposes, profiles []string
	for i := range 200 {
		purposes = append(purposes, fmt.Sprintf("u%d", i))
		profiles = append(profiles, fmt.Sprintf("p%d", i))
	}
	for _, profile := range profiles {
		wide.Profiles[profile] = ProfileVocabulary{Purposes: purposes, Classes: []string{"all"}}
	}
	every := "purposes: [" + strings.Join(purposes, ", ") + "]"
	allow := func(i int) string {
		return fmt.Sprintf("- {name: a%d, callers: [\"cn:%d\"], actions: [detokenize], classes: [all], %s, reveal: FULL}\n", i, i, every)
	}
	for name, file := range map[string]func() string{
		"rules that deny":        fill(head+allow(0), func(i int) string { return fmt.Sprintf("- {name: r%d, effect: deny}\n", i) }, ""),
		"some rules that deny":   func() string { return head + allow(0) + strings.Repeat("- {effect: deny, name: r@}\n", 100) },
		"rules that deny a lot":  fill(head+allow(0), func(i int) string { return fmt.Sprintf("- {name: r%d, effect: deny, %s}\n", i, every) }, ""),
		"rules that allow a lot": fill(head, allow, ""),
		"wrong purposes": fill(head, func(i int) string {
			return fmt.Sprintf("- {name: r%d, effect: deny, classes: [all], purposes: [x%d, y, z], reveal: [BIN, CVV]}\n", i, i)
		}, ""),
		"unknown profiles": fill(head, func(i int) string { return fmt.Sprintf("- {name: r%d, effect: deny, profiles: [p0x, p1x, p2x]}\n", i) }, ""),
		"conditions": fill(head, func(i int) string {
			return fmt.Sprintf("- {name: r%d, callers: [\"cn:a\"], actions: [detokenize], profiles: [p1, p2, p3], purposes: [u1, u2, u3, u4], reveal: MASKED, networks: [\"1.1.1.%d\"]}\n", i, i%256)
		}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			text := file()
			for i := 0; strings.Contains(text, "@"); i++ {
				text = strings.Replace(text, "@", fmt.Sprint(i), 1)
			}
			bounded(t, []byte(text), wide)
		})
	}
}
