package command

import (
	"bytes"
	"strings"
	"testing"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

func TestGrouped(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1<<64 - 1: "18,446,744,073,709,551,615"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	b := newBar(Env{Stderr: &out, Terminal: true}, 1000)
	for _, remaining := range []uint64{1000, 500, 1, 0} {
		b.show(remaining, b.began.Add(10*time.Second))
	}
	b.end()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\r\x1b[K")[1:]
	want := []string{
		"[------------------------]   0%  0 of 1,000",
		"[############------------]  50%  500 of 1,000  50/s  10s left",
		"[#######################-]  99%  999 of 1,000  99/s  0s left",
		"[########################] 100%  1,000 of 1,000  100/s",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("drew %q, want %q", lines, want)
	}
	for _, line := range lines {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	// More records than at first, none at all, no terminal.
	out.Reset()
	b = newBar(Env{Stderr: &out, Terminal: true}, 10)
	b.show(20, b.began)
	if !strings.Contains(out.String(), "0%  0 of 20") {
		t.Errorf("drew %q", out.String())
	}
	out.Reset()
	newBar(Env{Stderr: &out, Terminal: true}, 0).show(0, time.Now())
	b = newBar(Env{Stderr: &out}, 10)
	b.show(5, time.Now())
	b.end()
	if out.Len() > 0 {
		t.Errorf("drew %q", out.String())
	}
}

func TestResealLine(t *testing.T) {
	for want, r := range map[string]*coatcheckv1.Resealing{
		"records: all under the active data key":                                              {Failed: 3},
		"records: 5,000 are not under the active data key yet; moving at most 1,000 a second": {Remaining: 5000, Running: true, RecordsPerSecond: 1000},
		"records: 2 are not under the active data key; 2 can't be opened":                     {Remaining: 2, Failed: 2},
		"records: 7 are not under the active data key; keys rewrap moves them":                {Remaining: 7},
	} {
		if got := resealLine(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain: Grüße, 世界\nand more": "plain: Grüße, 世界\nand more",
		"a\x1b[2Jb\rc\u202ed\x00":    "a?[2Jb?c?d?",
		"\xff":                       "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
