package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// run runs coatcheck to its end and returns its exit code and what it said.
func run(args ...string) (code int, stderr string) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	var said output
	cmd.Stderr = &said
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), said.String()
}

// lastLine returns the last line of a text.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// A second process on the same data is told at once, and the first is none
// the worse.
func TestASecondProcessIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
	code, stderr := run("dev", "--dir", dir, "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(lastLine(stderr), "in use by another process") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, err := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout")).
		Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
		t.Errorf("the first process: %v", err)
	}
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// Keys of another root key, as after a root.key was lost and made anew.
func TestAnotherRootKeyIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	root := filepath.Join(dir, "root.key")
	if err := os.Rename(root, root+".lost"); err != nil {
		t.Fatal(err)
	}
	if code, stderr := run("keygen", root); code != 0 {
		t.Fatal(stderr)
	}
	code, stderr := run("serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	if code != 1 || !strings.Contains(lastLine(stderr), "coatcheck: keys: ") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if err := os.Rename(root+".lost", root); err != nil {
		t.Fatal(err)
	}
	start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml")).terminate(t)
}

// A store that has lost its keys is left as it is: new keys would bury the old.
func TestLostKeysAreNotReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	db, err := bbolt.Open(filepath.Join(dir, "data", "coatcheck.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("keys")), func() error { _, err := tx.CreateBucket([]byte("keys")); return err }())
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		code, stderr := run("serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
		if code != 1 || !strings.Contains(lastLine(stderr), "keys that were there once are gone") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	}
}

// A profile that would make its tokens in another way than before is refused, and
// the store is none the worse.
func TestAProfileOfAnotherKindIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	path := filepath.Join(dir, "coatcheck.yaml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"type: ssn": "type: ssn\n    mode: fpe\n    format: digits",
		"mode: convergent\n    format: digits # as long as the number, and never a valid one\n    keep_last: 4\n    lookup: true": "mode: fpe\n    format: digits\n    keep_last: 4",
	} {
		changed := strings.Replace(string(good), from, to, 1)
		if changed == string(good) {
			t.Fatalf("the sample configuration has no %q", from)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stderr := run("serve", "--config", path)
		if code != 1 || !strings.Contains(lastLine(stderr), "its tokens were stored, and now would be enciphered") {
			t.Errorf("%s: exit code %d: %s", to, code, lastLine(stderr))
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "serve", "--config", path).terminate(t)
}

// With the passphrase in a file, everything survives a restart too.
func TestPassphrase(t *testing.T) {
	base := t.TempDir()
	secret := filepath.Join(base, "secret")
	if err := os.WriteFile(secret, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "instance")
	p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0", "--passphrase-file", secret)
	resp, err := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout")).
		Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	if err != nil {
		t.Fatal(err)
	}
	p.terminate(t)
	p = start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	got, err := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments")).
		Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{Token: resp.GetToken(), Purpose: "charge"})
	if err != nil || got.GetValue() != "4111111111111111" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	p.terminate(t)
	if err := os.WriteFile(secret, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stderr := run("serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	if code != 1 || !strings.Contains(lastLine(stderr), "wrong passphrase") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
