package server_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/servertest"
)

const identityPolicy = `version: 1
rules:
  - name: spiffe
    callers: ["spiffe://coatcheck.example/checkout", "spiffe://coatcheck.example/ns/a/sa/b"]
    actions: [tokenize]
    profiles: [note]
  - name: dns
    callers: ["dns:checkout.internal"]
    actions: [tokenize]
    profiles: [note]
  - name: cn
    callers: ["cn:checkout"]
    actions: [tokenize]
    profiles: [note]
`

// Names of a certificate, each with its tag as RFC 5280, section 4.2.1.6, has it.
type (
	uriName   string
	dnsName   string
	emailName string
	ipName    string // its bytes

	compoundURI string // encoded as if it consisted of parts
	compoundDNS string
)

// alternative returns a subject alternative name with the names exactly as they are,
// which x509.CreateCertificate wouldn't write.
func alternative(t testing.TB, names ...any) pkix.Extension {
	t.Helper()
	var raw []asn1.RawValue
	add := func(tag int, text string) *asn1.RawValue {
		raw = append(raw, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(text)})
		return &raw[len(raw)-1]
	}
	for _, n := range names {
		switch n := n.(type) {
		case emailName:
			add(1, string(n))
		case dnsName:
			add(2, string(n))
		case uriName:
			add(6, string(n))
		case ipName:
			add(7, string(n))
		case compoundURI:
			add(6, string(n)).IsCompound = true
		case compoundDNS:
			add(2, string(n)).IsCompound = true
		}
	}
	value, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

// Outcomes of a row that are no caller.
const (
	nobody  = "nobody"  // NO_IDENTITY
	noEntry = "noEntry" // the handshake fails
)

