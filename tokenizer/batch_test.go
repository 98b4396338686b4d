package tokenizer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// wantItems compares what became of the items of a batch.
func wantItems(t *testing.T, results []tokenizer.TokenizeResult, want ...error) {
	t.Helper()
	for i := range want {
		if got := results[i].Err; got != want[i] && !errors.Is(got, want[i]) {
			t.Errorf("item %d: %v, want %v", i, got, want[i])
		}
	}
}

// One item of a batch that is refused takes no other down, however alike they are.
func TestAlikeItemsFailAlone(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent, Format: "uuid"})
	keyed := func(value, key string) tokenizer.TokenizeRequest {
		req := request("same", value)
		req.IdempotencyKey = key
		return req
	}
	imported := func(value, token string) tokenizer.TokenizeRequest {
		req := request("same", value)
		req.Import = tokenizer.Token(token)
		return req
	}
	if _, err := k.make(t, keyed("other", "used")); err != nil {
		t.Fatal(err)
	}
	results := k.makeAll(t, []tokenizer.TokenizeRequest{
		keyed("v", "used"), keyed("v", ""), keyed("v", "new"), keyed("v", "new"), keyed("w", "new"), keyed("other", "used"),
	})
	wantItems(t, results, tokenizer.ErrIdempotency, nil, nil, nil, tokenizer.ErrIdempotency, nil)
	for _, i := range []int{2, 3} {
		if results[i].Token != results[1].Token {
			t.Errorf("item %d has a token of its own", i)
		}
	}
	// What shared the token of another is remembered for its own key.
	again, err := k.make(t, keyed("v", "new"))
	if err != nil || again.Token != results[1].Token {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := k.make(t, keyed("w", "new")); !errors.Is(err, tokenizer.ErrIdempotency) {
		t.Errorf("the key with another value: %v", err)
	}
	wantItems(t, k.makeAll(t, []tokenizer.TokenizeRequest{
		imported("a", "t-1"), imported("b", "t-1"), imported("b", "t-2"), imported("a", "t-3"), imported("c", "t-3"),
	}), nil, tokenizer.ErrTokenTaken, nil, tokenizer.ErrHasToken, nil)
	for token, value := range map[tokenizer.Token]string{"t-1": "a", "t-2": "b", "t-3": "c"} {
		if got, err := k.detokenize(t, namespace, token, "same"); err != nil || got.Reveal() != value {
			t.Errorf("%s: %q, %v", token, got.Reveal(), err)
		}
	}
}

