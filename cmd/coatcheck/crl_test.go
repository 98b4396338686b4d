package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// secureInstance is a development instance with certificates of an authority whose key we
// have, and with revocation lists.
type secureInstance struct {
	dir       string
	authority *servertest.Authority
}

func newSecureInstance(t *testing.T) secureInstance {
	t.Helper()
	in := secureInstance{filepath.Join(t.TempDir(), "instance"), servertest.NewAuthority(t)}
	start(t, "dev", "--dir", in.dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, in.dir)
	in.write(t, "certs/ca.crt", certificatePEM(in.authority.Certificate().Raw))
	in.writeServer(t, in.authority.Server(t))
	in.write(t, "certs/list.crl", in.authority.Revoke(t, time.Now().Add(-time.Minute)))
	config, err := os.ReadFile(filepath.Join(in.dir, "coatcheck.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), "    client_ca: ", "    crl: certs/list.crl\n    client_ca: ", 1)
	in.write(t, "coatcheck.yaml", []byte(text))
	return in
}

// write replaces a file.
func (in secureInstance) write(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join(in.dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (in secureInstance) writeServer(t *testing.T, cert tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "certs/server.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	in.write(t, "certs/server.crt", certificatePEM(cert.Certificate[0]))
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// dial connects with a certificate, to a server whose authority is trusted.
func (in secureInstance) dial(t *testing.T, p *process, cert tls.Certificate, trusted *servertest.Authority) coatcheckv1.TokenizationServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: trusted.Pool()})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return coatcheckv1.NewTokenizationServiceClient(conn)
}

// answer returns what a call is answered with: a code, or a reason if there is one.
func answer(t *testing.T, c coatcheckv1.TokenizationServiceClient) string {
	t.Helper()
	_, err := c.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return status.Code(err).String()
}

// becomes waits until calls are answered in a way.
func becomes(t *testing.T, p *process, c coatcheckv1.TokenizationServiceClient, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := answer(t, c)
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("calls are answered with %s, not %s: %s", got, want, p.stderr)
		}
	}
}

// auditLog returns the whole audit log of a server that has stopped.
func auditLog(t *testing.T, dir string) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "audit", "*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	var log strings.Builder
	for _, s := range segments {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(b)
	}
	return log.String()
}

// countIn compares how often texts are in a log.
func countIn(t *testing.T, log string, want map[string]int) {
	t.Helper()
	for what, n := range want {
		if got := strings.Count(log, what); got != n {
			t.Errorf("%s is in the log %d times; want %d", what, got, n)
		}
	}
}

// A certificate is revoked without a restart, in the connection that it has open too.
// A list that isn't good, that is older or that is gone changes nothing.
func TestRevocationListIsReloaded(t *testing.T) {
	in := newSecureInstance(t)
	p := start(t, "serve", "--config", filepath.Join(in.dir, "coatcheck.yaml"))
	cert := in.authority.Caller(t, "checkout")
	bad, fine := in.dial(t, p, cert, in.authority), in.dial(t, p, in.authority.Caller(t, "checkout"), in.authority)
	becomes(t, p, bad, "OK")

	// By itself.
	now := time.Now()
	in.write(t, "certs/list.crl", in.authority.Revoke(t, now, cert.Leaf))
	becomes(t, p, bad, "CERTIFICATE_REVOKED")
	if got := answer(t, in.dial(t, p, cert, in.authority)); got != "Unavailable" {
		t.Errorf("a new connection with a revoked certificate: %s", got)
	}

	// What isn't good changes nothing, but is told, once.
	in.write(t, "certs/list.crl", servertest.NewAuthority(t).Revoke(t, now))
	waitForLog(t, p, "none of the authorities has that name and has signed it")
	in.write(t, "certs/list.crl", in.authority.Revoke(t, now.Add(-time.Hour/2)))
	waitForLog(t, p, "is older than the one that is at work")
	if err := os.Remove(filepath.Join(in.dir, "certs/list.crl")); err != nil {
		t.Fatal(err)
	}
	waitForLog(t, p, "list.crl: no such file")
	if got := answer(t, bad); got != "CERTIFICATE_REVOKED" {
		t.Errorf("with lists that aren't good: %s", got)
	}

	// On SIGHUP, at once.
	in.write(t, "certs/list.crl", in.authority.Revoke(t, now.Add(time.Second)))
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	becomes(t, p, bad, "OK")
	if got := answer(t, fine); got != "OK" {
		t.Errorf("the other certificate: %s", got)
	}

	// One that is out of date revokes all, loudly.
	soon := time.Now().Add(3 * time.Second)
	in.write(t, "certs/list.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: in.authority.SignList(t, &x509.RevocationList{
		Number: cert.Leaf.SerialNumber, ThisUpdate: now.Add(2 * time.Second), NextUpdate: soon,
	})}))
	becomes(t, p, fine, "REVOCATION_UNKNOWN")
	waitForLog(t, p, "a revocation list is out of date")
	in.write(t, "certs/list.crl", in.authority.Revoke(t, now.Add(4*time.Second)))
	becomes(t, p, fine, "OK")
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	countIn(t, auditLog(t, in.dir), map[string]int{
		`"action":"reload-crl"`:     7,
		`"previous_files":"`:        4,
		`"refused_files":"`:         2,
		`"reason":"CRL_INVALID"`:    2,
		`"reason":"CRL_UNREADABLE"`: 1,
		`"action":"reload-tls"`:     0,
		`"action":"reload-policy"`:  0,
	})
}

