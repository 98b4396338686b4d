package audit

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// signedDir is a log of two segments whose events are all covered by checkpoints.
type signedDir struct {
	store *memoryStore
	files map[string][]byte
	kept  []Checkpoint // after 10, 25 and all events
	stale map[string][]byte
}

const (
	signedEvents = 40
	cut          = 18 // events in the first segment
)

func newSignedDir(t *testing.T) signedDir {
	t.Helper()
	d := signedDir{store: newMemoryStore(1, 0), files: make(map[string][]byte), stale: make(map[string][]byte)}
	dir := t.TempDir()
	for _, n := range []int{4, 6, 15, 9, 6} {
		d.store.addEvents(n)
		notarize(t, dir, d.store)
		if len(d.store.entries) == 10 {
			for _, name := range []string{treeName, notesName, latestName, segmentName(1)} {
				d.stale[name] = readFile(t, dir, name)
			}
		}
	}
	l := lines(d.store.text())
	d.files[segmentName(1)], d.files[segmentName(cut+1)] = slicesJoin(l[:cut]...), slicesJoin(l[cut:]...)
	for _, name := range []string{treeName, notesName, latestName} {
		d.files[name] = readFile(t, dir, name)
	}
	all, err := ReadCheckpoints(d.files[notesName], testKey(t, d.store.id))
	if err != nil || len(all) != 5 {
		t.Fatal(err)
	}
	d.kept = []Checkpoint{all[1], all[2], all[4]}
	return d
}

// verify writes the files, as they were changed, and verifies them.
func (d signedDir) verify(t *testing.T, dir string, changed map[string][]byte, kept ...Checkpoint) (Signed, error) {
	t.Helper()
	for name, content := range d.files {
		if other, ok := changed[name]; ok {
			content = other
		}
		if content == nil {
			_ = os.Remove(filepath.Join(dir, name))
			continue
		}
		writeFile(t, dir, name, content)
	}
	return VerifySigned(dir, SignedOptions{Keys: []note.Verifier{testKey(t, d.store.id)}, Kept: kept})
}

