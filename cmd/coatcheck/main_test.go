package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// The test binary is coatcheck itself when it is called by that name or with
// runMain set, so that tests work on real processes of the code under test.
const runMain = "COATCHECK_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"coatcheck": main})
}

// soak says whether the long versions of the tests are to run.
func soak() bool { return os.Getenv("COATCHECK_SOAK") != "" }

// process is a running coatcheck.
type process struct {
	*exec.Cmd
	address string
	stderr  *output
	stdout  *output
	exited  chan struct{} // closed once the process is gone
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs coatcheck and waits until it serves.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startWith(t, func(*exec.Cmd) {}, args...)
}

// startWith is start for a command that change has changed.
func startWith(t *testing.T, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), stderr: new(output), stdout: new(output), exited: make(chan struct{})}
	p.Env = append(os.Environ(), runMain+"=1")
	p.Stdout = p.stdout
	change(p.Cmd)
	pipe, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	serving := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(io.TeeReader(pipe, p.stderr))
		for lines.Scan() {
			if address, ok := strings.CutPrefix(lines.Text(), "coatcheck: serving on "); ok {
				serving <- address
			}
		}
		_ = p.Wait()
		close(p.exited)
	}()
	select {
	case p.address = <-serving:
	case <-p.exited:
		t.Fatalf("coatcheck %v ended: %s", args, p.stderr)
	case <-time.After(time.Minute):
		t.Fatalf("coatcheck %v doesn't serve: %s", args, p.stderr)
	}
	return p
}

// kill ends the process as kill -9 does, and waits for its end.
func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.exited
}

// terminate asks the process to end and returns its exit code.
func (p *process) terminate(t *testing.T) int {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		t.Fatalf("coatcheck ignores SIGTERM: %s", p.stderr)
	}
	return p.ProcessState.ExitCode()
}

// dial connects to the process with a caller's certificate from dir/certs.
func (p *process) dial(t *testing.T, dir, caller string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(t, dir, caller))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// clientTLS returns the configuration of a caller of a development instance.
func clientTLS(t *testing.T, dir, caller string) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dir, "certs", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	base := filepath.Join(dir, "certs", caller)
	cert, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool}
}

// setPolicy replaces the policy of a development instance with one under which
// checkout tokenizes and payments reveals everything.
func setPolicy(t *testing.T, dir string) {
	t.Helper()
	const rules = `version: 1
rules:
  - name: in
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [card, pan, email, ssn, note]
  - name: in-once
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [cvv]
  - name: out
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [card, pan, email, ssn, note]
    purposes: [support]
    reveal: FULL
  - name: out-once
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [cvv]
    purposes: [charge]
    reveal: FULL
  - name: tokens
    callers: ["spiffe://coatcheck.example/privacy"]
    actions: [get-token, list-tokens, lookup-token, update-token, revoke-token, restore-token, delete-token]
    profiles: [card, pan, email, cvv, ssn, note]
  - name: keys
    callers: ["spiffe://coatcheck.example/admin"]
    actions: [list-keys, rotate-key, rewrap, retire-key]
`
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
}