// Each certificate is presented to a server that allows common names and to one that
// doesn't. Who comes out is read in the audit log; of those, only who is named in the
// policy byte by byte may do anything.
func TestIdentity(t *testing.T) {
	const good = "spiffe://coatcheck.example/checkout"
	type names []any
	common := func(names ...string) pkix.Name {
		var n pkix.Name
		for _, name := range names {
			n.ExtraNames = append(n.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name})
		}
		return n
	}
	rows := []struct {
		name      string
		names     names
		subject   pkix.Name
		authority bool
		want      string
		lax       string // with common names allowed; want if empty
	}{
		{name: "SPIFFE ID", names: names{uriName(good)}, want: good},
		{name: "SPIFFE ID before DNS and CN", names: names{uriName("spiffe://coatcheck.example/other"), dnsName("checkout.internal")}, subject: common("checkout"), want: "spiffe://coatcheck.example/other"},
		{name: "SPIFFE ID behind a DNS name", names: names{dnsName("checkout.internal"), uriName(good)}, want: good},
		{name: "two SPIFFE IDs", names: names{uriName(good), uriName("spiffe://coatcheck.example/other")}, want: nobody},
		{name: "a SPIFFE ID twice", names: names{uriName(good), uriName(good)}, want: nobody},
		{name: "another URI and a SPIFFE ID", names: names{uriName("https://example.com/"), uriName(good)}, want: nobody},
		{name: "SPIFFE ID and another URI", names: names{uriName(good), uriName("https://example.com/")}, want: nobody},
		{name: "SPIFFE IDs in two cases of the scheme", names: names{uriName("SPIFFE://coatcheck.example/other"), uriName(good)}, want: nobody},

		{name: "scheme in capitals", names: names{uriName("SPIFFE://coatcheck.example/checkout")}, want: nobody},
		{name: "scheme with one capital", names: names{uriName("sPiffe://coatcheck.example/checkout")}, want: nobody},
		{name: "scheme in capitals with a good DNS name", names: names{uriName("SPIFFE://coatcheck.example/checkout"), dnsName("checkout.internal")}, want: nobody},
		{name: "trust domain in capitals", names: names{uriName("spiffe://COATCHECK.example/checkout")}, want: nobody},
		{name: "path in another case", names: names{uriName("spiffe://coatcheck.example/Checkout")}, want: "spiffe://coatcheck.example/Checkout"},
		{name: "encoded slash", names: names{uriName("spiffe://coatcheck.example/x%2F..%2Fcheckout")}, want: nobody},
		{name: "encoded slash before the path", names: names{uriName("spiffe://coatcheck.example%2Fcheckout")}, want: noEntry},
		{name: "encoded letter", names: names{uriName("spiffe://coatcheck.example/%63heckout")}, want: nobody},
		{name: "encoded letter of the trust domain", names: names{uriName("spiffe://%63oatcheck.example/checkout")}, want: noEntry},
		{name: "doubly encoded slash", names: names{uriName("spiffe://coatcheck.example/ns%252Fa")}, want: nobody},
		{name: "dot segments", names: names{uriName("spiffe://coatcheck.example/x/../checkout")}, want: nobody},
		{name: "dot segment", names: names{uriName("spiffe://coatcheck.example/./checkout")}, want: nobody},
		{name: "trailing slash", names: names{uriName(good + "/")}, want: nobody},
		{name: "trailing dot", names: names{uriName(good + ".")}, want: good + "."},
		{name: "trust domain with a trailing dot", names: names{uriName("spiffe://coatcheck.example./checkout")}, want: noEntry},
		{name: "two slashes", names: names{uriName("spiffe://coatcheck.example//checkout")}, want: nobody},
		{name: "three slashes", names: names{uriName("spiffe:///coatcheck.example/checkout")}, want: nobody},
		{name: "one slash", names: names{uriName("spiffe:/coatcheck.example/checkout")}, want: nobody},
		{name: "no slash", names: names{uriName("spiffe:coatcheck.example/checkout")}, want: nobody},
		{name: "backslash", names: names{uriName(`spiffe://coatcheck.example\checkout`)}, want: noEntry},
		{name: "query", names: names{uriName(good + "?x=1")}, want: nobody},
		{name: "empty query", names: names{uriName(good + "?")}, want: nobody},
		{name: "fragment", names: names{uriName(good + "#x")}, want: nobody},
		{name: "empty fragment", names: names{uriName(good + "#")}, want: nobody},
		{name: "port", names: names{uriName("spiffe://coatcheck.example:1/checkout")}, want: nobody},
		{name: "empty port", names: names{uriName("spiffe://coatcheck.example:/checkout")}, want: nobody},
		{name: "user", names: names{uriName("spiffe://user@coatcheck.example/checkout")}, want: nobody},
		{name: "another trust domain as user", names: names{uriName("spiffe://coatcheck.example@evil.example/checkout")}, want: nobody},
		{name: "look-alike of another script", names: names{uriName("spiffe://coatcheck.example/\u0441heckout")}, want: noEntry},
		{name: "Latin-1", names: names{uriName("spiffe://coatcheck.example/check\xf6ut")}, want: noEntry},
		{name: "look-alike in the trust domain, encoded", names: names{uriName("spiffe://xn--oatcheck-l1g.example/checkout")}, want: "spiffe://xn--oatcheck-l1g.example/checkout"},
		{name: "NUL at the end", names: names{uriName(good + "\x00")}, want: noEntry},
		{name: "NUL within", names: names{uriName(good + "\x00.evil.example")}, want: noEntry},
		{name: "line feed", names: names{uriName(good + "\n")}, want: noEntry},
		{name: "space in front", names: names{uriName(" " + good)}, want: noEntry},
		{name: "space behind", names: names{uriName(good + " ")}, want: nobody},
		{name: "pattern", names: names{uriName("spiffe://coatcheck.example/*")}, want: nobody},
		{name: "trust domain alone", names: names{uriName("spiffe://coatcheck.example")}, want: nobody},
		{name: "trust domain with a slash", names: names{uriName("spiffe://coatcheck.example/")}, want: nobody},
		{name: "a caller in the form of the policy", names: names{uriName("dns:checkout.internal")}, want: nobody},
		{name: "a caller in the form of the policy, beside a DNS name", names: names{uriName("cn:checkout"), dnsName("other.internal")}, want: "dns:other.internal"},
		{name: "malformed SPIFFE ID with a good DNS name", names: names{uriName(good + "/"), dnsName("checkout.internal")}, want: nobody},
		{name: "compound encoding", names: names{compoundURI(good)}, want: nobody},
		{name: "compound encoding beside another", names: names{uriName(good), compoundURI("spiffe://coatcheck.example/other")}, want: nobody},
		{name: "compound encoding of a DNS name", names: names{compoundDNS("checkout.internal")}, want: nobody},
		{name: "empty URI", names: names{uriName("")}, want: nobody},

		{name: "namespace in another's name", names: names{uriName("spiffe://coatcheck.example/ns/a/sa/b")}, want: "spiffe://coatcheck.example/ns/a/sa/b"},
		{name: "namespace further down", names: names{uriName("spiffe://coatcheck.example/x/ns/a/sa/b")}, want: "spiffe://coatcheck.example/x/ns/a/sa/b"},
		{name: "namespace with more behind", names: names{uriName("spiffe://coatcheck.example/ns/a/sa/b/c")}, want: "spiffe://coatcheck.example/ns/a/sa/b/c"},
		{name: "namespace with a longer name", names: names{uriName("spiffe://coatcheck.example/ns/a/sa/bb")}, want: "spiffe://coatcheck.example/ns/a/sa/bb"},
		{name: "namespace with less", names: names{uriName("spiffe://coatcheck.example/ns/a/sa")}, want: "spiffe://coatcheck.example/ns/a/sa"},
		{name: "namespace with a dash for the slash", names: names{uriName("spiffe://coatcheck.example/ns/a-sa/b")}, want: "spiffe://coatcheck.example/ns/a-sa/b"},
		{name: "namespace with an encoded slash", names: names{uriName("spiffe://coatcheck.example/ns/a%2fsa/b")}, want: nobody},
		{name: "namespace of another trust domain", names: names{uriName("spiffe://coatcheck.example.evil.example/ns/a/sa/b")}, want: "spiffe://coatcheck.example.evil.example/ns/a/sa/b"},
		{name: "trust domain in the path", names: names{uriName("spiffe://evil.example/coatcheck.example/ns/a/sa/b")}, want: "spiffe://evil.example/coatcheck.example/ns/a/sa/b"},

		{name: "DNS name", names: names{dnsName("checkout.internal")}, want: "dns:checkout.internal"},
		{name: "DNS name beside a web URI", names: names{uriName("https://example.com/"), dnsName("checkout.internal")}, want: "dns:checkout.internal"},
		{name: "DNS name beside an address and a mailbox", names: names{dnsName("checkout.internal"), ipName("\x7f\x00\x00\x01"), emailName("a@b.example")}, want: "dns:checkout.internal"},
		{name: "two DNS names", names: names{dnsName("checkout.internal"), dnsName("other.internal")}, want: nobody},
		{name: "a DNS name twice", names: names{dnsName("checkout.internal"), dnsName("checkout.internal")}, want: nobody},
		{name: "wildcard", names: names{dnsName("*.internal")}, want: nobody},
		{name: "wildcard beside the name", names: names{dnsName("*.internal"), dnsName("checkout.internal")}, want: nobody},
		{name: "wildcard of everything", names: names{dnsName("*")}, want: nobody},
		{name: "wildcard within a label", names: names{dnsName("check*.internal")}, want: nobody},
		{name: "DNS name with a trailing dot", names: names{dnsName("checkout.internal.")}, want: nobody},
		{name: "DNS name in capitals", names: names{dnsName("Checkout.internal")}, want: nobody},
		{name: "DNS name with NUL", names: names{dnsName("checkout.internal\x00.evil.example")}, want: nobody},
		{name: "DNS name with a prefix of ours", names: names{dnsName("dns:checkout.internal")}, want: nobody},
		{name: "DNS name that is a SPIFFE ID", names: names{dnsName(good)}, want: nobody},
		{name: "DNS name that is an address", names: names{dnsName("127.0.0.1")}, want: nobody},
		{name: "subdomain", names: names{dnsName("a.checkout.internal")}, want: "dns:a.checkout.internal"},
		{name: "longer domain", names: names{dnsName("checkout.internal.evil.example")}, want: "dns:checkout.internal.evil.example"},
		{name: "empty DNS name", names: names{dnsName("")}, subject: common("checkout"), want: nobody},

		{name: "common name", subject: common("checkout"), want: nobody, lax: "cn:checkout"},
		{name: "common name that is a SPIFFE ID", subject: common(good), want: nobody, lax: "cn:" + good},
		{name: "common name that is a DNS name", subject: common("checkout.internal"), want: nobody, lax: "cn:checkout.internal"},
		{name: "common name with a prefix of ours", subject: common("dns:checkout.internal"), want: nobody, lax: "cn:dns:checkout.internal"},
		{name: "common name with its own prefix", subject: common("cn:checkout"), want: nobody, lax: "cn:cn:checkout"},
		{name: "two common names", subject: common("checkout", "other"), want: nobody},
		{name: "two common names, the other way round", subject: common("other", "checkout"), want: nobody},
		{name: "common name with NUL", subject: common("checkout\x00"), want: nobody},
		{name: "common name with a space", subject: common("checkout "), want: nobody},
		{name: "common name with a mark that isn't seen", subject: common("check\u200bout"), want: nobody},
		{name: "common name of another script", subject: common("\u0441heckout"), want: nobody, lax: "cn:\u0441heckout"},
		{name: "common name beside a DNS name", names: names{dnsName("other.internal")}, subject: common("checkout"), want: "dns:other.internal"},
		{name: "common name beside a wildcard", names: names{dnsName("*.internal")}, subject: common("checkout"), want: nobody},
		{name: "common name beside a malformed SPIFFE ID", names: names{uriName(good + "#")}, subject: common("checkout"), want: nobody},
		{name: "common name beside a mailbox", names: names{emailName("a@b.example")}, subject: common("checkout"), want: nobody, lax: "cn:checkout"},
		{name: "an authority", names: names{uriName(good)}, authority: true, want: nobody},
		{name: "an address alone", names: names{ipName("\x7f\x00\x00\x01")}, want: nobody},
		{name: "nothing", want: nobody},
	}
	for _, lax := range []bool{false, true} {
		in := servertest.Start(t, servertest.Options{Policy: identityPolicy, AllowCommonName: lax})
		presented := make(map[string]int) // row by fingerprint
		for i, row := range rows {
			want := row.want
			if lax && row.lax != "" {
				want = row.lax
			}
			template := x509.Certificate{Subject: row.subject, IsCA: row.authority, BasicConstraintsValid: row.authority, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
			if row.names != nil {
				template.ExtraExtensions = []pkix.Extension{alternative(t, row.names...)}
			}
			cert := in.Authority.Issue(t, &template)
			sum := sha256.Sum256(cert.Certificate[0])
			presented[hex.EncodeToString(sum[:])] = i
			_, err := coatcheckv1.NewTokenizationServiceClient(in.Dial(t, &cert)).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
			wantCode, wantReason := codes.PermissionDenied, "NO_RULE"
			switch {
			case want == noEntry:
				wantCode, wantReason = codes.Unavailable, ""
			case want == nobody:
				wantCode, wantReason = codes.Unauthenticated, "NO_IDENTITY"
			case strings.Contains(identityPolicy, `"`+want+`"`):
				wantCode, wantReason = codes.OK, ""
			}
			if status.Code(err) != wantCode || reason(err) != wantReason {
				t.Errorf("%s, common names allowed: %v: %v, want %v %s", row.name, lax, err, wantCode, wantReason)
			}
		}
		for _, e := range events(t, in) {
			fingerprint, _ := e["certificate"].(string)
			i, ok := presented[fingerprint]
			if !ok {
				continue
			}
			delete(presented, fingerprint)
			want := rows[i].want
			if lax && rows[i].lax != "" {
				want = rows[i].lax
			}
			if want == nobody {
				want = ""
			}
			if caller, _ := e["caller"].(string); caller != want {
				t.Errorf("%s, common names allowed: %v: the caller is %q, want %q", rows[i].name, lax, caller, want)
			}
		}
		for _, i := range presented {
			if rows[i].want != noEntry {
				t.Errorf("%s: no event", rows[i].name)
			}
		}
	}
}

