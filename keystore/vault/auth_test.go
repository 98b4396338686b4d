package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

// wantWork fails unless keys can be wrapped and unwrapped.
func wantWork(t testing.TB, what string, b *vault.Backend) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	wrapped, err := b.Wrap(ctx, testKey(), testLabel)
	if err == nil {
		_, err = b.Unwrap(ctx, wrapped, testLabel)
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestTokenFile(t *testing.T) {
	r := newRoot(newVault(t))
	first, second, third := r.Token(r.name, time.Hour), r.Token(r.name, time.Hour), r.Token(r.name, time.Hour)
	file := writeFile(t, first)
	cfg := r.config()
	cfg.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{File: file}}
	b := open(t, cfg)
	wantWork(t, "with the first token", b)

	replaceFile(t, file, second)
	r.RevokeToken(first)
	wantWork(t, "with the second, once the first is refused", b)

	// Check looks at the file, so that the third is used while the second is
	// good: what is in the file afterwards doesn't matter.
	replaceFile(t, file, third)
	if err := b.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.RevokeToken(second)
	wantWork(t, "with the third", b)

	r.RevokeToken(third)
	wantErr(t, "Check without a good token", b.Check(t.Context()), keystore.ErrDenied)
	wantErr(t, "Check of one who never had one", open(t, cfg).Check(t.Context()), keystore.ErrUnavailable)
	replaceFile(t, file, "hvs.nonsense")
	wantErr(t, "Check with a bad token", b.Check(t.Context()), keystore.ErrDenied)
	replaceFile(t, file, r.Token(r.name, time.Hour))
	wantWork(t, "with the fourth", b)
}

func TestTokenEnv(t *testing.T) {
	r := newRoot(newVault(t))
	token := r.Token(r.name, time.Hour)
	cfg := r.config()
	cfg.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{Env: "SOME_TOKEN"}}
	cfg.Getenv = func(name string) string { return map[string]string{"SOME_TOKEN": token + "\n"}[name] }
	wantWork(t, "with a token", open(t, cfg))
	cfg.Getenv = func(string) string { return "" }
	wantErr(t, "Check without", open(t, cfg).Check(t.Context()), keystore.ErrUnavailable)
}

// What Vault's own program takes from the environment is not ours.
func TestEnvironmentIsIgnored(t *testing.T) {
	r := newRoot(newVault(t))
	cfg := r.appRole(t)
	t.Setenv("VAULT_ADDR", "https://vault.invalid:1")
	t.Setenv("VAULT_TOKEN", "hvs.nonsense")
	t.Setenv("VAULT_NAMESPACE", "nowhere")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	wantWork(t, "with variables set", open(t, cfg))
}

// A root token, which never ends, and one that may nothing but the work: without
// "default" it can't look itself up.
func TestTokenKinds(t *testing.T) {
	r := newRoot(newVault(t))
	rows := map[string]string{
		"without an end": r.RootToken,
		"bare":           r.NewToken(map[string]any{"policies": []string{r.name}, "no_default_policy": true, "ttl": "1h"}),
		"not renewable":  r.NewToken(map[string]any{"policies": []string{r.name}, "renewable": false, "ttl": "1h"}),
		"batch":          r.NewToken(map[string]any{"policies": []string{r.name}, "type": "batch", "ttl": "1h"}),
	}
	for name, token := range rows {
		t.Run(name, func(t *testing.T) {
			cfg := r.config()
			cfg.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{File: writeFile(t, token)}}
			wantWork(t, name, open(t, cfg))
		})
	}
}

func TestAppRole(t *testing.T) {
	r := newRoot(newVault(t))
	r.WriteRole("role", map[string]any{"token_policies": r.name})
	roleID, secretID := r.RoleID("role"), r.SecretID("role")
	file := writeFile(t, secretID)
	cfg := r.config()
	cfg.Auth.AppRole = &vault.AppRoleAuth{RoleIDFile: writeFile(t, roleID), SecretID: vault.Secret{File: file}}
	b := open(t, cfg)
	wantWork(t, "at first", b)

	r.RevokeTokensOf(r.name)
	wantWork(t, "with its token revoked", b)
	if n := len(r.TokensOf(r.name)); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}

	r.DeleteRole("role")
	wantWork(t, "on a good token of a deleted role", b)
	r.RevokeTokensOf(r.name)
	for range 8 { // more than there are tries
		_, err := b.Wrap(t.Context(), testKey(), testLabel)
		wantErr(t, "Wrap of a deleted role", err, keystore.ErrDenied)
	}

	// A new secret id is tried at once, however often the old one was refused.
	r.WriteRole("role", map[string]any{"token_policies": r.name, "role_id": roleID})
	replaceFile(t, file, r.SecretID("role"))
	wantWork(t, "with a new secret id", b)
}

