package tokenizer_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (k kit) clock() *clock {
	c := &clock{now: time.Now()}
	k.SetClock(func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.now
	})
	return c
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// sweep does all that is due.
func (k kit) sweep(t testing.TB) (total tokenizer.Swept) {
	t.Helper()
	var after []byte
	for more := true; more; {
		var next []byte
		err := k.attempt(t.Context(), func(unit *tokenizer.Unit) error {
			s, err := k.Sweep(t.Context(), namespace, after, 5, unit)
			total.Shredded, total.Removed, total.Failed = total.Shredded+s.Shredded, total.Removed+s.Removed, total.Failed+s.Failed
			more, next = s.More, s.Next
			return err
		})
		after = next
		if err != nil {
			t.Fatal(err)
		}
	}
	return total
}

// records returns the records of a profile.
func (k kit) records(t testing.TB, profile string) (records []tokenizer.Record) {
	t.Helper()
	scanned, err := k.store.Scan(t.Context(), namespace, profile, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	found, err := k.store.Records(t.Context(), scanned.IDs...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		records = append(records, f.Record)
	}
	return records
}

// last returns the record with the largest id.
func (k kit) last(t testing.TB) tokenizer.Record {
	t.Helper()
	records := k.records(t, "")
	return records[len(records)-1]
}

// redeem reveals a token with a redemption id.
func (k kit) redeem(t testing.TB, token tokenizer.Token, profile, id string) (string, error) {
	t.Helper()
	ref, err := k.Inspect(token, profile)
	if err != nil {
		return "", err
	}
	var value string
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) error {
		result, err := k.Detokenize(t.Context(), namespace, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full, RedemptionID: id}, unit)
		value = result.Value.Reveal()
		return err
	})
	return value, err
}

var cvv = tokenizer.Profile{Name: "cvv", Type: "card-verification", TTL: 10 * time.Minute, MaxUses: 1, RedemptionLease: 2 * time.Minute}

// A card verification value is redeemed once: a retry under the same id has the
// same answer, one under another has none, and once the lease is over the value
// is gone.
func TestOneTimeValue(t *testing.T) {
	for _, profile := range []tokenizer.Profile{cvv, {
		Name: "cvv", Type: "card-verification", TTL: 10 * time.Minute, MaxUses: 1, RedemptionLease: 2 * time.Minute,
		Format: "template", Shape: format.ShapeOptions{Pattern: "C[0-9]{12}"},
	}} {
		t.Run(string(profile.Format), func(t *testing.T) {
			k := withProfiles(t, profile)
			now := k.clock()
			made, err := k.make(t, request("cvv", "123"))
			if err != nil || made.Expires.IsZero() {
				t.Fatalf("%+v, %v", made, err)
			}
			for range 3 {
				if value, err := k.redeem(t, made.Token, "cvv", "attempt-1"); err != nil || value != "123" {
					t.Fatalf("redeemed %q, %v", value, err)
				}
			}
			for _, id := range []string{"attempt-2", ""} {
				if value, err := k.redeem(t, made.Token, "cvv", id); !errors.Is(err, tokenizer.ErrSpent) || value != "" {
					t.Fatalf("another redemption: %q, %v; want ErrSpent", value, err)
				}
			}
			if k.sweep(t); len(k.last(t).Value) == 0 {
				t.Fatal("shredded while a retry was still possible")
			}
			now.pass(2*time.Minute + time.Second)
			if value, err := k.redeem(t, made.Token, "cvv", "attempt-1"); !errors.Is(err, tokenizer.ErrSpent) || value != "" {
				t.Fatalf("after the lease: %q, %v", value, err)
			}
			if s := k.sweep(t); s.Shredded != 1 || len(k.last(t).Value) != 0 {
				t.Fatalf("swept %+v, %d bytes are left of the value", s, len(k.last(t).Value))
			}
			now.pass(10 * time.Minute)
			if _, err := k.redeem(t, made.Token, "cvv", "attempt-1"); !errors.Is(err, tokenizer.ErrExpired) {
				t.Fatalf("after it has expired: %v", err)
			}
			k.sweep(t)
			now.pass(tokenizer.ExpiredKept)
			if s := k.sweep(t); s.Removed != 1 {
				t.Fatalf("swept %+v", s)
			}
			if _, err := k.redeem(t, made.Token, "cvv", "attempt-1"); !errors.Is(err, tokenizer.ErrTokenNotFound) {
				t.Fatalf("in the end: %v", err)
			}
		})
	}
}