// Whoever has no good certificate doesn't get as far as a call.
func TestHandshakesThatFail(t *testing.T) {
	root := servertest.NewAuthority(t)
	ca := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "issuing CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
		if change != nil {
			change(c)
		}
		return c
	}
	beneath := func(change func(*x509.Certificate)) *servertest.Authority { return root.Beneath(t, ca(change)) }
	issuing := beneath(nil)
	listed, below := root.Caller(t, "checkout"), beneath(nil)
	revoked, err := crl.Parse([]crl.File{{Name: "list", Data: root.Revoke(t, time.Now(), listed.Leaf, below.Certificate())}}, []*x509.Certificate{root.Certificate()})
	if err != nil {
		t.Fatal(err)
	}
	in := servertest.Start(t, servertest.Options{Authority: root, Revoked: revoked})
	client := func(template x509.Certificate) tls.Certificate {
		template.ExtraExtensions = []pkix.Extension{alternative(t, uriName("spiffe://coatcheck.example/checkout"))}
		if template.ExtKeyUsage == nil {
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		return root.Issue(t, &template)
	}
	leaf := root.Beneath(t, &x509.Certificate{Subject: pkix.Name{CommonName: "a leaf"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	alone := issuing.Caller(t, "checkout")
	alone.Certificate = alone.Certificate[:1]
	const (
		unfit   = "the certificate is not fit for a client"
		expired = "the certificate has expired or is not valid yet"
		unknown = "the certificate is of an authority that is not trusted"
		crossed = "the certificate has been revoked"
	)
	for _, row := range []struct {
		name string
		cert tls.Certificate
		why  string // in the log; "" if it is let in
	}{
		{"good", root.Caller(t, "checkout"), ""},
		{"of a good intermediate", issuing.Caller(t, "checkout"), ""},
		{"no certificate", tls.Certificate{}, "no certificate"},
		{"of another authority", servertest.NewAuthority(t).Caller(t, "checkout"), unknown},
		{"expired", client(x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}), expired},
		{"not valid yet", client(x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}), expired},
		{"a server's", client(x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), unfit},
		{"of an intermediate that isn't sent", alone, unknown},
		{"of an expired intermediate", beneath(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}).Caller(t, "checkout"), expired},
		{"of an intermediate that isn't valid yet", beneath(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}).Caller(t, "checkout"), expired},
		{"of an intermediate that is no authority", beneath(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 }).Caller(t, "checkout"), unknown},
		{"of an intermediate without basic constraints", beneath(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.KeyUsage = false, false, 0 }).Caller(t, "checkout"), unknown},
		{"of an intermediate that may not sign certificates", beneath(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }).Caller(t, "checkout"), unknown},
		{"of a leaf", leaf.Caller(t, "checkout"), unknown},
		{"of an intermediate too far down", beneath(func(c *x509.Certificate) { c.MaxPathLenZero = true }).Beneath(t, ca(nil)).Caller(t, "checkout"), unfit},
		{"of an intermediate for other trust domains", beneath(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedURIDomains = true, []string{"other.example"}
		}).Caller(t, "checkout"), unfit},
		{"of an intermediate that may not have this trust domain", beneath(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.ExcludedURIDomains = true, []string{"coatcheck.example"}
		}).Caller(t, "checkout"), unfit},
		{"of an intermediate for servers", beneath(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).Caller(t, "checkout"), unfit},
		{"revoked", listed, crossed},
		{"of a revoked intermediate", below.Caller(t, "checkout"), crossed},
	} {
		cert := &row.cert
		if row.cert.Certificate == nil {
			cert = nil
		}
		const refused = "TLS handshake refused"
		before := len(in.Log.String())
		conn := in.Dial(t, cert)
		_, err := coatcheckv1.NewTokenizationServiceClient(conn).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
		_ = conn.Close()
		if row.why == "" {
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		if status.Code(err) != codes.Unavailable || reason(err) != "" {
			t.Errorf("%s: %v, want a connection that fails", row.name, err)
		}
		for end := time.Now().Add(10 * time.Second); !strings.Contains(in.Log.String()[before:], refused) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if log := in.Log.String()[before:]; !strings.Contains(log, row.why) {
			t.Errorf("%s: the log has %q, want %q", row.name, log, row.why)
		}
	}
	older := &tls.Config{RootCAs: in.Authority.Pool(), ServerName: "localhost", MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{in.Authority.Caller(t, "checkout")}}
	if conn, err := tls.Dial("tcp", in.Address, older); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.2 is let in")
	}
	if log := events(t, in); len(log) != 3 { // the declaration of a key, and the two that are let in
		t.Errorf("a connection that failed left a record: %v", log)
	}
}
