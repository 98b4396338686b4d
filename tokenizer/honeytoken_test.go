package tokenizer_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// plant makes a honeytoken and commits it.
func (k kit) plant(t testing.TB, req tokenizer.HoneytokenRequest) (made tokenizer.Honeytoken, err error) {
	t.Helper()
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		made, err = k.CreateHoneytoken(t.Context(), namespace, req, unit)
		return err
	})
	return made, err
}

// planted returns the honeytokens of a profile.
func (k kit) planted(t testing.TB, profile string, limit int) (all []tokenizer.Honeytoken) {
	t.Helper()
	for page := ""; ; {
		found, err := k.Honeytokens(t.Context(), namespace, profile, page, limit)
		if err != nil || found.Damaged > 0 || len(found.Honeytokens) > limit {
			t.Fatalf("%+v, %v", found, err)
		}
		all = append(all, found.Honeytokens...)
		if page = found.Next; page == "" {
			return all
		}
	}
}

// uproot deletes a honeytoken.
func (k kit) uproot(t testing.TB, token tokenizer.Token, profile string) error {
	t.Helper()
	ref, err := k.Inspect(token, profile)
	if err != nil {
		t.Fatal(err)
	}
	return k.attempt(t.Context(), func(unit *tokenizer.Unit) error {
		return k.DeleteHoneytoken(t.Context(), namespace, ref, unit)
	})
}

// wantUses checks that whatever is done with a token ends as it should, and changes
// nothing.
func (k kit) wantUses(t testing.TB, token tokenizer.Token, profile string, want error) {
	t.Helper()
	ref, err := k.Inspect(token, profile)
	if err != nil {
		t.Fatalf("%s doesn't pass for a token of %s: %v", token, profile, err)
	}
	asked := false
	judge := func(*tokenizer.Facts) error {
		asked = true
		return nil
	}
	reveal := func(change func(*tokenizer.DetokenizeRequest)) func(*tokenizer.Unit) error {
		return func(unit *tokenizer.Unit) error {
			req := tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Masked}
			req.Judge = func(f *tokenizer.Facts) (tokenizer.Form, error) { return tokenizer.Full, judge(f) }
			change(&req)
			// Even one for which there is no room.
			results, err := k.DetokenizeAll(t.Context(), namespace, []tokenizer.DetokenizeRequest{req, req}, -1, unit)
			if err != nil {
				return err
			}
			if results[0].Err != results[1].Err {
				return fmt.Errorf("%w and %w in one batch", results[0].Err, results[1].Err)
			}
			return results[0].Err
		}
	}
	turn := func(state tokenizer.State) func(*tokenizer.Unit) error {
		return func(unit *tokenizer.Unit) error {
			_, err := k.Update(t.Context(), namespace, ref, tokenizer.Change{State: &state}, judge, unit)
			return err
		}
	}
	labels := map[string]string{"Not a label": ""}
	for name, use := range map[string]func(*tokenizer.Unit) error{
		"detokenize":       reveal(func(*tokenizer.DetokenizeRequest) {}),
		"full":             reveal(func(r *tokenizer.DetokenizeRequest) { r.Form, r.Judge = tokenizer.Full, nil }),
		"no part":          reveal(func(r *tokenizer.DetokenizeRequest) { r.Form, r.Judge = tokenizer.PartForm(99), nil }),
		"with a bad retry": reveal(func(r *tokenizer.DetokenizeRequest) { r.RedemptionID = strings.Repeat("x", 129) }),
		"get": func(*tokenizer.Unit) error {
			_, err := k.Get(t.Context(), namespace, ref, judge)
			return err
		},
		"update": func(unit *tokenizer.Unit) error {
			_, err := k.Update(t.Context(), namespace, ref, tokenizer.Change{Metadata: &labels}, judge, unit)
			return err
		},
		"revoke":  turn(tokenizer.Revoked),
		"restore": turn(tokenizer.Active),
		"delete": func(unit *tokenizer.Unit) error {
			return k.Delete(t.Context(), namespace, ref, judge, unit)
		},
	} {
		var unit tokenizer.Unit
		if err := use(&unit); !errors.Is(err, want) || !errors.Is(err, tokenizer.ErrTokenNotFound) || !unit.Empty() {
			t.Errorf("%s of %s: %v, want %v and nothing to write", name, profile, err, want)
		}
	}
	if asked {
		t.Errorf("a judge was asked about a honeytoken of %s", profile)
	}
}

