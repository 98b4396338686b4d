package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verified is what audit verify --json prints, as far as tests look at it.
type verified struct {
	OK                             bool
	Events, Uncovered, Checkpoints uint64
	Fault                          struct {
		File  string
		Line  int
		Event uint64
	}
	Proof struct {
		Event uint64
		Line  string
	}
}

func verifyAudit(t *testing.T, wantCode int, args ...string) (v verified) {
	t.Helper()
	stdout, stderr, code := adminCommand(&process{}, "", append([]string{"audit", "verify"}, args...)...)
	if code != wantCode {
		t.Fatalf("%v: exit code %d, want %d: %s", args, code, wantCode, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.OK != (code == 0) {
		t.Fatalf("%s: %v", stdout, err)
	}
	return v
}

// keepCheckpoint waits for a checkpoint and keeps it and its key, as a witness does.
func keepCheckpoint(t *testing.T, p *process, dir, to string) (checkpoint, key string) {
	t.Helper()
	for _, what := range []struct {
		path *string
		args []string
	}{{&checkpoint, []string{"audit", "checkpoint"}}, {&key, []string{"audit", "checkpoint", "--public-key"}}} {
		stdout, stderr, code := adminCommand(p, dir, what.args...)
		for end := time.Now().Add(30 * time.Second); code != 0; stdout, stderr, code = adminCommand(p, dir, what.args...) {
			if !strings.Contains(stderr, "NO_CHECKPOINT") || time.Now().After(end) {
				t.Fatal(stderr)
			}
			time.Sleep(50 * time.Millisecond)
		}
		*what.path = filepath.Join(to, what.args[len(what.args)-1])
		if err := os.WriteFile(*what.path, []byte(stdout), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return checkpoint, key
}

// TestAuditLogIsProven has a log verified while it is written, after kills and after a
// stop, against a checkpoint that was kept; and what is done to it found.
func TestAuditLogIsProven(t *testing.T) {
	dir, kept := filepath.Join(t.TempDir(), "instance"), t.TempDir()
	log := filepath.Join(dir, "audit")
	p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
	checkpoint, key := keepCheckpoint(t, p, dir, kept)
	args := []string{log, "--json", "--public-key", key, "--checkpoint", checkpoint}
	for round := range 4 {
		c := p.callers(t, dir)
		for range 20 {
			if _, err := c.tokenize(t, "a note"); err != nil {
				t.Fatal(err)
			}
			verifyAudit(t, 0, args...)
		}
		if round%2 == 0 {
			p.kill()
			verifyAudit(t, 0, args...)
		} else if code := p.terminate(t); code != 0 {
			t.Fatalf("exit code %d: %s", code, p.stderr)
		} else if v := verifyAudit(t, 0, args...); v.Uncovered != 0 {
			t.Errorf("after a stop: %+v", v)
		}
		if round < 3 {
			p = start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
		}
	}
	v := verifyAudit(t, 0, append(args, "--event", "30")...)
	if v.Events < 84 || v.Proof.Event != 30 || !strings.Contains(v.Proof.Line, `"seq":30,`) {
		t.Errorf("%+v", v)
	}
	segment := filepath.Join(log, "audit-00000000000000000001.jsonl")
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	changed := bytes.Join(append(append([][]byte{}, lines[:29]...), lines[30:]...), nil)
	if err := os.WriteFile(segment, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verifyAudit(t, 1, args...); v.Fault.Event != 30 || v.Fault.Line != 30 || v.Fault.File != filepath.Base(segment) {
		t.Errorf("%+v", v)
	}
	if _, stderr, code := adminCommand(&process{}, "", "audit", "verify", log); code != 2 || !strings.Contains(stderr, "--public-key") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
