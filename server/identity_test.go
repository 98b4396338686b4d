package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/servertest"
)

const identityPolicy = `version: 1
rules:
  - name: spiffe
    callers: ["spiffe://coatcheck.example/checkout"]
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

func uris(t *testing.T, texts ...string) []*url.URL {
	t.Helper()
	var list []*url.URL
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	}
	return list
}

func TestIdentity(t *testing.T) {
	strict := servertest.Start(t, servertest.Options{Policy: identityPolicy})
	lax := servertest.Start(t, servertest.Options{Policy: identityPolicy, AllowCommonName: true})
	const good = "spiffe://coatcheck.example/checkout"
	cn := pkix.Name{CommonName: "checkout"}
	for _, row := range []struct {
		name             string
		cert             x509.Certificate
		wantCode, laxGet codes.Code
	}{
		{"SPIFFE ID", x509.Certificate{URIs: uris(t, good)}, codes.OK, codes.OK},
		{"SPIFFE ID before DNS and CN", x509.Certificate{URIs: uris(t, "spiffe://coatcheck.example/other"), DNSNames: []string{"checkout.internal"}, Subject: cn}, codes.PermissionDenied, codes.PermissionDenied},
		{"two SPIFFE IDs", x509.Certificate{URIs: uris(t, good, "spiffe://coatcheck.example/other")}, codes.Unauthenticated, codes.Unauthenticated},
		{"SPIFFE ID and another URI", x509.Certificate{URIs: uris(t, "https://example.com/", good)}, codes.Unauthenticated, codes.Unauthenticated},
		{"encoded slash", x509.Certificate{URIs: uris(t, "spiffe://coatcheck.example/x%2F..%2Fcheckout")}, codes.Unauthenticated, codes.Unauthenticated},
		{"dot segments", x509.Certificate{URIs: uris(t, "spiffe://coatcheck.example/x/../checkout")}, codes.Unauthenticated, codes.Unauthenticated},
		{"trailing slash", x509.Certificate{URIs: uris(t, good+"/")}, codes.Unauthenticated, codes.Unauthenticated},
		{"upper-case trust domain", x509.Certificate{URIs: uris(t, "spiffe://COATCHECK.example/checkout")}, codes.Unauthenticated, codes.Unauthenticated},
		{"another path case", x509.Certificate{URIs: uris(t, "spiffe://coatcheck.example/Checkout")}, codes.PermissionDenied, codes.PermissionDenied},
		{"query", x509.Certificate{URIs: uris(t, good+"?x=1")}, codes.Unauthenticated, codes.Unauthenticated},
		{"port", x509.Certificate{URIs: uris(t, "spiffe://coatcheck.example:1/checkout")}, codes.Unauthenticated, codes.Unauthenticated},
		{"malformed SPIFFE ID with a good DNS name", x509.Certificate{URIs: uris(t, good+"/"), DNSNames: []string{"checkout.internal"}}, codes.Unauthenticated, codes.Unauthenticated},
		{"DNS name", x509.Certificate{DNSNames: []string{"checkout.internal"}}, codes.OK, codes.OK},
		{"DNS name beside a web URI", x509.Certificate{URIs: uris(t, "https://example.com/"), DNSNames: []string{"checkout.internal"}}, codes.OK, codes.OK},
		{"two DNS names", x509.Certificate{DNSNames: []string{"checkout.internal", "other.internal"}}, codes.Unauthenticated, codes.Unauthenticated},
		{"wildcard", x509.Certificate{DNSNames: []string{"*.internal"}}, codes.Unauthenticated, codes.Unauthenticated},
		{"DNS name with a trailing dot", x509.Certificate{DNSNames: []string{"checkout.internal."}}, codes.Unauthenticated, codes.Unauthenticated},
		{"common name", x509.Certificate{Subject: cn}, codes.Unauthenticated, codes.OK},
		{"common name of another kind", x509.Certificate{Subject: pkix.Name{CommonName: good}}, codes.Unauthenticated, codes.PermissionDenied},
		{"common name beside a DNS name", x509.Certificate{DNSNames: []string{"other.internal"}, Subject: cn}, codes.PermissionDenied, codes.PermissionDenied},
		{"an authority", x509.Certificate{URIs: uris(t, good), IsCA: true, BasicConstraintsValid: true}, codes.Unauthenticated, codes.Unauthenticated},
		{"nothing", x509.Certificate{}, codes.Unauthenticated, codes.Unauthenticated},
	} {
		t.Run(row.name, func(t *testing.T) {
			for in, want := range map[*servertest.Instance]codes.Code{strict: row.wantCode, lax: row.laxGet} {
				template := row.cert
				template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
				cert := in.Authority.Issue(t, &template)
				_, err := coatcheckv1.NewTokenizationServiceClient(in.Dial(t, &cert)).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
				if status.Code(err) != want {
					t.Errorf("common names allowed: %v: %v, want %v", in == lax, err, want)
				}
				if want != codes.OK && reason(err) == "" {
					t.Errorf("no reason in %v", err)
				}
			}
		})
	}
}

// Whoever has no good certificate doesn't get as far as a call.
func TestHandshakesThatFail(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	client := func(template x509.Certificate) *tls.Certificate {
		template.URIs = uris(t, "spiffe://coatcheck.example/checkout")
		if template.ExtKeyUsage == nil {
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		cert := in.Authority.Issue(t, &template)
		return &cert
	}
	stranger := servertest.NewAuthority(t).Caller(t, "checkout")
	for name, cert := range map[string]*tls.Certificate{
		"no certificate":       nil,
		"of another authority": &stranger,
		"expired":              client(x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}),
		"not valid yet":        client(x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}),
		"a server's":           client(x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}),
	} {
		_, err := coatcheckv1.NewTokenizationServiceClient(in.Dial(t, cert)).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"})
		if status.Code(err) != codes.Unavailable || reason(err) != "" {
			t.Errorf("%s: %v, want a connection that fails", name, err)
		}
	}
	older := &tls.Config{RootCAs: in.Authority.Pool(), ServerName: "localhost", MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{in.Authority.Caller(t, "checkout")}}
	if conn, err := tls.Dial("tcp", in.Address, older); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.2 is let in")
	}
	if log := events(t, in); len(log) != 1 {
		t.Errorf("a connection that failed left a record: %v", log)
	}
	// grpc has tried each at least once.
	if n := strings.Count(in.Log.String(), "TLS handshake refused"); n < 6 {
		t.Errorf("%d refused handshakes are logged, want at least 6", n)
	}
}
