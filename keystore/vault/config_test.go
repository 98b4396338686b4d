package vault_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore/vault"
)

func TestValidate(t *testing.T) {
	good := vault.Config{
		Address: []string{"https://vault.example.com:8200"},
		Auth:    vault.Auth{AppRole: &vault.AppRoleAuth{RoleID: "role", SecretID: vault.Secret{File: "secret-id"}}},
	}
	rows := []struct {
		name   string
		change func(*vault.Config)
		want   []string // the fields
	}{
		{"the least", func(*vault.Config) {}, nil},
		{"several addresses", func(c *vault.Config) { c.Address = append(c.Address, "https://[2001:db8::1]/") }, nil},
		{"an agent", func(c *vault.Config) {
			c.Address = []string{"http://127.0.0.1:8100", "http://localhost:8100", "http://[::1]:8100", "unix:///run/agent.sock"}
		}, nil},
		{"all else", func(c *vault.Config) {
			c.Namespace, c.CAFile, c.ServerName = "payments/eu", "ca.crt", "vault"
			c.ClientCertificate, c.ClientKey = "client.crt", "client.key"
			c.Mount, c.Key, c.Timeout, c.Retries = "deep/transit-2", "coats_1.x", time.Second, -1
		}, nil},
		{"a token", func(c *vault.Config) {
			c.Auth = vault.Auth{Token: &vault.TokenAuth{Secret: vault.Secret{Env: "VAULT_TOKEN"}}}
		}, nil},
		{"a service account", func(c *vault.Config) { c.Auth = vault.Auth{Kubernetes: &vault.KubernetesAuth{Role: "coats"}} }, nil},
		{"a certificate", func(c *vault.Config) {
			c.Auth = vault.Auth{Certificate: &vault.CertificateAuth{}}
			c.ClientCertificate, c.ClientKey = "client.crt", "client.key"
		}, nil},

		{"nothing", func(c *vault.Config) { *c = vault.Config{} }, []string{"address", "auth"}},
		{"plain HTTP", func(c *vault.Config) { c.Address = append(c.Address, "http://vault.example.com:8200") }, []string{"address[1]"}},
		{"plain HTTP to an address", func(c *vault.Config) { c.Address = []string{"http://10.0.0.1:8200"} }, []string{"address[0]"}},
		{"a name that begins like loopback", func(c *vault.Config) { c.Address = []string{"http://localhost.example.com"} }, []string{"address[0]"}},
		{"no scheme", func(c *vault.Config) { c.Address = []string{"vault.example.com:8200"} }, []string{"address[0]"}},
		{"another scheme", func(c *vault.Config) { c.Address = []string{"ftp://vault.example.com"} }, []string{"address[0]"}},
		{"no host", func(c *vault.Config) { c.Address = []string{"https://:8200"} }, []string{"address[0]"}},
		{"a password", func(c *vault.Config) { c.Address = []string{"https://ann:secret@vault.example.com"} }, []string{"address[0]"}},
		{"a path", func(c *vault.Config) { c.Address = []string{"https://vault.example.com/v1"} }, []string{"address[0]"}},
		{"a relative socket", func(c *vault.Config) { c.Address = []string{"unix://agent.sock"} }, []string{"address[0]"}},
		{"a namespace with a line feed", func(c *vault.Config) { c.Namespace = "a\nb" }, []string{"namespace"}},
		{"a certificate without its key", func(c *vault.Config) { c.ClientCertificate = "client.crt" }, []string{"client_key"}},
		{"a mount that climbs", func(c *vault.Config) { c.Mount = "transit/../sys" }, []string{"mount"}},
		{"a mount with slashes around it", func(c *vault.Config) { c.Mount = "/transit/" }, []string{"mount"}},
		{"a key with a slash", func(c *vault.Config) { c.Key = "a/b" }, []string{"key"}},
		{"a key with a question mark", func(c *vault.Config) { c.Key = "a?b" }, []string{"key"}},
		{"time that runs backwards", func(c *vault.Config) { c.Timeout = -1 }, []string{"timeout"}},
		{"endless retries", func(c *vault.Config) { c.Retries = 101 }, []string{"retries"}},
		{"two methods", func(c *vault.Config) { c.Auth.Kubernetes = &vault.KubernetesAuth{Role: "coats"} }, []string{"auth"}},
		{"an empty token", func(c *vault.Config) { c.Auth = vault.Auth{Token: &vault.TokenAuth{}} }, []string{"auth.token"}},
		{"no role id", func(c *vault.Config) { c.Auth.AppRole = &vault.AppRoleAuth{SecretID: vault.Secret{Env: "E"}} },
			[]string{"auth.app_role.role_id"}},
		{"two role ids", func(c *vault.Config) {
			c.Auth.AppRole = &vault.AppRoleAuth{RoleID: "a", RoleIDFile: "b", SecretID: vault.Secret{Env: "E"}}
		}, []string{"auth.app_role.role_id"}},
		{"two secret ids", func(c *vault.Config) {
			c.Auth.AppRole = &vault.AppRoleAuth{RoleID: "a", SecretID: vault.Secret{Env: "E", File: "f"}}
		}, []string{"auth.app_role.secret_id"}},
		{"no role of Kubernetes", func(c *vault.Config) { c.Auth = vault.Auth{Kubernetes: &vault.KubernetesAuth{}} },
			[]string{"auth.kubernetes.role"}},
		{"a login path that climbs", func(c *vault.Config) {
			c.Auth = vault.Auth{Kubernetes: &vault.KubernetesAuth{Role: "coats", Mount: ".."}}
		}, []string{"auth.kubernetes.mount"}},
		{"a login by certificate without one", func(c *vault.Config) {
			c.Auth = vault.Auth{Certificate: &vault.CertificateAuth{}}
		}, []string{"client_certificate"}},
		{"all that is wrong", func(c *vault.Config) { c.Key, c.Mount, c.Timeout = "?", "?", -1 }, []string{"mount", "key", "timeout"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			cfg := good
			cfg.Address = slices.Clone(good.Address)
			r.change(&cfg)
			var got []string
			for _, fault := range cfg.Validate() {
				got = append(got, fault.Field)
			}
			if !slices.Equal(got, r.want) {
				t.Errorf("faults of %q, want %q", got, r.want)
			}
			b, err := vault.Open(cfg)
			if (err == nil) != (r.want == nil) {
				t.Errorf("Open: error %v", err)
			}
			if err == nil {
				_ = b.Close()
				return
			}
			if fault, ok := errors.AsType[vault.FieldError](err); !ok || fault.Field != r.want[0] {
				t.Errorf("Open: error %v", err)
			}
			if strings.Contains(err.Error(), "secret@") {
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}
