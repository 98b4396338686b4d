package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// claim returns a claim under no key; "" stands for nothing.
func claim(key, before, after string) tokenizer.Claim {
	c := tokenizer.Claim{Key: []byte(key)}
	if before != "" {
		c.Old = []byte(before)
	}
	if after != "" {
		c.New = []byte(after)
	}
	return c
}

func claims(c ...tokenizer.Claim) tokenizer.Unit { return tokenizer.Unit{Claims: c} }

func testClaims(t *testing.T, h Harness) {
	s, reopen := h.openWithKeys(t)
	id := reserve(t, s, 2)
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id)}, Claims: []tokenizer.Claim{claim("key", "", "first")}})
	for range 2 {
		refused(t, s, tokenizer.ErrConflict, tokenizer.Unit{
			Records: []tokenizer.Record{record(id + 1)},
			Claims:  []tokenizer.Claim{claim("other", "", "second"), claim("key", "", "second")},
		})
		wantClaim(t, s, "key", "first")
		wantClaim(t, s, "other", "")
		wantRecord(t, s, record(id))
		wantNoRecord(t, s, id+1)
		if log := readLog(t, s); len(log) != 1 {
			t.Fatalf("log = %v", log)
		}
		s = reopen()
	}
	// Nothing is left of the unit that was refused.
	commit(t, s, tokenizer.Unit{Records: []tokenizer.Record{record(id + 1)}, Claims: []tokenizer.Claim{claim("other", "", "second")}})
	wantClaim(t, s, "other", "second")
}

func testClaimRows(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	for _, row := range []struct {
		name                string
		held, before, after string
		want                string
		wantErr             error
	}{
		{"made", "", "", "new", "new", nil},
		{"made where there is one", "held", "", "new", "held", tokenizer.ErrConflict},
		{"made where there is the same", "held", "", "held", "held", tokenizer.ErrConflict},
		{"replaced", "held", "held", "new", "new", nil},
		{"replaced, another", "held", "other", "new", "held", tokenizer.ErrConflict},
		{"replaced, a part", "held", "hel", "new", "held", tokenizer.ErrConflict},
		{"replaced, none there", "", "held", "new", "", tokenizer.ErrConflict},
		{"removed", "held", "held", "", "", nil},
		{"removed, another", "held", "other", "", "held", tokenizer.ErrConflict},
		{"removed, none there", "", "held", "", "", tokenizer.ErrConflict},
		{"asserted", "held", "held", "held", "held", nil},
		{"asserted, another", "held", "other", "other", "held", tokenizer.ErrConflict},
		{"asserted, none there", "", "held", "held", "", tokenizer.ErrConflict},
		{"asserted that there is none", "", "", "", "", nil},
		{"asserted that there is none, one there", "held", "", "", "held", tokenizer.ErrConflict},
	} {
		if row.held != "" {
			commit(t, s, claims(claim(row.name, "", row.held)))
		}
		unit := claims(claim(row.name, row.before, row.after), claim(row.name+", too", "", "too"))
		unit.Event = event("x")
		if _, err := s.Commit(ctx, unit); !errors.Is(err, row.wantErr) {
			t.Errorf("%s: error %v, want %v", row.name, err, row.wantErr)
		}
		want := "too"
		if row.wantErr != nil {
			want = ""
		}
		for range 2 {
			wantClaim(t, s, row.name, row.want)
			wantClaim(t, s, row.name+", too", want)
			s = reopen()
		}
	}
	long := string(bytes.Repeat([]byte("x"), tokenizer.MaxClaim))
	commit(t, s, claims(claim(long, "", long)))
	wantClaim(t, s, long, long)
}

