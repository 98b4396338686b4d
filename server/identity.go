package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
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
//   - else, where allowCommonName, "cn:" and the subject's common name, which
//     must be its only one.
//
// The three can't be mistaken for each other. A certificate whose SPIFFE ID or
// DNS name is malformed or ambiguous is refused; it doesn't fall through to
// the next. A name is taken as the certificate has it, byte by byte: nothing is
// decoded, lower-cased or cleaned.
func callerOf(cert *x509.Certificate, allowCommonName bool) (string, error) {
	// The handshake has seen to most of this; and X.509-SVID, section 5.1, keeps
	// authorities from being callers.
	if cert == nil || cert.IsCA {
		return "", errNoIdentity
	}
	uris, hosts, err := namesOf(cert)
	if err != nil {
		return "", errNoIdentity
	}
	var caller string
	switch {
	case slices.ContainsFunc(uris, isSPIFFE):
		if len(uris) > 1 {
			return "", errNoIdentity
		}
		caller = uris[0]
	case len(hosts) > 0:
		if len(hosts) > 1 {
			return "", errNoIdentity
		}
		caller = "dns:" + hosts[0]
	case allowCommonName:
		name, ok := commonName(cert)
		if !ok {
			return "", errNoIdentity
		}
		caller = "cn:" + name
	}
	if err := policy.ValidateCaller(caller); err != nil {
		return "", errNoIdentity
	}
	return caller, nil
}

// isSPIFFE says whether a URI means to be a SPIFFE ID, be it one or not.
func isSPIFFE(uri string) bool {
	scheme, _, _ := strings.Cut(uri, ":")
	return strings.EqualFold(scheme, "spiffe")
}

// The subject alternative name, and the tags of those names in it that count (RFC
// 5280, section 4.2.1.6).
var oidAlternativeName = asn1.ObjectIdentifier{2, 5, 29, 17}

const (
	tagHost = 2
	tagURI  = 6
)

// namesOf returns the URIs and DNS names of a certificate as they are written there. The
// fields of x509.Certificate won't do: net/url writes a scheme in lower case, and leaves
// out a fragment that is empty.
func namesOf(cert *x509.Certificate) (uris, hosts []string, err error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidAlternativeName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 {
			return nil, nil, errNoIdentity
		}
		for _, n := range names {
			switch {
			case n.Class != asn1.ClassContextSpecific, n.IsCompound && (n.Tag == tagURI || n.Tag == tagHost):
				return nil, nil, errNoIdentity
			case n.Tag == tagURI:
				uris = append(uris, string(n.Bytes))
			case n.Tag == tagHost:
				hosts = append(hosts, string(n.Bytes))
			}
		}
	}
	// What crypto/x509 doesn't take for a name, no name constraint of an authority has
	// been held against.
	if len(uris) != len(cert.URIs) || !slices.Equal(hosts, cert.DNSNames) {
		return nil, nil, errNoIdentity
	}
	return uris, hosts, nil
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName returns the common name of a certificate's subject, if it has exactly one.
func commonName(cert *x509.Certificate) (name string, ok bool) {
	n := 0
	for _, part := range cert.Subject.Names {
		if part.Type.Equal(oidCommonName) {
			n++
		}
	}
	return cert.Subject.CommonName, n == 1
}

// fingerprint returns the SHA-256 hash of a certificate, in hexadecimal.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// client is who is at the other end of a connection. It is found out once, at the
// handshake, but for whether it is still trusted.
type client struct {
	credentials.TLSInfo
	address     string
	ip          netip.Addr // of the address
	fingerprint string     // "" without a certificate, which the TLS configuration rules out
	caller      string
	unnamed     error // why the certificate names nobody

	trust   *atomic.Pointer[trust] // of now
	verdict atomic.Pointer[verdict]
}

// newClient looks at what a handshake has found out.
func newClient(address net.Addr, info credentials.TLSInfo, allowCommonName bool, t *atomic.Pointer[trust]) *client {
	c := &client{TLSInfo: info, address: address.String(), trust: t}
	if at, err := netip.ParseAddrPort(c.address); err == nil {
		c.ip = at.Addr().Unmap()
	}
	var cert *x509.Certificate
	if len(info.State.VerifiedChains) > 0 {
		cert = info.State.VerifiedChains[0][0]
		c.fingerprint = fingerprint(cert)
	}
	c.caller, c.unnamed = callerOf(cert, allowCommonName)
	return c
}

// name returns the caller's identity. A connection may outlast its certificate, and
// the trust in it.
func (c *client) name(now time.Time) (string, error) {
	if c.unnamed != nil {
		return "", c.unnamed
	}
	if err := c.trusted(now); err != nil {
		return "", err
	}
	return c.caller, nil
}

// trusted says whether the certificate is still trusted, and hasn't expired. It thinks about that when
// there is news, and else says what it said before.
func (c *client) trusted(now time.Time) error {
	t, v := c.trust.Load(), c.verdict.Load()
	if v == nil || v.by != t || v.lapsed(now) {
		v = t.judge(c.State, now)
		c.verdict.Store(v)
	}
	return v.err
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
