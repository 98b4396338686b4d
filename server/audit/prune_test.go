package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

const day = 24 * time.Hour

// oldLog opens segments whose log has an event for each of the last days, four in a
// segment or so, packed.
func oldLog(t *testing.T, days int) (*Segments, *memoryStore) {
	t.Helper()
	store := newMemoryStore(1, 0)
	for i := range days {
		store.add((&Event{Time: time.Now().Add(time.Duration(i-days) * day), Action: "tokenize", Code: "OK"}).Body())
	}
	s, _ := openSmall(t, t.TempDir(), store, SegmentOptions{Size: 1200, Plain: true, Retention: 30 * day})
	if err := s.packAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return s, store
}

// prune plans a prune, records it as the server does and prunes.
func prune(t *testing.T, s *Segments, store *memoryStore, before time.Time) (Pruning, error) {
	t.Helper()
	p, err := s.PlanPrune(before)
	if err != nil {
		t.Fatal(err)
	}
	store.add((&Event{
		Time: time.Now(), Action: ActionPrune, Code: "OK", PrunedFirst: p.First, PrunedLast: p.Last, PrunedHash: p.Hash.String(),
	}).Body())
	return p, s.Prune(ctx, p, uint64(len(store.entries)), "cn:admin")
}

// wantPruned checks that a directory verifies, and what is read from it.
func wantPruned(t *testing.T, dir string, store *memoryStore, pruned uint64) {
	t.Helper()
	sum, err := VerifyDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	total := uint64(len(store.entries))
	if sum.First != pruned+1 || sum.Last != total || sum.Pruned != pruned || sum.Events != total-pruned || sum.Head != store.entries[total-1].Hash() {
		t.Errorf("%+v, want %d of %d pruned", sum, pruned, total)
	}
	want := slicesJoin(lines(store.text())[pruned:]...)
	for _, from := range []uint64{1, pruned, pruned + 1} {
		if got := readEntries(t, dir, from); !bytes.Equal(got, want) {
			t.Errorf("from %d: %d bytes, want %d", from, len(got), len(want))
		}
	}
}