// kinds are profiles of each format in each stored mode, with those of which tokens
// keep something that samples must have.
func kinds() (declared []tokenizer.Profile) {
	for _, row := range every {
		if row.profile.Mode != tokenizer.FPE {
			declared = append(declared, row.profile)
		}
	}
	return append(declared,
		tokenizer.Profile{Name: "digits-front", Type: "card-number", Format: "digits", Shape: format.ShapeOptions{KeepFirst: 8, KeepLast: 4}},
		tokenizer.Profile{Name: "ssn-kept", Type: "ssn", Format: "ssn", Shape: format.ShapeOptions{KeepLast: 4}},
		tokenizer.Profile{Name: "itin-kept", Type: "itin", Format: "ssn", Shape: format.ShapeOptions{KeepLast: 4}},
		tokenizer.Profile{Name: "ein-digits", Type: "ein", Format: "digits", Shape: format.ShapeOptions{KeepLast: 2}},
		tokenizer.Profile{Name: "phone-home", Type: "phone", TypeOptions: format.TypeOptions{Region: "DE"}, Format: "phone"},
		tokenizer.Profile{Name: "picky", Type: "text", Format: "uuid", Lookup: true, Subject: tokenizer.SubjectRequired, TTL: time.Hour, Retention: time.Hour, MaxUses: 2},
		cvv)
}