// An idempotency key tells nothing of a verification value that is gone.
func TestIdempotencyOfWhatIsGone(t *testing.T) {
	k := withProfiles(t, cvv)
	keyed := func(value string) tokenizer.TokenizeRequest {
		req := request("cvv", value)
		req.IdempotencyKey = "key"
		return req
	}
	made, err := k.make(t, keyed("123"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.make(t, keyed("456")); !errors.Is(err, tokenizer.ErrIdempotency) {
		t.Errorf("another value while it is there: %v", err)
	}
	if got, err := k.redeem(t, made.Token, "cvv", ""); err != nil || got != "123" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, value := range []string{"123", "456"} {
		if _, err := k.make(t, keyed(value)); !errors.Is(err, tokenizer.ErrSpent) {
			t.Errorf("%s once it is gone: %v, want ErrSpent", value, err)
		}
	}
}

// counted counts how many claims are looked at.
type counted struct {
	tokenizer.Store
	claimed int
}

func (c *counted) Claimed(ctx context.Context, keys ...[]byte) ([][]byte, error) {
	c.claimed += len(keys)
	return c.Store.Claimed(ctx, keys...)
}

// Of a format that is full it is found out once.
func TestFullFormatsAreCheap(t *testing.T) {
	k := newKit(t)
	store := &counted{Store: k.store}
	tok, err := tokenizer.New(k.keys, store, []tokenizer.Profile{
		{Name: "small", Type: "text", Format: "template", Shape: format.ShapeOptions{Pattern: "T-[0-9]{3}"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	k.Tokenizer = tok
	fill := make([]tokenizer.TokenizeRequest, 1_010)
	for i := range fill {
		fill[i] = request("small", text(i))
	}
	full := 0
	for _, r := range k.makeAll(t, fill) {
		if errors.Is(r.Err, tokenizer.ErrFull) {
			full++
		} else if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if full != 10 {
		t.Fatalf("%d of 1,010 refused, want 10", full)
	}
	if _, err := k.make(t, request("small", "x")); !errors.Is(err, tokenizer.ErrFull) {
		t.Fatal(err) // now it is known for good
	}
	store.claimed = 0
	for _, r := range k.makeAll(t, fill[:500]) {
		if !errors.Is(r.Err, tokenizer.ErrFull) {
			t.Fatal(r.Err)
		}
	}
	if store.claimed > 500 {
		t.Errorf("%d claims looked at for 500 values of a full format", store.claimed)
	}
	// A format that is nearly full is looked through once for all values.
	value := request("small", "T-123") // which can't be its own token
	results := k.makeAll(t, []tokenizer.TokenizeRequest{value, value})
	wantItems(t, results, tokenizer.ErrFull, tokenizer.ErrFull)
}

// What another replica has moved to a newer index key is found, though nobody has
// told this one that there is a newer key.
func TestIndexOfAnotherReplica(t *testing.T) {
	declared := []tokenizer.Profile{
		{Name: "shaped", Type: "text", Format: "uuid"},
		{Name: "same", Type: "text", Mode: tokenizer.Convergent, Lookup: true},
	}
	k := withProfiles(t, declared...)
	req := request("shaped", "v")
	req.Subject = "alice"
	shaped, err := k.make(t, req)
	if err != nil {
		t.Fatal(err)
	}
	same, err := k.make(t, request("same", "w"))
	if err != nil {
		t.Fatal(err)
	}
	behind := k // a replica with keys of its own
	behind.keys = keystore.New(k.backend, shelf{k.store}, keystore.Options{})
	if behind.Tokenizer, err = tokenizer.New(behind.keys, k.store, declared); err != nil {
		t.Fatal(err)
	}
	for _, class := range []keystore.Class{keystore.Index, keystore.Subject} {
		if _, err := behind.keys.Keyring(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		k.rotate(t, class)
		if moved, failed := k.reindexAll(t); moved == 0 || failed != 0 {
			t.Fatalf("%d moved, %d failed", moved, failed)
		}
		if got, err := behind.detokenize(t, namespace, shaped.Token, "shaped"); err != nil || got.Reveal() != "v" {
			t.Errorf("after %v: %q, %v", class, got.Reveal(), err)
		}
		behind.keys = keystore.New(k.backend, shelf{k.store}, keystore.Options{})
		if behind.Tokenizer, err = tokenizer.New(behind.keys, k.store, declared); err != nil {
			t.Fatal(err)
		}
	}
	stale := func(class keystore.Class) kit {
		t.Helper()
		s := k
		s.keys = keystore.New(k.backend, shelf{k.store}, keystore.Options{})
		if s.Tokenizer, err = tokenizer.New(s.keys, k.store, declared); err != nil {
			t.Fatal(err)
		}
		if _, err := s.keys.Keyring(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		k.rotate(t, class)
		k.reindexAll(t)
		return s
	}
	if found, err := stale(keystore.Index).Lookup(t.Context(), namespace, "same", tokenizer.NewValue("w")); err != nil || len(found) != 1 {
		t.Errorf("Lookup: %d, %v", len(found), err)
	}
	if page, err := stale(keystore.Subject).List(t.Context(), namespace, tokenizer.ListRequest{Profile: "shaped", Subject: "alice", Limit: 10}); err != nil || len(page.Tokens) != 1 {
		t.Errorf("List by subject: %d, %v", len(page.Tokens), err)
	}
	// What is deleted leaves nothing in the index, so that the value is new again.
	late := stale(keystore.Index)
	ring, err := k.keys.Keyring(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	newest := ring.ActiveVersion(keystore.Index)
	before := k.count(t, keystore.Index, newest)
	late.remove(t, same.Token, "same")
	if left := k.count(t, keystore.Index, newest); left != before-2 {
		t.Errorf("%d entries of %d are left, want 2 less", left, before)
	}
	again, err := k.make(t, request("same", "w"))
	if err != nil || again.Reused || again.Token == same.Token {
		t.Errorf("a value whose token was deleted: %+v, %v", again, err)
	}
	if found, err := k.Lookup(t.Context(), namespace, "same", tokenizer.NewValue("w")); err != nil || len(found) != 1 {
		t.Errorf("Lookup of what was deleted and made anew: %d, %v", len(found), err)
	}
}

// The newest tokens of a value are found, however many there are.
func TestLookupFindsTheNewest(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Lookup: true})
	now := k.clock()
	var last tokenizer.Token
	for range 5 {
		reqs := make([]tokenizer.TokenizeRequest, 100)
		for i := range reqs {
			reqs[i] = request("note", "the same")
		}
		results := k.makeAll(t, reqs)
		last = results[len(results)-1].Token
		now.pass(time.Second)
	}
	found, err := k.Lookup(t.Context(), namespace, "note", tokenizer.NewValue("the same"))
	if err != nil || len(found) != tokenizer.MaxFound || found[0].Token != last {
		t.Fatalf("%d found, %v", len(found), err)
	}
	for i := 1; i < len(found); i++ {
		if found[i].Created.After(found[i-1].Created) {
			t.Fatalf("token %d is newer than the one before it", i)
		}
	}
}
