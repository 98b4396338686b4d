package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/coatcheck/coatcheck/cmd/internal/bench"
	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	"github.com/coatcheck/coatcheck/cmd/internal/service"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// instanceProfiles are the profiles of an instance.
const instanceProfiles = `
profiles:
  card: {type: card-number, description: Cards., owner: o, business_task: t, purposes: [charge]}
  pan:  {type: card-number, format: digits, description: Cards., owner: o, business_task: t, purposes: [charge]}
  once: {type: text, max_uses: 1, description: Secrets., owner: o, business_task: t, purposes: [charge]}
  cvv:  {type: card-verification, mode: one-way, description: CVVs., owner: o, business_task: t, purposes: []}
  note: {type: text, subject: optional, description: Notes., owner: o, business_task: t, purposes: [charge]}
  blob: {type: bytes, description: Files., owner: o, business_task: t, purposes: [charge]}
  shut: {type: text, description: Nobody's., owner: o, business_task: t, purposes: [charge]}
`

// instancePolicy lets checkout put in, payments take out, and admin do the rest.
const instancePolicy = `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [card, pan, once, cvv, note, blob]}
  - {name: out, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [card, pan, once, note, blob], purposes: [charge], reveal: FULL}
  - {name: move, callers: ["spiffe://coatcheck.example/admin"], actions: [list-tokens, revoke-token, import-tokens, export-tokens], profiles: [card, pan, once, note, blob]}
  - {name: plant, callers: ["spiffe://coatcheck.example/admin"], actions: [create-honeytoken, list-honeytokens, delete-honeytoken], profiles: [card, pan]}
  - {name: expose, callers: ["spiffe://coatcheck.example/admin"], actions: [report-exposure, report-exposure-subjects]}
  - {name: count, callers: ["spiffe://coatcheck.example/payments"], actions: [report-exposure]}
`

// instance is a real server, which can be stopped and started again, and the
// files of a test beside it.
type instance struct {
	t       *testing.T
	dir     string // has the instance under "instance"
	address string
	stop    context.CancelFunc
	done    chan error
}

// newInstance makes an instance and serves it.
func newInstance(t *testing.T) *instance {
	t.Helper()
	in := &instance{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	dir := filepath.Join(in.dir, "instance")
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: in.address}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, devkit.ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := bytes.Cut(text, []byte("\nprofiles:"))
	if !found {
		t.Fatal("the sample has no profiles")
	}
	in.write("instance/"+devkit.ConfigFile, string(head)+instanceProfiles)
	in.write("instance/policy.yaml", instancePolicy)
	in.start()
	t.Cleanup(func() {
		if in.stop != nil {
			in.halt()
		}
	})
	return in
}

// start serves, at the same address as before.
func (in *instance) start() {
	in.t.Helper()
	c, err := config.Load(filepath.Join(in.dir, "instance", devkit.ConfigFile))
	if err != nil {
		in.t.Fatal(err)
	}
	c.Server.Listen = in.address
	c.Server.Limits.Notice = time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	ready := make(chan net.Addr, 1)
	in.stop, in.done = stop, make(chan error, 1)
	go func() {
		in.done <- service.Run(ctx, service.Options{
			Config: c, Getenv: os.Getenv, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Ready: func(a net.Addr) { ready <- a },
		})
	}()
	select {
	case a := <-ready:
		in.address = a.String()
	case err := <-in.done:
		in.t.Fatalf("the server doesn't start: %v", err)
	}
}

// halt drains the server.
func (in *instance) halt() {
	in.t.Helper()
	in.stop()
	in.stop = nil
	if err := <-in.done; err != nil {
		in.t.Errorf("the server: %v", err)
	}
}

// path returns where a file of the test is.
func (in *instance) path(name string) string { return filepath.Join(in.dir, name) }

func (in *instance) write(name, content string) {
	in.t.Helper()
	if err := os.WriteFile(in.path(name), []byte(content), 0o600); err != nil {
		in.t.Fatal(err)
	}
}

func (in *instance) read(name string) string {
	in.t.Helper()
	content, err := os.ReadFile(in.path(name))
	if err != nil {
		in.t.Fatal(err)
	}
	return string(content)
}

// said is what a command printed, and its exit code.
type said struct {
	code           int
	stdout, stderr string
}

// lockedBuffer is a bytes.Buffer for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// run runs a command as a caller, with @name for files of the test.
func (in *instance) run(caller, stdin string, args ...string) said {
	in.t.Helper()
	return in.runAt(in.t.Context(), in.address, caller, stdin, args...)
}

func (in *instance) runAt(ctx context.Context, address, caller, stdin string, args ...string) said {
	in.t.Helper()
	args = slices.Clone(args)
	for i, arg := range args {
		if name, ok := strings.CutPrefix(arg, "@"); ok {
			args[i] = in.path(name)
		}
	}
	base := in.path("instance/certs/")
	environment := map[string]string{
		"COATCHECK_ADDRESS": address, "COATCHECK_CA": base + "/ca.crt",
		"COATCHECK_CERT": base + "/" + caller + ".crt", "COATCHECK_KEY": base + "/" + caller + ".key",
	}
	var stdout, stderr lockedBuffer
	code := Run(ctx, args, Env{
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) string { return environment[name] },
	})
	return said{code, stdout.String(), stderr.String()}
}

// must fails the test unless the command ended with a code.
func (in *instance) must(code int, s said) said {
	in.t.Helper()
	if s.code != code {
		in.t.Fatalf("exit code %d, want %d: %s", s.code, code, s.stderr)
	}
	return s
}

// conn connects as a caller.
func (in *instance) conn(caller string) *grpc.ClientConn {
	in.t.Helper()
	base := in.path("instance/certs/" + caller)
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		in.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(in.read("instance/certs/ca.crt")))
	conn, err := grpc.NewClient(in.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool,
	})))
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tokens counts the tokens of a profile.
func (in *instance) tokens(profile string) (n int) {
	in.t.Helper()
	tokens := coatcheckv1.NewTokenServiceClient(in.conn("admin"))
	for page := ""; ; {
		resp, err := tokens.ListTokens(in.t.Context(), &coatcheckv1.ListTokensRequest{Profile: profile, PageSize: 1000, PageToken: page})
		if err != nil {
			in.t.Fatal(err)
		}
		n += len(resp.GetTokens())
		if page = resp.GetNextPageToken(); page == "" {
			return n
		}
	}
}

// proxy stands between a client and a server, and breaks connections.
type proxy struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn
	limit int64 // bytes from the server until a connection breaks; 0 for none
}

// newProxy returns a proxy of the instance.
func (in *instance) newProxy(limit int64) *proxy {
	in.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		in.t.Fatal(err)
	}
	p := &proxy{Listener: listener, to: in.address, limit: limit}
	go p.serve()
	in.t.Cleanup(func() { _ = listener.Close(); p.cut() })
	return p
}

// behind returns the instance as it is seen through the proxy, which breaks no more
// connections from now on.
func (p *proxy) behind(in *instance) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = 0
	through := *in
	through.address, through.stop = p.Addr().String(), nil
	return &through
}

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		limit := p.limit
		p.mu.Unlock()
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		go func() {
			if limit > 0 {
				_, _ = io.CopyN(client, server, limit)
			} else {
				_, _ = io.Copy(client, server)
			}
			_ = client.Close()
			_ = server.Close()
		}()
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// cards returns n different card numbers.
func cards(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = bench.CardNumber(uint64(i))
	}
	return list
}
