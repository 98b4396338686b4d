package audit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// prunedLog returns the directory of a signed log of plain and packed segments, of which
// the first were pruned in two steps, and a checkpoint from before.
func prunedLog(t *testing.T) (string, *memoryStore, []Checkpoint) {
	t.Helper()
	s, store := oldLog(t, 100)
	n, err := OpenNotary(ctx, s, CheckpointOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close(ctx) }()
	n.signer = withTestSigner
	sign := func() {
		t.Helper()
		s.work.Lock()
		err := s.sync(ctx)
		s.work.Unlock()
		if err = errors.Join(err, n.step(ctx, true)); err != nil {
			t.Fatal(err)
		}
	}
	sign()
	kept, err := ReadCheckpoints(readFile(t, s.dir, notesName), testKey(t, store.id))
	if err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{70, 40} {
		store.addEvents(1)
		if err := s.pass(ctx); err != nil {
			t.Fatal(err)
		}
		sign()
		if _, err := prune(t, s, store, time.Now().Add(-age*day)); err != nil {
			t.Fatal(err)
		}
		sign()
	}
	return s.dir, store, kept
}

// Of what was pruned the tree has the hashes: the checkpoints go on to hold, and whoever
// makes up what was pruned, or changes what is left of it, is found.
func TestVerifySignedOverWhatWasPruned(t *testing.T) {
	dir, store, kept := prunedLog(t)
	keys := []note.Verifier{testKey(t, store.id)}
	verify := func(want error) Signed {
		t.Helper()
		got, err := VerifySigned(dir, SignedOptions{Keys: keys, Kept: kept, Event: 7})
		if !errors.Is(err, want) {
			t.Fatalf("error %v, want %v", err, want)
		}
		return got
	}
	if got := verify(nil); got.Pruned < 40 || got.Proof == nil || got.Line != nil || got.Checkpoints < 4 {
		t.Errorf("%+v", got)
	}
	pruned, tree := readFile(t, dir, PrunedFile), readFile(t, dir, treeName)
	for _, at := range []int{0, 5, len(tree) / 4} { // a leaf or a node of what was pruned
		changed := bytes.Clone(tree)
		changed[at]++
		writeFile(t, dir, treeName, changed)
		verify(ErrBroken)
	}
	writeFile(t, dir, treeName, tree[:len(tree)/4])
	verify(ErrBroken)
	_ = os.Remove(filepath.Join(dir, treeName))
	verify(ErrBroken)
	writeFile(t, dir, treeName, tree)
	writeFile(t, dir, PrunedFile, slicesJoin(lines(pruned)[1:]...))
	verify(ErrBroken)
	writeFile(t, dir, PrunedFile, pruned)
	verify(nil)
}

// The verifier in Python, which was written from docs/audit.md, says the same.
func TestVerifierInPython(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian's packages are for
	_, err := exec.LookPath("zstd")
	if err == nil {
		err = exec.Command(python, "-c", "import cryptography").Run()
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("needs zstd and Debian's python3-cryptography")
	}
	dir, store, kept := prunedLog(t)
	key, err := VerifierKey(store.id, testSigner.Public())
	if err != nil {
		t.Fatal(err)
	}
	note, err := kept[0].signed(testSigner)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "kept", note)
	verify := func() (string, error) {
		out, err := exec.Command(python, "../../examples/audit-verify/verify.py", dir, key, filepath.Join(dir, "kept")).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(); err != nil || !strings.HasPrefix(out, "whole: 104 events, 104 of them signed, ") {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{treeName, PrunedFile, notesName, latestName, "kept"} {
		whole := readFile(t, dir, name)
		changed := bytes.Clone(whole)
		at := len(changed) / 4
		if name == treeName {
			at = 0 // a leaf; it doesn't need the others
		}
		changed[at] ^= 1
		writeFile(t, dir, name, changed)
		if out, err := verify(); err == nil || !strings.HasPrefix(out, "broken: ") {
			t.Errorf("%s was changed: %v: %s", name, err, out)
		}
		writeFile(t, dir, name, whole)
	}
	forked := newMemoryStore(1, 0)
	for i := range store.entries {
		body := store.entries[i].Body
		if i == 99 {
			body = bytes.Replace(body, []byte(`"OK"`), []byte(`"KO"`), 1)
		}
		forked.add(body)
	}
	files, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := lines(forked.text())
	for i, seg := range files {
		_ = os.Remove(filepath.Join(dir, seg.name))
		last := uint64(len(l))
		if i+1 < len(files) {
			last = files[i+1].first - 1
		}
		writeFile(t, dir, seg.plain().name, slicesJoin(l[seg.first-1:last]...))
	}
	if out, err := verify(); err == nil || !strings.Contains(out, "are not those that were signed") {
		t.Errorf("chained anew: %v: %s", err, out)
	}
}
