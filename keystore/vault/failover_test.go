package vault_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

// relay is another address of a Vault, which can be taken away.
type relay struct {
	address  string // https://127.0.0.1:PORT
	target   string // host:port
	accepted atomic.Int64

	mu    sync.Mutex
	open  map[net.Conn]bool
	down  net.Listener // nil while it is away
	ended sync.WaitGroup
}

// newRelay starts one. With target empty it accepts connections and never
// answers.
func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	r := &relay{target: strings.TrimPrefix(target, "https://"), open: make(map[net.Conn]bool)}
	r.start(t, "127.0.0.1:0")
	t.Cleanup(r.stop)
	return r
}

func (r *relay) start(t *testing.T, listen string) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	r.address, r.down = "https://"+l.Addr().String(), l
	r.ended.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.accepted.Add(1)
			r.keep(conn)
			if r.target == "" {
				continue
			}
			to, err := net.Dial("tcp", r.target)
			if err != nil {
				_ = conn.Close()
				continue
			}
			r.keep(to)
			r.ended.Go(func() { _, _ = io.Copy(to, conn); _ = to.Close() })
			r.ended.Go(func() { _, _ = io.Copy(conn, to); _ = conn.Close() })
		}
	})
}

func (r *relay) keep(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[conn] = true
}

// stop refuses connections and breaks those that there are.
func (r *relay) stop() {
	if r.down == nil {
		return
	}
	_ = r.down.Close()
	r.mu.Lock()
	for conn := range r.open {
		_ = conn.Close()
	}
	clear(r.open)
	r.mu.Unlock()
	r.ended.Wait()
	r.down = nil
}

func TestFailover(t *testing.T) {
	r := newRoot(newVault(t))
	first, second := newRelay(t, r.Address), newRelay(t, r.Address)
	cfg := r.appRole(t)
	cfg.Address, cfg.Retries = []string{first.address, second.address}, -1
	second.stop()
	b := open(t, cfg)
	wantWork(t, "by the first, with the second away", b)

	second.start(t, strings.TrimPrefix(second.address, "https://"))
	first.stop()
	wantWork(t, "by the second, with the first away", b)

	first.start(t, strings.TrimPrefix(first.address, "https://"))
	before := first.accepted.Load()
	wantWork(t, "by the second still", b)
	if first.accepted.Load() != before {
		t.Error("it has left an address that works")
	}

	second.stop()
	wantWork(t, "by the first again", b)
	first.stop()
	wantErr(t, "Check with both away", b.Check(t.Context()), keystore.ErrUnavailable)
	second.start(t, strings.TrimPrefix(second.address, "https://"))
	wantWork(t, "as soon as there is one", b)

	cfg.Address = []string{first.address, second.address}
	wantWork(t, "opened while the first is away", open(t, cfg))
}

// One after the other, calls and logins share a connection.
func TestConnectionIsReused(t *testing.T) {
	r := newRoot(newVault(t))
	by := newRelay(t, r.Address)
	cfg := r.appRole(t)
	cfg.Address = []string{by.address}
	b := open(t, cfg)
	for range 20 {
		wantWork(t, "again", b)
	}
	// A renewal at the same time needs another one, and so does a call that comes
	// before the last one's is seen to be free.
	if n := by.accepted.Load(); n > 10 {
		t.Errorf("%d connections for 40 calls", n)
	}
}

// authorities writes a file with all of them.
func authorities(t *testing.T, files ...string) string {
	t.Helper()
	var all strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return writeFile(t, all.String())
}

func TestFailoverFromSealed(t *testing.T) {
	sealed := newVault(t)
	sealed.Seal()
	r := newRoot(newVault(t))
	cfg := r.appRole(t)
	cfg.Address, cfg.Retries = []string{sealed.Address, r.Address}, -1
	cfg.CAFile = authorities(t, sealed.CAFile, r.CAFile)
	wantWork(t, "by the unsealed one", open(t, cfg))
}

func TestFailoverFromSilent(t *testing.T) {
	r, silent := newRoot(newVault(t)), newRelay(t, "")
	cfg := r.appRole(t)
	cfg.Address, cfg.Retries, cfg.Timeout = []string{silent.address, r.Address}, -1, 2*time.Second
	b := open(t, cfg)
	wantWork(t, "by the one that answers", b)
	if n := silent.accepted.Load(); n != 1 {
		t.Errorf("the silent one was tried %d times, want once", n)
	}
}

