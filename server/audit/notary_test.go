package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// testSigner is the key of the checkpoints of tests, and testKey what verifies them.
var testSigner = tokenizer.NewSigner(bytes.Repeat([]byte{7}, 32))

func withTestSigner(context.Context) (tokenizer.Signer, error) { return testSigner, nil }

func testKey(t testing.TB, log tokenizer.LogID) note.Verifier {
	t.Helper()
	key, err := VerifierKey(log, testSigner.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// notarize brings the segments and the tree in a directory up to date with the store,
// signs a checkpoint and closes all, as a server that starts and stops.
func notarize(t testing.TB, dir string, store tokenizer.Store) {
	t.Helper()
	if err := tryNotarize(t, dir, store, withTestSigner); err != nil {
		t.Fatal(err)
	}
}

func tryNotarize(t testing.TB, dir string, store tokenizer.Store, signer func(context.Context) (tokenizer.Signer, error)) error {
	t.Helper()
	segments, err := OpenSegments(ctx, dir, store, SegmentOptions{}, new(logBuffer).logger())
	if err != nil {
		return err
	}
	defer func() { _ = segments.Close() }()
	n, err := OpenNotary(ctx, segments, CheckpointOptions{})
	if err != nil {
		return err
	}
	n.signer = signer
	err = n.step(ctx, true)
	return errors.Join(err, n.Close(ctx))
}

// verifySigned verifies a directory of tests.
func verifySigned(t testing.TB, dir string, log tokenizer.LogID) (Signed, error) {
	t.Helper()
	return VerifySigned(dir, SignedOptions{Keys: []note.Verifier{testKey(t, log)}})
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNotaryGoesOn(t *testing.T) {
	store, dir := newMemoryStore(1, 0), t.TempDir()
	notarize(t, dir, store)
	if _, err := verifySigned(t, dir, store.id); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("error %v, want ErrNoCheckpoint", err)
	}
	total, signed := 0, 0
	for _, n := range []int{1, 1, 5, 0, 700} {
		store.addEvents(n)
		total += n
		if n > 0 {
			signed++
		}
		notarize(t, dir, store)
		s, err := verifySigned(t, dir, store.id)
		if err != nil {
			t.Fatal(err)
		}
		if s.Last != uint64(total) || s.Latest.Events != s.Last || s.Checkpoints != uint64(signed) || s.Uncovered() != 0 || s.Torn {
			t.Fatalf("%+v", s)
		}
	}
	store.addEvents(3)
	openDir(t, dir, store)
	if s, err := verifySigned(t, dir, store.id); err != nil || s.Uncovered() != 3 {
		t.Errorf("%d uncovered, %v", s.Uncovered(), err)
	}
	for _, name := range []string{treeName, notesName, latestName, keyFileName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if key := strings.TrimSpace(string(readFile(t, dir, keyFileName))); !strings.HasPrefix(key, Origin(store.id)+"+") {
		t.Errorf("key %s", key)
	}
}

// Any event is proven in the last checkpoint, by the verifier and by the notary alike.
func TestEventsAreProven(t *testing.T) {
	store, dir := newMemoryStore(1, 37), t.TempDir()
	notarize(t, dir, store)
	store.addEvents(30)
	notarize(t, dir, store)
	segments, _ := openDir(t, dir, store)
	n, err := OpenNotary(ctx, segments, CheckpointOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(ctx) })
	l := lines(store.text())
	for event := uint64(1); event <= 67; event++ {
		s, err := VerifySigned(dir, SignedOptions{Keys: []note.Verifier{testKey(t, store.id)}, Event: event})
		if err != nil || s.Proof == nil {
			t.Fatalf("event %d: %v", event, err)
		}
		if err := s.Proof.Check(); err != nil || s.Proof.Event != event || s.Proof.Root != s.Latest.Root || !bytes.Equal(s.Line, l[event-1]) {
			t.Fatalf("event %d: %+v, %v", event, s.Proof, err)
		}
		p, err := n.Prove(0, event, min(event, 37))
		if err != nil || p.Root != s.Proof.Root || p.Leaf != s.Proof.Leaf {
			t.Fatalf("event %d: %v", event, err)
		}
	}
	for _, ask := range [][3]uint64{{0, 68, 0}, {68, 1, 0}, {37, 38, 0}, {10, 0, 11}} {
		if _, err := n.Prove(ask[0], ask[1], ask[2]); !errors.Is(err, ErrNoProof) {
			t.Errorf("%v: error %v", ask, err)
		}
	}
	if _, err := VerifySigned(dir, SignedOptions{Keys: []note.Verifier{testKey(t, store.id)}, Event: 68}); !errors.Is(err, ErrNoProof) {
		t.Errorf("error %v", err)
	}
}

// signing is a Notary that runs, in a bubble of synctest.
type signing struct {
	*follower
	notary *Notary
	end    func()
}

func sign(t *testing.T, f *follower, o CheckpointOptions, signer func(context.Context) (tokenizer.Signer, error)) *signing {
	t.Helper()
	n, err := OpenNotary(ctx, f.Segments, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx, signer)
	}()
	s := &signing{follower: f, notary: n}
	s.end = func() {
		cancel()
		<-done
		f.finish()
		if err := n.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
	return s
}

func TestCheckpointsComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sign(t, follow(t, &disk{}), CheckpointOptions{Events: 100, Period: 10 * time.Second}, withTestSigner)
		covers := func(events uint64) {
			t.Helper()
			if status := s.notary.Status(); status.Events != events || status.Failing {
				t.Fatalf("%+v, want %d events", status, events)
			}
		}
		covers(3) // at once: there was no checkpoint
		s.commit(5)
		s.pass(5 * time.Second)
		covers(3)
		if status := s.notary.Status(); status.Uncovered != 5 {
			t.Errorf("%+v", status)
		}
		s.pass(6 * time.Second)
		covers(8)
		s.commit(150)
		s.pass(3 * time.Second)
		covers(158)
		before := readFile(t, s.dir, notesName)
		s.pass(time.Hour)
		if !bytes.Equal(before, readFile(t, s.dir, notesName)) {
			t.Error("signed without need")
		}
		s.commit(1)
		s.end()
		covers(159)
		if sum, err := verifySigned(t, s.dir, s.store.id); err != nil || sum.Uncovered() != 0 || sum.Checkpoints != 4 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// While the key is away the log goes on, and so does the tree.
func TestKeyMayBeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		s := sign(t, follow(t, &disk{}), CheckpointOptions{}, func(context.Context) (tokenizer.Signer, error) {
			if away.Load() {
				return tokenizer.Signer{}, errors.New("sealed")
			}
			return testSigner, nil
		})
		away.Store(true)
		s.commit(5)
		s.pass(time.Minute)
		if status := s.notary.Status(); !status.Failing || status.Events != 3 || status.Uncovered != 5 {
			t.Errorf("%+v", status)
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		if _, err := s.notary.Prove(8, 8, 3); err != nil {
			t.Error(err)
		}
		if n := strings.Count(s.logged.String(), "can't be signed"); n != 1 {
			t.Errorf("told %d times: %s", n, s.logged)
		}
		away.Store(false)
		s.pass(time.Minute)
		if status := s.notary.Status(); status.Failing || status.Events != 8 {
			t.Errorf("%+v", status)
		}
		away.Store(true)
		s.commit(1)
		s.end() // is no error
		if sum, err := verifySigned(t, s.dir, s.store.id); err != nil || sum.Uncovered() != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
		notarize(t, s.dir, s.store)
		if sum, err := verifySigned(t, s.dir, s.store.id); err != nil || sum.Uncovered() != 0 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// Whatever of the disk fails, at any write, the files are whole in the end, and they
// verify at any moment.
func TestDiskMayFailUnderCheckpoints(t *testing.T) {
	for at := 1; at <= 14; at++ {
		for _, kind := range []string{"write", "sync", "truncate"} {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{partial: 10}
				s := sign(t, follow(t, d), CheckpointOptions{Events: 2, Period: time.Second}, withTestSigner)
				d.mu.Lock()
				d.failAt, d.fails = d.writes+at, 2
				switch kind {
				case "sync":
					d.failAt, d.noSync = 0, at%4+1
				case "truncate":
					d.noTrunc = 2
				}
				d.mu.Unlock()
				for range 8 {
					s.commit(3)
					s.pass(1300 * time.Millisecond)
					if _, err := verifySigned(t, s.dir, s.store.id); err != nil {
						t.Fatalf("%s %d: %v", kind, at, err)
					}
				}
				s.pass(time.Minute)
				s.end()
				if sum, err := verifySigned(t, s.dir, s.store.id); err != nil || sum.Uncovered() != 0 {
					t.Fatalf("%s %d: %+v, %v", kind, at, sum, err)
				}
			})
		}
	}
}

// A directory that is deleted under a running server gets a tree and checkpoints anew.
func TestCheckpointsThatAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sign(t, follow(t, &disk{}), CheckpointOptions{}, withTestSigner)
		s.commit(5)
		s.pass(time.Minute)
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		s.commit(1)
		s.pass(time.Minute)
		s.end()
		if sum, err := verifySigned(t, s.dir, s.store.id); err != nil || sum.Uncovered() != 0 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// A crash between any two of the writes, and within them, is mended by the next start.
func TestCrashWithinACheckpoint(t *testing.T) {
	store, dir := newMemoryStore(1, 20), t.TempDir()
	notarize(t, dir, store)
	before := map[string][]byte{}
	for _, name := range []string{segmentName(1), treeName, notesName, latestName} {
		before[name] = readFile(t, dir, name)
	}
	store.addEvents(30)
	notarize(t, dir, store)
	after := map[string][]byte{}
	for name := range before {
		after[name] = readFile(t, dir, name)
	}
	order := []string{segmentName(1), treeName, notesName, latestName}
	for step, name := range order {
		grown := len(after[name]) - len(before[name])
		for _, part := range []int{0, 1, grown / 2, grown - 1, grown} {
			for _, hole := range []bool{false, true} {
				crashed := t.TempDir()
				for i, other := range order {
					content := before[other]
					switch {
					case i < step:
						content = after[other]
					case i == step && name == latestName: // renamed or not
						if part == grown {
							content = after[other]
						}
					case i == step:
						content = bytes.Clone(after[other][:len(before[other])+part])
						if hole {
							clear(content[len(before[other]):])
						}
					}
					writeFile(t, crashed, other, content)
				}
				writeFile(t, crashed, latestName+".new", []byte("half"))
				if _, err := verifySigned(t, crashed, store.id); err != nil && !hole {
					t.Fatalf("%s, %d more bytes: before the start: %v", name, part, err)
				}
				notarize(t, crashed, store)
				if s, err := verifySigned(t, crashed, store.id); err != nil || s.Last != 50 || s.Uncovered() != 0 {
					t.Fatalf("%s, %d more bytes: %+v, %v", name, part, s, err)
				}
			}
		}
	}
}

// What doesn't come from a crash stops the start, and is left as it is.
func TestOpenNotaryRefuses(t *testing.T) {
	store := newMemoryStore(1, 20)
	whole := t.TempDir()
	notarize(t, whole, store)
	first := readFile(t, whole, notesName)
	store.addEvents(10)
	notarize(t, whole, store)
	notes := readFile(t, whole, notesName)
	for _, row := range []struct {
		name   string
		change func(dir string)
		want   error
	}{
		{"checkpoints are cut off", func(dir string) { writeFile(t, dir, notesName, first) }, ErrBroken},
		{"checkpoints are gone", func(dir string) { _ = os.Remove(filepath.Join(dir, notesName)) }, ErrBroken},
		{"the last checkpoint is changed", func(dir string) {
			writeFile(t, dir, notesName, bytes.Replace(notes, []byte("\n30\n"), []byte("\n31\n"), 1))
		}, ErrMismatch},
		{"its origin is", func(dir string) {
			writeFile(t, dir, notesName, slicesJoin(first, []byte("X"), notes[len(first)+1:]))
		}, ErrBroken},
		{"the latest is of another log", func(dir string) {
			writeFile(t, dir, latestName, bytes.Replace(readFile(t, dir, latestName), []byte("/01"), []byte("/02"), 1))
		}, ErrBroken},
		{"the latest is changed", func(dir string) { writeFile(t, dir, latestName, []byte("x")) }, ErrBroken},
	} {
		dir := t.TempDir()
		for _, name := range []string{segmentName(1), treeName, notesName, latestName} {
			writeFile(t, dir, name, readFile(t, whole, name))
		}
		row.change(dir)
		if err := tryNotarize(t, dir, store, withTestSigner); !errors.Is(err, row.want) {
			t.Errorf("%s: error %v", row.name, err)
		}
	}
	// The tree is no evidence: it is computed anew.
	for _, change := range []func(b []byte) []byte{
		func([]byte) []byte { return nil },
		func(b []byte) []byte { return b[:len(b)/2] },
		func(b []byte) []byte { b[len(b)-1]++; return b },
	} {
		dir := t.TempDir()
		for _, name := range []string{segmentName(1), notesName, latestName} {
			writeFile(t, dir, name, readFile(t, whole, name))
		}
		writeFile(t, dir, treeName, change(readFile(t, whole, treeName)))
		notarize(t, dir, store)
		if !bytes.Equal(readFile(t, dir, treeName), readFile(t, whole, treeName)) {
			t.Error("the tree is not mended")
		}
	}
	other := func(context.Context) (tokenizer.Signer, error) { return tokenizer.NewSigner(make([]byte, 32)), nil }
	store.addEvents(1)
	if err := tryNotarize(t, whole, store, other); !errors.Is(err, ErrMismatch) {
		t.Errorf("another key: %v", err)
	}
	forked := newMemoryStore(1, 25)
	forked.addEvents(0)
	forked.add([]byte(`{"fork":1}`))
	forked.addEvents(10)
	dir := t.TempDir()
	for _, name := range []string{treeName, notesName, latestName} {
		writeFile(t, dir, name, readFile(t, whole, name))
	}
	if err := tryNotarize(t, dir, forked, withTestSigner); !errors.Is(err, ErrMismatch) {
		t.Errorf("another history: %v", err)
	}
}
