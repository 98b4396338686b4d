package storetest

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// others are the keys of record's records in the namespace other.
func others() (keys []keystore.WrappedKey) {
	for _, k := range []keystore.WrappedKey{wrapped(keystore.Data, 7), wrapped(keystore.Token, 3)} {
		k.Namespace = "other"
		keys = append(keys, k)
	}
	return keys
}

func testScan(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	commit(t, s, tokenizer.Unit{Keys: others()})
	const n = 10_000
	first := reserve(t, s, n)
	var unit tokenizer.Unit
	want := make(map[[2]string][]uint64)
	for i := range uint64(n) {
		r := record(first + i)
		switch {
		case i%1000 == 3:
			r.Namespace = "other"
		case i > 20 && i%1500 == 7:
			r.Profile = "ssn"
		case i > 20 && i%1500 == 8:
			r.Profile = "" // a subject
		}
		unit.Records = append(unit.Records, r)
		want[[2]string{r.Namespace, ""}] = append(want[[2]string{r.Namespace, ""}], r.ID)
		if r.Profile != "" {
			want[[2]string{r.Namespace, r.Profile}] = append(want[[2]string{r.Namespace, r.Profile}], r.ID)
		}
	}
	commit(t, s, unit)
	s = reopen()
	for _, row := range []struct {
		namespace, profile string
		limit              int
	}{
		{"default", "", 1000}, {"default", "card", 1000}, {"default", "ssn", 1}, {"default", "ssn", 100}, {"default", "cvv", 5},
		{"other", "", 3}, {"other", "card", 1000}, {"other", "ssn", 1000}, {"third", "", 10}, {"", "", 10},
	} {
		var ids []uint64
		for after := uint64(0); ; {
			found, err := s.Scan(ctx, row.namespace, row.profile, after, row.limit)
			if err != nil || len(found.IDs) > row.limit {
				t.Fatalf("Scan: %d records, %v", len(found.IDs), err)
			}
			ids = append(ids, found.IDs...)
			if found.Next == 0 {
				break
			}
			if found.Next <= after {
				t.Fatalf("from %d on to %d", after, found.Next)
			}
			after = found.Next
		}
		if w := want[[2]string{row.namespace, row.profile}]; !slices.Equal(ids, w) {
			t.Errorf("%+v: found %d, want %d", row, len(ids), len(w))
		}
	}
	for _, after := range []uint64{first + n - 1, 1<<64 - 1} {
		if found, err := s.Scan(ctx, "default", "", after, 10); err != nil || len(found.IDs) != 0 || found.Next != 0 {
			t.Errorf("behind the last: %+v, %v", found, err)
		}
	}
}

func wantProfiles(t *testing.T, s tokenizer.Store, want map[string]uint64) {
	t.Helper()
	if got, err := s.Profiles(ctx, "default"); err != nil || !maps.Equal(got, want) {
		t.Fatalf("Profiles = %v, %v; want %v", got, err, want)
	}
}

func testProfiles(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	commit(t, s, tokenizer.Unit{Keys: others()})
	of := func(id uint64, profile string) tokenizer.Record {
		r := record(id)
		r.Profile = profile
		return r
	}
	want := func(card, ssn uint64) {
		t.Helper()
		counts := map[string]uint64{"card": card, "ssn": ssn}
		maps.DeleteFunc(counts, func(_ string, n uint64) bool { return n == 0 })
		for range 2 {
			wantProfiles(t, s, counts)
			s = reopen()
		}
	}
	id := reserve(t, s, 40)
	want(0, 0)
	elsewhere := of(id+9, "card")
	elsewhere.Namespace = "other"
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{of(id, "card"), of(id+1, "ssn"), of(id+2, "card"), of(id+3, ""), elsewhere}})
	want(2, 1)
	if got, err := s.Profiles(ctx, "other"); err != nil || !maps.Equal(got, map[string]uint64{"card": 1}) {
		t.Errorf("another namespace: %v, %v", got, err)
	}

	// What fails isn't counted.
	h.Fail(s)
	if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{of(id+4, "card")}, Event: event("x")}); err == nil {
		t.Fatal("a write that should have failed")
	}
	refused(t, s, tokenizer.ErrIDTaken, tokenizer.Unit{Records: []tokenizer.Record{of(id+4, "card"), of(id, "card")}})
	refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{Deletes: []tokenizer.Record{of(id, "card"), of(id+1, "card")}})
	want(2, 1)

	// What is deleted but for its token is still counted.
	gone := changed(of(id+2, "card"), func(r *tokenizer.Record) { r.State, r.Value = tokenizer.Deleted, nil })
	commit(t, s, tokenizer.Unit{Updates: []tokenizer.Update{gone}})
	want(2, 1)
	commit(t, s, tokenizer.Unit{Deletes: []tokenizer.Record{of(id, "card"), of(id+1, "ssn"), of(id+3, "")}})
	want(1, 0)

	// Units at once.
	var wg sync.WaitGroup
	for i := range uint64(20) {
		wg.Go(func() {
			if _, err := s.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{of(id+10+i, "card")}, Event: event("x")}); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if _, err := s.Commit(ctx, tokenizer.Unit{Deletes: []tokenizer.Record{of(id+10+i, "card")}, Event: event("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want(11, 0)
}

func testOutdated(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Data, 8)}, Event: event("x")})
	const n = 10_000
	first := reserve(t, s, n)
	var unit tokenizer.Unit
	var want []uint64
	for i := range uint64(n) {
		r := record(first + i)
		if i%1000 != 7 && i > 20 {
			r.KeyVersion = 8
		} else {
			want = append(want, r.ID)
		}
		unit.Records = append(unit.Records, r)
	}
	unit.Event = event("x")
	commit(t, s, unit)
	scan := func(namespace string, version uint32) (ids []uint64) {
		for after, steps := uint64(0), 0; ; steps++ {
			found, err := s.Outdated(ctx, namespace, version, after, 5)
			if err != nil || len(found.Records) > 5 || found.Unreadable != 0 || steps > n {
				t.Fatalf("%+v, %v, step %d", found, err, steps)
			}
			for _, r := range found.Records {
				wantRecord(t, s, r)
				ids = append(ids, r.ID)
			}
			if found.Next == 0 {
				return ids
			}
			if found.Next <= after {
				t.Fatalf("from %d on to %d", after, found.Next)
			}
			after = found.Next
		}
	}
	if got := scan("default", 8); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if got := scan("other", 8); len(got) != 0 {
		t.Errorf("another namespace has %v", got)
	}
}
