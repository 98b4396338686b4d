package devkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// validity is how long the certificates are good. Nobody renews those of a
// development instance.
const validity = 10 * 365 * 24 * time.Hour

// authority is a certificate authority whose key is in memory only: what it
// has signed stays, and nobody can sign more.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// makeCertificates writes ca.crt, and a certificate and key each for the
// server and the callers.
func makeCertificates(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return err
	}
	err = ca.issue(filepath.Join(dir, "server"), &x509.Certificate{
		Subject:     pkix.Name{CommonName: "coatcheck"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	for _, caller := range Callers {
		err := ca.issue(filepath.Join(dir, caller), &x509.Certificate{
			Subject:     pkix.Name{CommonName: caller},
			URIs:        []*url.URL{{Scheme: "spiffe", Host: "coatcheck.example", Path: "/" + caller}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// newAuthority makes an authority and writes its certificate.
func newAuthority(path string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Coatcheck development CA"},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	ca := &authority{template, key}
	der, err := ca.sign(template, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return ca, writePEM(path, "CERTIFICATE", der)
}

// issue writes a certificate and a new key to base.crt and base.key.
func (ca *authority) issue(base string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := ca.sign(template, &key.PublicKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(base+".key", "PRIVATE KEY", private); err != nil {
		return err
	}
	return writePEM(base+".crt", "CERTIFICATE", der)
}

// sign signs a certificate with a random serial number.
func (ca *authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks differ
	template.NotAfter = time.Now().Add(validity)
	return x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
}

func writePEM(path, kind string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
