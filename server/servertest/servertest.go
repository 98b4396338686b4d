// Package servertest runs a whole Coatcheck server inside a test: mTLS on the
// loopback interface, a store on disk, real keys, a policy and the audit log.
package servertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/burst"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// Policy is the policy of an instance whose options name none. It is like the
// sample policy; in addition the caller "auditor" may reveal everything.
const Policy = `version: 1
rules:
  - name: checkout-tokenizes
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [card, ssn, note]
  - name: payments-uses-cards
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge, refund]
    reveal: FULL
  - name: support-recognises
    callers: ["spiffe://coatcheck.example/support"]
    actions: [detokenize]
    profiles: [card, ssn, note]
    purposes: [support]
    reveal: MASKED
  - name: auditor-reveals
    callers: ["spiffe://coatcheck.example/auditor"]
    actions: [detokenize]
    profiles: [card, ssn, note]
    purposes: [support]
    reveal: FULL
  - name: admin-looks-after-tokens
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [get-token, list-tokens, lookup-token, update-token, revoke-token, restore-token, delete-token, import-tokens, export-tokens]
    profiles: [card, ssn, note]
  - name: admin-plants-honeytokens
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [create-honeytoken, list-honeytokens, delete-honeytoken]
    profiles: [card, ssn, note]
  - name: reflection
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [reflect, list-keys, rotate-key, rewrap, retire-key, get-policy, explain-policy, suspend-caller, list-suspensions, restore-caller, request-approval, list-approvals, decide-approval, prune-audit, get-checkpoint, get-proof, query-audit, watch-audit, report-exposure, report-exposure-subjects]
`

// Profiles are the profiles of an instance.
func Profiles() []tokenizer.Profile {
	return []tokenizer.Profile{
		{Name: "card", Type: "card-number", Purposes: []string{"charge", "refund", "support"}},
		{Name: "ssn", Type: "ssn", Purposes: []string{"support"}},
		{Name: "note", Type: "text", Lookup: true, Purposes: []string{"support"}},
	}
}

// rootKey is the name of the file with the root key.
const rootKey = "root.key"

// Options change what an instance is made of.
type Options struct {
	Policy          string              // instead of Policy
	Shadow          *server.Shadow      // beside it
	Profiles        []tokenizer.Profile // instead of Profiles
	AllowCommonName bool
	Limits          server.Limits
	Segments        audit.SegmentOptions

	// Authority is that of all certificates; a new one if nil.
	Authority *Authority

	// Revoked are refused.
	Revoked *crl.Set

	// Now is the clock for the limits of rules and for approvals, if it isn't time.Now.
	Now func() time.Time

	// Wrap puts something between the server and its store.
	Wrap func(tokenizer.Store) tokenizer.Store

	// WrapBackend does the same with the keystore's backend.
	WrapBackend func(keystore.Backend) keystore.Backend

	// Lease and Upkeep say how keys are looked after; what Upkeep needs to work
	// with is filled in.
	Lease  keystore.Options
	Upkeep upkeep.Config

	Consents       server.Consents
	SuspendThieves bool

	// Checkpoints has checkpoints of the audit log signed. The first makes their key, which
	// is an event.
	Checkpoints bool

	// Alerts and Bursts are handed to the server. The test runs Alerts.
	Alerts *alert.Dispatcher
	Bursts *burst.Counter
}

