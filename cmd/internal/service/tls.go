package service

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server/crl"
)

// LoadTLS returns the server's TLS configuration: TLS 1.3, a certificate that
// is good now, and client certificates of the given authorities demanded.
func LoadTLS(c config.TLS, now time.Time) (*tls.Config, error) {
	t, err := loadTLS(c, now)
	return t.config, err
}

// secured is what the files that c.Server.TLS names hold.
type secured struct {
	config      *tls.Config
	authorities []*x509.Certificate // of config.ClientCAs
	revoked     *crl.Set            // what the lists say that are of authorities; nil without lists
	listFiles   [][]byte            // the lists, also those of authorities that are gone: they may come back
	files       version             // of the certificate, the key and the authorities
	lists       version             // of the revocation lists
}

// notes returns what is to be noted about the revocation lists.
func (s secured) notes(now time.Time) error {
	due, issuer := s.revoked.Expires()
	if due.IsZero() || now.Before(due) {
		return nil
	}
	return fmt.Errorf("crl: the list of %s was out of date on %s: its certificates are refused", issuer, due.UTC().Format(time.RFC3339))
}

// version says which files they are: by their digest, and by the name that the audit log
// has for them.
type version struct{ digest, name string }

// loadTLS reads all of the files.
func loadTLS(c config.TLS, now time.Time) (secured, error) {
	files, err := readTLS(c)
	if err != nil {
		return secured{}, err
	}
	t, err := parseTLS(c, files, now)
	if err != nil || len(c.CRL) == 0 {
		return t, err
	}
	if files, err = readLists(c); err != nil {
		return secured{}, err
	}
	t.listFiles, t.lists = files, version{digest(files), concatenated(files...)}
	t.revoked, err = crl.Parse(listsOf(c, files), t.authorities)
	return t, err
}

// readTLS reads the certificate, the key and the authorities.
func readTLS(c config.TLS) ([][]byte, error) {
	var files [][]byte
	for _, f := range []struct{ what, path string }{{"certificate", c.Certificate}, {"key", c.Key}, {"client_ca", c.ClientCA}} {
		data, err := read(f.what, f.path)
		if err != nil {
			return nil, err
		}
		files = append(files, data)
	}
	return files, nil
}

// parseTLS checks what readTLS has read.
func parseTLS(c config.TLS, files [][]byte, now time.Time) (secured, error) {
	pair, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return secured{}, fmt.Errorf("certificate %s, key %s: %w", c.Certificate, c.Key, err)
	}
	switch {
	case now.After(pair.Leaf.NotAfter):
		return secured{}, fmt.Errorf("certificate %s: expired on %s", c.Certificate, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return secured{}, fmt.Errorf("certificate %s: not valid before %s", c.Certificate, pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	authorities, err := parseAuthorities("client_ca", c.ClientCA, files[2])
	if err != nil {
		return secured{}, err
	}
	return secured{
		config: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{pair},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    poolOf(authorities),
			// A resumed session would skip the look at the client's certificate.
			SessionTicketsDisabled: true,
		},
		authorities: authorities, files: version{digest(files), certificatesName(files)},
	}, nil
}

// readLists reads the revocation lists.
func readLists(c config.TLS) ([][]byte, error) {
	var files [][]byte
	for _, path := range c.CRL {
		data, err := readUpTo(maxListFile, "crl", path)
		if err != nil {
			return nil, err
		}
		files = append(files, data)
	}
	return files, nil
}

// listsOf names what readLists has read.
func listsOf(c config.TLS, files [][]byte) []crl.File {
	var named []crl.File
	for i, data := range files {
		named = append(named, crl.File{Name: "crl " + c.CRL[i], Data: data})
	}
	return named
}

// certificatesName names what readTLS has read, without the key, whose certificate says
// as much.
func certificatesName(files [][]byte) string { return concatenated(files[0], files[2]) }

// concatenated returns the SHA-256 hash of files one behind the other, as
// "cat FILE… | sha256sum" prints it.
func concatenated(files ...[]byte) string {
	sum := sha256.Sum256(bytes.Join(files, nil))
	return hex.EncodeToString(sum[:])
}

// loadAuthorities reads a file of PEM certificates, all of which must parse.
func loadAuthorities(what, path string) ([]*x509.Certificate, error) {
	data, err := read(what, path)
	if err != nil {
		return nil, err
	}
	return parseAuthorities(what, path, data)
}

func parseAuthorities(what, path string, data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", what, path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s %s: has no certificate", what, path)
	}
	return certs, nil
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// The largest files in bytes that are read: any, and revocation lists, of which a
// certificate takes about 40.
const (
	maxFile     = 1 << 20
	maxListFile = 8 << 20
)

// read reads a file that the configuration names; the error is one short line.
func read(what, path string) ([]byte, error) { return readUpTo(maxFile, what, path) }

func readUpTo(most int64, what, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > most) {
		return nil, fmt.Errorf("%s %s: not a regular file of at most %d bytes", what, path, most)
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
