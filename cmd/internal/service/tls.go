package service

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
)

// LoadTLS returns the server's TLS configuration: TLS 1.3, a certificate that
// is good now, and client certificates of the given authorities demanded.
func LoadTLS(c config.TLS, now time.Time) (*tls.Config, error) {
	chain, err := read("certificate", c.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := read("key", c.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", c.Certificate, c.Key, err)
	}
	switch {
	case now.After(pair.Leaf.NotAfter):
		return nil, fmt.Errorf("certificate %s: expired on %s", c.Certificate, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return nil, fmt.Errorf("certificate %s: not valid before %s", c.Certificate, pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	pool, err := loadAuthorities("client_ca", c.ClientCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		// A resumed session would skip the look at the client's certificate.
		SessionTicketsDisabled: true,
	}, nil
}

// loadAuthorities reads a file of PEM certificates, all of which must parse.
func loadAuthorities(what, path string) (*x509.CertPool, error) {
	data, err := read(what, path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", what, path, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s %s: has no certificate", what, path)
	}
	return pool, nil
}

// maxFile is the largest file in bytes that is read.
const maxFile = 1 << 20

// read reads a file that the configuration names; the error is one short line.
func read(what, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return nil, fmt.Errorf("%s %s: not a regular file of at most %d bytes", what, path, maxFile)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	var fault *fs.PathError
	if errors.As(err, &fault) {
		err = fault.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	return data, nil
}
