package tokenizer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// every is a profile for each format in each mode that it has, with values.
var every = []struct {
	profile tokenizer.Profile
	value   func(n int) string // the n-th of many different ones
}{
	{tokenizer.Profile{Name: "opaque", Type: "text"}, text},
	{tokenizer.Profile{Name: "opaque-same", Type: "text", Mode: tokenizer.Convergent}, text},
	{tokenizer.Profile{Name: "digits", Type: "card-number", Format: "digits"}, card},
	{tokenizer.Profile{Name: "digits-kept", Type: "card-number", Format: "digits", Shape: format.ShapeOptions{KeepFirst: 4, KeepLast: 4}}, card},
	{tokenizer.Profile{Name: "digits-luhn", Type: "card-number", Format: "digits", Shape: format.ShapeOptions{Luhn: "always"}}, card},
	{tokenizer.Profile{Name: "digits-same", Type: "card-number", Mode: tokenizer.Convergent, Format: "digits"}, card},
	{tokenizer.Profile{Name: "digits-fpe", Type: "card-number", Mode: tokenizer.FPE, Format: "digits"}, card},
	{tokenizer.Profile{Name: "template", Type: "text", Format: "template", Shape: format.ShapeOptions{Pattern: "[A-Z]{4}-[0-9]{6}"}}, text},
	{tokenizer.Profile{Name: "template-same", Type: "text", Mode: tokenizer.Convergent, Format: "template", Shape: format.ShapeOptions{Pattern: "[A-Z]{4}-[0-9]{6}"}}, text},
	{tokenizer.Profile{Name: "template-fpe", Type: "passport", TypeOptions: format.TypeOptions{Pattern: "[A-Z]{2}[0-9]{7}"}, Mode: tokenizer.FPE, Format: "template"}, passport},
	{tokenizer.Profile{Name: "uuid", Type: "text", Format: "uuid"}, text},
	{tokenizer.Profile{Name: "uuid-same", Type: "text", Mode: tokenizer.Convergent, Format: "uuid"}, text},
	{tokenizer.Profile{Name: "email", Type: "email", Format: "email"}, email},
	{tokenizer.Profile{Name: "email-same", Type: "email", Mode: tokenizer.Convergent, Format: "email", Shape: format.ShapeOptions{Domain: "mask"}}, email},
	{tokenizer.Profile{Name: "ssn-shaped", Type: "ssn", Format: "ssn"}, ssn},
	{tokenizer.Profile{Name: "phone", Type: "phone", Format: "phone"}, phone},
	{tokenizer.Profile{Name: "phone-same", Type: "phone", Mode: tokenizer.Convergent, Format: "phone"}, phone},
}

func text(n int) string { return fmt.Sprintf("value number %d", n) }

func card(n int) string {
	digits := fmt.Sprintf("4%014d", n)
	for check := range 10 {
		if number := fmt.Sprint(digits, check); luhnSum(number)%10 == 0 {
			return number
		}
	}
	panic("no check digit")
}

func luhnSum(number string) (sum int) {
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum
}

func passport(n int) string { return fmt.Sprintf("XY%07d", n) }
func email(n int) string    { return fmt.Sprintf("person%d@mail.example", n) }
func phone(n int) string    { return fmt.Sprintf("+49301%07d", n) }

func ssn(n int) string { return fmt.Sprintf("%03d%02d%04d", 100+n/990000%500, 1+n/10000%99, 1+n%9999) }

// withProfiles returns a kit with the profiles.
func withProfiles(t testing.TB, declared ...tokenizer.Profile) kit {
	t.Helper()
	k := newKit(t)
	tok, err := tokenizer.New(k.keys, k.store, declared)
	if err != nil {
		t.Fatal(err)
	}
	k.Tokenizer = tok
	return k
}

