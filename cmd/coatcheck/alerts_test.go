package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// A server sends alerts to the command that its configuration names, those too that
// still wait when it is told to stop.
func TestAlertsReachTheCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	path := filepath.Join(dir, "coatcheck.yaml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"coatcheck.yaml": string(config) + "\nalerts: {command: {argv: [page, paged]}}\n",
		"page":           "#!/bin/sh\ncd \"$(dirname \"$0\")\" && cat >> \"$1\"\n",
		"policy.yaml": `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [note], notify: true}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "serve", "--config", path)
	checkout := p.callers(t, dir).checkout
	const calls = 5
	for range calls {
		if _, err := checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	t.Logf("stopped in %v", time.Since(began))
	paged, err := os.ReadFile(filepath.Join(dir, "paged"))
	if err != nil {
		t.Fatal(err, p.stderr)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	log, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(paged)) {
		var alert struct{ Event json.RawMessage }
		if err := json.Unmarshal([]byte(line), &alert); err != nil {
			t.Fatal(line, err)
		}
		if !strings.Contains(string(log), `,"event":`+string(alert.Event)+"}\n") || !strings.Contains(line, `"alerts":["NOTIFY"]`) {
			t.Errorf("the log hasn't %s", line)
		}
		n++
	}
	if n != calls || strings.Count(p.stderr.String(), "msg=alert") != calls {
		t.Errorf("%d alerts reached the command: %s", n, p.stderr)
	}
}