// Honeytokens are tokens of their profile by form, and not to be found by any use.
func TestHoneytokens(t *testing.T) {
	k := withProfiles(t, kinds()...)
	planted := make(map[string][]tokenizer.Token)
	for _, p := range kinds() {
		for n := range 5 {
			note := fmt.Sprint("row ", n, " of ", p.Name)
			h, err := k.plant(t, tokenizer.HoneytokenRequest{Profile: p.Name, Note: note, Caller: "cn:warden"})
			if err != nil || h.Note != note || h.Caller != "cn:warden" || h.Created.IsZero() || !h.Expires.IsZero() {
				t.Fatalf("%s: %+v, %v", p.Name, h, err)
			}
			planted[p.Name] = append(planted[p.Name], h.Token)
		}
		compiled, err := k.Profile(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range planted[p.Name] {
			if compiled.Format != tokenizer.Opaque {
				kind, err := format.NewType(p.Type, p.TypeOptions)
				if err != nil {
					t.Fatal(err)
				}
				shape, err := format.NewShape(string(p.Format), kind, p.Shape)
				if err != nil || !shape.Like(string(token)) {
					t.Errorf("%s is not like a token of %s, %v", token, p.Name, err)
				}
			} else if !strings.HasPrefix(string(token), "cc_"+p.Name+"_") {
				t.Errorf("%s is not like a token of %s", token, p.Name)
			}
		}
	}
	check := func(when string) {
		t.Helper()
		for _, p := range kinds() {
			k.wantUses(t, planted[p.Name][0], p.Name, tokenizer.ErrHoneytoken)
			var listed []tokenizer.Token
			for n, h := range k.planted(t, p.Name, 2) {
				listed = append(listed, h.Token)
				if want := fmt.Sprint("row ", n, " of ", p.Name); h.Note != want || h.Caller != "cn:warden" || h.Profile != p.Name {
					t.Errorf("%s: %+v, want the note %q", when, h, want)
				}
			}
			if !slices.Equal(listed, planted[p.Name]) {
				t.Errorf("%s: honeytokens %q of %s, want %q", when, listed, p.Name, planted[p.Name])
			}
			if page, err := k.List(t.Context(), namespace, tokenizer.ListRequest{Profile: p.Name, Limit: 100}); err != nil || len(page.Tokens) > 0 || page.Damaged > 0 {
				t.Errorf("%s: List of %s has %+v, %v", when, p.Name, page, err)
			}
			if page, err := k.Export(t.Context(), namespace, p.Name, "", 100, nil); !errors.Is(err, tokenizer.ErrNotExportable) && (err != nil || !page.Empty()) {
				t.Errorf("%s: Export of %s has %+v, %v", when, p.Name, page, err)
			}
		}
	}
	check("at first")
	for _, class := range []keystore.Class{keystore.Data, keystore.Token, keystore.Index} {
		k.rotate(t, class)
	}
	if moved, failed := k.resealAll(t); moved != 5*len(kinds()) || failed > 0 {
		t.Errorf("%d records moved to the new data key, %d failed", moved, failed)
	}
	if _, failed := k.reindexAll(t); failed > 0 {
		t.Errorf("%d entries failed", failed)
	}
	if left := k.count(t, keystore.Index, 1); left > 0 {
		t.Errorf("%d entries under the old index key", left)
	}
	check("under new keys")
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
	k = openKit(t, k.dir, kinds())
	check("after a restart")

	k.clock().pass(24 * 365 * time.Hour)
	if s := k.sweep(t); s.Shredded+s.Removed+s.Failed > 0 {
		t.Errorf("swept %+v", s)
	}
	check("a year later")
	data, err := os.ReadFile(filepath.Join(k.dir, storeFile))
	if err != nil || bytes.Contains(data, []byte("row 1 of")) || bytes.Contains(data, []byte("cn:warden")) {
		t.Errorf("a note or its maker is readable in the store, %v", err)
	}
}

func TestHoneytokenIsDeleted(t *testing.T) {
	k := withProfiles(t, kinds()...)
	for _, p := range kinds() {
		h, err := k.plant(t, tokenizer.HoneytokenRequest{Profile: p.Name})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.uproot(t, h.Token, p.Name); err != nil {
			t.Fatal(err)
		}
		k.wantUses(t, h.Token, p.Name, tokenizer.ErrTokenNotFound)
		ref, err := k.Inspect(h.Token, p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Get(t.Context(), namespace, ref, nil); errors.Is(err, tokenizer.ErrHoneytoken) {
			t.Errorf("%s is still one", p.Name)
		}
		if err := k.uproot(t, h.Token, p.Name); !errors.Is(err, tokenizer.ErrTokenNotFound) {
			t.Errorf("%s again: %v", p.Name, err)
		}
		if left := k.planted(t, p.Name, 10); len(left) > 0 {
			t.Errorf("%s: %+v is left", p.Name, left)
		}
		for _, r := range k.records(t, p.Name) {
			if r.State != tokenizer.Deleted || r.Honeytoken || r.Details != nil {
				t.Errorf("%s: %+v is left", p.Name, r)
			}
		}
	}
	made := k.tokenize(t, "opaque", "x")
	if err := k.uproot(t, made.Token, "opaque"); !errors.Is(err, tokenizer.ErrTokenNotFound) {
		t.Errorf("a token that is none: %v", err)
	}
	if got, err := k.detokenize(t, namespace, made.Token, ""); err != nil || got.Reveal() != "x" {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
}

func TestHoneytokenExpires(t *testing.T) {
	for _, f := range []tokenizer.TokenFormat{tokenizer.Opaque, "uuid"} {
		k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Format: f, Retention: time.Minute})
		now := k.clock()
		h, err := k.plant(t, tokenizer.HoneytokenRequest{Profile: "note", Note: "n", TTL: time.Hour})
		if err != nil || h.Expires.IsZero() {
			t.Fatalf("%+v, %v", h, err)
		}
		now.pass(59 * time.Minute)
		k.wantUses(t, h.Token, "note", tokenizer.ErrHoneytoken)
		if found := k.planted(t, "note", 10); len(found) != 1 || !found[0].Expires.Equal(h.Expires) {
			t.Errorf("%+v", found)
		}
		now.pass(2 * time.Minute)
		for range 2 {
			ref, err := k.Inspect(h.Token, "note")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Get(t.Context(), namespace, ref, nil); !errors.Is(err, tokenizer.ErrTokenNotFound) || errors.Is(err, tokenizer.ErrHoneytoken) {
				t.Errorf("%s: %v", f, err)
			}
			if found := k.planted(t, "note", 10); len(found) > 0 {
				t.Errorf("%+v", found)
			}
			k.sweep(t)
		}
		for _, r := range k.records(t, "note") {
			if r.State != tokenizer.Deleted {
				t.Errorf("%s: %+v is left", f, r)
			}
		}
	}
}

// A convergent value has its own token beside a honeytoken, and no import takes one.
func TestHoneytokensAreInNobodysWay(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "same", Type: "card-number", Mode: tokenizer.Convergent, Format: "digits", Shape: format.ShapeOptions{KeepLast: 4}, Lookup: true},
		tokenizer.Profile{Name: "fpe", Type: "card-number", Mode: tokenizer.FPE, Format: "digits"},
		tokenizer.Profile{Name: "shown", Type: "card-number", Mode: tokenizer.OneWay})
	h, err := k.plant(t, tokenizer.HoneytokenRequest{Profile: "same"})
	if err != nil {
		t.Fatal(err)
	}
	made, err := k.make(t, request("same", "4111111111111111"))
	if err != nil || made.Token == h.Token || made.Reused {
		t.Fatalf("%+v, %v", made, err)
	}
	if found, err := k.Lookup(t.Context(), namespace, "same", tokenizer.NewValue("4111111111111111")); err != nil || len(found) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	for _, value := range []string{"4111111111111111", "5555555555554444"} {
		req := request("same", value)
		req.Import = h.Token
		if _, err := k.make(t, req); !errors.Is(err, tokenizer.ErrTokenTaken) {
			t.Errorf("an import of the honeytoken: %v", err)
		}
	}
	if counts, err := k.store.Profiles(t.Context(), namespace); err != nil || counts["same"] != 2 {
		t.Errorf("%v, %v", counts, err)
	}
	for name, row := range map[string]struct {
		req  tokenizer.HoneytokenRequest
		want error
	}{
		"unknown profile": {tokenizer.HoneytokenRequest{Profile: "none"}, tokenizer.ErrUnknownProfile},
		"fpe":             {tokenizer.HoneytokenRequest{Profile: "fpe"}, tokenizer.ErrNoHoneytokens},
		"one-way":         {tokenizer.HoneytokenRequest{Profile: "shown"}, tokenizer.ErrNoHoneytokens},
		"long note":       {tokenizer.HoneytokenRequest{Profile: "same", Note: strings.Repeat("x", 257)}, tokenizer.ErrInvalidNote},
		"two lines":       {tokenizer.HoneytokenRequest{Profile: "same", Note: "a\nb"}, tokenizer.ErrInvalidNote},
		"no text":         {tokenizer.HoneytokenRequest{Profile: "same", Note: "\xff"}, tokenizer.ErrInvalidNote},
		"ttl":             {tokenizer.HoneytokenRequest{Profile: "same", TTL: time.Millisecond}, tokenizer.ErrInvalidTTL},
		"long ttl":        {tokenizer.HoneytokenRequest{Profile: "same", TTL: 101 * 365 * 24 * time.Hour}, tokenizer.ErrInvalidTTL},
	} {
		if _, err := k.plant(t, row.req); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	long := tokenizer.HoneytokenRequest{Profile: "same", Note: strings.Repeat("ü", 128), Caller: "spiffe://x/" + strings.Repeat("y", 2000)}
	if h, err := k.plant(t, long); err != nil || k.planted(t, "same", 10)[1] != h {
		t.Errorf("%+v, %v", h, err)
	}
	page, err := k.Honeytokens(t.Context(), namespace, "same", "", 1)
	if err != nil || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	if _, err := k.List(t.Context(), namespace, tokenizer.ListRequest{Profile: "same", Page: page.Next, Limit: 1}); !errors.Is(err, tokenizer.ErrInvalidPage) {
		t.Errorf("a page of honeytokens in a list of tokens: %v", err)
	}
}