// Nobody waits for a silent Vault longer than was said, and those who wait
// don't each make a login of their own.
func TestSilent(t *testing.T) {
	silent := newRelay(t, "")
	cfg := vault.Config{
		Address: []string{silent.address}, Timeout: 300 * time.Millisecond, Retries: 1,
		Auth: vault.Auth{AppRole: &vault.AppRoleAuth{RoleID: "role", SecretID: vault.Secret{File: writeFile(t, "secret")}}},
	}
	b := open(t, cfg)
	began := time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { wantErr(t, "Check", b.Check(t.Context()), keystore.ErrUnavailable) })
	}
	wg.Wait()
	// The limit is 600 ms; the rest is for a machine that is busy.
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if n := silent.accepted.Load(); n > 4 {
		t.Errorf("%d connections for 50 calls at once", n)
	}
	t.Run("an end of the context", func(t *testing.T) {
		cfg.Timeout = time.Hour
		b := open(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		accepted := silent.accepted.Load()
		ended := make(chan error)
		go func() { ended <- b.Check(ctx) }()
		eventually(t, "a call under way", func() bool { return silent.accepted.Load() > accepted })
		cancel()
		err := <-ended
		wantErr(t, "Check", err, context.Canceled)
		if errors.Is(err, keystore.ErrUnavailable) {
			t.Error("the caller's end was passed off as an outage")
		}
	})
}

// certificateFile writes the certificate of a server, which is its own authority.
func certificateFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	return writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// What stands before Vault and answers in its place neither denies nor condemns
// anything.
func TestProxyAnswers(t *testing.T) {
	r := newRoot(newVault(t))
	wrapped, err := open(t, r.appRole(t)).Wrap(t.Context(), testKey(), testLabel)
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{200, 204, 301, 400, 401, 403, 404, 405, 418, 429, 472, 500, 502, 503, 504} {
		for _, body := range []string{"", "<html>no</html>", `{"message":"no"}`, `{"errors":null}`, "{}", "[]"} {
			proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			}))
			cfg := r.config()
			cfg.Address, cfg.CAFile, cfg.Retries = []string{proxy.URL}, certificateFile(t, proxy), -1
			cfg.ServerName = "example.com"
			cfg.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{File: writeFile(t, "hvs.token")}}
			b := open(t, cfg)
			_, err := b.Wrap(t.Context(), testKey(), testLabel)
			what := http.StatusText(status) + " " + body
			wantErr(t, "Wrap: "+what, err, keystore.ErrUnavailable)
			_, err = b.Unwrap(t.Context(), wrapped, testLabel)
			wantErr(t, "Unwrap: "+what, err, keystore.ErrUnavailable)
			if errors.Is(err, keystore.ErrUnwrap) || errors.Is(err, keystore.ErrDenied) {
				t.Errorf("%s: error %v", what, err)
			}
			_ = b.Close()
			proxy.Close()
		}
	}
}

// A standby may send us to the active node, as long as the way there is safe.
func TestRedirect(t *testing.T) {
	r := newRoot(newVault(t))
	to := r.Address
	standby := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, to+req.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer standby.Close()
	cfg := r.appRole(t)
	cfg.Address = []string{standby.URL}
	cfg.CAFile, cfg.Retries = authorities(t, r.CAFile, certificateFile(t, standby)), -1
	wantWork(t, "by way of a standby", open(t, cfg))

	var plain atomic.Int64
	unsafe := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { plain.Add(1) }))
	defer unsafe.Close()
	to = unsafe.URL
	wantErr(t, "Check by way of plain HTTP", open(t, cfg).Check(t.Context()), keystore.ErrUnavailable)
	if plain.Load() != 0 {
		t.Error("it followed a redirect to plain HTTP")
	}
	to = standby.URL
	wantErr(t, "Check in a circle", open(t, cfg).Check(t.Context()), keystore.ErrUnavailable)
}

// A Vault whose certificate is not to be trusted gets nothing.
func TestUntrusted(t *testing.T) {
	r := newRoot(newVault(t))
	for name, change := range map[string]func(*vault.Config){
		"another authority": func(cfg *vault.Config) { cfg.CAFile = writeFile(t, newAuthority(t).pem) },
		"another name":      func(cfg *vault.Config) { cfg.ServerName = "vault.example.com" },
		"no authority":      func(cfg *vault.Config) { cfg.CAFile = filepath.Join(t.TempDir(), "none") },
		"the system's":      func(cfg *vault.Config) { cfg.CAFile = "" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.appRole(t)
			cfg.Retries = -1
			change(&cfg)
			wantErr(t, "Check", open(t, cfg).Check(t.Context()), keystore.ErrUnavailable)
		})
	}
	cfg := r.appRole(t)
	u, err := url.Parse(r.Address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address = []string{"https://127.0.0.1:" + u.Port()}
	cfg.ServerName = "localhost"
	wantWork(t, "with a name that the certificate has", open(t, cfg))
}