// Without a redemption id there is no retry, so the value goes at once.
func TestOneTimeValueIsShreddedAtOnce(t *testing.T) {
	k := withProfiles(t, cvv)
	made, err := k.make(t, request("cvv", "9876"))
	if err != nil {
		t.Fatal(err)
	}
	if value, err := k.redeem(t, made.Token, "cvv", ""); err != nil || value != "9876" {
		t.Fatalf("%q, %v", value, err)
	}
	if r := k.last(t); len(r.Value) != 0 || r.State != tokenizer.Spent {
		t.Fatalf("%d bytes are left of the value, state %v", len(r.Value), r.State)
	}
}

// However many redeem at once, only so many get the value.
func TestUsesAreCountedUnderRaces(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"})
	req := request("note", "x")
	req.MaxUses = 3
	made, err := k.make(t, req)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got, spent := 0, 0
	var wg sync.WaitGroup
	for n := range 24 {
		wg.Go(func() {
			value, err := k.redeem(t, made.Token, "", fmt.Sprint("client ", n))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && value == "x":
				got++
			case errors.Is(err, tokenizer.ErrSpent):
				spent++
			default:
				t.Errorf("%q, %v", value, err)
			}
		})
	}
	wg.Wait()
	if got != 3 || spent != 21 {
		t.Fatalf("%d got the value, %d were told that it is spent", got, spent)
	}
	if r := k.last(t); r.Uses != 3 || r.State != tokenizer.Spent {
		t.Fatalf("uses %d, state %v", r.Uses, r.State)
	}
}

// A batch counts its uses too, of the same token as well.
func TestUsesInABatch(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", MaxUses: 2})
	made, err := k.make(t, request("note", "x"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := k.Inspect(made.Token, "")
	if err != nil {
		t.Fatal(err)
	}
	var reqs []tokenizer.DetokenizeRequest
	for _, id := range []string{"a", "a", "", "b"} {
		reqs = append(reqs, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full, RedemptionID: id})
	}
	reqs = append(reqs, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.PartForm(format.PartLast4)})
	var results []tokenizer.DetokenizeResult
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		results, err = k.DetokenizeAll(t.Context(), namespace, reqs, tokenizer.MaxValue, unit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, nil, tokenizer.ErrSpent, tokenizer.ErrSpent} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("item %d: %v, want %v", i, results[i].Err, want)
		}
	}
	if r := k.last(t); r.Uses != 2 {
		t.Fatalf("uses %d", r.Uses)
	}
}

func TestExpiry(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Lookup: true, Mode: tokenizer.Convergent})
	now := k.clock()
	req := request("note", "x")
	req.TTL, req.Subject = time.Hour, "customer"
	made, err := k.make(t, req)
	if err != nil || made.Expires.Before(now.now.Add(time.Hour)) || made.Expires.After(now.now.Add(time.Hour+time.Second)) {
		t.Fatalf("%+v, %v", made, err)
	}
	now.pass(time.Hour + 2*time.Second)
	if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrExpired) {
		t.Fatalf("before the sweep: %v", err)
	}
	again, err := k.make(t, req)
	if err != nil || again.Reused || again.Token == made.Token {
		t.Fatalf("the value has the token that has expired: %+v, %v", again, err)
	}
	if s := k.sweep(t); s.Shredded != 1 {
		t.Fatalf("swept %+v", s)
	}
	if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrExpired) {
		t.Fatalf("after the sweep: %v", err)
	}
	if third, err := k.make(t, req); err != nil || third.Token != again.Token {
		t.Fatalf("the sweep of the old token took the new one out of the index: %+v, %v", third, err)
	}
	found, err := k.Lookup(t.Context(), namespace, "note", tokenizer.NewValue("x"))
	if err != nil || len(found) != 1 || found[0].Token != again.Token {
		t.Fatalf("Lookup: %+v, %v", found, err)
	}
	now.pass(tokenizer.ExpiredKept)
	if s := k.sweep(t); s.Removed != 1 {
		t.Fatalf("swept %+v", s)
	}
	if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrTokenNotFound) {
		t.Fatalf("in the end: %v", err)
	}
}

