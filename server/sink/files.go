package sink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// maxFile bounds files with secrets and certificates, in bytes.
const maxFile = 64 << 10

// TLSFiles are what a connection is made with, all of them PEM. They are read at each
// connection, so that they can be replaced while the service runs.
type TLSFiles struct {
	CAFile      string // the authorities of the receiver; the system's if empty
	Certificate string // the client's, with its chain; none if empty
	Key         string // of the certificate
}

// config reads the files.
func (f TLSFiles) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CAFile != "" {
		pem, err := readFile(f.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", f.CAFile)
		}
	}
	if f.Certificate == "" {
		return config, nil
	}
	certificate, err := readFile(f.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := readFile(f.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", f.Certificate, f.Key, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// readFile reads a small file. A FIFO or a device would hang us.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// loopback reports whether a host is this one, by what it is called.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// errPlain says that an address is not to be used.
var errPlain = errors.New("is not encrypted and of another host, where anyone on the way could read and change what is sent")
