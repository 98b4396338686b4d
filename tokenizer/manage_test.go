package tokenizer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func TestGetAndUpdate(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Retention: 48 * time.Hour})
	now := k.clock()
	req := request("note", "x")
	req.Subject, req.Metadata, req.TTL, req.MaxUses = "customer-1", map[string]string{"order": "42"}, time.Hour, 5
	made, err := k.make(t, req)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := k.Inspect(made.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := k.Get(t.Context(), namespace, ref, nil)
	if err != nil || info.Token != made.Token || info.Profile != "note" || info.Subject != "customer-1" || info.MaxUses != 5 || info.Uses != 0 ||
		info.State != tokenizer.Active || !maps.Equal(info.Metadata, req.Metadata) || !info.Expires.Equal(made.Expires) || info.Imported {
		t.Fatalf("%+v, %v", info, err)
	}
	update := func(change tokenizer.Change) (info tokenizer.TokenInfo, err error) {
		err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
			info, err = k.Update(t.Context(), namespace, ref, change, nil, unit)
			return err
		})
		return info, err
	}
	labels, ttl := map[string]string{"order": "43", "a": "b"}, 24*time.Hour
	info, err = update(tokenizer.Change{Metadata: &labels, TTL: &ttl})
	if err != nil || !maps.Equal(info.Metadata, labels) || info.Expires.Before(now.now.Add(ttl)) {
		t.Fatalf("%+v, %v", info, err)
	}
	if again, err := k.Get(t.Context(), namespace, ref, nil); err != nil || !maps.Equal(again.Metadata, labels) || !again.Expires.Equal(info.Expires) {
		t.Fatalf("%+v, %v", again, err)
	}
	now.pass(2 * time.Hour) // later than it would have expired at first
	if s := k.sweep(t); s.Shredded+s.Removed+s.Failed > 0 {
		t.Fatalf("swept %+v", s)
	}
	if _, err := k.detokenize(t, namespace, made.Token, ""); err != nil {
		t.Fatalf("after its ttl was made longer: %v", err)
	}
	long := 47 * time.Hour // from now on that is 49 since it was made
	if _, err := update(tokenizer.Change{TTL: &long}); !errors.Is(err, tokenizer.ErrInvalidTTL) {
		t.Fatalf("beyond the retention: %v", err)
	}
	none := time.Duration(0)
	if info, err := update(tokenizer.Change{TTL: &none}); err != nil || info.Expires.After(info.Created.Add(48*time.Hour+time.Second)) {
		t.Fatalf("%+v, %v", info, err)
	}
}

func TestListPages(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, tokenizer.Profile{Name: "other", Type: "text", Format: "uuid"})
	var notes, alices, red []tokenizer.Token
	for n := range 60 {
		req := request([]string{"note", "note", "other"}[n%3], text(n))
		req.Subject = []string{"alice", "bob"}[n%2]
		if n%4 == 0 {
			req.Metadata = map[string]string{"colour": "red", "n": fmt.Sprint(n)}
		}
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		if req.Profile != "note" {
			continue
		}
		notes = append(notes, made.Token)
		if req.Subject == "alice" {
			alices = append(alices, made.Token)
		}
		if req.Metadata != nil {
			red = append(red, made.Token)
		}
	}
	list := func(req tokenizer.ListRequest) (tokens []tokenizer.Token) {
		t.Helper()
		req.Limit = 7
		for {
			page, err := k.List(t.Context(), namespace, req)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range page.Tokens {
				tokens = append(tokens, info.Token)
			}
			if req.Page = page.Next; req.Page == "" {
				return tokens
			}
		}
	}
	for name, row := range map[string]struct {
		req  tokenizer.ListRequest
		want []tokenizer.Token
	}{
		"profile":          {tokenizer.ListRequest{Profile: "note"}, notes},
		"subject":          {tokenizer.ListRequest{Profile: "note", Subject: "alice"}, alices},
		"metadata":         {tokenizer.ListRequest{Profile: "note", Metadata: map[string]string{"colour": "red"}}, red},
		"no such subject":  {tokenizer.ListRequest{Profile: "note", Subject: "carol"}, nil},
		"no such metadata": {tokenizer.ListRequest{Profile: "note", Metadata: map[string]string{"colour": "blue"}}, nil},
	} {
		if got := list(row.req); !slices.Equal(got, row.want) {
			t.Errorf("by %s: %d tokens, want %d, in order", name, len(got), len(row.want))
		}
	}
	page, err := k.List(t.Context(), namespace, tokenizer.ListRequest{Profile: "note", Limit: 3})
	if err != nil || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	for name, req := range map[string]tokenizer.ListRequest{
		"of another query": {Profile: "other", Page: page.Next, Limit: 3},
		"made up":          {Profile: "note", Page: "1.00112233445566778899aabbccddeeff", Limit: 3},
		"nonsense":         {Profile: "note", Page: "x", Limit: 3},
	} {
		if _, err := k.List(t.Context(), namespace, req); !errors.Is(err, tokenizer.ErrInvalidPage) {
			t.Errorf("a page token %s: %v", name, err)
		}
	}
}

