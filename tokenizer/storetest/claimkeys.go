package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// under returns a claim under a key.
func under(class keystore.Class, version uint32, c tokenizer.Claim) tokenizer.Claim {
	c.Under = keyID(class, version)
	return c
}

// addKeys adds keys of the namespace default.
func addKeys(t *testing.T, s tokenizer.Store, ids ...keystore.KeyID) {
	t.Helper()
	var keys []keystore.WrappedKey
	for _, id := range ids {
		keys = append(keys, wrapped(id.Class, id.Version))
	}
	commit(t, s, tokenizer.Unit{Keys: keys})
}

func testClaimUnder(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	index1, index2 := keyID(keystore.Index, 1), keyID(keystore.Index, 2)
	refused(t, s, keystore.ErrKeyVersion, claims(under(keystore.Index, 1, claim("k", "", "v")))) // no key at all
	addKeys(t, s, index1, keyID(keystore.Subject, 4))
	commit(t, s, claims(under(keystore.Index, 1, claim("k", "", "v")), under(keystore.Subject, 4, claim("s", "", "v"))))
	for range 2 {
		for _, c := range []tokenizer.Claim{
			under(keystore.Index, 2, claim("l", "", "v")),   // it never was
			under(keystore.Index, 0, claim("l", "", "v")),   // no such thing
			under(keystore.Subject, 1, claim("l", "", "v")), // another class has it
			under(keystore.Index, 2, claim("k", "v", "w")),
			{Key: []byte("l"), New: []byte("v"), Under: keystore.KeyID{Namespace: "other", Class: keystore.Index, Version: 1}},
		} {
			refused(t, s, keystore.ErrKeyVersion, claims(c, claim("beside", "", "v")))
		}
		wantClaim(t, s, "beside", "")
		s = reopen()
	}
	malformed(t, s, "a claim under a data key", claims(under(keystore.Data, 7, claim("l", "", "v"))))

	// Once there is a newer one, nothing is claimed under the older any more.
	addKeys(t, s, index2)
	for range 2 {
		refused(t, s, keystore.ErrKeyVersion, claims(under(keystore.Index, 1, claim("l", "", "v"))))
		refused(t, s, keystore.ErrKeyVersion, claims(under(keystore.Index, 1, claim("k", "v", "w"))))
		commit(t, s, claims(under(keystore.Index, 1, claim("k", "v", "v")))) // an assertion claims nothing
		commit(t, s, claims(under(keystore.Index, 1, claim("l", "", ""))))
		s = reopen()
	}
	commit(t, s, claims(under(keystore.Index, 1, claim("k", "v", "")), under(keystore.Index, 2, claim("l", "", "v"))))
	wantClaim(t, s, "k", "")
	wantClaim(t, s, "l", "v")
}

func testClaimCensus(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	index1, index2, subject1 := keyID(keystore.Index, 1), keyID(keystore.Index, 2), keyID(keystore.Subject, 1)
	addKeys(t, s, index1, subject1)
	want := func(index, newer, subject int) {
		t.Helper()
		for range 2 {
			counts := map[keystore.KeyID][2]int{index1: {index, 0}, subject1: {subject, 0}}
			if newer >= 0 {
				counts[index2] = [2]int{newer, 0}
			}
			wantCensus(t, s, counts)
			s = reopen()
		}
	}
	want(0, -1, 0)
	commit(t, s, claims(
		under(keystore.Index, 1, claim("a", "", "v")), under(keystore.Index, 1, claim("b", "", "v")),
		under(keystore.Subject, 1, claim("s", "", "v")), claim("none", "", "v")))
	want(2, -1, 1)

	// What isn't written isn't counted, and what changes nothing neither.
	h.Fail(s)
	if _, err := s.Commit(ctx, tokenizer.Unit{Claims: []tokenizer.Claim{under(keystore.Index, 1, claim("c", "", "v"))}, Event: event("x")}); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Fatal(err)
	}
	refused(t, s, tokenizer.ErrConflict, claims(under(keystore.Index, 1, claim("c", "", "v")), claim("a", "", "v")))
	refused(t, s, tokenizer.ErrConflict, claims(claim("b", "v", ""), claim("a", "other", "")))
	commit(t, s, claims(under(keystore.Subject, 1, claim("a", "v", "v")), claim("b", "v", "v")))
	want(2, -1, 1)

	// A change moves the count from the key that it was under to that which it is
	// under, whatever the call that removes a claim says.
	addKeys(t, s, index2)
	commit(t, s, claims(under(keystore.Index, 2, claim("a", "v", "w"))))
	want(1, 1, 1)
	commit(t, s, claims(claim("b", "v", "w"), under(keystore.Index, 2, claim("none", "v", "w"))))
	want(0, 2, 1)
	commit(t, s, claims(under(keystore.Subject, 1, claim("a", "w", "")), claim("b", "w", ""), claim("s", "v", "")))
	want(0, 1, 0)
	commit(t, s, claims(claim("none", "w", "")))
	want(0, 0, 0)
}

func testClaimRetire(t *testing.T, h Harness) {
	s, reopen := h.Open(t)
	for _, class := range []keystore.Class{keystore.Index, keystore.Subject} {
		first, second := keyID(class, 1), keyID(class, 2)
		addKeys(t, s, first)
		name := class.String()
		var many []tokenizer.Claim // more than are looked at in one go
		for i := range 5000 {
			many = append(many, claim(fmt.Sprint("many ", class, i), "", "v"))
		}
		commit(t, s, claims(many...))
		commit(t, s, claims(under(class, 1, claim(name, "", "v"))))
		addKeys(t, s, second)
		commit(t, s, claims(under(class, 2, claim(name+" newer", "", "v"))))
		for _, row := range []struct {
			id   keystore.KeyID
			want bool
		}{{first, true}, {second, true}, {keyID(class, 3), false}, {keyID(keystore.Data, 1), false}, {keystore.KeyID{Namespace: "other", Class: class, Version: 1}, false}} {
			if is, err := s.Under(ctx, row.id); err != nil || is != row.want {
				t.Errorf("Under(%v) = %v, %v; want %v", row.id, is, err, row.want)
			}
		}
		refused(t, s, keystore.ErrKeyInUse, tokenizer.Unit{Retire: first})
		commit(t, s, claims(claim(name, "v", "")))
		if is, err := s.Under(ctx, first); err != nil || is {
			t.Errorf("Under(%v) = %v, %v though nothing is", first, is, err)
		}
		s = reopen()
		commit(t, s, tokenizer.Unit{Retire: first})
		refused(t, s, keystore.ErrKeyVersion, claims(under(class, 1, claim(name, "", "v"))))
	}
}
