package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
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
	// The handshake has seen to most of this, but a connection may outlast its
	// certificate; and X.509-SVID, section 5.1, keeps authorities from being
	// callers.
	if cert == nil || cert.IsCA || time.Now().After(cert.NotAfter) {
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

// peerOf returns the address and the verified certificate of the client. The
// certificate is nil if there is none, which the TLS configuration rules out.
func peerOf(ctx context.Context) (address string, cert *x509.Certificate) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", nil
	}
	if p.Addr != nil {
		address = p.Addr.String()
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return address, nil
	}
	return address, info.State.VerifiedChains[0][0]
}