func TestLookup(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Lookup: true},
		tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent, Lookup: true, Format: "uuid"},
		tokenizer.Profile{Name: "hidden", Type: "text"})
	tokens := map[string][]tokenizer.Token{}
	add := func(n int) {
		for _, profile := range []string{"note", "same"} {
			made, err := k.make(t, request(profile, text(n)))
			if err != nil {
				t.Fatal(err)
			}
			if key := fmt.Sprint(profile, n); !slices.Contains(tokens[key], made.Token) {
				tokens[key] = slices.Insert(tokens[key], 0, made.Token)
			}
		}
	}
	check := func(when string) {
		t.Helper()
		for n := range 5 {
			for _, profile := range []string{"note", "same"} {
				found, err := k.Lookup(t.Context(), namespace, profile, tokenizer.NewValue(text(n)))
				var got []tokenizer.Token
				for _, info := range found {
					got = append(got, info.Token)
				}
				if want := tokens[fmt.Sprint(profile, n)]; err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: value %d of %s has %v, %v; want %v", when, n, profile, got, err, want)
				}
			}
		}
	}
	for n := range 4 {
		add(n)
		add(n % 2)
	}
	check("at first")
	if _, err := k.Lookup(t.Context(), namespace, "hidden", tokenizer.NewValue("x")); !errors.Is(err, tokenizer.ErrNoLookup) {
		t.Errorf("without lookup: %v", err)
	}
	// While a new index key takes over, and after it has.
	k.rotate(t, keystore.Index)
	check("after a rotation")
	for n := range 4 {
		add(n) // some have entries under both keys now
	}
	check("under two keys")
	if k.count(t, keystore.Index, 1) == 0 {
		t.Fatal("nothing is under the old key")
	}
	k.rotate(t, keystore.Subject)
	if moved, failed := k.reindexAll(t); moved == 0 || failed != 0 {
		t.Fatalf("%d moved, %d failed", moved, failed)
	}
	check("after the index was moved")
	if left := k.count(t, keystore.Index, 1); left != 0 {
		t.Fatalf("%d entries are left under the old key", left)
	}
	retire := keystore.KeyID{Namespace: namespace, Class: keystore.Index, Version: 1}
	if under, err := k.store.Under(t.Context(), retire); err != nil || under {
		t.Fatalf("Under: %v, %v", under, err)
	}
	if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Retire: retire, Event: event}); err != nil {
		t.Fatal(err)
	}
	if err := k.keys.Reload(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	check("after the old key was retired")
	for n := range 4 {
		add(n)
	}
	check("and more")
}

// reindexAll moves the index once.
func (k kit) reindexAll(t testing.TB) (moved, failed int) {
	t.Helper()
	for after := []byte(nil); ; {
		var next []byte
		err := k.attempt(t.Context(), func(unit *tokenizer.Unit) error {
			r, err := k.Reindex(t.Context(), namespace, after, 4, unit)
			next, moved, failed = r.Next, moved+r.Moved, failed+r.Failed
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if after = next; after == nil {
			return moved, failed
		}
	}
}

// Subjects and tokens that are no sealed ids are found however often keys are
// rotated.
func TestReindexMovesSubjectsAndTokens(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "shaped", Type: "text", Format: "uuid"})
	made := make(map[tokenizer.Token]string)
	for n := range 15 {
		req := request("shaped", text(n))
		req.Subject = fmt.Sprint("subject ", n%3)
		m, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		made[m.Token] = text(n)
	}
	var deleted tokenizer.Token
	for token := range made {
		deleted = token
		delete(made, token)
		break
	}
	k.remove(t, deleted, "shaped")
	for version := uint32(1); version < 3; version++ {
		k.rotate(t, keystore.Index)
		k.rotate(t, keystore.Subject)
		k.reindexAll(t)
		for _, class := range []keystore.Class{keystore.Index, keystore.Subject} {
			if left := k.count(t, class, version); left != 0 {
				t.Fatalf("%d are left under %v %d", left, class, version)
			}
		}
		for token, value := range made {
			if got, err := k.detokenize(t, namespace, token, "shaped"); err != nil || got.Reveal() != value {
				t.Fatalf("%q, %v; want %q", got.Reveal(), err, value)
			}
		}
		if page, err := k.List(t.Context(), namespace, tokenizer.ListRequest{Profile: "shaped", Subject: "subject 1", Limit: 100}); err != nil || len(page.Tokens) < 4 {
			t.Fatalf("%+v, %v", page, err)
		}
		if _, err := k.detokenize(t, namespace, deleted, "shaped"); !errors.Is(err, tokenizer.ErrTokenNotFound) {
			t.Fatalf("a deleted token: %v", err)
		}
	}
	if counts := k.count(t, keystore.Subject, 3); counts != 3 {
		t.Fatalf("%d subjects", counts)
	}
}

