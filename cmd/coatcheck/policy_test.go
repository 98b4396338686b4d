package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// A policy is changed without a restart: one that is good is put to work, one that
// isn't is refused, and either is recorded.
func TestPolicyIsReloaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	path := filepath.Join(dir, "policy.yaml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	c := p.callers(t, dir)
	answers := func() codes.Code {
		t.Helper()
		_, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
		return status.Code(err)
	}
	become := func(want codes.Code) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); answers() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("calls don't become %v: %s", want, p.stderr)
			}
		}
	}
	become(codes.OK)

	// By itself.
	write("version: 1\nrules: []\n")
	become(codes.PermissionDenied)
	write(string(good))
	become(codes.OK)

	// What isn't good changes nothing, but is told, once.
	write("version: 1\nrules: [oops]\n")
	waitForLog(t, p, "the policy file is refused")
	if code := answers(); code != codes.OK {
		t.Errorf("with a policy file that isn't good: %v", code)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitForLog(t, p, "no such file")
	if code := answers(); code != codes.OK {
		t.Errorf("without a policy file: %v", code)
	}

	// On SIGHUP, at once.
	write("version: 1\nrules: []\n")
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	become(codes.PermissionDenied)
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	countIn(t, auditLog(t, dir), map[string]int{
		`"action":"reload-policy"`:     5,
		`"previous_policy":"`:          3,
		`"refused_policy":"`:           1,
		`"reason":"POLICY_INVALID"`:    1,
		`"reason":"POLICY_UNREADABLE"`: 1,
	})
}

// waitForLog waits until the process has logged a text.
func waitForLog(t *testing.T, p *process, text string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.stderr.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q isn't logged: %s", text, p.stderr)
		}
	}
}