// Nothing is left of tokens that were deleted, nor of the ways to them.
func TestDeleteLeavesNothing(t *testing.T) {
	for _, profile := range []tokenizer.Profile{
		{Name: "note", Type: "text", Lookup: true},
		{Name: "note", Type: "text", Lookup: true, Mode: tokenizer.Convergent},
	} {
		k := withProfiles(t, profile)
		now := k.clock()
		req := request("note", "x")
		req.TTL, req.Subject, req.IdempotencyKey, req.Caller = time.Hour, "customer", "key", "me"
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		k.remove(t, made.Token, "")
		if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrTokenNotFound) {
			t.Fatalf("a deleted token: %v", err)
		}
		now.pass(30 * 24 * time.Hour)
		k.sweep(t)
		claims, err := k.store.Claims(t.Context(), nil, nil, 100)
		if err != nil || len(claims) != 1 || claims[0].Key[0] != 's' { // the subject is known still
			t.Fatalf("claims are left: %q, %v", claims, err)
		}
		if left := k.records(t, "note"); len(left) != 0 {
			t.Fatalf("records are left: %+v", left)
		}
	}
}

func TestRevokeAndRestore(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Mode: tokenizer.Convergent})
	made, err := k.make(t, request("note", "x"))
	if err != nil {
		t.Fatal(err)
	}
	turn := func(state tokenizer.State) tokenizer.TokenInfo {
		t.Helper()
		ref, err := k.Inspect(made.Token, "")
		if err != nil {
			t.Fatal(err)
		}
		var info tokenizer.TokenInfo
		err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
			info, err = k.Update(t.Context(), namespace, ref, tokenizer.Change{State: &state}, nil, unit)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	for range 2 { // the second time nothing changes
		if info := turn(tokenizer.Revoked); info.State != tokenizer.Revoked {
			t.Fatalf("%+v", info)
		}
	}
	if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrRevoked) {
		t.Fatalf("a revoked token: %v", err)
	}
	if _, err := k.make(t, request("note", "x")); !errors.Is(err, tokenizer.ErrRevoked) {
		t.Fatalf("the value of a revoked token: %v", err)
	}
	turn(tokenizer.Active)
	if value, err := k.detokenize(t, namespace, made.Token, ""); err != nil || value.Reveal() != "x" {
		t.Fatalf("a restored token: %v", err)
	}
}