// Whatever is done to the files is found, and on an untouched log nothing is said.
func TestVerifySignedFindsEveryChange(t *testing.T) {
	d, dir := newSignedDir(t), t.TempDir()
	untouched := func() {
		t.Helper()
		if s, err := d.verify(t, dir, nil, d.kept...); err != nil || s.Last != signedEvents || s.Checkpoints != 5 || s.Uncovered() != 0 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	untouched()
	keys := []note.Verifier{testKey(t, d.store.id)}
	found := func(what, name string, content []byte) {
		t.Helper()
		if bytes.Equal(content, d.files[name]) {
			return
		}
		if content == nil {
			_ = os.Remove(filepath.Join(dir, name))
		} else {
			writeFile(t, dir, name, content)
		}
		s, err := VerifySigned(dir, SignedOptions{Keys: keys})
		writeFile(t, dir, name, d.files[name])
		if !errors.Is(err, ErrBroken) && !errors.Is(err, ErrNoCheckpoint) {
			t.Fatalf("%s in %s: error %v, %+v", what, name, err, s)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for name, whole := range d.files {
		every := 5
		if name != notesName && name != latestName {
			every = 61 // the chain has a test of its own, of every byte
		}
		for i := rng.IntN(every); i < len(whole); i += every {
			for _, flip := range []byte{1 << rng.IntN(8), whole[i], whole[i] ^ '\n'} {
				changed := bytes.Clone(whole)
				changed[i] ^= flip
				found("a changed byte", name, changed)
			}
			found("a missing byte", name, slicesJoin(whole[:i], whole[i+1:]))
			found("a cut", name, whole[:i:i])
		}
		if stale, ok := d.stale[name]; ok {
			found("an old file put back", name, stale)
		}
	}
	for _, name := range []string{segmentName(1), segmentName(cut + 1), notesName, latestName} {
		found("no file", name, nil)
	}
	for _, name := range []string{segmentName(1), segmentName(cut + 1)} {
		l := lines(d.files[name])
		for i := range l {
			found("a missing line", name, slicesJoin(slices.Delete(slices.Clone(l), i, i+1)...))
			found("a cut tail", name, slicesJoin(l[:i]...))
			for range 5 {
				j := rng.IntN(len(l))
				found("a line put in", name, slicesJoin(slices.Insert(slices.Clone(l), j, l[i])...))
				swapped := slices.Clone(l)
				swapped[i], swapped[j] = l[j], l[i]
				found("lines swapped", name, slicesJoin(swapped...))
			}
		}
	}
	notes := bytes.SplitAfter(d.files[notesName], []byte("\n\n"))
	if len(notes) != 11 { // a note has two parts, each with an empty line behind it
		t.Fatalf("%d parts", len(notes))
	}
	for i := 0; i < 10; i += 2 {
		for j := 0; j < 10; j += 2 {
			found("a checkpoint put in", notesName, slicesJoin(slices.Insert(slices.Clone(notes), j, notes[i], notes[i+1])...))
		}
	}
	untouched()
}

// An event that is edited, with all that follows chained anew, is found by the signature,
// at its line. If checkpoints are signed anew too, with the key, a kept one tells.
func TestVerifySignedFindsARewrittenHistory(t *testing.T) {
	d, dir := newSignedDir(t), t.TempDir()
	for edited := range signedEvents {
		forged := newMemoryStore(1, 0)
		for i, e := range d.store.entries {
			if i == edited {
				e.Body = bytes.Replace(e.Body, []byte(`"OK"`), []byte(`"KO"`), 1)
			}
			forged.add(e.Body)
		}
		l := lines(forged.text())
		segments := map[string][]byte{segmentName(1): slicesJoin(l[:cut]...), segmentName(cut + 1): slicesJoin(l[cut:]...)}
		want := Place{segmentName(1), edited + 1, uint64(edited + 1)}
		if edited >= cut {
			want = Place{segmentName(cut + 1), edited + 1 - cut, uint64(edited + 1)}
		}
		if s, err := VerifyDir(write(t, segments)); err != nil || s.Last != signedEvents {
			t.Fatalf("the chain is whole, but %v", err)
		}
		_, err := d.verify(t, dir, segments)
		var fault *Fault
		if !errors.As(err, &fault) || fault.Place != want {
			t.Fatalf("event %d: %v, want %v", edited+1, err, want)
		}
		segments[treeName] = nil // without it, up to a checkpoint
		if _, err := d.verify(t, dir, segments); !errors.As(err, &fault) || fault.Event < uint64(edited+1) || fault.Event > uint64(edited+15) {
			t.Fatalf("event %d: %v", edited+1, err)
		}
		signed := t.TempDir()
		notarize(t, signed, forged)
		keys := []note.Verifier{testKey(t, d.store.id)}
		if _, err := VerifySigned(signed, SignedOptions{Keys: keys}); err != nil {
			t.Fatal(err)
		}
		for _, kept := range d.kept {
			_, err := VerifySigned(signed, SignedOptions{Keys: keys, Kept: []Checkpoint{kept}})
			if rewritten := uint64(edited) < kept.Events; rewritten != errors.Is(err, ErrBroken) {
				t.Fatalf("event %d against %d events: %v", edited+1, kept.Events, err)
			}
		}
	}
}

func write(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, dir, name, content)
	}
	return dir
}

// A whole directory of an earlier time verifies, but not against a later checkpoint.
func TestVerifySignedFindsATruncatedHistory(t *testing.T) {
	d := newSignedDir(t)
	old := write(t, d.stale)
	keys := []note.Verifier{testKey(t, d.store.id)}
	if s, err := VerifySigned(old, SignedOptions{Keys: keys, Kept: d.kept[:1]}); err != nil || s.Last != 10 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, kept := range [][]Checkpoint{d.kept, d.kept[1:2], d.kept[2:]} {
		if _, err := VerifySigned(old, SignedOptions{Keys: keys, Kept: kept}); !errors.Is(err, ErrBroken) {
			t.Errorf("error %v", err)
		}
	}
	other := Checkpoint{Log: tokenizer.LogID{9}, Events: 3}
	if _, err := VerifySigned(old, SignedOptions{Keys: keys, Kept: []Checkpoint{other}}); !errors.Is(err, ErrBroken) {
		t.Errorf("a checkpoint of another log: %v", err)
	}
	stranger := testKey(t, tokenizer.LogID{9})
	if _, err := VerifySigned(old, SignedOptions{Keys: []note.Verifier{stranger}}); !errors.Is(err, ErrBroken) {
		t.Errorf("another key: %v", err)
	}
	if _, err := VerifySigned(old, SignedOptions{}); !errors.Is(err, ErrBroken) {
		t.Errorf("no key: %v", err)
	}
}

// Whatever the text of a checkpoint is, it is read back as it was or not at all.
func FuzzCheckpoint(f *testing.F) {
	f.Add(Checkpoint{Log: tokenizer.LogID{1}, Events: 3}.text())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCheckpoint(text); err == nil && c.text() != text {
			t.Errorf("%q is read as %q", text, c.text())
		}
	})
}