// The server's certificate and the authorities are replaced without a restart. What is of
// an authority that is gone isn't served any longer, and its list doesn't matter.
func TestCertificatesAreReloaded(t *testing.T) {
	in := newSecureInstance(t)
	p := start(t, "serve", "--config", filepath.Join(in.dir, "coatcheck.yaml"))
	old := in.dial(t, p, in.authority.Caller(t, "checkout"), in.authority)
	becomes(t, p, old, "OK")

	// A certificate without its key isn't taken.
	next := servertest.NewAuthority(t)
	in.write(t, "certs/server.crt", certificatePEM(next.Server(t).Certificate[0]))
	waitForLog(t, p, "private key does not match public key")
	if got := answer(t, in.dial(t, p, in.authority.Caller(t, "checkout"), in.authority)); got != "OK" {
		t.Errorf("with a certificate without its key: %s", got)
	}

	in.writeServer(t, next.Server(t))
	waitForLog(t, p, "certificates replaced")
	if got := answer(t, in.dial(t, p, in.authority.Caller(t, "checkout"), in.authority)); got != "Unavailable" {
		t.Errorf("whoever trusts the old certificate only: %s", got)
	}
	if got := answer(t, in.dial(t, p, in.authority.Caller(t, "checkout"), next)); got != "OK" {
		t.Errorf("whoever trusts the new certificate: %s", got)
	}
	if got := answer(t, old); got != "OK" {
		t.Errorf("the connection that was open: %s", got)
	}

	// The list of an authority that isn't there yet waits for it.
	in.write(t, "certs/list.crl", append(in.authority.Revoke(t, time.Now()), next.Revoke(t, time.Now())...))
	waitForLog(t, p, "the revocation list is refused")
	in.write(t, "certs/ca.crt", append(certificatePEM(in.authority.Certificate().Raw), certificatePEM(next.Certificate().Raw)...))
	waitForLog(t, p, "revocation lists replaced")
	fresh := in.dial(t, p, next.Caller(t, "checkout"), next)
	becomes(t, p, fresh, "OK")
	in.write(t, "certs/ca.crt", certificatePEM(next.Certificate().Raw))
	becomes(t, p, old, "CERTIFICATE_UNTRUSTED")
	if got := answer(t, fresh); got != "OK" {
		t.Errorf("of the new authority: %s", got)
	}
	in.write(t, "certs/list.crl", next.Revoke(t, time.Now().Add(time.Second)))
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	countIn(t, auditLog(t, in.dir), map[string]int{
		`"action":"reload-tls"`:  4,
		`"reason":"TLS_INVALID"`: 1,
	})

	// It starts with what is there now.
	p = start(t, "serve", "--config", filepath.Join(in.dir, "coatcheck.yaml"))
	if got := answer(t, in.dial(t, p, next.Caller(t, "checkout"), next)); got != "OK" {
		t.Errorf("after a restart: %s", got)
	}
	p.terminate(t)
}

// What an authority has revoked stays revoked when it is taken out of client_ca and put
// back while its list is where it was.
func TestAnAuthorityThatComesBackBringsItsList(t *testing.T) {
	in := newSecureInstance(t)
	other := servertest.NewAuthority(t)
	own, both := certificatePEM(in.authority.Certificate().Raw), certificatePEM(other.Certificate().Raw)
	both = append(both, own...)
	cert := other.Caller(t, "checkout")
	in.write(t, "certs/ca.crt", both)
	in.write(t, "certs/list.crl", append(in.authority.Revoke(t, time.Now()), other.Revoke(t, time.Now(), cert.Leaf)...))
	p := start(t, "serve", "--config", filepath.Join(in.dir, "coatcheck.yaml"))
	fine := in.dial(t, p, other.Caller(t, "checkout"), in.authority)
	becomes(t, p, fine, "OK")
	in.write(t, "certs/ca.crt", own)
	becomes(t, p, fine, "CERTIFICATE_UNTRUSTED")
	in.write(t, "certs/ca.crt", both)
	becomes(t, p, fine, "OK")
	if got := answer(t, in.dial(t, p, cert, in.authority)); got != "Unavailable" {
		t.Errorf("a revoked certificate of an authority that is back: %s", got)
	}
	waitForLog(t, p, `reason="the certificate has been revoked"`)
	p.terminate(t)
}
