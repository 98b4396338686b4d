package tokenizer_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

var errJudged = errors.New("judged")

// calls are the calls about one token, with a judge.
func (k kit) calls(t testing.TB, token tokenizer.Token, profile string, judge func(*tokenizer.Facts) error) map[string]func(*tokenizer.Unit) error {
	t.Helper()
	ref, err := k.Inspect(token, profile)
	if err != nil {
		t.Fatal(err)
	}
	state := tokenizer.Revoked
	return map[string]func(*tokenizer.Unit) error{
		"detokenize": func(unit *tokenizer.Unit) error {
			_, err := k.Detokenize(t.Context(), namespace, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full,
				Judge: func(f *tokenizer.Facts) (tokenizer.Form, error) { return tokenizer.Full, judge(f) }}, unit)
			return err
		},
		"get": func(*tokenizer.Unit) error {
			_, err := k.Get(t.Context(), namespace, ref, judge)
			return err
		},
		"update": func(unit *tokenizer.Unit) error {
			_, err := k.Update(t.Context(), namespace, ref, tokenizer.Change{State: &state}, judge, unit)
			return err
		},
		"delete": func(unit *tokenizer.Unit) error { return k.Delete(t.Context(), namespace, ref, judge, unit) },
	}
}

// A judge learns what is known of a token, and a call that it refuses leaves no trace.
func TestJudge(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", MaxUses: 2}, tokenizer.Profile{Name: "shaped", Type: "text", Format: "uuid", MaxUses: 2})
	for _, profile := range []string{"note", "shaped"} {
		req := request(profile, "x")
		req.Subject, req.Metadata, req.TTL = "alice", map[string]string{"order": "42"}, time.Hour
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		record := k.last(t)
		asked := 0
		for name, call := range k.calls(t, made.Token, profile, func(f *tokenizer.Facts) error {
			asked++
			for range 2 {
				labels, err := f.Metadata()
				if subject, err := f.Subject(); err != nil || subject != "alice" {
					t.Errorf("subject %q, %v", subject, err)
				}
				if err != nil || !maps.Equal(labels, req.Metadata) || !f.Created().Equal(record.Created) || !f.Expires().Equal(made.Expires) {
					t.Errorf("%v, made %v, expires %v, %v", labels, f.Created(), f.Expires(), err)
				}
			}
			return errJudged
		}) {
			asked = 0
			var unit tokenizer.Unit
			if err := call(&unit); err != errJudged || !unit.Empty() || asked != 1 { // the very error
				t.Errorf("%s: %v, asked %d times; want its refusal and nothing to write", name, err, asked)
			}
		}
		if now := k.last(t); !now.Equal(record) {
			t.Errorf("%+v has become of %+v", now, record)
		}
	}
}

// The judge says which form is given, and masked ones are no use.
func TestJudgeGivesForm(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "card", Type: "card-number", MaxUses: 1})
	made := k.tokenize(t, "card", "4111111111111111")
	ref, err := k.Inspect(made.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	give := func(form tokenizer.Form, err error) tokenizer.DetokenizeRequest {
		return tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full,
			Judge: func(*tokenizer.Facts) (tokenizer.Form, error) { return form, err }}
	}
	var results []tokenizer.DetokenizeResult
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		results, err = k.DetokenizeAll(t.Context(), namespace, []tokenizer.DetokenizeRequest{
			give(tokenizer.Masked, nil), give(tokenizer.Full, errJudged), give(tokenizer.Full, nil), give(tokenizer.Full, nil), give(tokenizer.Full, errJudged),
		}, 1<<10, unit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		value string
		err   error
	}{{"************1111", nil}, {"", errJudged}, {"4111111111111111", nil}, {"", tokenizer.ErrSpent}, {"", errJudged}} {
		if got := results[i]; got.Value.Reveal() != want.value || got.Err != want.err {
			t.Errorf("item %d: %q, %v; want %q, %v", i, got.Value.Reveal(), got.Err, want.value, want.err)
		}
	}
	if r := k.last(t); r.Uses != 1 || r.State != tokenizer.Spent {
		t.Errorf("%+v, want one use", r)
	}
}

// Whom the judge refuses doesn't learn what has become of a token, unless that is why
// the judge can't know.
func TestJudgeBeforeState(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, tokenizer.Profile{Name: "fpe", Type: "card-number", Mode: tokenizer.FPE, Format: "digits"})
	now := k.clock()
	labelled := func(subject string) tokenizer.Token {
		req := request("note", "x")
		req.Subject, req.Metadata, req.TTL = subject, map[string]string{"order": "42"}, time.Hour
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	// knows refuses once it knows the labels, or if it can't.
	knows := func(f *tokenizer.Facts) error {
		if labels, err := f.Metadata(); err != nil || labels["order"] != "42" {
			return err
		}
		return errJudged
	}
	want := func(when string, token tokenizer.Token, want error) {
		t.Helper()
		for name, call := range k.calls(t, token, "note", knows) {
			var unit tokenizer.Unit
			if err := call(&unit); !errors.Is(err, want) || !unit.Empty() {
				t.Errorf("%s, %s: %v, want %v", when, name, err, want)
			}
		}
	}
	token, erased, deleted := labelled(""), labelled("alice"), labelled("")
	k.remove(t, deleted, "note")
	want("deleted", deleted, tokenizer.ErrTokenNotFound)
	ref, err := k.Inspect(token, "note")
	if err != nil {
		t.Fatal(err)
	}
	revoked := tokenizer.Revoked
	if err := k.attempt(t.Context(), func(unit *tokenizer.Unit) error {
		_, err := k.Update(t.Context(), namespace, ref, tokenizer.Change{State: &revoked}, nil, unit)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want("revoked", token, errJudged)
	for _, r := range k.records(t, "") {
		if r.Profile == "" {
			if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Deletes: []tokenizer.Record{r}, Event: event}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want("erased", erased, tokenizer.ErrSubjectErased)
	now.pass(2 * time.Hour)
	want("expired", token, errJudged)
	k.sweep(t)
	want("shredded", token, tokenizer.ErrExpired)

	// Of what is not stored there are no facts.
	made := k.tokenize(t, "fpe", "4111111111111111")
	for name, call := range k.calls(t, made.Token, "fpe", func(f *tokenizer.Facts) error {
		labels, err := f.Metadata()
		subject, subjectErr := f.Subject()
		if len(labels) > 0 || subject != "" || err != nil || subjectErr != nil || !f.Created().IsZero() || !f.Expires().IsZero() {
			t.Errorf("%v, %q, %v, %v", labels, subject, err, subjectErr)
		}
		return errJudged
	}) {
		var unit tokenizer.Unit
		want := tokenizer.ErrTokenNotFound
		if name == "detokenize" {
			want = errJudged
		}
		if err := call(&unit); !errors.Is(err, want) {
			t.Errorf("%s of fpe: %v, want %v", name, err, want)
		}
	}
}
