package server

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/policy"
)

// signed returns the template as a certificate that signs itself.
func signed(template *x509.Certificate) (*x509.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// A connection may outlast the certificate of who opened it, and the trust in its
// authority: then nobody is named.
func TestAClientIsNamedWhileItsCertificateIsGood(t *testing.T) {
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	cert, err := signed(&x509.Certificate{DNSNames: []string{"shop.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: expires})
	if err != nil {
		t.Fatal(err)
	}
	info := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}}
	trusted := x509.NewCertPool()
	trusted.AddCert(cert)
	var now atomic.Pointer[trust]
	now.Store(&trust{config: &tls.Config{ClientCAs: trusted}})
	c := newClient(&net.TCPAddr{}, info, false, &now)
	if caller, err := c.name(expires.Add(-time.Second)); err != nil || caller != "dns:shop.example" {
		t.Errorf("before: %q, %v", caller, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.name(expires.Add(-time.Second)) }); n > 0 {
		t.Errorf("%v allocations to ask again", n)
	}
	if caller, err := c.name(expires.Add(time.Second)); !errors.Is(err, errUntrusted) || caller != "" {
		t.Errorf("after: %q, %v", caller, err)
	}
	was := now.Load()
	now.Store(&trust{config: &tls.Config{ClientCAs: x509.NewCertPool()}})
	if caller, err := c.name(expires.Add(-time.Second)); !errors.Is(err, errUntrusted) || caller != "" {
		t.Errorf("when its authority is trusted no more: %q, %v", caller, err)
	}
	now.Store(was)
	if caller, err := c.name(expires.Add(-time.Second)); err != nil || caller != "dns:shop.example" {
		t.Errorf("when it is trusted again: %q, %v", caller, err)
	}
	if caller, err := newClient(&net.TCPAddr{}, credentials.TLSInfo{}, true, &now).name(time.Now()); !errors.Is(err, errNoIdentity) || caller != "" {
		t.Errorf("without a certificate: %q, %v", caller, err)
	}
}

// What the server doesn't take is refused when it is prepared; what is at work changes
// when it is put to work, not before.
func TestPrepareTLS(t *testing.T) {
	var s Server
	config := &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(), Certificates: make([]tls.Certificate, 1)}
	first, err := newTrust(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.trust.Store(first)
	if put, err := s.PrepareTLS(&tls.Config{MinVersion: tls.VersionTLS13}, nil); err == nil || put != nil {
		t.Error("a configuration that doesn't demand client certificates is taken")
	}
	revoked := new(crl.Set)
	put, err := s.PrepareTLS(config, revoked)
	if err != nil {
		t.Fatal(err)
	}
	if s.trust.Load() != first {
		t.Error("what is prepared is at work already")
	}
	if put(); s.Revoked() != revoked {
		t.Error("what is prepared isn't put to work")
	}
}

// Whatever a certificate says, a caller that comes out of it is one that a policy can
// name, and stands there byte by byte, as the only one of its kind.
func FuzzCaller(f *testing.F) {
	name := func(tag byte, text string) []byte {
		return append([]byte{0x80 | tag, byte(len(text))}, text...)
	}
	names := func(names ...[]byte) []byte {
		b := bytes.Join(names, nil)
		return append([]byte{0x30, byte(len(b))}, b...)
	}
	const good = "spiffe://coatcheck.example/checkout"
	f.Add(names(name(6, good)), "")
	f.Add(names(name(6, "SPIFFE://coatcheck.example/checkout")), "checkout")
	f.Add(names(name(6, good+"#"), name(2, "checkout.internal")), "")
	f.Add(names(name(6, good), name(6, good)), "")
	f.Add(names(name(2, "checkout.internal")), "checkout")
	f.Add(names(name(2, "*.internal")), "")
	f.Add(names(name(1, "a@b.example"), name(7, "\x7f\x00\x00\x01")), "checkout")
	f.Add(names(name(0x20|6, good)), "")
	f.Add(names(name(0x20|2, "checkout.internal")), "")
	f.Add([]byte(nil), good)
	f.Add([]byte{0x30, 0x80, 0, 0}, "\u0441heckout")
	f.Fuzz(func(t *testing.T, alternative []byte, common string) {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: common}, NotAfter: time.Now().Add(time.Hour)}
		if len(alternative) > 0 {
			template.ExtraExtensions = []pkix.Extension{{Id: oidAlternativeName, Value: alternative}}
		}
		cert, err := signed(template)
		if err != nil {
			return // it doesn't get past the handshake
		}
		strict, err := callerOf(cert, false)
		if err != nil && strict != "" || strings.HasPrefix(strict, "cn:") {
			t.Errorf("%q, %v, without common names", strict, err)
		}
		caller, err := callerOf(cert, true)
		if strict != "" && caller != strict {
			t.Errorf("%q without common names, %q with", strict, caller)
		}
		if err != nil {
			return
		}
		if err := policy.ValidateCaller(caller); err != nil {
			t.Errorf("%q: %v", caller, err)
		}
		kind, text, _ := strings.Cut(caller, ":")
		switch kind {
		case "spiffe":
			if n := said(t, alternative, 6); len(n) != 1 || n[0] != caller {
				t.Errorf("%q of the URIs %q", caller, n)
			}
			if len(cert.URIs) != 1 {
				t.Errorf("%q, which crypto/x509 didn't check", caller)
			}
		case "dns":
			if n := said(t, alternative, 2); len(n) != 1 || n[0] != text {
				t.Errorf("%q of the DNS names %q", caller, n)
			}
			if len(cert.DNSNames) != 1 || cert.DNSNames[0] != text {
				t.Errorf("%q, which crypto/x509 didn't check", caller)
			}
		case "cn":
			if text != common || !bytes.Contains(cert.RawSubject, []byte(common)) {
				t.Errorf("%q of the common name %q", caller, common)
			}
			if uris, hosts := said(t, alternative, 6), said(t, alternative, 2); len(hosts) > 0 {
				t.Errorf("%q beside %q and %q", caller, uris, hosts)
			}
		}
	})
}

// said returns the names with a tag, read without encoding/asn1 doing more than a name
// at a time.
func said(t *testing.T, alternative []byte, tag int) []string {
	if len(alternative) == 0 {
		return nil
	}
	var all, one asn1.RawValue
	if _, err := asn1.Unmarshal(alternative, &all); err != nil {
		t.Fatal(err)
	}
	var names []string
	for rest := all.Bytes; len(rest) > 0; {
		var err error
		if rest, err = asn1.Unmarshal(rest, &one); err != nil {
			t.Fatal(err)
		}
		if one.Tag == tag {
			names = append(names, string(one.Bytes))
		}
	}
	return names
}
