// Command vaulttest runs a real HashiCorp Vault for tests: its core, its HTTP
// API over TLS, the transit engine, the AppRole, certificate and Kubernetes
// auth methods and the file audit device, with its data in a directory.
//
//	vaulttest --dir DIR [--listen 127.0.0.1:0]
//
// When it is ready it prints one line of JSON, a [ready], and then serves until
// its standard input ends or it gets SIGTERM, so that it never outlives the
// test that started it. Started again on the same directory it comes back
// unsealed with the same data, certificate authority and root token.
//
// It is a module of its own so that nothing of Vault's server, and none of the
// several hundred modules that it needs, is ever a dependency of Coatcheck.
// Package testvault builds and starts it. It is for tests only: the directory
// holds the unseal key and the root token, readable by its owner.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ready is the line that is printed when Vault answers.
type ready struct {
	Address   string `json:"address"`    // https://127.0.0.1:PORT
	CAFile    string `json:"ca_file"`    // PEM, the authority of its certificate
	RootToken string `json:"root_token"` // for tests to set things up with
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vaulttest:", err)
		os.Exit(1)
	}
}

// run serves until ctx or stdin ends.
func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("vaulttest", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory for data, keys and certificates; made if it is missing")
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || flags.NArg() != 0 {
		return errors.New("usage: vaulttest --dir DIR [--listen HOST:PORT]")
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	certificate, caFile, err := serverCertificate(*dir)
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	vault, rootToken, err := openCore(ctx, *dir)
	if err != nil {
		return err
	}
	defer vault.close()

	server := &http.Server{
		Handler: vault.handler,
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{certificate},
			// The certificate auth method verifies what it is shown.
			ClientAuth: tls.RequestClientCert,
		},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	err = json.NewEncoder(stdout).Encode(ready{
		Address:   "https://" + listener.Addr().String(),
		CAFile:    caFile,
		RootToken: rootToken,
	})
	if err != nil {
		return err
	}

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, stdin)
	}()
	select {
	case err := <-served:
		return err
	case <-ended:
	case <-ctx.Done():
	}
	return server.Close()
}
