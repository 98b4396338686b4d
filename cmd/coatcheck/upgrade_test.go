package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

// unpack unpacks an archive of testdata over a directory.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", archive))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(path, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpgradeOfTheFirstFormat starts on a store of format 1, which has no
// census and no audit keys. testdata/README.md says how it was made.
func TestUpgradeOfTheFirstFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	unpack(t, "store-v1.tar.gz", dir)
	setPolicy(t, dir)
	old := map[string]string{
		"cc_card_14Fq0syzEXh41uRubF8ldSx3jNMpW": "4111111111111111",
		"cc_card_16xB6j3DNFa3JgZS11eL8AA2lEvEd": "5555555555554444",
		"cc_note_10tYrMdD9Hv9AlRBSeERGcL1FVXO2": "a note from before the census",
	}
	for range 2 { // the second start finds it upgraded
		p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
		c := p.callers(t, dir)
		for token, want := range old {
			if got, err := c.detokenize(t, token); err != nil || got != want {
				t.Errorf("%q came back as %q, %v", want, got, err)
			}
		}
		token, err := c.tokenize(t, "new")
		if err != nil {
			t.Fatal(err)
		}
		old[token] = "new"
		now := listKeys(t, p, dir)
		if len(now.Keys) != 6 || now.versions("data")[1] != uint64(len(old))+2 { // one of its tokens isn't named above; the key of the checkpoints
			t.Errorf("keys %+v", now)
		}
		if code := p.terminate(t); code != 0 {
			t.Errorf("exit code %d: %s", code, p.stderr)
		}
	}
	p := start(t, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	c := p.callers(t, dir)
	if err := c.rotate(t, coatcheckv1.KeyClass_KEY_CLASS_DATA); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := keysCommand(p, dir, "rewrap"); code != 0 {
		t.Error(stderr)
	}
	if _, stderr, code := keysCommand(p, dir, "retire", "data", "1", "--yes"); code != 0 {
		t.Error(stderr)
	}
	for token, want := range old {
		if got, err := c.detokenize(t, token); err != nil || got != want {
			t.Errorf("%q came back as %q, %v", want, got, err)
		}
	}
	p.terminate(t)
	if _, err := audit.VerifyDir(filepath.Join(dir, "audit")); err != nil {
		t.Error(err)
	}
	wantExactCensus(t, dir, len(old)+2)
	log, err := os.ReadFile(filepath.Join(dir, "audit", "audit-00000000000000000001.jsonl"))
	if err != nil || !strings.Contains(string(log), `"action":"create-keys"`) || !strings.Contains(string(log), `"keys":["audit/1","fpe/1"]`) {
		t.Errorf("the making of the audit and the fpe key is not on record, %v", err)
	}
}