// Whoever can write to the store can't make a honeytoken of a token, or the other way
// round, without its being noticed.
func TestHoneytokenFlagIsBound(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, tokenizer.Profile{Name: "shaped", Type: "text", Format: "uuid"})
	for _, profile := range []string{"note", "shaped"} {
		labelled := request(profile, "x")
		labelled.Metadata = map[string]string{"note": "x"}
		for name, create := range map[string]func() (tokenizer.Token, error){
			"a token": func() (tokenizer.Token, error) {
				made, err := k.make(t, request(profile, "x"))
				return made.Token, err
			},
			"a token with labels": func() (tokenizer.Token, error) {
				made, err := k.make(t, labelled)
				return made.Token, err
			},
			"a honeytoken": func() (tokenizer.Token, error) {
				h, err := k.plant(t, tokenizer.HoneytokenRequest{Profile: profile})
				return h.Token, err
			},
		} {
			token, err := create()
			if err != nil {
				t.Fatal(err)
			}
			forged := k.last(t)
			u := tokenizer.Update{Old: forged, New: forged}
			u.New.Honeytoken = !forged.Honeytoken
			if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Updates: []tokenizer.Update{u}, Event: event}); err != nil {
				t.Fatal(err)
			}
			if _, err := k.detokenize(t, namespace, token, profile); !errors.Is(err, tokenizer.ErrDamaged) {
				t.Errorf("%s of %s: %v, want ErrDamaged", name, profile, err)
			}
			ref, err := k.Inspect(token, profile)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Get(t.Context(), namespace, ref, nil); !errors.Is(err, tokenizer.ErrDamaged) {
				t.Errorf("Get of %s of %s: %v, want ErrDamaged", name, profile, err)
			}
		}
		if page, err := k.Honeytokens(t.Context(), namespace, profile, "", 10); err != nil || len(page.Honeytokens) > 0 {
			t.Errorf("%+v, %v", page, err)
		}
	}
}
