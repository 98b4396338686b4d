package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// keysCommand runs coatcheck keys as an operator does, against the process.
func keysCommand(p *process, dir string, args ...string) (stdout, stderr string, code int) {
	return adminCommand(p, dir, append([]string{"keys"}, args...)...)
}

// adminCommand runs a command against a server, as admin.
func adminCommand(p *process, dir string, args ...string) (stdout, stderr string, code int) {
	cmd := exec.Command(os.Args[0], args...)
	certs := filepath.Join(dir, "certs")
	cmd.Env = append(os.Environ(), runMain+"=1", "COATCHECK_ADDRESS="+p.address, "COATCHECK_CA="+filepath.Join(certs, "ca.crt"),
		"COATCHECK_CERT="+filepath.Join(certs, "admin.crt"), "COATCHECK_KEY="+filepath.Join(certs, "admin.key"))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run()
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

// listed is what keys list --json prints, as far as tests look at it.
type listed struct {
	Keys []struct {
		Class       string
		Version     uint32
		RootVersion uint32 `json:"root_version"`
		Records     uint64
	}
	Keystore  string
	Resealing struct{ Remaining uint64 }
}

func listKeys(t *testing.T, p *process, dir string) (l listed) {
	t.Helper()
	stdout, stderr, code := keysCommand(p, dir, "list", "--json")
	if code != 0 {
		t.Fatalf("keys list: exit code %d: %s", code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &l); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return l
}

// versions returns the records under each version of a class.
func (l listed) versions(class string) map[uint32]uint64 {
	m := make(map[uint32]uint64)
	for _, k := range l.Keys {
		if k.Class == class {
			m[k.Version] = k.Records
		}
	}
	return m
}

// load is clients that tokenize and detokenize until they are stopped.
type load struct {
	wg     sync.WaitGroup
	stop   chan struct{}
	calls  atomic.Int64
	tokens *ledger
	shared sync.Map // value → its one token, of convergent profiles
}

// startLoad starts clients, each of which makes a token and then reveals it and
// some older one. failed is called for each call that fails.
func startLoad(t *testing.T, p *process, dir string, clients int, failed func(error)) *load {
	l := &load{stop: make(chan struct{}), tokens: &ledger{values: make(map[string]string)}}
	c := p.callers(t, dir)
	for n := range clients {
		l.wg.Go(func() {
			var mine []string
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				value := fmt.Sprintf("client %d value %d", n, i)
				resp, err := c.checkout.Tokenize(context.Background(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: value, Metadata: map[string]string{"n": fmt.Sprint(i)}})
				l.calls.Add(1)
				if err != nil {
					failed(err)
					return
				}
				l.tokens.add(t, resp.GetToken(), value)
				mine = append(mine, resp.GetToken())
				token := mine[rand.IntN(len(mine))]
				got, err := c.payments.Detokenize(context.Background(), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
				l.calls.Add(1)
				if err != nil {
					failed(err)
					return
				}
				if want := l.tokens.value(token); got.GetValue() != want {
					t.Errorf("%q came back as %q", want, got.GetValue())
				}
				if err := l.meet(t, c, i); err != nil {
					failed(err)
					return
				}
			}
		})
	}
	return l
}

// meet brings a value that all clients bring, again and again: it has one token,
// which is found by it.
func (l *load) meet(t *testing.T, c callers, i int) error {
	profile, value := "email", fmt.Sprintf("person%d@mail.example", i%25)
	if i%2 == 0 {
		profile, value = "pan", []string{"4111111111111111", "5555555555554444", "378282246310005"}[i%3]
	}
	resp, err := c.checkout.Tokenize(context.Background(), &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
	l.calls.Add(1)
	if err != nil {
		return err
	}
	if first, _ := l.shared.LoadOrStore(value, resp.GetToken()); first != resp.GetToken() {
		t.Errorf("%s has two tokens, %s and %s", value, first, resp.GetToken())
	}
	found, err := c.tokens.LookupToken(context.Background(), &coatcheckv1.LookupTokenRequest{Profile: profile, Value: value})
	l.calls.Add(1)
	if err == nil && (len(found.GetTokens()) != 1 || found.GetTokens()[0].GetToken() != resp.GetToken()) {
		t.Errorf("the look-up of %s finds %v, want %s", value, found.GetTokens(), resp.GetToken())
	}
	return err
}

func (l *ledger) value(token string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.values[token]
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// TestRotationUnderLoad takes every class through its life while clients work:
// no call fails and every token stays good, a restart included.
func TestRotationUnderLoad(t *testing.T) {
	i := newOnVault(t, "  reseal_rate: 0\n") // nothing moves by itself
	p := i.start(t)
	l := startLoad(t, p, i.dir, 8, func(err error) { t.Errorf("a call failed: %v", err) })
	waitUntil(t, "there are tokens", func() bool { return l.calls.Load() > 200 })
	must := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := keysCommand(p, i.dir, args...)
		if code != 0 {
			t.Fatalf("keys %v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	refused := func(reason string, args ...string) {
		t.Helper()
		stdout, stderr, code := keysCommand(p, i.dir, args...)
		if code != 1 || !bytes.Contains([]byte(stderr), []byte(reason)) {
			t.Errorf("keys %v: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	if listKeys(t, p, i.dir).versions("index")[1] == 0 {
		t.Error("nothing is under the first index key, so nothing has to move")
	}
	for _, class := range []string{"data", "token", "index", "subject"} {
		before := l.calls.Load()
		must("rotate", class)
		waitUntil(t, "clients go on", func() bool { return l.calls.Load() > before+100 })
	}
	if now := listKeys(t, p, i.dir); now.versions("data")[1] == 0 || now.versions("data")[2] == 0 || now.versions("token")[1] == 0 || now.versions("token")[2] == 0 {
		t.Errorf("the census is %+v", now)
	}
	refused("FAILED_PRECONDITION KEY_IN_USE", "retire", "data", "1", "--yes")
	refused("FAILED_PRECONDITION KEY_IN_USE", "retire", "data", "2", "--yes")
	refused("FAILED_PRECONDITION KEY_IN_USE", "retire", "token", "1", "--yes")
	i.RotateKey("transit", "coatcheck")
	must("rewrap", "--rate", "1000000")
	now := listKeys(t, p, i.dir)
	if now.versions("data")[1] != 0 || now.Resealing.Remaining != 0 {
		t.Errorf("after rewrap the census is %+v", now)
	}
	for _, k := range now.Keys {
		if k.RootVersion != 2 {
			t.Errorf("%s %d is under version %d of the root key", k.Class, k.Version, k.RootVersion)
		}
	}
	must("retire", "data", "1") // says that it would work
	if _, there := listKeys(t, p, i.dir).versions("data")[1]; !there {
		t.Error("retire without --yes destroyed a key")
	}
	must("retire", "data", "1", "--yes")
	// The index moves to the new key by itself.
	waitUntil(t, "nothing is under the old index key", func() bool { return listKeys(t, p, i.dir).versions("index")[1] == 0 })
	must("retire", "index", "1", "--yes")
	refused("NOT_FOUND KEY_NOT_FOUND", "retire", "data", "1", "--yes")
	before := l.calls.Load()
	waitUntil(t, "clients go on", func() bool { return l.calls.Load() > before+100 })
	l.end()
	// The root key's first version is of no use any more, and a restart of both.
	i.ConfigureKey("transit", "coatcheck", map[string]any{"min_decryption_version": 2})
	p.terminate(t)
	i.Restart()
	p = i.start(t)
	all := make([]string, 0, len(l.tokens.values))
	for token := range l.tokens.values {
		all = append(all, token)
	}
	verifyTokens(t, p, i.dir, l.tokens, all)
	p.terminate(t)
	wantExactCensus(t, i.dir, len(all))
	t.Logf("%d calls, %d tokens", l.calls.Load(), len(all))
}

// wantExactCensus counts the records of a store that nobody has open, one by
// one, and compares.
func wantExactCensus(t *testing.T, dir string, atLeast int) {
	t.Helper()
	path := filepath.Join(dir, "data", "coatcheck.db")
	counted := make(map[keystore.KeyID]uint64)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).ForEach(func(_, stored []byte) error {
			record, err := tokenizer.ParseRecordHead(0, stored)
			counted[record.DataKey()]++
			if record.TokenVersion != 0 {
				counted[record.TokenKey()]++
			}
			records++
			return err
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if records < atLeast {
		t.Errorf("%d records, but %d tokens were given out", records, atLeast)
	}
	store, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for after := []byte(nil); ; {
		claims, err := store.Claims(t.Context(), nil, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claims {
			if after = c.Key; c.Under != (keystore.KeyID{}) {
				counted[c.Under]++
			}
		}
		if len(claims) == 0 {
			break
		}
	}
	census, err := store.Census(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range census {
		if c.Records != counted[c.ID] {
			t.Errorf("the census has %d records under %v, there are %d", c.Records, c.ID, counted[c.ID])
		}
		if c.Gone && c.Records > 0 {
			t.Errorf("%v is gone and has records", c.ID)
		}
		delete(counted, c.ID)
	}
	if len(counted) > 0 {
		t.Errorf("the census lacks %v", counted)
	}
}

// TestCrashWhileKeysChange kills the process at any moment while clients work
// and an operator rotates, rewraps and retires whatever can be.
func TestCrashWhileKeysChange(t *testing.T) {
	rounds := 4
	if soak() {
		rounds = 50
	}
	i := newOnVault(t, "  reseal_rate: 500\n")
	tokens := &ledger{values: make(map[string]string)}
	did := make(map[string]int)
	for round := range rounds {
		p := i.start(t)
		verifyTokens(t, p, i.dir, tokens, tokens.fresh)
		tokens.fresh = nil
		c := p.callers(t, i.dir)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					profile, value := randomValue()
					resp, err := c.checkout.Tokenize(context.Background(), &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
					if killed(t, "tokenize", err) {
						return
					}
					tokens.add(t, resp.GetToken(), value)
				}
			})
		}
		wg.Go(func() {
			for changeKeys(t, i, c.keys, did) {
			}
		})
		time.Sleep(time.Duration(100+rand.IntN(1500)) * time.Millisecond) // the moment of the kill
		p.kill()
		wg.Wait()
		if t.Failed() {
			t.Fatalf("failed in round %d", round)
		}
	}
	p := i.start(t)
	all := make([]string, 0, len(tokens.values))
	for token := range tokens.values {
		all = append(all, token)
	}
	verifyTokens(t, p, i.dir, tokens, all)
	if _, stderr, code := keysCommand(p, i.dir, "rewrap", "--rate", "1000000"); code != 0 {
		t.Errorf("rewrap: exit code %d: %s", code, stderr)
	}
	for version, records := range listKeys(t, p, i.dir).versions("data") {
		if records > 0 {
			continue
		}
		if _, stderr, code := keysCommand(p, i.dir, "retire", "data", fmt.Sprint(version), "--yes"); code != 0 {
			t.Errorf("retire data %d: exit code %d: %s", version, code, stderr)
		}
	}
	verifyTokens(t, p, i.dir, tokens, all)
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if _, err := audit.VerifyDir(filepath.Join(i.dir, "audit")); err != nil {
		t.Errorf("the audit log: %v", err)
	}
	wantExactCensus(t, i.dir, len(all))
	t.Logf("%d rounds, %d tokens, %v", rounds, len(all), did)
	for _, what := range keyChanges {
		if did[what] == 0 && soak() {
			t.Errorf("no %q in %d rounds", what, rounds)
		}
	}
}

// killed says whether a call failed since the process was killed; any other
// failure is an error.
func killed(t *testing.T, what string, err error) bool {
	if err == nil {
		return false
	}
	if status.Code(err) != codes.Unavailable || strings.Contains(reasonOf(err), " ") { // the service's own refusals have a reason
		t.Errorf("%s: %v", what, err)
	}
	return true
}

var keyChanges = []string{"rotate data", "rotate token", "rotate index", "rewrap", "retire", "rotate the root key"}

// changeKeys does one of the things that an operator does with keys, and says
// whether the server is still there.
func changeKeys(t *testing.T, i *onVault, keys coatcheckv1.KeyServiceClient, did map[string]int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := keys.ListKeys(ctx, &coatcheckv1.ListKeysRequest{})
	if killed(t, "list", err) {
		return false
	}
	what := keyChanges[rand.IntN(len(keyChanges))]
	switch what {
	case "rotate data":
		_, err = keys.RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_DATA})
	case "rotate token":
		_, err = keys.RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_TOKEN})
	case "rotate index":
		_, err = keys.RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: coatcheckv1.KeyClass_KEY_CLASS_INDEX})
	case "rewrap":
		_, err = keys.Rewrap(ctx, &coatcheckv1.RewrapRequest{RecordsPerSecond: uint32(1000 + rand.IntN(100_000))})
	case "rotate the root key":
		i.RotateKey("transit", "coatcheck")
	default:
		k := list.GetKeys()[rand.IntN(len(list.GetKeys()))]
		_, err = keys.RetireKey(ctx, &coatcheckv1.RetireKeyRequest{KeyClass: k.GetKeyClass(), Version: k.GetVersion()})
		if reasonOf(err) == "FailedPrecondition KEY_IN_USE" {
			return true
		}
	}
	if killed(t, what, err) {
		return false
	}
	did[what]++
	return true
}
