package storetest

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// distinct is a ciphertext that is found again in a file.
func distinct(id uint64) []byte { return fmt.Appendf(nil, "<a ciphertext of record %08d>", id) }

func distinctRecord(id uint64) tokenizer.Record {
	r := record(id)
	r.Value = distinct(id)
	return r
}

// files returns what is in the files of a store.
func (h Harness) files(t *testing.T, s tokenizer.Store) (content []byte) {
	t.Helper()
	for _, name := range h.Files(s) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, b...)
	}
	return content
}

func testScrub(t *testing.T, h Harness) {
	if h.Files == nil {
		t.Skip("the harness names no files")
	}
	s, reopen := h.openWithKeys(t)
	const n = 200
	id := reserve(t, s, n+1)
	// One by one, so that there are many pages that were used once.
	for i := range uint64(n) {
		commit(t, s, tokenizer.Unit{
			Records: []tokenizer.Record{distinctRecord(id + i)},
			Claims:  []tokenizer.Claim{claim(fmt.Sprintf("%08d", id+i), "", fmt.Sprintf("<claim %08d>", id+i))},
		})
	}
	large := record(id + n)
	large.Value = bytes.Repeat([]byte("<a large ciphertext>"), 20_000)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{large}})
	gone := func(i uint64) bool { return i%2 == 1 }
	for i := range uint64(n) {
		if !gone(i) {
			continue
		}
		unit := tokenizer.Unit{Claims: []tokenizer.Claim{claim(fmt.Sprintf("%08d", id+i), fmt.Sprintf("<claim %08d>", id+i), "")}}
		if old := distinctRecord(id + i); i%4 == 1 {
			unit.Deletes = []tokenizer.Record{old}
		} else {
			unit.Updates = []tokenizer.Update{changed(old, func(r *tokenizer.Record) { r.Value = nil })}
		}
		commit(t, s, unit)
	}
	commit(t, s, tokenizer.Unit{Deletes: []tokenizer.Record{large}})
	if !bytes.Contains(h.files(t, s), distinct(id+1)) {
		t.Log("nothing to overwrite")
	}
	for range 2 {
		if err := s.Scrub(ctx); err != nil {
			t.Fatalf("Scrub: %v", err)
		}
		files := h.files(t, s)
		for i := range uint64(n) {
			for what, content := range map[string][]byte{"record": distinct(id + i), "claim": fmt.Appendf(nil, "<claim %08d>", id+i)} {
				if bytes.Contains(files, content) == gone(i) {
					t.Fatalf("%s %d: it is still there: %v", what, i, gone(i))
				}
			}
		}
		if bytes.Contains(files, []byte("<a large ciphertext>")) {
			t.Fatal("the large record is still there")
		}
		s = reopen()
	}
	for i := range uint64(n) {
		if !gone(i) {
			wantRecord(t, s, distinctRecord(id+i))
		}
	}
	readLog(t, s)
}

// testScrubRace scrubs while records come, change and go, and are read.
func testScrubRace(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	const clients, each = 4, 30
	id := reserve(t, s, clients*each)
	done := make(chan struct{})
	var writers, others sync.WaitGroup
	others.Go(func() {
		for {
			if err := s.Scrub(ctx); err != nil {
				t.Errorf("Scrub: %v", err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	others.Go(func() {
		for {
			if _, err := s.Scan(ctx, "default", "", 0, 1000); err != nil {
				t.Errorf("Scan: %v", err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for c := range uint64(clients) {
		writers.Go(func() {
			for i := id + c*each; i < id+(c+1)*each; i++ {
				was := distinctRecord(i)
				update := changed(was, func(r *tokenizer.Record) { r.Value = []byte("changed") })
				for _, unit := range []tokenizer.Unit{
					{Records: []tokenizer.Record{was}}, {Updates: []tokenizer.Update{update}}, {Deletes: []tokenizer.Record{update.New}},
				} {
					if unit.Deletes != nil && i%2 == 0 {
						continue
					}
					unit.Event = event("x")
					if _, err := s.Commit(ctx, unit); err != nil {
						t.Errorf("Commit: %v", err)
					}
				}
				found, err := s.Records(ctx, i)
				if err != nil || i%2 == 0 && (found[0].Err != nil || !found[0].Record.Equal(update.New)) {
					t.Errorf("record %d: %+v, %v", i, found, err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	others.Wait()
	if err := s.Scrub(ctx); err != nil {
		t.Errorf("Scrub: %v", err)
	}
	if h.Files != nil {
		files := h.files(t, s)
		for i := id; i < id+clients*each; i++ {
			if bytes.Contains(files, distinct(i)) {
				t.Fatalf("record %d is still there", i)
			}
		}
	}
	s = reopen()
	wantProfiles(t, s, map[string]uint64{"card": clients * each / 2})
	readLog(t, s)
}
