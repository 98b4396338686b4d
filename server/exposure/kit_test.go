package exposure

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

const namespace = "default"

// kit is a real store with real keys, to whose log a test writes events of any time.
type kit struct {
	t         testing.TB
	store     *boltstore.Store
	keys      *keystore.Keystore
	tokenizer *tokenizer.Tokenizer
	finder    *Finder
}

// shelf keeps wrapped keys in the store.
type shelf struct{ *boltstore.Store }

func (s shelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	_, err := s.Commit(ctx, tokenizer.Unit{Keys: keys, Event: func(tokenizer.Outcome) []byte { return []byte("{}") }})
	return err
}

func newKit(t testing.TB) *kit {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root.key")
	if err := local.Create(root, nil); err != nil {
		t.Fatal(err)
	}
	k := &kit{t: t}
	var err error
	if k.store, err = boltstore.Open(filepath.Join(dir, "store.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.store.Close() })
	backend, err := local.Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.keys = keystore.New(backend, shelf{k.store}, keystore.Options{})
	profiles := []tokenizer.Profile{
		{Name: "card", Type: "card-number", Classes: []string{"payment"}}, {Name: "pan", Type: "card-number", Format: "digits"}, {Name: "note", Type: "text"},
	}
	if k.tokenizer, err = tokenizer.New(k.keys, k.store, profiles); err != nil {
		t.Fatal(err)
	}
	k.finder = &Finder{Store: k.store, Tokenizer: k.tokenizer, Namespace: namespace, Scratch: dir}
	return k
}

// rotate makes a new version of a class of keys.
func (k *kit) rotate(class keystore.Class) {
	k.t.Helper()
	key, err := k.keys.NewVersion(k.t.Context(), namespace, class)
	if err == nil {
		err = shelf{k.store}.AddWrappedKeys(k.t.Context(), []keystore.WrappedKey{key})
	}
	if err == nil {
		err = k.keys.Reload(k.t.Context(), namespace)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// commit makes what was prepared durable.
func (k *kit) commit(unit tokenizer.Unit, body []byte) {
	k.t.Helper()
	unit.Event = func(tokenizer.Outcome) []byte { return body }
	if _, err := k.store.Commit(k.t.Context(), unit); err != nil {
		k.t.Fatal(err)
	}
}

// tokens makes a token about each of the people; "" is nobody.
func (k *kit) tokens(profile string, people ...string) (tokens []tokenizer.Token) {
	k.t.Helper()
	reqs := make([]tokenizer.TokenizeRequest, len(people))
	for i, name := range people {
		reqs[i] = tokenizer.TokenizeRequest{Profile: profile, Value: tokenizer.NewValue("4111111111111111"), Subject: name}
	}
	var unit tokenizer.Unit
	made, err := k.tokenizer.TokenizeAll(k.t.Context(), namespace, reqs, &unit)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, m := range made {
		if m.Err != nil {
			k.t.Fatal(m.Err)
		}
		tokens = append(tokens, m.Token)
	}
	k.commit(unit, []byte("{}"))
	return tokens
}

// item is one of an event, under the newest keys. Those from before events named people
// are without a subject.
func (k *kit) item(profile string, token tokenizer.Token, subject string) audit.Item {
	k.t.Helper()
	digest, err := k.tokenizer.Digest(k.t.Context(), namespace, profile, token)
	if err != nil {
		k.t.Fatal(err)
	}
	item := audit.Item{Token: digest}
	if subject != "" {
		if item.Subject, err = k.tokenizer.DigestSubject(k.t.Context(), namespace, subject); err != nil {
			k.t.Fatal(err)
		}
	}
	return item
}

// reveal is an event of a reveal.
func reveal(at time.Time, profile string, items ...audit.Item) audit.Event {
	return audit.Event{
		Time: at, Caller: "cn:thief", Certificate: "c0ffee", Peer: "192.0.2.7:4711", Method: "/coatcheck.v1.TokenizationService/Detokenize", Action: "detokenize",
		Namespace: namespace, Profile: profile, Purpose: "support", Reveal: "FULL", Decision: audit.Allow, Code: "OK", Items: items,
	}
}

// log commits events.
func (k *kit) log(events ...audit.Event) {
	k.t.Helper()
	for i := range events {
		k.commit(tokenizer.Unit{}, events[i].Body())
	}
}

// testSigner signs with a key of its own.
type testSigner struct{ key ed25519.PrivateKey }

func (s testSigner) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }
func (s testSigner) Public() []byte             { return s.key.Public().(ed25519.PublicKey) }

// report asks for a report, with so many rows in memory at once.
func (k *kit) report(q Query, rows int) (*Report, map[string]*Person, []byte) {
	k.t.Helper()
	found, err := k.finder.find(k.t.Context(), q, rows)
	if err != nil {
		k.t.Fatal(err)
	}
	defer found.Close()
	var document bytes.Buffer
	signer := testSigner{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	if _, err := k.finder.Write(k.t.Context(), &document, found, Asked{By: "cn:officer", At: time.Now(), Names: true}, signer); err != nil {
		k.t.Fatal(err)
	}
	people := make(map[string]*Person)
	r, _, err := Read(bytes.NewReader(document.Bytes()), func(p *Person) error {
		name := p.Subject
		if name == "" {
			name = p.Reference
		}
		if people[name] != nil {
			return fmt.Errorf("%s is in the report twice", name)
		}
		people[name] = p
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return r, people, document.Bytes()
}
