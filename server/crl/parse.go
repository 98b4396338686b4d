package crl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// File is a file with revocation lists.
type File struct {
	Name string // for errors
	Data []byte // one list in DER, or any number in PEM
}

// Parse reads lists. Each must be signed by one of the authorities, say when the next
// is due, and be complete: neither a delta, nor for a part of what its issuer issues
// only. Two lists of an issuer add up. One that is out of date is read all the same:
// that is for Check to tell.
//
// The error is of the first list that is wrong.
func Parse(files []File, authorities []*x509.Certificate) (*Set, error) {
	return parse(files, authorities, func(err error) bool { return err != nil })
}

// ParseKnown is Parse for authorities that may have become others since the lists were
// good: lists that none of them has signed are passed over. Nothing that only the
// issuers of those vouch for is trusted, so they don't matter.
func ParseKnown(files []File, authorities []*x509.Certificate) (*Set, error) {
	return parse(files, authorities, func(err error) bool { return err != nil && !errors.Is(err, errUnknown) })
}

// parse reads lists, up to the first whose error matters.
func parse(files []File, authorities []*x509.Certificate, matters func(error) bool) (*Set, error) {
	s := &Set{authorities: authorities, issuers: make(map[issuer]*revoked)}
	for _, f := range files {
		ders, err := split(f.Data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		for i, der := range ders {
			if err := s.parse(der); matters(err) {
				return nil, fmt.Errorf("%s: list %d: %w", f.Name, i+1, err)
			}
		}
	}
	return s, nil
}

// begin is how a block of PEM begins.
var begin = []byte("-----BEGIN ")

// split returns the lists of a file in DER. A block that can't be read is an error: to
// pass over it, as the PEM decoder does, would be to forget what it revokes.
func split(data []byte) ([][]byte, error) {
	if !bytes.Contains(data, begin) {
		return [][]byte{data}, nil
	}
	var ders [][]byte
	blocks := bytes.Count(data, begin)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("has a block %q, which is no revocation list", block.Type)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) != blocks {
		return nil, errors.New("has a block that can't be read, or that is cut short")
	}
	return ders, nil
}

// parse reads a list and adds it.
func (s *Set) parse(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	switch {
	case err != nil:
		return err
	case len(list.Raw) != len(der):
		return errors.New("something follows it")
	case list.NextUpdate.IsZero():
		return errors.New("doesn't say when the next is due")
	}
	for _, e := range list.Extensions {
		if e.Critical && !(e.Id.Equal(oidDistributionPoint) && complete(e.Value)) {
			return fmt.Errorf("has the critical extension %s: only complete lists are understood", e.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return fmt.Errorf("has an entry with the critical extension %s, which is not understood", e.Id)
			}
		}
	}
	return s.add(list)
}

// oidDistributionPoint is the issuing distribution point (RFC 5280, section 5.2.5).
var oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}

// complete says whether an issuing distribution point only tells where the list is to
// be had, and limits it to no kind of certificates or reasons.
func complete(value []byte) bool {
	var parts []asn1.RawValue
	rest, err := asn1.Unmarshal(value, &parts)
	if err != nil || len(rest) > 0 {
		return false
	}
	for _, p := range parts {
		if p.Class != asn1.ClassContextSpecific || p.Tag != 0 {
			return false
		}
	}
	return true
}

// errUnknown says that a list is of somebody else.
var errUnknown = errors.New("none of the authorities has that name and has signed it")

// add adds a list, once it is known whose it is. That an authority has signed it which
// may not sign lists is another error than errUnknown: such a list is not passed over.
func (s *Set) add(list *x509.RevocationList) error {
	fault := errUnknown
	known := false
	for _, a := range s.authorities {
		if !bytes.Equal(a.RawSubject, list.RawIssuer) || a.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature) != nil {
			continue
		}
		if list.CheckSignatureFrom(a) != nil {
			fault = errors.New("that authority has signed it, but may not sign lists")
			continue
		}
		known = true
		id := issuerOf(a)
		of := s.issuers[id]
		if of == nil {
			of = &revoked{name: a.Subject.String(), serials: make(map[string]struct{}), made: make(map[[sha256.Size]byte]time.Time)}
			s.issuers[id] = of
		}
		for _, entry := range list.RevokedCertificateEntries {
			of.serials[string(entry.SerialNumber.Bytes())] = struct{}{}
		}
		of.expires = earlier(of.expires, list.NextUpdate)
		of.made[sha256.Sum256(list.RawTBSRevocationList)] = list.ThisUpdate
	}
	if !known {
		return fmt.Errorf("is of %q, and %w", list.Issuer.String(), fault)
	}
	return nil
}