// attempt prepares and commits until nobody else was first, as the server does.
func (k kit) attempt(ctx context.Context, prepare func(*tokenizer.Unit) error) error {
	for {
		var unit tokenizer.Unit
		if err := prepare(&unit); err != nil || unit.Empty() {
			return err
		}
		unit.Event = event
		_, err := k.store.Commit(ctx, unit)
		switch {
		case errors.Is(err, tokenizer.ErrConflict):
		case errors.Is(err, keystore.ErrKeyVersion):
			if err := k.keys.Reload(ctx, namespace); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// make makes a token and commits it.
func (k kit) make(t testing.TB, req tokenizer.TokenizeRequest) (made tokenizer.Tokenized, err error) {
	t.Helper()
	err = k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		made, err = k.Tokenize(t.Context(), namespace, req, unit)
		return err
	})
	return made, err
}

// makeAll makes many tokens in one unit.
func (k kit) makeAll(t testing.TB, reqs []tokenizer.TokenizeRequest) (results []tokenizer.TokenizeResult) {
	t.Helper()
	err := k.attempt(t.Context(), func(unit *tokenizer.Unit) (err error) {
		results, err = k.TokenizeAll(t.Context(), namespace, reqs, unit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func request(profile, value string) tokenizer.TokenizeRequest {
	return tokenizer.TokenizeRequest{Profile: profile, Value: tokenizer.NewValue(value)}
}

// Every format in every mode: what goes in comes out, no two values share a
// token, and no token is its value.
func TestEveryFormatInEveryMode(t *testing.T) {
	for _, row := range every {
		t.Run(row.profile.Name, func(t *testing.T) {
			k := withProfiles(t, row.profile)
			values, batch := 600, 100
			if soak() {
				values, batch = 1_000_000, 10_000
			}
			seen := make(map[tokenizer.Token]int, values)
			var first tokenizer.Token
			for from := 0; from < values; from += batch {
				for n, made := range k.someTokens(t, row.profile.Name, row.value, from, batch) {
					if value := row.value(n); string(made) == value {
						t.Fatalf("%s is its own token", value)
					}
					if other, taken := seen[made]; taken {
						t.Fatalf("%s is the token of value %d and of %d", made, n, other)
					}
					seen[made] = n
					if n == 0 {
						first = made
					}
				}
			}
			checked := 0
			for token, n := range seen {
				if checked++; checked > 1000 {
					break
				}
				value := row.value(n)
				if got, err := k.detokenize(t, namespace, token, row.profile.Name); err != nil || got.Reveal() != value {
					t.Fatalf("%s came back as %s, %v", value, got.Reveal(), err)
				}
				if strings.HasPrefix(row.profile.Name, "digits") {
					if passes := luhnSum(string(token))%10 == 0; passes != (row.profile.Name == "digits-luhn") {
						t.Fatalf("%s passes the Luhn check: %v", token, passes)
					}
				}
			}
			again, err := k.make(t, request(row.profile.Name, row.value(0)))
			if err != nil {
				t.Fatal(err)
			}
			same := row.profile.Mode == tokenizer.Convergent || row.profile.Mode == tokenizer.FPE
			if (again.Token == first) != same || again.Reused != (row.profile.Mode == tokenizer.Convergent) {
				t.Errorf("the same value again has %s (reused %v), the first time it was %s", again.Token, again.Reused, first)
			}
		})
	}
}

// soak says whether the long versions of the tests are wanted.
func soak() bool { return os.Getenv("COATCHECK_SOAK") != "" }

// someTokens makes tokens of values, one by one and in a batch by turns.
func (k kit) someTokens(t testing.TB, profile string, value func(int) string, from, n int) map[int]tokenizer.Token {
	t.Helper()
	made := make(map[int]tokenizer.Token, n)
	var reqs []tokenizer.TokenizeRequest
	for i := range n {
		reqs = append(reqs, request(profile, value(from+i)))
	}
	for i := range min(n/2, 50) {
		one, err := k.make(t, reqs[i])
		if err != nil {
			t.Fatal(err)
		}
		made[from+i] = one.Token
	}
	alone := len(made)
	for i, result := range k.makeAll(t, reqs[alone:]) {
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		made[from+alone+i] = result.Token
	}
	return made
}

func TestOneWay(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "shown", Type: "card-number", Mode: tokenizer.OneWay})
	var unit tokenizer.Unit
	made, err := k.Tokenize(t.Context(), namespace, request("shown", "4111 1111 1111 1111"), &unit)
	if err != nil || made.Token != "" || made.Masked != "************1111" || !unit.Empty() {
		t.Fatalf("%+v, %v, unit %+v", made, err, unit)
	}
}

// Many clients bring the same values at once, alone and in batches: each value
// has one token.
func TestConvergentRace(t *testing.T) {
	clients, values := 32, 200
	if soak() {
		values = 10_000
	}
	k := withProfiles(t, tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent},
		tokenizer.Profile{Name: "same-digits", Type: "card-number", Mode: tokenizer.Convergent, Format: "digits"})
	for _, profile := range []struct {
		name  string
		value func(int) string
	}{{"same", text}, {"same-digits", card}} {
		var mu sync.Mutex
		tokens := make(map[int]map[tokenizer.Token]bool)
		note := func(n int, token tokenizer.Token) {
			mu.Lock()
			defer mu.Unlock()
			if tokens[n] == nil {
				tokens[n] = make(map[tokenizer.Token]bool)
			}
			tokens[n][token] = true
		}
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				order := rand.Perm(values)
				if c%4 == 0 {
					var reqs []tokenizer.TokenizeRequest
					for _, n := range order {
						reqs = append(reqs, request(profile.name, profile.value(n)))
					}
					for i, made := range k.makeAll(t, reqs) {
						if made.Err != nil {
							t.Error(made.Err)
						}
						note(order[i], made.Token)
					}
					return
				}
				for _, n := range order {
					made, err := k.make(t, request(profile.name, profile.value(n)))
					if err != nil {
						t.Error(err)
						return
					}
					note(n, made.Token)
				}
			})
		}
		wg.Wait()
		for n := range values {
			if len(tokens[n]) != 1 {
				t.Fatalf("%s: value %d has %d tokens", profile.name, n, len(tokens[n]))
			}
		}
	}
}