// Instance is a running server.
type Instance struct {
	Authority *Authority
	Address   string
	Dir       string
	Store     tokenizer.Store // the real one
	Keystore  *keystore.Keystore
	Upkeep    *upkeep.Upkeep
	Policy    *policy.Live
	Log       *Buffer // what the server logged

	options Options
	close   func() // once
	server  *server.Server
	stop    context.CancelFunc
	stopped chan struct{} // closed after served is set
	served  error
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Instance {
	t.Helper()
	dir := t.TempDir()
	if err := local.Create(filepath.Join(dir, rootKey), nil); err != nil {
		t.Fatal(err)
	}
	if o.Authority == nil {
		o.Authority = NewAuthority(t)
	}
	return start(t, o, dir, o.Authority)
}

// Restart stops a server and runs another on what it has left, at another address.
func (in *Instance) Restart(t testing.TB) *Instance {
	t.Helper()
	in.close()
	return start(t, in.options, in.Dir, in.Authority)
}

func start(t testing.TB, o Options, dir string, authority *Authority) *Instance {
	t.Helper()
	if o.Policy == "" {
		o.Policy = Policy
	}
	if o.Profiles == nil {
		o.Profiles = Profiles()
	}
	if o.Limits.Notice == 0 {
		o.Limits.Notice = time.Millisecond
	}
	in := &Instance{options: o, Authority: authority, Dir: dir, Log: new(Buffer), stopped: make(chan struct{})}
	logger := slog.New(slog.NewTextHandler(in.Log, nil))
	store := must(boltstore.Open(filepath.Join(dir, "store.db")))(t)
	in.Store = store
	var seen tokenizer.Store = store
	if o.Wrap != nil {
		seen = o.Wrap(store)
	}
	segments := must(audit.OpenSegments(t.Context(), filepath.Join(dir, "audit"), seen, o.Segments, logger))(t)
	log := audit.NewLog(seen, segments)
	index := audit.NewIndex(filepath.Join(dir, "audit"), seen, logger)
	notary := must(audit.OpenNotary(t.Context(), segments, audit.CheckpointOptions{}))(t)
	rules := policy.NewLive(must(policy.Parse("policy.yaml", []byte(o.Policy), server.Vocabulary(o.Profiles)))(t))
	in.Policy = rules
	keys := keystore.New(openBackend(t, dir, o), &upkeep.Shelf{Store: seen, Audit: log, PolicyHash: rules.Hash}, o.Lease)
	must(keys.Keyring(t.Context(), server.DefaultNamespace))(t)
	tokens := must(tokenizer.New(keys, seen, o.Profiles))(t)
	o.Upkeep.Namespace, o.Upkeep.Keystore, o.Upkeep.Tokenizer = server.DefaultNamespace, keys, tokens
	o.Upkeep.Store = seen
	o.Upkeep.Audit, o.Upkeep.PolicyHash, o.Upkeep.Logger = log, rules.Hash, logger
	keeper := upkeep.New(o.Upkeep)
	srv := must(server.New(server.Config{
		TLS: in.TLS(t, in.Authority.Pool()), Revoked: o.Revoked,
		AllowCommonName: o.AllowCommonName,
		Tokenizer:       tokens,
		Policy:          rules, Store: seen, Keystore: keys, Upkeep: keeper, Audit: log, Segments: segments, Notary: notary, Index: index,
		Limits: o.Limits, Now: o.Now, Logger: logger, Alerts: o.Alerts, Bursts: o.Bursts,
		Consents: o.Consents, Shadow: o.Shadow, SuspendThieves: o.SuspendThieves,
	}))(t)
	in.server, in.Keystore, in.Upkeep = srv, keys, keeper
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	in.Address = listener.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	in.stop = stop
	var background sync.WaitGroup
	background.Go(func() { keys.Run(ctx) })
	background.Go(func() { keeper.Run(ctx) })
	background.Go(func() { index.Run(ctx) })
	if o.Checkpoints {
		background.Go(func() { notary.Run(ctx, keeper.LogSigner) })
	}
	var follower sync.WaitGroup
	followCtx, stopFollowing := context.WithCancel(context.Background())
	follower.Go(func() { _ = segments.Run(followCtx) })
	go func() {
		defer close(in.stopped)
		in.served = srv.Serve(ctx, listener)
		background.Wait()
		stopFollowing()
		follower.Wait()
		_ = segments.Close()
		_ = notary.Close(context.Background())
	}()
	in.close = sync.OnceFunc(func() {
		stop()
		_ = in.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(in.close)
	return in
}

// Stop begins a drain.
func (in *Instance) Stop() { in.stop() }

// Wait waits until the server has stopped and the audit log is written, and
// returns what Serve returned.
func (in *Instance) Wait() error {
	<-in.stopped
	return in.served
}

// TLS returns a configuration with a new certificate for the server, that lets in the
// clients of some authorities.
func (in *Instance) TLS(t testing.TB, clients *x509.CertPool) *tls.Config {
	t.Helper()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{in.Authority.Server(t)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	}
}

// ReplaceTLS puts another configuration and other revoked certificates to work.
func (in *Instance) ReplaceTLS(t testing.TB, config *tls.Config, revoked *crl.Set) {
	t.Helper()
	put, err := in.server.PrepareTLS(config, revoked)
	if err != nil {
		t.Fatal(err)
	}
	put()
}

// Limited returns how many items have been refused for a limit of a rule.
func (in *Instance) Limited() []limit.Count { return in.server.Limited() }

// InFlight returns how many calls are in flight.
func (in *Instance) InFlight() int { return in.server.InFlight() }

// AuditDir is where the readable audit log is.
func (in *Instance) AuditDir() string { return filepath.Join(in.Dir, "audit") }

// Dial connects with a client certificate, which is presented whomever the server
// trusts; none is if cert is nil.
func (in *Instance) Dial(t testing.TB, cert *tls.Certificate, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{RootCAs: in.Authority.Pool(), ServerName: "localhost"}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}, options...)
	conn := must(grpc.NewClient(in.Address, options...))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// As connects as the caller spiffe://coatcheck.example/<name>.
func (in *Instance) As(t testing.TB, name string) *grpc.ClientConn {
	t.Helper()
	cert := in.Authority.Caller(t, name)
	return in.Dial(t, &cert)
}

// openBackend makes a root key in the directory.
func openBackend(t testing.TB, dir string, o Options) keystore.Backend {
	t.Helper()
	backend := must(local.Open(filepath.Join(dir, rootKey), nil))(t)
	if o.WrapBackend != nil {
		return o.WrapBackend(backend)
	}
	return backend
}

// must fails the test if err is not nil.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Buffer is a bytes.Buffer for concurrent use.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what has been written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
