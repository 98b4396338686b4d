package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
)

// TestScripts runs the scripts in testdata/script against the real command.
// Each starts with a development instance in the directory "instance".
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			_, err := devkit.Ensure(devkit.Options{Dir: filepath.Join(env.WorkDir, "instance"), Listen: "127.0.0.1:0"})
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"takeport": takePort,
			"expired":  expired,
			"replace":  replace,
			"serve":    serve,
			"capture":  capture,
		},
	})
}

// takePort listens on a port until the script ends and puts its address into
// the variable ADDRESS.
func takePort(ts *testscript.TestScript, _ bool, _ []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
	ts.Setenv("ADDRESS", listener.Addr().String())
}

// serve DIR serves the instance in a directory until the script ends, and says where
// by COATCHECK_ADDRESS.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(os.Args[0], "serve", "--config", ts.MkAbs(filepath.Join(args[0], "coatcheck.yaml")))
	cmd.Env = append(os.Environ(), runMain+"=1")
	log, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	serving := make(chan string)
	go func() {
		defer close(serving)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if address, ok := strings.CutPrefix(lines.Text(), "coatcheck: serving on "); ok {
				serving <- address
			}
		}
		_ = cmd.Wait()
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		for range serving { // until it is gone
		}
	})
	select {
	case address, ok := <-serving:
		if !ok {
			ts.Fatalf("it doesn't serve")
		}
		ts.Setenv("COATCHECK_ADDRESS", address)
	case <-time.After(time.Minute):
		ts.Fatalf("it doesn't serve yet")
	}
}

// capture NAME PATTERN sets a variable to what the group of a pattern matches in what the
// last command printed.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%q is not in what was printed", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// expired writes a certificate that has expired, and its key, to the files.
func expired(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "expired"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	write := func(path, kind string, der []byte) {
		ts.Check(os.WriteFile(ts.MkAbs(path), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(args[0], "CERTIFICATE", der)
	write(args[1], "PRIVATE KEY", private)
}

// replace OLD NEW FILE replaces text in a file, where it must stand.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[2])
	before := ts.ReadFile(path)
	after := strings.Replace(before, args[0], args[1], 1)
	if after == before {
		ts.Fatalf("%s has no %q", args[2], args[0])
	}
	ts.Check(os.WriteFile(path, []byte(after), 0o600))
}
