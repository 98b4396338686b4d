//go:build unix

// Package testvault starts a real HashiCorp Vault for tests.
//
//	v := testvault.Start(t)
//	v.EnableTransit("transit")
//	v.NewKey("transit", "coatcheck")
//	v.WritePolicy("coatcheck", policy)
//	roleID, secretID := v.AppRole("coatcheck")
//
// Vault is the program of the module vaulttest beside this package, built from
// HashiCorp's source. Where it can't be built the test fails: there is no
// skipping, and no stand-in.
package testvault

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Vault is a Vault that runs as a process until its test ends. Its methods fail
// the test that started it when what they are asked for can't be done. They
// are safe for concurrent use by goroutines of that test, except for those that
// stop the process.
type Vault struct {
	// Address is https://127.0.0.1:PORT. It stays the same over restarts.
	Address string

	// CAFile is a PEM file with the authority of Vault's certificate, which is
	// for 127.0.0.1 and localhost.
	CAFile string

	// RootToken may do everything.
	RootToken string

	t      testing.TB
	dir    string
	client *http.Client

	mu      sync.Mutex // guards what follows
	process *exec.Cmd  // nil while stopped
	stdin   io.Closer  // its end is the process's end
	stderr  *bytes.Buffer
	ended   chan struct{} // closed when the process has ended
	guard   *exec.Cmd     // while the process hangs
	names   int           // how many names unique has given
}

// Start starts a new, empty Vault that is initialized and unsealed. It ends
// with the test.
func Start(t testing.TB) *Vault {
	t.Helper()
	v := &Vault{t: t, dir: t.TempDir()}
	t.Cleanup(v.Stop)
	v.start("127.0.0.1:0")
	return v
}

// start runs the process until it says that it is ready.
func (v *Vault) start(listen string) {
	v.t.Helper()
	cmd := exec.Command(program(v.t), "--dir", v.dir, "--listen", listen)
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	if err := cmd.Start(); err != nil {
		v.t.Fatalf("testvault: start Vault: %v", err)
	}
	ended := make(chan struct{})
	v.mu.Lock()
	v.process, v.stdin, v.stderr, v.ended = cmd, stdin, stderr, ended
	v.mu.Unlock()

	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var ready struct {
		Address   string `json:"address"`
		CAFile    string `json:"ca_file"`
		RootToken string `json:"root_token"`
	}
	err = errors.Join(err, json.Unmarshal(line, &ready))
	go func() {
		defer close(ended)
		_ = cmd.Wait() // Stop looks at how it ended
	}()
	if err != nil {
		v.Stop()
		v.t.Fatalf("testvault: Vault didn't get ready: %v\n%s", err, stderr.Bytes())
	}
	v.Address, v.CAFile, v.RootToken = ready.Address, ready.CAFile, ready.RootToken
	v.client = v.newClient()
}

// newClient trusts this Vault and nothing else. Nobody waits forever for it,
// even while it hangs.
func (v *Vault) newClient() *http.Client {
	v.t.Helper()
	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		v.t.Fatalf("testvault: no certificate in %s", v.CAFile)
	}
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
}

// Stop kills the process, as a crash would: connections to it break, and new
// ones are refused. Stopping twice is fine.
func (v *Vault) Stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.endGuard()
	if v.process == nil {
		return
	}
	select {
	case <-v.ended:
		v.t.Errorf("testvault: Vault has ended by itself: %v\n%s", v.process.ProcessState, v.stderr.Bytes())
	default:
	}
	_ = v.process.Process.Kill()
	<-v.ended
	_ = v.stdin.Close()
	v.process = nil
}

// Restart starts Vault again on the same port with the same data, unsealed. It
// stops it first, if need be.
func (v *Vault) Restart() {
	v.t.Helper()
	v.Stop()
	address, err := url.Parse(v.Address)
	if err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	v.start(address.Host)
}

// Hang stops the process from running, without ending it, until Resume: the
// kernel still accepts connections for it, and nothing ever answers.
func (v *Vault) Hang() {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process == nil {
		v.t.Fatal("testvault: Vault doesn't run")
	}
	// A process that is stopped doesn't see that its test has died, so
	// another one looks out for that: its read ends when we do.
	guard := exec.Command("sh", "-c", `read -r line; kill -KILL "$0"`, strconv.Itoa(v.process.Process.Pid))
	if _, err := guard.StdinPipe(); err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	if err := guard.Start(); err != nil {
		v.t.Fatalf("testvault: %v", err)
	}
	v.guard = guard
	if err := v.process.Process.Signal(syscall.SIGSTOP); err != nil {
		v.t.Fatalf("testvault: stop Vault: %v", err)
	}
	// Threads that run at that moment stop a little later.
	var status syscall.WaitStatus
	_, err := syscall.Wait4(v.process.Process.Pid, &status, syscall.WUNTRACED, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(v.process.Process.Pid, &status, syscall.WUNTRACED, nil)
	}
	if err != nil || !status.Stopped() {
		v.t.Fatalf("testvault: Vault didn't stop: status %#x, error %v", status, err)
	}
}

// Resume undoes Hang.
func (v *Vault) Resume() {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.endGuard()
	if v.process == nil {
		return
	}
	if err := v.process.Process.Signal(syscall.SIGCONT); err != nil {
		v.t.Fatalf("testvault: continue Vault: %v", err)
	}
}

// endGuard ends the process that Hang started; v.mu is held.
func (v *Vault) endGuard() {
	if v.guard == nil {
		return
	}
	_ = v.guard.Process.Kill()
	_ = v.guard.Wait()
	v.guard = nil
}