func TestImport(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"},
		tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent, Format: "uuid"})
	with := func(profile, value, token string) tokenizer.TokenizeRequest {
		req := request(profile, value)
		req.Import = tokenizer.Token(token)
		return req
	}
	for _, profile := range []string{"note", "same"} {
		made, err := k.make(t, with(profile, "x", "old-1"))
		if err != nil || made.Token != "old-1" || made.Reused {
			t.Fatalf("%s: %+v, %v", profile, made, err)
		}
		if got, err := k.detokenize(t, namespace, "old-1", profile); err != nil || got.Reveal() != "x" {
			t.Fatalf("%s: %q, %v", profile, got.Reveal(), err)
		}
		ref, err := k.Inspect("old-1", profile)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := k.Get(t.Context(), namespace, ref, nil); err != nil || !info.Imported {
			t.Fatalf("%+v, %v", info, err)
		}
		if again, err := k.make(t, with(profile, "x", "old-1")); err != nil || !again.Reused {
			t.Fatalf("%s again: %+v, %v", profile, again, err)
		}
		if _, err := k.make(t, with(profile, "y", "old-1")); !errors.Is(err, tokenizer.ErrTokenTaken) {
			t.Fatalf("%s, another value: %v", profile, err)
		}
	}
	if _, err := k.make(t, with("same", "x", "old-2")); !errors.Is(err, tokenizer.ErrHasToken) {
		t.Fatalf("another token of a convergent value: %v", err)
	}
	if made, err := k.make(t, request("same", "x")); err != nil || made.Token != "old-1" {
		t.Fatalf("the convergent token of an imported value: %+v, %v", made, err)
	}
	if made, err := k.make(t, with("note", "x", "old-2")); err != nil || made.Reused {
		t.Fatalf("another token of a random value: %+v, %v", made, err)
	}
	results := k.makeAll(t, []tokenizer.TokenizeRequest{
		with("note", "a", "b-1"), with("note", "b", "b-1"), with("note", "a", "b-1"), with("note", "old-3", "old-3"),
		with("note", "a", " b"), with("note", "a", "ü"), with("note", "a", "cc_note_x"), with("same", "q", "s-1"), with("same", "q", "s-2"),
	})
	for i, want := range []error{
		nil, tokenizer.ErrTokenTaken, nil, tokenizer.ErrInvalidToken, tokenizer.ErrInvalidToken, tokenizer.ErrInvalidToken, tokenizer.ErrInvalidToken, nil, tokenizer.ErrHasToken,
	} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("item %d: %v, want %v", i, results[i].Err, want)
		}
	}
	k.remove(t, "old-1", "note")
	if _, err := k.make(t, with("note", "z", "old-1")); !errors.Is(err, tokenizer.ErrTokenTaken) {
		t.Fatalf("a token that was deleted: %v", err)
	}
}

func TestExport(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, cvv)
	now := k.clock()
	want := make(map[tokenizer.Token]string)
	for n := range 23 {
		made, err := k.make(t, request("note", text(n)))
		if err != nil {
			t.Fatal(err)
		}
		want[made.Token] = text(n)
	}
	short := request("note", "short")
	short.TTL = time.Second
	if _, err := k.make(t, short); err != nil {
		t.Fatal(err)
	}
	now.pass(time.Minute)
	got := make(map[tokenizer.Token]string)
	for page := ""; ; {
		p, err := k.Export(t.Context(), namespace, "note", page, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Tokens {
			got[e.Token] = e.Value.Reveal()
		}
		if page = p.Next; page == "" {
			break
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("exported %d tokens, want %d", len(got), len(want))
	}
	if _, err := k.Export(t.Context(), namespace, "cvv", "", 5, nil); !errors.Is(err, tokenizer.ErrNotExportable) {
		t.Errorf("card verification values: %v", err)
	}
	type signer func(context.Context, string, *tokenizer.Unit) (tokenizer.Signer, error)
	sign := func(of signer) (public, signature []byte) {
		t.Helper()
		var s tokenizer.Signer
		err := k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
			s, err = of(t.Context(), namespace, unit)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return s.Public(), s.Sign([]byte("x"))
	}
	public, signature := sign(k.Signer)
	logs, _ := sign(k.LogSigner)
	if slices.Equal(public, logs) {
		t.Error("what signs exports signs the log too")
	}
	k.rotate(t, keystore.Data)
	k.resealAll(t)
	if again, _ := sign(k.LogSigner); !slices.Equal(logs, again) {
		t.Error("the key of the log is another one the second time")
	}
	if again, same := sign(k.Signer); !slices.Equal(public, again) || !slices.Equal(signature, same) {
		t.Error("the signing key is another one the second time")
	}
}
