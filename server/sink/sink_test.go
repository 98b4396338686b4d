package sink

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// openStore opens a store on disk, which is closed when the test ends.
func openStore(t testing.TB) *boltstore.Store {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// event returns an event with so many items.
func event(items int) audit.Event {
	e := audit.Event{
		Time: time.Date(2026, 11, 24, 1, 46, 44, 667968258, time.UTC), RequestID: "00112233aabbccdd", Caller: "spiffe://coatcheck.example/checkout",
		Peer: "192.0.2.1:4711", Method: "/coatcheck.v1.TokenizationService/Tokenize", Action: "tokenize", Namespace: "default",
		Profile: "card", Decision: audit.Allow, Rule: "in", Code: "OK", StatedReason: `quotes ",\ and }]{[ and ,"items":[{`,
	}
	for i := range items {
		e.Items = append(e.Items, audit.Item{Token: fmt.Sprintf("a1:%032x", i), StatedReason: `}],[{"\`})
	}
	return e
}

// commit commits events to a store.
func commit(t testing.TB, store tokenizer.Store, events ...audit.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := store.Commit(t.Context(), tokenizer.Unit{Event: func(tokenizer.Outcome) []byte { return e.Body() }}); err != nil {
			t.Fatal(err)
		}
	}
}

// many returns n events without items.
func many(n int) (events []audit.Event) {
	for range n {
		events = append(events, event(0))
	}
	return events
}

// lines returns the lines of a log by number, without line feeds.
func lines(t testing.TB, store tokenizer.Store) map[uint64]string {
	t.Helper()
	entries, err := store.Entries(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uint64]string)
	for _, e := range entries {
		all[e.Sequence] = strings.TrimSuffix(string(audit.AppendLine(nil, store.LogID(), e)), "\n")
	}
	return all
}

// quick is a pacing for tests.
var quick = pacing{poll: 10 * time.Millisecond, save: time.Millisecond, firstRetry: time.Millisecond, lastRetry: 20 * time.Millisecond, last: 10 * time.Second}

// running is a Follower that runs.
type running struct {
	*Follower
	log  *logBuffer
	stop func() // waits for its end
}

// follow starts a Follower, which is stopped when the test ends.
func follow(t testing.TB, dir string, source Source, sender Sender) running {
	t.Helper()
	var log logBuffer
	f, err := Open(t.Context(), dir, false, source, sender, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	f.pacing = quick
	return start(t, f, &log)
}

func start(t testing.TB, f *Follower, log *logBuffer) running {
	ctx, cancel := contextOf(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return running{f, log, stop}
}

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in time", what)
		}
	}
}

// delivered waits until so many events are confirmed.
func (r running) delivered(t testing.TB, n uint64) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for r.Counts().Delivered < n || r.Counts().Lag > 0 {
		if time.Now().After(end) {
			t.Fatalf("%+v in time; want %d delivered\n%s", r.Counts(), n, r.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logBuffer takes what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// received are the events that a receiver got, in its order.
type received struct {
	mu   sync.Mutex
	seqs []uint64
	text map[uint64]string
	from map[int]bool // indexes in seqs at which a connection or request began
}

func (r *received) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from == nil {
		r.from, r.text = make(map[int]bool), make(map[uint64]string)
	}
	r.from[len(r.seqs)] = true
}

func (r *received) add(seq uint64, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seqs = append(r.seqs, seq)
	r.text[seq] = text
}

func (r *received) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seqs)
}

// check checks that every event of the log came, whole, and in order: what comes is what
// follows, or, at the beginning of a connection, something that came before.
func (r *received) check(t testing.TB, want map[uint64]string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var last, highest uint64
	for i, seq := range r.seqs {
		if seq != last+1 && !(r.from[i] && seq <= highest+1) {
			t.Errorf("event %d came after %d", seq, last)
		}
		last, highest = seq, max(highest, seq)
	}
	if len(r.text) != len(want) {
		t.Errorf("%d events came, not %d", len(r.text), len(want))
	}
	for seq, line := range want {
		if r.text[seq] != line {
			t.Errorf("event %d came as %.200q, not %.200q", seq, r.text[seq], line)
		}
	}
	t.Logf("%d events came %d times in %d connections", len(r.text), len(r.seqs), len(r.from))
}

// writePEM writes a certificate, with its key, into files of a directory.
func writePEM(t testing.TB, dir, name string, cert tls.Certificate) (certificate, key string) {
	t.Helper()
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	writeFile(t, certificate, chain)
	if cert.PrivateKey != nil {
		der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return certificate, key
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
