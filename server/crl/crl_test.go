package crl_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/servertest"
)

func parse(t *testing.T, data []byte, authorities ...*servertest.Authority) (*crl.Set, error) {
	t.Helper()
	var certs []*x509.Certificate
	for _, a := range authorities {
		certs = append(certs, a.Certificate())
	}
	return crl.Parse([]crl.File{{Name: "list", Data: data}}, certs)
}

func good(t *testing.T, data []byte, authorities ...*servertest.Authority) *crl.Set {
	t.Helper()
	set, err := parse(t, data, authorities...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// beneath returns an intermediate authority.
func beneath(t *testing.T, a *servertest.Authority, name string) *servertest.Authority {
	return a.Beneath(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

func chain(leaf *x509.Certificate, above ...*servertest.Authority) [][]*x509.Certificate {
	c := []*x509.Certificate{leaf}
	for _, a := range above {
		c = append(c, a.Certificate())
	}
	return [][]*x509.Certificate{c}
}

func TestCheck(t *testing.T) {
	now := time.Now()
	root := servertest.NewAuthority(t)
	namesake := servertest.NewAuthority(t) // same name, another key
	lower := beneath(t, root, "lower")
	bad, fine, deep := root.Caller(t, "a").Leaf, root.Caller(t, "b").Leaf, lower.Caller(t, "c").Leaf
	twin := *bad // the same serial number, but of another issuer
	for _, row := range []struct {
		name   string
		set    *crl.Set
		chains [][]*x509.Certificate
		want   error
	}{
		{"no set", nil, chain(bad, root), nil},
		{"no lists", good(t, root.Revoke(t, now), root), chain(bad, root), nil},
		{"listed", good(t, root.Revoke(t, now, fine, bad), root), chain(bad, root), crl.ErrRevoked},
		{"not listed", good(t, root.Revoke(t, now, bad), root), chain(fine, root), nil},
		{"intermediate listed", good(t, root.Revoke(t, now, lower.Certificate()), root), chain(deep, lower, root), crl.ErrRevoked},
		{"intermediate listed that is trusted by itself", good(t, root.Revoke(t, now, lower.Certificate()), root, lower), chain(deep, lower), crl.ErrRevoked},
		{"listed by the intermediate", good(t, lower.Revoke(t, now, deep), root, lower), chain(deep, lower, root), crl.ErrRevoked},
		{"listed in one chain of two", good(t, root.Revoke(t, now, lower.Certificate()), root), append(chain(fine, root), chain(deep, lower, root)...), crl.ErrRevoked},
		{"a serial number of another issuer", good(t, root.Revoke(t, now, deep), root, lower), chain(deep, lower, root), nil},
		{"of an authority with the same name", good(t, root.Revoke(t, now, bad), root, namesake), chain(&twin, namesake), nil},
		{"out of date", good(t, root.Revoke(t, now.Add(-2*time.Hour), bad), root), chain(fine, root), crl.ErrOutdated},
		{"out of date and listed", good(t, root.Revoke(t, now.Add(-2*time.Hour), bad), root), chain(bad, root), crl.ErrRevoked},
		{"out of date further up", good(t, root.Revoke(t, now.Add(-2*time.Hour)), root), chain(deep, lower, root), crl.ErrOutdated},
		{"another issuer's is out of date", good(t, lower.Revoke(t, now.Add(-2*time.Hour)), root, lower), chain(fine, root), nil},
		{"two lists add up", good(t, append(root.Revoke(t, now, fine), root.Revoke(t, now, bad)...), root), chain(fine, root), crl.ErrRevoked},
	} {
		until, err := row.set.Check(row.chains, now)
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
		if !until.IsZero() && !until.After(now) {
			t.Errorf("%s: good until %v", row.name, until)
		}
	}
}

// A list that a part of could be misunderstood is not taken at all.
func TestListsThatAreRefused(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	root := servertest.NewAuthority(t)
	leaf := root.Caller(t, "a").Leaf
	list := func(change func(*x509.RevocationList)) []byte {
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
		change(l)
		return root.SignList(t, l)
	}
	critical := func(value []byte, id ...int) []pkix.Extension {
		return []pkix.Extension{{Id: id, Critical: true, Value: value}}
	}
	text := root.Revoke(t, now, leaf)
	block, _ := pem.Decode(text)
	damaged := bytes.Replace(text, []byte("\n"), []byte("\n*"), 1)
	altered := bytes.Clone(block.Bytes)
	altered[len(altered)-1] ^= 1
	withoutSign := root.Beneath(t, &x509.Certificate{Subject: pkix.Name{CommonName: "no lists"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	nosign := *withoutSign.Certificate()
	nosign.KeyUsage = x509.KeyUsageCertSign
	for _, row := range []struct {
		name string
		data []byte
		want string // a part of the error; "" for none
	}{
		{"PEM", text, ""},
		{"DER", block.Bytes, ""},
		{"two", slices.Concat(text, text), ""},
		{"PEM with words around", slices.Concat([]byte("# ours\n"), text, []byte("# end\n")), ""},
		{"a distribution point", list(func(l *x509.RevocationList) {
			l.ExtraExtensions = critical([]byte{0x30, 0x02, 0xa0, 0x00}, 2, 5, 29, 28)
		}), ""},
		{"an extension that isn't critical", list(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		}), ""},
		{"nothing", nil, "malformed"},
		{"words", []byte("no list"), "malformed"},
		{"something behind", append(bytes.Clone(block.Bytes), 0), "something follows"},
		{"altered", altered, "has signed it"},
		{"a certificate", slices.Concat(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), `"CERTIFICATE"`},
		{"damaged", damaged, "can't be read"},
		{"damaged before a good one", slices.Concat(damaged, text), "can't be read"},
		{"cut short behind a good one", slices.Concat(text, text[:len(text)-20]), "can't be read"},
		{"of somebody else", servertest.NewAuthority(t).Revoke(t, now, leaf), "has signed it"},
		{"of who may sign certificates only", withoutSign.Revoke(t, now), "may not sign lists"},
		{"a delta", list(func(l *x509.RevocationList) { l.ExtraExtensions = critical([]byte{2, 1, 1}, 2, 5, 29, 27) }), "2.5.29.27"},
		{"for callers only", list(func(l *x509.RevocationList) {
			l.ExtraExtensions = critical([]byte{0x30, 0x03, 0x81, 0x01, 0xff}, 2, 5, 29, 28)
		}), "2.5.29.28"},
		{"for others too", list(func(l *x509.RevocationList) {
			l.ExtraExtensions = critical([]byte{0x30, 0x03, 0x84, 0x01, 0xff}, 2, 5, 29, 28)
		}), "2.5.29.28"},
		{"an entry of somebody else", list(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: leaf.SerialNumber, RevocationTime: now, ExtraExtensions: critical([]byte{0x30, 0}, 2, 5, 29, 29)}}
		}), "2.5.29.29"},
	} {
		_, err := crl.Parse([]crl.File{{Name: "list", Data: row.data}}, []*x509.Certificate{root.Certificate(), &nosign})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// Each of two lists of an issuer is missed, not only the newest.
func TestReplacesTwoListsOfAnIssuer(t *testing.T) {
	now := time.Now()
	root := servertest.NewAuthority(t)
	list := func(minutes int, certs ...*x509.Certificate) []byte {
		return root.Revoke(t, now.Add(time.Duration(minutes)*time.Minute), certs...)
	}
	old, late := list(1, root.Caller(t, "a").Leaf), list(5, root.Caller(t, "b").Leaf)
	was := good(t, slices.Concat(old, late), root)
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"the same, the other way round", slices.Concat(late, old), ""},
		{"both newer", slices.Concat(list(6), list(2)), ""},
		{"both as new as the newest", slices.Concat(list(5), late), ""},
		{"one more", slices.Concat(list(0), old, late), ""},
		{"the old one is gone", late, "there were 2 lists"},
		{"the old one is gone, and the other is there twice", slices.Concat(late, late), "there were 2 lists"},
		{"the late one is gone", list(9), "there were 2 lists"},
		{"the old one is older", slices.Concat(list(0), late), "older"},
		{"the late one is older", slices.Concat(old, list(4)), "older"},
	} {
		err := good(t, row.data, root).Replaces(was)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// What has been revoked isn't good again because a file was lost or put back.
func TestReplaces(t *testing.T) {
	now := time.Now()
	root, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	was := good(t, slices.Concat(root.Revoke(t, now), other.Revoke(t, now)), root, other)
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"the same", slices.Concat(root.Revoke(t, now), other.Revoke(t, now)), ""},
		{"newer", slices.Concat(root.Revoke(t, now.Add(time.Minute)), other.Revoke(t, now)), ""},
		{"older", slices.Concat(root.Revoke(t, now.Add(-time.Minute)), other.Revoke(t, now)), "older"},
		{"one less", root.Revoke(t, now), "none any more"},
	} {
		err := good(t, row.data, root, other).Replaces(was)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	if err := was.Replaces(nil); err != nil {
		t.Error(err)
	}
}

// Of authorities that are gone the lists don't matter, as long as they are gone.
func TestParseKnown(t *testing.T) {
	now := time.Now()
	root, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	bad, worse := root.Caller(t, "a").Leaf, other.Caller(t, "b").Leaf
	files := []crl.File{{Name: "list", Data: slices.Concat(other.Revoke(t, now, worse), root.Revoke(t, now, bad))}}
	known := func(authorities ...*x509.Certificate) *crl.Set {
		set, err := crl.ParseKnown(files, authorities)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	both := known(root.Certificate(), other.Certificate())
	one := known(root.Certificate())
	if both.Len() != 2 || one.Len() != 1 || known().Len() != 0 {
		t.Errorf("%d revoked, without the other authority %d, without any %d", both.Len(), one.Len(), known().Len())
	}
	if _, err := one.Check(chain(bad, root), now); !errors.Is(err, crl.ErrRevoked) {
		t.Errorf("of the authority that stays: %v", err)
	}
	if err := good(t, root.Revoke(t, now), root).Replaces(one); err != nil {
		t.Errorf("once the other authority is gone: %v", err)
	}

	// That the same authority comes with a certificate that isn't fit for lists is no
	// reason to forget them.
	unfit := *root.Certificate()
	unfit.KeyUsage = x509.KeyUsageCertSign
	if _, err := crl.ParseKnown(files, []*x509.Certificate{&unfit}); err == nil || !strings.Contains(err.Error(), "may not sign lists") {
		t.Errorf("an authority that may sign lists no more: %v", err)
	}
	if _, err := crl.ParseKnown([]crl.File{{Name: "list", Data: []byte("no list")}}, nil); err == nil {
		t.Error("what is no list is passed over")
	}
}

func TestExpires(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	root := servertest.NewAuthority(t)
	lower := beneath(t, root, "lower")
	set := good(t, slices.Concat(root.Revoke(t, now, root.Caller(t, "a").Leaf), lower.Revoke(t, now.Add(-time.Minute))), root, lower)
	at, issuer := set.Expires()
	if !at.Equal(now.Add(59*time.Minute)) || issuer != "CN=lower" || set.Len() != 1 {
		t.Errorf("%v of %s, %d revoked", at, issuer, set.Len())
	}
	var none *crl.Set
	if at, _ := none.Expires(); !at.IsZero() || none.Len() != 0 {
		t.Errorf("without lists: %v", at)
	}
}

// Whatever is in a file, reading it doesn't panic, and what hasn't been signed is no
// list.
func FuzzParse(f *testing.F) {
	root := servertest.NewAuthority(f)
	text := root.Revoke(f, time.Now(), root.Caller(f, "a").Leaf)
	block, _ := pem.Decode(text)
	f.Add(text)
	f.Add(block.Bytes)
	f.Add(append(bytes.Clone(text), text...))
	other := servertest.NewAuthority(f).Certificate()
	f.Fuzz(func(t *testing.T, data []byte) {
		if set, err := crl.Parse([]crl.File{{Name: "list", Data: data}}, []*x509.Certificate{other}); err == nil && set.Len() > 0 {
			t.Error("a list of somebody else is taken")
		}
	})
}
