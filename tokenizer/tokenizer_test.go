package tokenizer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

const (
	namespace = "default"
	storeFile = "store.db"
)

// kit is a Tokenizer with a real store and real keys.
type kit struct {
	*tokenizer.Tokenizer
	store   *boltstore.Store
	backend keystore.Backend
	keys    *keystore.Keystore
	dir     string // where the store is
}

var profiles = []tokenizer.Profile{{Name: "card", Type: "card-number"}, {Name: "ssn", Type: "ssn"}, {Name: "note", Type: "text"}}

// shelf keeps wrapped keys in the store.
type shelf struct{ *boltstore.Store }

func (s shelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	_, err := s.Commit(ctx, tokenizer.Unit{Keys: keys, Event: event})
	return err
}

func event(tokenizer.Outcome) []byte { return []byte("event") }

func newKit(t testing.TB) kit {
	t.Helper()
	dir := t.TempDir()
	if err := local.Create(filepath.Join(dir, "root.key"), nil); err != nil {
		t.Fatal(err)
	}
	return openKit(t, dir, profiles)
}

// openKit opens what is in a directory.
func openKit(t testing.TB, dir string, profiles []tokenizer.Profile) kit {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(dir, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	backend, err := local.Open(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := keystore.New(backend, shelf{store}, keystore.Options{})
	tok, err := tokenizer.New(keys, store, profiles)
	if err != nil {
		t.Fatal(err)
	}
	return kit{tok, store, backend, keys, dir}
}

// tokenize makes a token and commits it.
func (k kit) tokenize(t testing.TB, profile, value string) tokenizer.Tokenized {
	t.Helper()
	return k.tokenizeFor(t, "", profile, value)
}

// tokenizeFor makes a token about a subject.
func (k kit) tokenizeFor(t testing.TB, subject, profile, value string) tokenizer.Tokenized {
	t.Helper()
	var unit tokenizer.Unit
	made, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: profile, Value: tokenizer.NewValue(value), Subject: subject}, &unit)
	if err != nil {
		t.Fatal(err)
	}
	unit.Event = event
	if _, err := k.store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	return made
}

func (k kit) detokenize(t testing.TB, ns string, token tokenizer.Token, expected string) (tokenizer.Value, error) {
	t.Helper()
	ref, err := k.Inspect(token, expected)
	if err != nil {
		return tokenizer.Value{}, err
	}
	return k.reveal(t, ns, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Full})
}

// reveal detokenizes and commits.
func (k kit) reveal(t testing.TB, ns string, req tokenizer.DetokenizeRequest) (tokenizer.Value, error) {
	t.Helper()
	var unit tokenizer.Unit
	result, err := k.Detokenize(t.Context(), ns, req, &unit)
	if err == nil && !unit.Empty() {
		unit.Event = event
		_, err = k.store.Commit(t.Context(), unit)
	}
	return result.Value, err
}

func TestRoundTrip(t *testing.T) {
	k := newKit(t)
	for _, row := range []struct{ profile, value, normal, masked string }{
		{"card", "4111 1111 1111 1111", "4111111111111111", "************1111"},
		{"card", "3782-822463-10005", "378282246310005", "***********0005"},
		{"ssn", "536-22-8745", "536228745", "*****8745"},
		{"note", "  Grüße, 世界\n", "  Grüße, 世界\n", "********"},
		{"note", strings.Repeat("x", 64<<10), strings.Repeat("x", 64<<10), "********"},
	} {
		made := k.tokenize(t, row.profile, row.value)
		if made.Masked != row.masked {
			t.Errorf("%s: masked %q, want %q", row.profile, made.Masked, row.masked)
		}
		if again := k.tokenize(t, row.profile, row.value); again.Token == made.Token {
			t.Errorf("%s: two calls gave one token", row.profile)
		}
		if !strings.HasPrefix(string(made.Token), "cc_"+row.profile+"_") {
			t.Errorf("token of %s is %s", row.profile, made.Token)
		}
		got, err := k.detokenize(t, namespace, made.Token, row.profile)
		if err != nil || got.Reveal() != row.normal {
			t.Errorf("%s came back as %q, %v", row.profile, got.Reveal(), err)
		}
		ref, err := k.Inspect(made.Token, "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.reveal(t, namespace, tokenizer.DetokenizeRequest{Reference: ref, Form: tokenizer.Masked}); err != nil || got.Reveal() != row.masked {
			t.Errorf("%s came back masked as %q, %v", row.profile, got.Reveal(), err)
		}
	}
}