// However often a wrong secret id is used, others can log in as the role.
func TestAppRoleIsNotLockedOut(t *testing.T) {
	r := newRoot(newVault(t))
	good := r.appRole(t)
	bad := good
	bad.Auth.AppRole = &vault.AppRoleAuth{
		RoleID: good.Auth.AppRole.RoleID, SecretID: vault.Secret{File: writeFile(t, "nonsense")},
	}
	b := open(t, bad)
	for range 20 {
		wantErr(t, "Check with a wrong secret id", b.Check(t.Context()), keystore.ErrDenied)
	}
	wantWork(t, "with the right one", open(t, good))
}

// authority makes certificates for clients.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := authority{certificate: template, key: newECKey(t)}
	a.pem = a.sign(t, template, a.key)
	return a
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// client writes a certificate and its key.
func (a authority) client(t testing.TB) (certificate, key string) {
	t.Helper()
	ecKey := newECKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "coatcheck"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return writeFile(t, a.sign(t, template, ecKey)),
		writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func TestCertificate(t *testing.T) {
	r := newRoot(newVault(t))
	first, second := newAuthority(t), newAuthority(t)
	r.EnableAuth("cert")
	for _, role := range []string{"", "coats"} {
		cfg := r.config()
		cfg.Auth.Certificate = &vault.CertificateAuth{Role: role}
		trust := func(a authority) {
			r.Do(http.MethodPost, "auth/cert/certs/coats", map[string]any{"certificate": a.pem, "token_policies": r.name}, nil)
			r.RevokeTokensOf(r.name)
		}
		cfg.ClientCertificate, cfg.ClientKey = first.client(t)
		trust(first)
		b := open(t, cfg)
		wantWork(t, "with a certificate", b)

		// The next login shows the files as they are then, and not what the
		// connections that are open have shown.
		certificate, key := second.client(t)
		renameFile(t, certificate, cfg.ClientCertificate)
		renameFile(t, key, cfg.ClientKey)
		trust(second)
		wantWork(t, "with a certificate of another authority", b)

		trust(first)
		wantErr(t, "Check with a certificate that isn't trusted any more", b.Check(t.Context()), keystore.ErrDenied)
	}
}

func renameFile(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// tokenReviews is the part of the Kubernetes API that Vault asks.
func tokenReviews(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{"authenticated": true, "user": map[string]any{
				"username": "system:serviceaccount:payments:coatcheck", "uid": "uid-1",
				"groups": []string{"system:serviceaccounts", "system:authenticated"},
			}},
		})
	}))
	t.Cleanup(s.Close)
	return s
}

// serviceAccountToken returns a token as Kubernetes makes them.
func serviceAccountToken(t testing.TB, name string) string {
	t.Helper()
	part := func(v map[string]any) string {
		content, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(content)
	}
	signed := part(map[string]any{"alg": "ES256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:payments:" + name,
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Add(-time.Minute).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "payments", "serviceaccount": map[string]any{"name": name, "uid": "uid-1"},
		},
	})
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, newECKey(t), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func TestKubernetes(t *testing.T) {
	r, api := newRoot(newVault(t)), tokenReviews(t)
	r.EnableAuth("kubernetes")
	r.Do(http.MethodPost, "auth/kubernetes/config", map[string]any{
		"kubernetes_host":      api.URL,
		"kubernetes_ca_cert":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})),
		"token_reviewer_jwt":   serviceAccountToken(t, "vault"),
		"disable_local_ca_jwt": true,
	}, nil)
	r.Do(http.MethodPost, "auth/kubernetes/role/coats", map[string]any{
		"bound_service_account_names": "coatcheck", "bound_service_account_namespaces": "payments", "token_policies": r.name,
	}, nil)
	file := writeFile(t, serviceAccountToken(t, "stranger"))
	cfg := r.config()
	cfg.Auth.Kubernetes = &vault.KubernetesAuth{Role: "coats", JWTFile: file}
	b := open(t, cfg)
	wantErr(t, "Check as another service account", b.Check(t.Context()), keystore.ErrDenied)
	replaceFile(t, file, serviceAccountToken(t, "coatcheck"))
	wantWork(t, "with a service account", b)
}