// A convergent token is the same for a subject, and another for another.
func TestConvergentBySubject(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent})
	of := func(subject string) tokenizer.Token {
		req := request("same", "x")
		req.Subject = subject
		made, err := k.make(t, req)
		if err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	a, b, none := of("a"), of("b"), of("")
	if a == b || a == none || of("a") != a || of("b") != b || of("") != none {
		t.Fatal("tokens of one value are mixed up between subjects")
	}
}

// Items of one batch that are the same share a token.
func TestBatchWithTheSameValueTwice(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "same", Type: "text", Mode: tokenizer.Convergent}, tokenizer.Profile{Name: "note", Type: "text"})
	results := k.makeAll(t, []tokenizer.TokenizeRequest{
		request("same", "x"), request("same", "y"), request("same", "x"), request("nope", "x"), request("note", "x"), request("note", "x"),
	})
	if results[0].Token != results[2].Token || results[0].Reused || !results[2].Reused || results[0].Token == results[1].Token {
		t.Errorf("convergent: %+v", results[:3])
	}
	if !errors.Is(results[3].Err, tokenizer.ErrUnknownProfile) {
		t.Errorf("a bad item: %v", results[3].Err)
	}
	if results[4].Err != nil || results[5].Err != nil || results[4].Token == results[5].Token {
		t.Errorf("random: %+v", results[4:])
	}
}

// A format of 10,000 tokens is used up to the last, then it is full; what was
// deleted is not used again.
func TestExhaustion(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "small", Type: "text", Format: "template", Shape: format.ShapeOptions{Pattern: "T-[0-9]{4}"}})
	seen := make(map[tokenizer.Token]bool)
	for len(seen) < 9_000 {
		var reqs []tokenizer.TokenizeRequest
		for n := range 1_000 {
			reqs = append(reqs, request("small", text(len(seen)+n)))
		}
		for _, made := range k.makeAll(t, reqs) {
			if made.Err != nil || seen[made.Token] {
				t.Fatalf("after %d tokens: %+v", len(seen), made)
			}
			seen[made.Token] = true
		}
	}
	for len(seen) < 9_990 {
		made, err := k.make(t, request("small", "x"))
		if err != nil || seen[made.Token] {
			t.Fatalf("after %d tokens: %+v, %v", len(seen), made, err)
		}
		seen[made.Token] = true
	}
	var reqs []tokenizer.TokenizeRequest
	for range 15 {
		reqs = append(reqs, request("small", "y"))
	}
	full := 0
	for _, made := range k.makeAll(t, reqs) { // more than are left, in one batch
		switch {
		case errors.Is(made.Err, tokenizer.ErrFull):
			full++
		case made.Err != nil || seen[made.Token]:
			t.Fatalf("after %d tokens: %+v", len(seen), made)
		default:
			seen[made.Token] = true
		}
	}
	if len(seen) != 10_000 || full != 5 {
		t.Fatalf("%d tokens, %d refused", len(seen), full)
	}
	for token := range seen {
		k.remove(t, token, "small")
		break
	}
	if _, err := k.make(t, request("small", "z")); !errors.Is(err, tokenizer.ErrFull) {
		t.Fatalf("after one was deleted: %v, want ErrFull", err)
	}
	counts, err := k.store.Profiles(t.Context(), namespace)
	if err != nil || counts["small"] != 10_000 {
		t.Fatalf("Profiles = %v, %v", counts, err)
	}
}

// remove deletes a token.
func (k kit) remove(t testing.TB, token tokenizer.Token, profile string) {
	t.Helper()
	ref, err := k.Inspect(token, profile)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.attempt(t.Context(), func(unit *tokenizer.Unit) error { return k.Delete(t.Context(), namespace, ref, nil, unit) }); err != nil {
		t.Fatal(err)
	}
}

func TestModesThatStoreNothingRefuseWhatCantBeKept(t *testing.T) {
	k := withProfiles(t, tokenizer.Profile{Name: "fpe", Type: "card-number", Mode: tokenizer.FPE, Format: "digits"})
	for name, row := range map[string]struct {
		change  func(*tokenizer.TokenizeRequest)
		wantErr error
	}{
		"metadata": {func(r *tokenizer.TokenizeRequest) { r.Metadata = map[string]string{"a": "b"} }, tokenizer.ErrInvalidMetadata},
		"ttl":      {func(r *tokenizer.TokenizeRequest) { r.TTL = 1e9 }, tokenizer.ErrInvalidTTL},
		"max uses": {func(r *tokenizer.TokenizeRequest) { r.MaxUses = 1 }, tokenizer.ErrInvalidMaxUses},
		"subject":  {func(r *tokenizer.TokenizeRequest) { r.Subject = "a" }, tokenizer.ErrInvalidSubject},
		"import":   {func(r *tokenizer.TokenizeRequest) { r.Import = "a" }, tokenizer.ErrNotImportable},
	} {
		req := request("fpe", "4111111111111111")
		row.change(&req)
		if _, err := k.make(t, req); !errors.Is(err, row.wantErr) {
			t.Errorf("%s: %v, want %v", name, err, row.wantErr)
		}
	}
}
