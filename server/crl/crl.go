// Package crl knows which certificates are revoked: it reads revocation lists (RFC
// 5280, section 5), and finds the certificates of verified chains in them.
package crl

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Errors of Set.Check.
var (
	// ErrRevoked says that a certificate of a chain is revoked.
	ErrRevoked = errors.New("crl: the certificate is revoked")

	// ErrOutdated says that a list is past the time at which the next was due, so that
	// nobody knows what its issuer has revoked since.
	ErrOutdated = errors.New("crl: the revocation list of the certificate's issuer is out of date")
)

// Set is what lists say, all together. It doesn't change, and is safe for concurrent
// use. A nil Set, and one without lists, revokes nothing.
type Set struct {
	authorities []*x509.Certificate
	issuers     map[issuer]*revoked
}

// issuer is an authority: its name and its public key. One that got a new certificate
// for the same key is the same.
type issuer struct{ subject, key string }

// issuerOf returns who an authority's certificate is of.
func issuerOf(authority *x509.Certificate) issuer {
	return issuer{string(authority.RawSubject), string(authority.RawSubjectPublicKeyInfo)}
}

// revoked is what the lists of an issuer say.
type revoked struct {
	name    string                          // of the issuer, for people
	serials map[string]struct{}             // big endian, as of big.Int
	made    map[[sha256.Size]byte]time.Time // when each list was made, by the hash of what is signed
	expires time.Time                       // when the first list is out of date
}

// newest returns when the lists were made, the newest first.
func (r *revoked) newest() []time.Time {
	return slices.SortedFunc(maps.Values(r.made), func(a, b time.Time) int { return b.Compare(a) })
}

// Check looks for the certificates of verified chains, each from the leaf to an
// authority. It returns until when the answer holds, as far as the clock is concerned;
// the zero time stands for ever.
//
// What is revoked in one chain is refused even if there is another chain without it,
// lest who calls could choose. Certificates of issuers without a list are not revoked.
//
// Errors: ErrRevoked, ErrOutdated.
func (s *Set) Check(chains [][]*x509.Certificate, now time.Time) (until time.Time, err error) {
	if s == nil || len(s.issuers) == 0 {
		return time.Time{}, nil
	}
	outdated := false
	for _, chain := range chains {
		for i, cert := range chain {
			var above []*x509.Certificate
			if i+1 < len(chain) {
				above = chain[i+1 : i+2]
			} else {
				above = s.above(cert)
			}
			for _, authority := range above {
				of := s.issuers[issuerOf(authority)]
				if of == nil {
					continue
				}
				if _, ok := of.serials[string(cert.SerialNumber.Bytes())]; ok {
					return time.Time{}, ErrRevoked
				}
				outdated = outdated || now.After(of.expires)
				until = earlier(until, of.expires)
			}
		}
	}
	if outdated {
		return time.Time{}, ErrOutdated
	}
	return until, nil
}

// above returns the authorities that an authority's certificate is of. A chain ends
// with it, since it is trusted by itself; but who issued it may have revoked it.
func (s *Set) above(cert *x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for _, a := range s.authorities {
		if string(a.RawSubject) == string(cert.RawIssuer) && cert.CheckSignatureFrom(a) == nil {
			found = append(found, a)
		}
	}
	return found
}

// earlier returns the earlier of two times, of which the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Expires returns when the first list is out of date, and of which issuer it is; the
// zero time without lists.
func (s *Set) Expires() (at time.Time, issuer string) {
	if s == nil {
		return time.Time{}, ""
	}
	for _, of := range s.issuers {
		if at.IsZero() || of.expires.Before(at) {
			at, issuer = of.expires, of.name
		}
	}
	return at, issuer
}

// Len returns how many certificates are revoked.
func (s *Set) Len() int {
	n := 0
	if s != nil {
		for _, of := range s.issuers {
			n += len(of.serials)
		}
	}
	return n
}

// Replaces returns nil if the set may take the place of an earlier one with the same
// authorities: if it has as many lists of each issuer as there were, and for each one
// that is no older. Else what has been revoked could be good again.
func (s *Set) Replaces(earlier *Set) error {
	if earlier == nil {
		return nil
	}
	for id, was := range earlier.issuers {
		is := s.issuers[id]
		if is == nil {
			return errors.New("there was a list of " + was.name + ", and there is none any more")
		}
		then, now := was.newest(), is.newest()
		if len(now) < len(then) {
			return fmt.Errorf("there were %d lists of %s, and there are %d now", len(then), was.name, len(now))
		}
		for i := range then {
			if now[i].Before(then[i]) {
				return errors.New("the list of " + was.name + " is older than the one that is at work")
			}
		}
	}
	return nil
}