// testClaimsTogether has units share a write: each sees what those before have
// left, and who is refused takes nobody down.
func testClaimsTogether(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	const n = 64
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := make(map[int]int) // by key, who has it
	for i := range n {
		wg.Go(func() {
			// Each wants two keys of a ring, so neighbours are in each other's way.
			unit := claims(claim(strconv.Itoa(i), "", strconv.Itoa(i)), claim(strconv.Itoa((i+1)%n), "", strconv.Itoa(i)))
			unit.Event = event("x")
			_, err := s.Commit(ctx, unit)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken[i], taken[(i+1)%n] = i, i
			} else if !errors.Is(err, tokenizer.ErrConflict) {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	wg.Wait()
	if len(taken) < n/2 {
		t.Errorf("%d keys are taken, though who was refused was refused for one that is", len(taken))
	}
	for range 2 {
		for i := range n {
			want := ""
			if who, ok := taken[i]; ok {
				want = strconv.Itoa(who)
			}
			wantClaim(t, s, strconv.Itoa(i), want)
		}
		s = reopen()
	}
	twice := claims(claim("k", "", "one"), claim("k", "", "two"))
	malformed(t, s, "two claims with one key", twice)
	malformed(t, s, "a claim and an assertion with one key", claims(claim("k", "", "one"), claim("k", "", "")))
}

func testClaimRace(t *testing.T, h Harness) {
	s, _ := h.openWithKeys(t)
	const clients, keys = 16, 20
	var mu sync.Mutex
	won := make(map[int][]uint64)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for k := range keys {
				id, err := s.ReserveIDs(ctx, 1)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = s.Commit(ctx, tokenizer.Unit{
					Records: []tokenizer.Record{record(id)},
					Claims:  []tokenizer.Claim{{Key: []byte{byte(k)}, New: fmt.Append(nil, id)}},
					Event:   event("x"),
				})
				if err == nil {
					mu.Lock()
					won[k] = append(won[k], id)
					mu.Unlock()
				} else if !errors.Is(err, tokenizer.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		if len(won[k]) != 1 {
			t.Fatalf("key %d was won by %d", k, won[k])
		}
		wantClaim(t, s, string([]byte{byte(k)}), fmt.Sprint(won[k][0]))
		wantRecord(t, s, record(won[k][0]))
	}
	if log := readLog(t, s); len(log) != keys {
		t.Errorf("log has %d entries, want %d", len(log), keys)
	}
}

// testClaimChain counts up in a claim, at once: who is refused looks again.
func testClaimChain(t *testing.T, h Harness) {
	s, _ := h.Open(t)
	const clients, each = 8, 10
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				for {
					values, err := s.Claimed(ctx, []byte("k"))
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(values[0]))
					unit := tokenizer.Unit{Claims: []tokenizer.Claim{{Key: []byte("k"), Old: values[0], New: fmt.Append(nil, n+1)}}, Event: event("x")}
					if _, err = s.Commit(ctx, unit); err == nil {
						break
					} else if !errors.Is(err, tokenizer.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	wantClaim(t, s, "k", strconv.Itoa(clients*each))
}

func testClaimPages(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	index := keyID(keystore.Index, 5)
	var all []tokenizer.Claim
	for i := range 25 {
		for _, prefix := range []string{"a", "b", "c"} {
			c := claim(fmt.Sprintf("%s%02d", prefix, i), "", prefix+"'s")
			if i%2 == 0 {
				c.Under = index
			}
			all = append(all, c)
		}
	}
	all = append(all, claim("b", "", "b's"), claim("\xff", "", "last"))
	slices.Reverse(all)
	commit(t, s, tokenizer.Unit{Keys: []keystore.WrappedKey{wrapped(keystore.Index, 5)}})
	commit(t, s, claims(all...))
	read := func(prefix string, limit int) (keys []string) {
		var after []byte
		for {
			page, err := s.Claims(ctx, []byte(prefix), after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("Claims(%q, %q, %d): %d, %v", prefix, after, limit, len(page), err)
			}
			for _, c := range page {
				i := slices.IndexFunc(all, func(m tokenizer.Claim) bool { return bytes.Equal(m.Key, c.Key) })
				if i < 0 || !bytes.Equal(all[i].New, c.Value) || all[i].Under != c.Under {
					t.Fatalf("%+v was not made like that", c)
				}
				keys = append(keys, string(c.Key))
				after = append([]byte(nil), c.Key...)
				c.Key[0], c.Value[0] = 'X', 'X' // the reader's own
			}
			if len(page) == 0 {
				return keys
			}
		}
	}
	for range 2 {
		for _, row := range []struct {
			prefix      string
			limit, want int
		}{{"", 10, 77}, {"b", 1, 26}, {"b", 26, 26}, {"b", 1000, 26}, {"b1", 3, 10}, {"\xff", 5, 1}, {"aa", 5, 0}, {"d", 5, 0}} {
			keys := read(row.prefix, row.limit)
			if len(keys) != row.want || !slices.IsSorted(keys) || len(slices.Compact(keys)) != row.want {
				t.Errorf("prefix %q, limit %d: %q, want %d", row.prefix, row.limit, keys, row.want)
			}
		}
		s = reopen()
	}
	// One may start behind a key that is not claimed.
	if page, err := s.Claims(ctx, []byte("b"), []byte("b000"), 1); err != nil || len(page) != 1 || string(page[0].Key) != "b01" {
		t.Errorf("behind b000: %v, %v", page, err)
	}
	if page, err := s.Claims(ctx, []byte("b"), []byte("a"), 1); err != nil || len(page) != 1 || string(page[0].Key) != "b" {
		t.Errorf("behind a: %v, %v", page, err)
	}
}