func TestNothingIsWrittenBeforeCommit(t *testing.T) {
	k := newKit(t)
	var unit tokenizer.Unit
	made, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "card", Value: tokenizer.NewValue("4111111111111111")}, &unit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrTokenNotFound) {
		t.Fatalf("a token that was not committed: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	k := newKit(t)
	card := string(k.tokenize(t, "card", "4111111111111111").Token)
	name, version, block, err := format.ParseOpaque(card)
	if err != nil {
		t.Fatal(err)
	}
	other := func(profile string, version uint32, flip int) string {
		block := block
		block[flip/8%16] ^= byte(flip % 8)
		return string(format.AppendOpaque(nil, profile, version, &block))
	}
	changed := []byte(card)
	changed[12] ^= 1
	for _, row := range []struct {
		name, token, expected string
		wantErr               error
	}{
		{"empty", "", "", tokenizer.ErrInvalidToken},
		{"one character changed", string(changed), "", tokenizer.ErrInvalidToken},
		{"cut", card[:len(card)-1], "", tokenizer.ErrInvalidToken},
		{"a value", "4111111111111111", "", tokenizer.ErrProfileRequired},
		{"a value, as if of a profile", "4111111111111111", "card", tokenizer.ErrTokenNotFound},
		{"expected of another profile", card, "ssn", tokenizer.ErrTokenNotFound},
		{"expected of an unknown profile", card, "nope", tokenizer.ErrUnknownProfile},
		{"relabelled as another profile", other("ssn", version, 0), "", tokenizer.ErrTokenNotFound},
		{"relabelled as an unknown profile", other("nope", version, 0), "", tokenizer.ErrTokenNotFound},
		{"another key version", other(name, version+1, 0), "", tokenizer.ErrTokenNotFound},
		{"made up", other(name, version, 1), "", tokenizer.ErrTokenNotFound},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := k.detokenize(t, namespace, tokenizer.Token(row.token), row.expected); !errors.Is(err, row.wantErr) {
				t.Fatalf("error %v, want %v", err, row.wantErr)
			}
		})
	}
	t.Run("another namespace", func(t *testing.T) {
		if _, err := k.detokenize(t, "tenant", tokenizer.Token(card), ""); !errors.Is(err, tokenizer.ErrTokenNotFound) {
			t.Fatalf("error %v, want ErrTokenNotFound", err)
		}
	})
}

// A store that was restored from an old copy hands out ids again. The check in
// the token keeps the tokens of the lost records from the new ones.
func TestATokenOfALostRecordMeetsNoOther(t *testing.T) {
	k := newKit(t)
	var lost tokenizer.Unit
	made, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "card", Value: tokenizer.NewValue("4111111111111111")}, &lost)
	if err != nil {
		t.Fatal(err)
	}
	// Another record under the same id, as after a restore.
	var unit tokenizer.Unit
	if _, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "card", Value: tokenizer.NewValue("5555555555554444")}, &unit); err != nil {
		t.Fatal(err)
	}
	unit.Records[0].ID = lost.Records[0].ID
	unit.Event = event
	if _, err := k.store.Commit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if got, err := k.detokenize(t, namespace, made.Token, ""); !errors.Is(err, tokenizer.ErrTokenNotFound) {
		t.Fatalf("the token of a lost record gave %v, %v", got, err)
	}
}