func TestIdempotency(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, tokenizer.Profile{Name: "other", Type: "text"})
	now := k.clock()
	with := func(change func(*tokenizer.TokenizeRequest)) tokenizer.TokenizeRequest {
		req := request("note", "x")
		req.IdempotencyKey, req.Caller = "key", "me"
		change(&req)
		return req
	}
	first, err := k.make(t, with(func(*tokenizer.TokenizeRequest) {}))
	if err != nil || first.Reused {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := k.make(t, with(func(*tokenizer.TokenizeRequest) {}))
	if err != nil || !again.Reused || again.Token != first.Token {
		t.Fatalf("again: %+v, %v", again, err)
	}
	for name, change := range map[string]func(*tokenizer.TokenizeRequest){
		"value":    func(r *tokenizer.TokenizeRequest) { r.Value = tokenizer.NewValue("y") },
		"profile":  func(r *tokenizer.TokenizeRequest) { r.Profile = "other" },
		"subject":  func(r *tokenizer.TokenizeRequest) { r.Subject = "s" },
		"metadata": func(r *tokenizer.TokenizeRequest) { r.Metadata = map[string]string{"a": "b"} },
		"ttl":      func(r *tokenizer.TokenizeRequest) { r.TTL = time.Hour },
		"uses":     func(r *tokenizer.TokenizeRequest) { r.MaxUses = 1 },
	} {
		if _, err := k.make(t, with(change)); !errors.Is(err, tokenizer.ErrIdempotency) {
			t.Errorf("another %s: %v, want ErrIdempotency", name, err)
		}
	}
	other, err := k.make(t, with(func(r *tokenizer.TokenizeRequest) { r.Caller = "somebody else" }))
	if err != nil || other.Token == first.Token {
		t.Fatalf("another caller: %+v, %v", other, err)
	}
	// Rotating the index key changes nothing.
	k.rotate(t, keystore.Index)
	if again, err := k.make(t, with(func(*tokenizer.TokenizeRequest) {})); err != nil || again.Token != first.Token {
		t.Fatalf("after a rotation: %+v, %v", again, err)
	}
	now.pass(24*time.Hour + time.Second)
	late, err := k.make(t, with(func(*tokenizer.TokenizeRequest) {}))
	if err != nil || late.Reused || late.Token == first.Token {
		t.Fatalf("a day later: %+v, %v", late, err)
	}
	k.sweep(t)
	if again, err := k.make(t, with(func(*tokenizer.TokenizeRequest) {})); err != nil || again.Token != late.Token {
		t.Fatalf("the sweep forgot a key that had been used anew: %+v, %v", again, err)
	}
}

// Many calls with one key at once have one token.
func TestIdempotencyRace(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"})
	var mu sync.Mutex
	tokens := make(map[tokenizer.Token]bool)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			req := request("note", "x")
			req.IdempotencyKey = "key"
			made, err := k.make(t, req)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			tokens[made.Token] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(tokens) != 1 {
		t.Fatalf("%d tokens", len(tokens))
	}
}

// Destroying one secret shreds all that is about a subject, and nothing else.
func TestSubjectsSecretShreds(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text", Lookup: true},
		tokenizer.Profile{Name: "shaped", Type: "text", Format: "uuid"})
	var mine, others []tokenizer.Token
	profileOf := make(map[tokenizer.Token]string)
	for n := range 20 {
		req := request([]string{"note", "shaped"}[n%2], text(n))
		req.Subject = []string{"alice", "bob"}[n/2%2]
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		profileOf[made.Token] = req.Profile
		if req.Subject == "alice" {
			mine = append(mine, made.Token)
		} else {
			others = append(others, made.Token)
		}
	}
	k.rotate(t, keystore.Data) // half of them under another key
	k.resealAll(t)
	// The name of a subject stands nowhere in clear.
	all := k.records(t, "")
	var alice *tokenizer.Record
	subjects := 0
	for i, r := range all {
		if r.Profile == "" {
			if subjects++; alice == nil {
				alice = &all[i] // the first to be named
			}
		}
		stored, err := r.AppendBinary(nil)
		if err != nil || strings.Contains(string(stored), "alice") || strings.Contains(string(stored), "bob") {
			t.Fatalf("a stored record holds a name: %q, %v", stored, err)
		}
	}
	if subjects != 2 {
		t.Fatalf("%d subjects", subjects)
	}
	if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Deletes: []tokenizer.Record{*alice}, Event: event}); err != nil {
		t.Fatal(err)
	}
	for _, token := range mine {
		if value, err := k.detokenize(t, namespace, token, profileOf[token]); !errors.Is(err, tokenizer.ErrSubjectErased) || value.Reveal() != "" {
			t.Errorf("of an erased subject: %q, %v", value.Reveal(), err)
		}
	}
	for _, token := range others {
		if _, err := k.detokenize(t, namespace, token, profileOf[token]); err != nil {
			t.Errorf("of another subject: %v", err)
		}
	}
	// With all keys and all that is stored, but without the secret.
	ring, err := k.keys.Keyring(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	var none [keystore.SubjectSecretSize]byte
	for _, r := range all {
		if r.Subject != alice.ID {
			continue
		}
		if _, err := ring.Open(nil, r.KeyVersion, r.Value, nil); err == nil {
			t.Error("a record of the subject opens under the data key alone")
		}
		if _, err := ring.OpenFor(nil, r.KeyVersion, r.Value, nil, &none); err == nil {
			t.Error("a record of the subject opens without its secret")
		}
	}
}

