package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"
)

// agentFor returns what a Vault Agent's listener does, as far as it concerns us:
// it passes requests on.
func agentFor(t *testing.T, target *url.URL, caFile string) http.Handler {
	t.Helper()
	ca, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(req *httputil.ProxyRequest) { req.SetURL(target) },
	}
}