// Whoever can write to the store can't make a token answer for another value.
func TestCiphertextsCanNotBeMoved(t *testing.T) {
	for name, tamper := range map[string]func(a, b *tokenizer.Record){
		"value of another record": func(a, b *tokenizer.Record) { a.Value = b.Value },
		"time edited":             func(a, _ *tokenizer.Record) { a.Created = a.Created.Add(3600e9) },
		"a bit flipped":           func(a, _ *tokenizer.Record) { a.Value[3] ^= 1 },
		"cut":                     func(a, _ *tokenizer.Record) { a.Value = a.Value[:5] },
		"another key version":     func(a, _ *tokenizer.Record) { a.KeyVersion++ },
		"another token version":   func(a, _ *tokenizer.Record) { a.TokenVersion++ },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			var unit tokenizer.Unit
			var tokens []tokenizer.Token
			for _, value := range []string{"4111111111111111", "5555555555554444"} {
				made, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "card", Value: tokenizer.NewValue(value)}, &unit)
				if err != nil {
					t.Fatal(err)
				}
				tokens = append(tokens, made.Token)
			}
			for _, class := range []keystore.Class{keystore.Data, keystore.Token} {
				k.addVersion(t, class) // so that there is another version
			}
			tamper(&unit.Records[0], &unit.Records[1])
			unit.Event = event
			if _, err := k.store.Commit(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
			if got, err := k.detokenize(t, namespace, tokens[0], ""); !errors.Is(err, tokenizer.ErrDamaged) {
				t.Fatalf("a tampered record gave %v, %v; want ErrDamaged", got, err)
			}
			if got, err := k.detokenize(t, namespace, tokens[1], ""); err != nil || got.Reveal() != "5555555555554444" {
				t.Fatalf("the other record gave %v, %v", got, err)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	k := newKit(t)
	many := make(map[string]string)
	for i := range tokenizer.MaxLabels + 1 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	for _, row := range []struct {
		name, profile, value string
		metadata             map[string]string
		wantErr              error
	}{
		{"unknown profile", "nope", "x", nil, tokenizer.ErrUnknownProfile},
		{"not a card", "card", "4111111111111112", nil, tokenizer.ErrInvalidValue},
		{"empty", "note", "", nil, tokenizer.ErrInvalidValue},
		{"too many labels", "note", "x", many, tokenizer.ErrInvalidMetadata},
		{"a label of a megabyte", "note", "x", map[string]string{"k": strings.Repeat("x", 1<<20)}, tokenizer.ErrInvalidMetadata},
		{"a long label", "note", "x", map[string]string{"k": strings.Repeat("x", tokenizer.MaxLabelValue+1)}, tokenizer.ErrInvalidMetadata},
		{"a bad key", "note", "x", map[string]string{"K": "v"}, tokenizer.ErrInvalidMetadata},
		{"broken UTF-8", "note", "x", map[string]string{"k": "\xff"}, tokenizer.ErrInvalidMetadata},
	} {
		t.Run(row.name, func(t *testing.T) {
			var unit tokenizer.Unit
			_, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: row.profile, Value: tokenizer.NewValue(row.value), Metadata: row.metadata}, &unit)
			if !errors.Is(err, row.wantErr) {
				t.Fatalf("error %v, want %v", err, row.wantErr)
			}
			if len(unit.Records) != 0 {
				t.Fatal("a refused value is in the unit")
			}
			if row.value != "x" && row.value != "" && strings.Contains(err.Error(), row.value[:6]) {
				t.Fatalf("the error holds the value: %v", err)
			}
		})
	}
}

func TestMetadataIsSealed(t *testing.T) {
	k := newKit(t)
	var unit tokenizer.Unit
	_, err := k.Tokenize(t.Context(), namespace, tokenizer.TokenizeRequest{Profile: "note", Value: tokenizer.NewValue("x"), Metadata: map[string]string{"order": "canary-order"}}, &unit)
	if err != nil {
		t.Fatal(err)
	}
	if sealed := unit.Records[0].Details; len(sealed) == 0 || strings.Contains(string(sealed), "canary") {
		t.Fatalf("metadata is stored as %q", sealed)
	}
}