func TestEphemeralProfilesAreChecked(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*tokenizer.Profile)
		field  string
	}{
		"no ttl":        {func(p *tokenizer.Profile) { p.TTL = 0 }, "ttl"},
		"a long ttl":    {func(p *tokenizer.Profile) { p.TTL = 16 * time.Minute }, "ttl"},
		"retention":     {func(p *tokenizer.Profile) { p.Retention = time.Hour }, "retention"},
		"two uses":      {func(p *tokenizer.Profile) { p.MaxUses = 2 }, "max_uses"},
		"endless uses":  {func(p *tokenizer.Profile) { p.MaxUses = 0 }, "max_uses"},
		"convergent":    {func(p *tokenizer.Profile) { p.Mode = tokenizer.Convergent }, "mode"},
		"lookup":        {func(p *tokenizer.Profile) { p.Lookup = true }, "lookup"},
		"long lease":    {func(p *tokenizer.Profile) { p.RedemptionLease = 11 * time.Minute }, "redemption_lease"},
		"card with cvv": {func(p *tokenizer.Profile) { p.Type, p.TypeOptions.CVV, p.TTL = "card", true, time.Hour }, "ttl"},
	} {
		p := cvv
		row.change(&p)
		var bad *tokenizer.ProfileError
		if err := p.Validate(); !errors.As(err, &bad) || bad.Field != row.field {
			t.Errorf("%s: %v, want a ProfileError of %s", name, err, row.field)
		}
	}
	if err := cvv.Validate(); err != nil {
		t.Error(err)
	}
}

// A key can be used again at once after its token was deleted, and stands for an
// item of a batch that shares the token of another.
func TestIdempotencyKeysAreUsedAgain(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "note", Type: "text"}, tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent})
	k.clock() // all of this is in one second
	keyed := func(profile, value, key string) tokenizer.TokenizeRequest {
		req := request(profile, value)
		req.IdempotencyKey = key
		return req
	}
	first, err := k.make(t, keyed("note", "x", "a"))
	if err != nil {
		t.Fatal(err)
	}
	k.remove(t, first.Token, "")
	var unit tokenizer.Unit // once, without trying again
	again, err := k.Tokenize(t.Context(), namespace, keyed("note", "x", "a"), &unit)
	if err != nil || again.Token == first.Token {
		t.Fatalf("%+v, %v", again, err)
	}
	unit.Event = event
	if _, err := k.store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	results := k.makeAll(t, []tokenizer.TokenizeRequest{keyed("same", "y", "b"), keyed("same", "y", "c")})
	if results[0].Token != results[1].Token {
		t.Fatalf("%+v", results)
	}
	for _, key := range []string{"b", "c"} {
		if _, err := k.make(t, keyed("same", "z", key)); !errors.Is(err, tokenizer.ErrIdempotency) {
			t.Errorf("key %s with another value: %v", key, err)
		}
	}
	results = k.makeAll(t, []tokenizer.TokenizeRequest{keyed("same", "q", "d"), keyed("same", "q", "c")})
	if results[0].Err != nil || !errors.Is(results[1].Err, tokenizer.ErrIdempotency) {
		t.Errorf("a used key in a batch: %+v", results)
	}
}

