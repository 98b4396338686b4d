package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

// ledger holds the tokens that clients have been given, and for what.
type ledger struct {
	mu     sync.Mutex
	values map[string]string // token → value
	fresh  []string          // tokens of this round
}

func (l *ledger) add(t *testing.T, token, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.values[token]; ok {
		t.Errorf("one token for two values, %q and %q", old, value)
	}
	l.values[token] = value
	l.fresh = append(l.fresh, token)
}

// TestCrash kills the process in the middle of a stream of tokenizations and
// starts it again. Every token that was acknowledged must still be good, and
// the audit log must be whole.
func TestCrash(t *testing.T) {
	rounds := 6
	if soak() {
		rounds = 200
	}
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	tokens := &ledger{values: make(map[string]string)}
	for round := range rounds {
		if round%3 == 2 {
			tearAudit(t, dir, round)
		}
		p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
		if round%3 == 2 && !strings.Contains(p.stderr.String(), "cut") {
			t.Errorf("round %d: a torn line was not noted: %s", round, p.stderr)
		}
		verifyTokens(t, p, dir, tokens, tokens.fresh)
		tokens.fresh = nil
		tokenizeUntilKilled(t, p, dir, tokens)
		if t.Failed() {
			t.Fatalf("failed in round %d", round)
		}
	}
	p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
	all := make([]string, 0, len(tokens.values))
	for token := range tokens.values {
		all = append(all, token)
	}
	verifyTokens(t, p, dir, tokens, all)
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM: %s", code, p.stderr)
	}
	summary, err := audit.VerifyDir(filepath.Join(dir, "audit"))
	if err != nil {
		t.Fatalf("the audit log: %v", err)
	}
	if summary.Events < uint64(len(all)) {
		t.Errorf("%d events tell of %d tokens", summary.Events, len(all))
	}
	t.Logf("%d rounds, %d tokens, %d events", rounds, len(all), summary.Events)
}

// tokenizeUntilKilled has clients tokenize at once, kills the process after a
// moment, and enters what was acknowledged.
func tokenizeUntilKilled(t *testing.T, p *process, dir string, tokens *ledger) {
	t.Helper()
	client := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout"))
	var wg sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for range 32 {
		wg.Go(func() {
			for {
				profile, value := randomValue()
				resp, err := client.Tokenize(context.Background(), &coatcheckv1.TokenizeRequest{Profile: profile, Value: value})
				if err != nil {
					return // killed
				}
				tokens.add(t, resp.GetToken(), value)
				once.Do(func() { close(first) })
			}
		})
	}
	select {
	case <-first:
	case <-p.exited:
	}
	time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // the moment of the kill
	p.kill()
	wg.Wait()
}

// randomValue returns a value that is not made twice, in its normal form.
func randomValue() (profile, value string) {
	if rand.IntN(2) == 0 {
		return "note", fmt.Sprintf("note %x", rand.Uint64())
	}
	digits := fmt.Appendf(nil, "4%014d", rand.Uint64N(1e14))
	sum := 0
	for i, d := range digits { // Luhn: every second digit from the right, the check digit apart
		n := int(d - '0')
		if i%2 == 0 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return "card", fmt.Sprintf("%s%d", digits, (10-sum%10)%10)
}

// verifyTokens reveals the tokens and compares.
func verifyTokens(t *testing.T, p *process, dir string, tokens *ledger, list []string) {
	t.Helper()
	client := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments"))
	work := make(chan string)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for token := range work {
				resp, err := client.Detokenize(context.Background(), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
				if err != nil {
					t.Errorf("an acknowledged token is lost: %v", err)
				} else if resp.GetValue() != tokens.values[token] {
					t.Errorf("a token answers for another value")
				}
			}
		})
	}
	for _, token := range list {
		work <- token
	}
	close(work)
	wg.Wait()
}

// tearAudit leaves the beginning of a line at the end of the audit log, as a
// crash in the middle of a write does.
func tearAudit(t *testing.T, dir string, round int) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no audit log: %v", err)
	}
	f, err := os.OpenFile(segments[len(segments)-1], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	torn := `{"log":"0123456789abcdef`
	if round%2 == 0 {
		torn = strings.Repeat("\x00", 4096) // what a power loss leaves
	}
	if _, err := f.WriteString(torn); err != nil {
		t.Fatal(err)
	}
}