func TestPruneLeavesTheHashes(t *testing.T) {
	s, store := oldLog(t, 100)
	if _, err := s.PlanPrune(time.Now().Add(-29 * day)); !errors.Is(err, ErrRetention) {
		t.Errorf("error %v, want ErrRetention", err)
	}
	var last uint64
	for _, kept := range []time.Duration{200, 80, 80, 40} {
		p, err := prune(t, s, store, time.Now().Add(-kept*day))
		if err != nil {
			t.Fatal(err)
		}
		if p.Segments > 0 {
			if p.First != last+1 || p.Last < p.First || p.Hash != store.entries[p.Last-1].Hash() {
				t.Errorf("%+v after %d", p, last)
			}
			last = p.Last
		}
		if err := s.pass(ctx); err != nil {
			t.Fatal(err)
		}
		wantPruned(t, s.dir, store, last)
	}
	if last < 55 || last > 60 {
		t.Errorf("pruned up to event %d", last)
	}
	pruned, err := ReadPruned(s.dir)
	if err != nil || len(pruned) < 10 || pruned[0].First != 1 || pruned[0].By != "cn:admin" || pruned[0].Event == 0 || !strings.HasSuffix(pruned[0].File, ".jsonl.zst") {
		t.Errorf("%+v, %v", pruned, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	store.addEvents(2)
	_, logged := openSmall(t, s.dir, store, smallSegments)
	if strings.Contains(logged.String(), "level=ERROR") {
		t.Errorf("logged %s", logged)
	}
	wantPruned(t, s.dir, store, last)
}

// A prune removes a bounded number of segments at once, and never the one that is written.
func TestPruneInSteps(t *testing.T) {
	s, store := oldLog(t, 500)
	s.options.Retention = -time.Hour
	steps := 0
	for more := true; more; steps++ {
		p, err := prune(t, s, store, time.Now())
		if err != nil || p.Segments > maxPruned {
			t.Fatalf("%+v, %v", p, err)
		}
		more = p.More
	}
	if steps < 3 {
		t.Errorf("%d steps", steps)
	}
	if got := names(t, s.dir); len(got) > 4 {
		t.Errorf("%v", got)
	}
	wantPruned(t, s.dir, store, s.mustFirst(t)-1)
}

// However many events a segment has, a prune reads a bounded number of bytes.
func TestPruneInStepsOfBytes(t *testing.T) {
	s, _ := oldLog(t, 100)
	segments, err := listSegments(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := linesSize(s.dir, segments[0]); err != nil || n < 1200 || n > 1600 {
		t.Errorf("%d bytes, %v", n, err)
	}
	// Sparse: nothing but its end is looked at.
	second := segments[1]
	text, err := lastLine(s.dir, second)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(second.plain().path(s.dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(append([]byte{'\n'}, text...), maxPrunedBytes); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Remove(second.path(s.dir))); err != nil {
		t.Fatal(err)
	}
	p, err := s.PlanPrune(time.Now().Add(-40 * day))
	if err != nil || p.Segments != 1 || !p.More {
		t.Errorf("%+v, %v", p, err)
	}
}

// mustFirst returns the number of the first event that is there.
func (s *Segments) mustFirst(t *testing.T) uint64 {
	t.Helper()
	segments, err := listSegments(s.dir)
	if err != nil || len(segments) == 0 {
		t.Fatal(err)
	}
	return segments[0].first
}

// Wherever a prune is cut off, the directory verifies, and the next one finishes it.
func TestAPruneMayEndAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			s, store := oldLog(t, 60)
			files := &faultyFiles{failAt: at, after: after}
			s.files = files
			_, err := prune(t, s, store, time.Now().Add(-40*day))
			if files.steps < at {
				if err != nil || at < 10 {
					t.Errorf("%d steps, %v", files.steps, err)
				}
				break
			}
			if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrSegments) {
				t.Fatalf("step %d: error %v", at, err)
			}
			s.files = osFiles{}
			if err := s.pass(ctx); err != nil {
				t.Fatal(err)
			}
			wantPruned(t, s.dir, store, s.mustFirst(t)-1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, logged := openSmall(t, s.dir, store, SegmentOptions{Size: 1200, Plain: true, Retention: 30 * day})
			if strings.Contains(logged.String(), "level=ERROR") {
				t.Errorf("logged %s", logged)
			}
			if _, err := prune(t, s, store, time.Now().Add(-40*day)); err != nil {
				t.Fatal(err)
			}
			if err := s.pass(ctx); err != nil {
				t.Fatal(err)
			}
			if got := s.mustFirst(t); got < 17 {
				t.Errorf("step %d: event %d is there", at, got)
			}
			wantPruned(t, s.dir, store, s.mustFirst(t)-1)
		}
	}
}

// What PrunedFile says is believed only if the chain and the log say so too.
func TestVerifyDoesNotBelieveWhatIsSaidOfAPrune(t *testing.T) {
	for name, change := range map[string]func(p *Pruned) bool{
		"previous hash": func(p *Pruned) bool { p.Prev = tokenizer.Hash{1}.String(); return true },
		"hash":          func(p *Pruned) bool { p.Hash = tokenizer.Hash{1}.String(); return true },
		"no hash":       func(p *Pruned) bool { p.Hash = ""; return true },
		"log":           func(p *Pruned) bool { p.Log = tokenizer.LogID{7}.String(); return true },
		"event":         func(p *Pruned) bool { p.Event--; return true },
		"gone":          func(p *Pruned) bool { return false },
		"shorter":       func(p *Pruned) bool { p.Last--; return true },
	} {
		t.Run(name, func(t *testing.T) {
			s, store := oldLog(t, 60)
			if _, err := prune(t, s, store, time.Now().Add(-40*day)); err != nil {
				t.Fatal(err)
			}
			pruned, err := ReadPruned(s.dir)
			if err != nil {
				t.Fatal(err)
			}
			for i := range pruned {
				var text []byte
				for j, p := range pruned {
					if i == j && !change(&p) {
						continue
					}
					line, _ := json.Marshal(p)
					text = append(append(text, line...), '\n')
				}
				if err := os.WriteFile(filepath.Join(s.dir, PrunedFile), text, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := VerifyDir(s.dir); !errors.Is(err, ErrBroken) {
					t.Errorf("line %d: error %v", i+1, err)
				}
			}
		})
	}
	t.Run("no event", func(t *testing.T) { // somebody deletes segments and makes the file up
		s, store := oldLog(t, 60)
		p, err := s.PlanPrune(time.Now().Add(-40 * day))
		if err != nil {
			t.Fatal(err)
		}
		store.add((&Event{Time: time.Now(), Action: ActionPrune, Code: "OK", ValidateOnly: true, PrunedFirst: p.First, PrunedLast: p.Last, PrunedHash: p.Hash.String()}).Body())
		if err := s.Prune(ctx, p, uint64(len(store.entries)), "cn:x"); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyDir(s.dir); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "doesn't say that they were pruned") {
			t.Errorf("error %v", err)
		}
	})
}

// A segment that is damaged is not pruned: it may be evidence.
func TestADamagedSegmentIsNotPruned(t *testing.T) {
	s, store := oldLog(t, 60)
	path := plainSegment(1).pack().path(s.dir)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[20] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := names(t, s.dir)
	p, err := s.PlanPrune(time.Now().Add(-40 * day))
	if err == nil {
		store.add([]byte(`{"v":1}`))
		err = s.Prune(ctx, p, uint64(len(store.entries)), "cn:admin")
	}
	if !errors.Is(err, ErrBroken) || strings.Join(before, " ") != strings.Join(names(t, s.dir), " ") {
		t.Errorf("error %v, %v", err, names(t, s.dir))
	}
}
