package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/coatcheck/coatcheck/server/crl"
)

// errUntrusted says that a certificate that was good at the handshake isn't now: it, or
// one above it, has expired, or the authorities of now don't vouch for it.
var errUntrusted = errors.New("server: the client certificate has expired, or is of an authority that is trusted no more")

// trust says which clients are trusted. It doesn't change; another takes its place.
type trust struct {
	config  *tls.Config // for handshakes
	revoked *crl.Set
}

// verdict is what a trust says of a client.
type verdict struct {
	by    *trust
	until time.Time // when it has to be thought about again; never if zero
	err   error
}

func (v *verdict) lapsed(now time.Time) bool { return !v.until.IsZero() && now.After(v.until) }

// judge says whether the client of a connection, which was trusted when it was opened,
// is trusted now.
func (t *trust) judge(state tls.ConnectionState, now time.Time) *verdict {
	v := &verdict{by: t}
	chains, err := t.chains(state, now)
	if err != nil {
		v.err = errUntrusted
		return v
	}
	if v.until, v.err = t.revoked.Check(chains, now); v.err != nil {
		v.until = time.Time{}
		return v
	}
	for _, chain := range chains {
		for _, cert := range chain {
			if v.until.IsZero() || cert.NotAfter.Before(v.until) {
				v.until = cert.NotAfter
			}
		}
	}
	return v
}

// chains verifies the client's certificate, as the handshake did.
func (t *trust) chains(state tls.ConnectionState, now time.Time) ([][]*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, errUntrusted
	}
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	return state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: t.config.ClientCAs, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// newTrust returns a trust, whose configuration looks for revoked certificates at the
// handshake. What the configuration does there by itself goes first.
func newTrust(config *tls.Config, revoked *crl.Set) (*trust, error) {
	if err := checkTLS(config); err != nil {
		return nil, err
	}
	config = config.Clone()
	config.SessionTicketsDisabled = true // a resumed session shows no certificate
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		_, err := revoked.Check(state.VerifiedChains, time.Now())
		return err
	}
	return &trust{config, revoked}, nil
}

// PrepareTLS checks another TLS configuration and other revoked certificates. put puts
// them to work, both at once, and can't fail. Handshakes that begin from then on go by
// them. So do calls of connections that are open: a client whose certificate is revoked,
// or no more of a trusted authority, is refused. The server's own certificate in open
// connections stays what it was.
//
// The error is that of New.
func (s *Server) PrepareTLS(config *tls.Config, revoked *crl.Set) (put func(), err error) {
	next, err := newTrust(config, revoked)
	if err != nil {
		return nil, err
	}
	return func() { s.trust.Store(next) }, nil
}

// Revoked returns the client certificates that are refused now; nil if none are.
func (s *Server) Revoked() *crl.Set { return s.trust.Load().revoked }

// handshakes returns the configuration that has each handshake go by the trust of then.
func (s *Server) handshakes() *tls.Config {
	base := s.trust.Load().config.Clone()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.trust.Load().config, nil }
	return base
}