// A profile's tokens can't be made in another way than before, where that would
// have one token stand for two values.
func TestDeclare(t *testing.T) {
	stored := tokenizer.Profile{Name: "ssn", Type: "ssn", Format: "digits"}
	fpe := tokenizer.Profile{Name: "ssn", Type: "ssn", Format: "digits", Mode: tokenizer.FPE}
	with := func(p tokenizer.Profile, change func(*tokenizer.Profile)) tokenizer.Profile {
		change(&p)
		return p
	}
	oneWay := tokenizer.Profile{Name: "ssn", Type: "ssn", Mode: tokenizer.OneWay}
	for _, row := range []struct {
		name      string
		was, is   tokenizer.Profile
		used      bool // before it was declared
		forbidden bool
	}{
		{"the same", stored, stored, true, false},
		{"the same fpe", fpe, fpe, false, false},
		{"other stored tokens", stored, with(stored, func(p *tokenizer.Profile) { p.Mode = tokenizer.Convergent }), true, false},
		{"stored to fpe", stored, fpe, true, true},
		{"stored to fpe, unused", stored, fpe, false, true},
		{"fpe to stored", fpe, stored, false, true},
		{"fpe to one-way", fpe, oneWay, false, false},
		{"one-way to fpe", oneWay, fpe, false, false},
		{"another key", fpe, with(fpe, func(p *tokenizer.Profile) { p.FPEKey = 2 }), false, true},
		{"another form", fpe, with(fpe, func(p *tokenizer.Profile) { p.Shape.KeepLast = 2 }), false, true},
		{"the default spelt out", fpe, with(fpe, func(p *tokenizer.Profile) { p.FPEKey, p.Shape.Luhn = 1, "any" }), false, false},
		{"what tokens don't depend on", fpe, with(fpe, func(p *tokenizer.Profile) { p.Purposes = []string{"audit"} }), false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := withProfiles(t, row.was)
			declare := func(unit *tokenizer.Unit) error { return k.Declare(t.Context(), namespace, unit) }
			if row.used {
				k.tokenize(t, "ssn", "536228745")
			}
			for range 2 {
				if err := k.attempt(t.Context(), declare); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := tokenizer.New(k.keys, k.store, []tokenizer.Profile{row.is})
			if err != nil {
				t.Fatal(err)
			}
			k.Tokenizer = tok
			var refused *tokenizer.ProfileError
			if err := k.attempt(t.Context(), declare); errors.As(err, &refused) != row.forbidden || !row.forbidden && err != nil {
				t.Errorf("declared as %+v: %v", row.is, err)
			}
		})
	}
	t.Run("used before it was declared", func(t *testing.T) {
		k := withProfiles(t, stored)
		k.tokenize(t, "ssn", "536228745")
		tok, err := tokenizer.New(k.keys, k.store, []tokenizer.Profile{fpe})
		if err != nil {
			t.Fatal(err)
		}
		var unit tokenizer.Unit
		if err := tok.Declare(t.Context(), namespace, &unit); !errors.Is(err, tokenizer.ErrProfile) || !unit.Empty() {
			t.Errorf("%v, and in the unit %d claims", err, len(unit.Claims))
		}
	})
}

// What is about somebody who has been erased can be deleted, and its token is not
// made again; the index moves to another key all the same.
func TestTokensOfTheErased(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "small", Type: "text", Format: "template", Shape: format.ShapeOptions{Pattern: "T-[0-9]{2}"}},
		tokenizer.Profile{Name: "opaque", Type: "text"})
	made := make(map[tokenizer.Token]string)
	for n := range 60 {
		req := request([]string{"small", "opaque"}[n%2], text(n))
		req.Subject = "alice"
		token, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		made[token.Token] = req.Profile
	}
	for _, r := range k.records(t, "") {
		if r.Profile == "" {
			if _, err := k.store.Commit(t.Context(), tokenizer.Unit{Deletes: []tokenizer.Record{r}, Event: event}); err != nil {
				t.Fatal(err)
			}
		}
	}
	k.rotate(t, keystore.Index)
	if _, failed := k.reindexAll(t); failed != 0 {
		t.Errorf("%d entries of tokens didn't move", failed)
	}
	for token, profile := range made {
		k.remove(t, token, profile)
	}
	if n := len(k.records(t, "opaque")); n != 0 {
		t.Errorf("%d records of opaque tokens are left", n)
	}
	for range 70 {
		again, err := k.make(t, request("small", "x"))
		if err != nil || made[again.Token] != "" {
			t.Fatalf("%+v, %v", again, err)
		}
	}
	if _, err := k.make(t, request("small", "x")); !errors.Is(err, tokenizer.ErrFull) {
		t.Fatalf("30 tokens of deleted records and 70 of others: %v", err)
	}
}