func TestValuesDoNotPrint(t *testing.T) {
	const canary = "4111111111111111"
	v := tokenizer.NewValue(canary)
	wrapped := struct {
		V tokenizer.Value
		P *tokenizer.Value
	}{v, &v}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "w", wrapped)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "w", wrapped)
	asJSON, err := json.Marshal(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	hidden := struct {
		v tokenizer.Value
		p *tokenizer.Value
		r tokenizer.TokenizeRequest
	}{v, &v, tokenizer.TokenizeRequest{Value: v}}
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "h", hidden, "p", &hidden)
	for _, x := range []any{hidden, &hidden, []any{hidden}, map[string]any{"k": &hidden}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			log.WriteString(fmt.Sprintf(verb, x))
		}
	}
	printed := log.String() + string(asJSON) + fmt.Sprint(v, &v, wrapped) +
		fmt.Sprintf("%v %+v %#v %s %q %x %d %+v %#v", v, v, v, v, v, v, v, wrapped, wrapped) + fmt.Errorf("%w %v", errors.New("x"), v).Error()
	if strings.Contains(printed, canary) || strings.Contains(printed, "34313131") {
		t.Fatalf("a value got printed: %s", printed)
	}
	if !strings.Contains(printed, "[redacted]") {
		t.Fatal("a value prints as nothing at all")
	}
}

func TestProfilesAreChecked(t *testing.T) {
	for _, row := range []struct {
		name    string
		profile tokenizer.Profile
		field   string
	}{
		{"name", tokenizer.Profile{Name: "Card", Type: "text"}, "name"},
		{"type", tokenizer.Profile{Name: "card", Type: "credit-card"}, "type"},
		{"mode", tokenizer.Profile{Name: "card", Type: "text", Mode: "magic"}, "mode"},
		{"format", tokenizer.Profile{Name: "card", Type: "text", Format: "emoji"}, "format"},
		{"purpose", tokenizer.Profile{Name: "card", Type: "text", Purposes: []string{"Charge!"}}, "purposes"},
		{"purpose twice", tokenizer.Profile{Name: "card", Type: "text", Purposes: []string{"a", "a"}}, "purposes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var bad *tokenizer.ProfileError
			if err := row.profile.Validate(); !errors.As(err, &bad) || bad.Field != row.field || !errors.Is(err, tokenizer.ErrProfile) {
				t.Fatalf("Validate: %v, want a ProfileError of %s", err, row.field)
			}
		})
	}
	twice := []tokenizer.Profile{{Name: "a", Type: "text"}, {Name: "a", Type: "ssn"}}
	if _, err := tokenizer.New(nil, nil, twice); !errors.Is(err, tokenizer.ErrProfile) {
		t.Fatalf("New with a name twice: %v", err)
	}
}

func TestDigest(t *testing.T) {
	k := newKit(t)
	token := k.tokenize(t, "card", "4111111111111111").Token
	first, err := k.Digest(t.Context(), namespace, "card", token)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := k.Digest(t.Context(), namespace, "card", token); again != first {
		t.Errorf("digests of one token differ: %s, %s", first, again)
	}
	if other, _ := k.Digest(t.Context(), "tenant", "card", token); other == first {
		t.Error("the digest is the same in another namespace")
	}
	if strings.Contains(first, string(token)[8:]) {
		t.Error("the digest holds the token")
	}
}

func BenchmarkTokenize(b *testing.B) {
	k := newKit(b)
	k.tokenize(b, "card", "4111111111111111")
	b.ReportAllocs()
	for b.Loop() {
		var unit tokenizer.Unit
		if _, err := k.Tokenize(b.Context(), namespace, tokenizer.TokenizeRequest{Profile: "card", Value: tokenizer.NewValue("4111111111111111")}, &unit); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDetokenize(b *testing.B) {
	k := newKit(b)
	token := k.tokenize(b, "card", "4111111111111111").Token
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.detokenize(b, namespace, token, ""); err != nil {
			b.Fatal(err)
		}
	}
}