// Plain HTTP on this host, and a socket: a local Vault Agent, which speaks TLS
// with Vault.
func TestAgent(t *testing.T) {
	r := newRoot(newVault(t))
	target, err := url.Parse(r.Address)
	if err != nil {
		t.Fatal(err)
	}
	agent := agentFor(t, target, r.CAFile)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	bySocket := &httptest.Server{Listener: l, Config: &http.Server{Handler: agent}}
	bySocket.Start()
	defer bySocket.Close()
	byPort := httptest.NewServer(agent)
	defer byPort.Close()
	for _, address := range []string{byPort.URL, "unix://" + socket} {
		cfg := r.appRole(t)
		cfg.Address = []string{address}
		wantWork(t, address, open(t, cfg))
	}
}

// The namespace goes with every request, the login included. Vault has namespaces
// in its Enterprise edition only, so they are taken off on the way.
func TestNamespace(t *testing.T) {
	r := newRoot(newVault(t))
	target, err := url.Parse(r.Address)
	if err != nil {
		t.Fatal(err)
	}
	agent := agentFor(t, target, r.CAFile)
	var with, without atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Vault-Namespace") == "payments/eu" {
			with.Add(1)
		} else {
			without.Add(1)
		}
		req.Header.Del("X-Vault-Namespace")
		agent.ServeHTTP(w, req)
	}))
	defer front.Close()
	cfg := r.appRole(t)
	cfg.Address, cfg.Namespace = []string{front.URL}, "payments/eu"
	wantWork(t, "in a namespace", open(t, cfg))
	if with.Load() < 3 || without.Load() != 0 {
		t.Errorf("%d requests with the namespace, %d without", with.Load(), without.Load())
	}
}

// Whose token is refused is denied, though the login that would help gets no
// proper answer: a rate limit, an error, silence.
func TestRefusedAndNoLogin(t *testing.T) {
	r := newRoot(newVault(t))
	target, err := url.Parse(r.Address)
	if err != nil {
		t.Fatal(err)
	}
	vaultItself := agentFor(t, target, r.CAFile)
	for name, login := range map[string]http.HandlerFunc{
		"rate limit": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"errors":["request path denied by a quota"]}`)
		},
		"error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"silence": func(_ http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body) // else it isn't seen that the client has gone
			<-req.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var revoked atomic.Bool
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case revoked.Load() && strings.HasSuffix(req.URL.Path, "/login"):
					login(w, req)
				case revoked.Load():
					w.WriteHeader(http.StatusForbidden)
					_, _ = io.WriteString(w, `{"errors":["permission denied"]}`)
				default:
					vaultItself.ServeHTTP(w, req)
				}
			}))
			defer front.Close()
			cfg := r.appRole(t)
			cfg.Address, cfg.Retries, cfg.Timeout = []string{front.URL}, -1, 2*time.Second
			b := open(t, cfg)
			wrapped, err := b.Wrap(t.Context(), testKey(), testLabel)
			if err != nil {
				t.Fatal(err)
			}
			revoked.Store(true)
			_, err = b.Unwrap(t.Context(), wrapped, testLabel)
			wantErr(t, "Unwrap", err, keystore.ErrDenied)
		})
	}
}

// An answer without an end is cut off, whatever its status.
func TestEndlessAnswers(t *testing.T) {
	r := newRoot(newVault(t))
	var sent atomic.Int64
	for _, status := range []int{200, 400, 403, 404, 500} {
		endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			chunk := []byte(`{"errors":["` + strings.Repeat("x", 64<<10))
			for n, err := 0, error(nil); err == nil; sent.Add(int64(n)) {
				n, err = w.Write(chunk)
			}
		}))
		cfg := r.config()
		cfg.Address, cfg.Retries, cfg.Timeout = []string{endless.URL}, -1, 5*time.Second
		cfg.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{File: writeFile(t, "hvs.token")}}
		sent.Store(0)
		_, err := open(t, cfg).Wrap(t.Context(), testKey(), testLabel)
		wantErr(t, http.StatusText(status), err, keystore.ErrUnavailable)
		endless.Close()
		if n := sent.Load(); n > 16<<20 { // what the kernel buffers, and some
			t.Errorf("status %d: %d bytes were taken", status, n)
		}
	}
}
