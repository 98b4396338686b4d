package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/coatcheck/coatcheck/server/policy"
)

// errNoIdentity says that a certificate, though good, names no caller.
var errNoIdentity = errors.New("server: the client certificate names no caller")

// callerOf returns the identity that a client certificate gives its bearer:
//
//   - its SPIFFE ID, if it has one: the URI SAN, which must be its only one
//     (X.509-SVID, section 2);
//   - else "dns:" and its DNS SAN, which must be its only one, so that nobody
//     has to guess which of several is meant;
//   - else, where allowCommonName, "cn:" and the subject's common name.
//
// The three can't be mistaken for each other. A certificate whose SPIFFE ID or
// DNS name is malformed or ambiguous is refused; it doesn't fall through to
// the next.
func callerOf(cert *x509.Certificate, allowCommonName bool) (string, error) {
	// The handshake has seen to most of this; and X.509-SVID, section 5.1, keeps
	// authorities from being callers.
	if cert == nil || cert.IsCA {
		return "", errNoIdentity
	}
	var spiffe string
	for _, uri := range cert.URIs {
		if strings.EqualFold(uri.Scheme, "spiffe") {
			spiffe = uri.String()
		}
	}
	var caller string
	switch {
	case spiffe != "" && len(cert.URIs) > 1, spiffe == "" && len(cert.DNSNames) > 1:
		return "", errNoIdentity
	case spiffe != "":
		caller = spiffe
	case len(cert.DNSNames) == 1:
		caller = "dns:" + cert.DNSNames[0]
	case allowCommonName && cert.Subject.CommonName != "":
		caller = "cn:" + cert.Subject.CommonName
	}
	if err := policy.ValidateCaller(caller); err != nil {
		return "", errNoIdentity
	}
	return caller, nil
}

// fingerprint returns the SHA-256 hash of a certificate, in hexadecimal.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// client is who is at the other end of a connection. It is found out once, at the
// handshake.
type client struct {
	credentials.TLSInfo
	address     string
	ip          netip.Addr // of the address
	fingerprint string     // "" without a certificate, which the TLS configuration rules out
	caller      string
	unnamed     error     // why the certificate names nobody
	until       time.Time // when the certificate expires
}

// newClient looks at what a handshake has found out.
func newClient(address net.Addr, info credentials.TLSInfo, allowCommonName bool) *client {
	c := &client{TLSInfo: info, address: address.String()}
	if at, err := netip.ParseAddrPort(c.address); err == nil {
		c.ip = at.Addr().Unmap()
	}
	var cert *x509.Certificate
	if len(info.State.VerifiedChains) > 0 {
		cert = info.State.VerifiedChains[0][0]
		c.fingerprint, c.until = fingerprint(cert), cert.NotAfter
	}
	c.caller, c.unnamed = callerOf(cert, allowCommonName)
	return c
}

// name returns the caller's identity. A connection may outlast its certificate.
func (c *client) name(now time.Time) (string, error) {
	if c.unnamed == nil && now.After(c.until) {
		return "", errNoIdentity
	}
	return c.caller, c.unnamed
}

// nobody is at the other end of what is no connection of ours.
var nobody = &client{unnamed: errNoIdentity}

// clientOf returns who is at the other end.
func clientOf(ctx context.Context) *client {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*client); ok {
			return c
		}
	}
	return nobody
}
