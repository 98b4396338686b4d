package tokenizer_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

var errBeyond = errors.New("beyond")

// Who admits is asked of what would be given and of nothing else, by the record of the
// subject; what isn't admitted is no use of the token, and takes no room.
func TestAdmit(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "card", Type: "card-number", MaxUses: 2}, tokenizer.Profile{Name: "note", Type: "text"})
	req := request("card", "4111111111111111")
	req.Subject = "alice"
	card, err := k.make(t, req)
	if err != nil {
		t.Fatal(err)
	}
	made := k.last(t)
	note := k.tokenize(t, "note", "0123456789")
	cardRef, err := k.Inspect(card.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	noteRef, err := k.Inspect(note.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	ask := func(ref tokenizer.Reference, form tokenizer.Form, refusal error) tokenizer.DetokenizeRequest {
		return tokenizer.DetokenizeRequest{Reference: ref, Form: form, Admit: func(got tokenizer.Form, subject uint64) error {
			asked = append(asked, fmt.Sprint(got == form, subject))
			return refusal
		}}
	}
	reqs := []tokenizer.DetokenizeRequest{
		ask(noteRef, tokenizer.Full, errBeyond), ask(cardRef, tokenizer.Full, errBeyond), ask(cardRef, tokenizer.Full, nil),
		ask(noteRef, tokenizer.PartForm(format.PartLast4), nil), ask(cardRef, tokenizer.Masked, nil), ask(noteRef, tokenizer.Full, nil), ask(cardRef, tokenizer.Full, nil),
	}
	var results []tokenizer.DetokenizeResult
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		asked = nil
		results, err = k.DetokenizeAll(t.Context(), namespace, reqs, 16+16+10, unit) // as much as is admitted
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{errBeyond, errBeyond, nil, tokenizer.ErrNoPart, nil, nil, tokenizer.ErrNoRoom} {
		if !errors.Is(results[i].Err, want) || (want == nil) != (results[i].Value.Reveal() != "") {
			t.Errorf("item %d: %v, want %v", i, results[i].Err, want)
		}
	}
	alice := fmt.Sprint(true, made.Subject)
	if want := []string{"true 0", alice, alice, alice, "true 0"}; made.Subject == 0 || fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if r, err := k.store.Records(t.Context(), made.ID); err != nil || r[0].Record.Uses != 1 {
		t.Errorf("%+v, %v; want one use", r, err)
	}
	var unit tokenizer.Unit
	reqs[5] = ask(noteRef, tokenizer.Full, fmt.Errorf("x: %w", tokenizer.ErrUnavailable))
	if _, err := k.DetokenizeAll(t.Context(), namespace, reqs, 1<<10, &unit); !errors.Is(err, tokenizer.ErrUnavailable) || !unit.Empty() {
		t.Errorf("%v, want none of them", err)
	}
}

// A page of an export ends before what isn't admitted, and the next begins there.
func TestExportAdmits(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"})
	for i := range 7 {
		req := request("note", text(i))
		req.Subject = "bob"
		if _, err := k.make(t, req); err != nil {
			t.Fatal(err)
		}
	}
	page, got := "", 0
	for _, want := range []int{3, 2, 0, 2} {
		room := want
		p, err := k.Export(t.Context(), namespace, "note", page, 100, func(subject uint64) error {
			if room--; room < 0 || subject == 0 {
				return errBeyond
			}
			return nil
		})
		if want == 0 {
			if !errors.Is(err, errBeyond) {
				t.Fatalf("%v, want a refusal", err)
			}
			continue
		}
		if err != nil || len(p.Tokens) != want {
			t.Fatalf("%d tokens, %v; want %d", len(p.Tokens), err, want)
		}
		for _, e := range p.Tokens {
			if e.Value.Reveal() != text(got) {
				t.Errorf("%q, want %q", e.Value.Reveal(), text(got))
			}
			got++
		}
		page = p.Next
	}
	if page != "" {
		t.Error("there is a page more")
	}
	_, err := k.Export(t.Context(), namespace, "note", "", 100, func(subject uint64) error {
		if got--; got < 3 {
			return tokenizer.ErrUnavailable
		}
		return nil
	})
	if !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Errorf("%v, want no page", err)
	}
}
