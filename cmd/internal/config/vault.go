package config

import (
	"strings"
	"time"

	"github.com/coatcheck/coatcheck/keystore/vault"
)

// VaultKeystore is a key of HashiCorp Vault's transit engine. Secrets come
// from files or environment variables, never from the configuration itself.
type VaultKeystore struct {
	Address           []string      `yaml:"address"` // https://host:port, tried in turn
	Namespace         string        `yaml:"namespace"`
	CAFile            string        `yaml:"ca_file"`
	ServerName        string        `yaml:"server_name"`
	ClientCertificate string        `yaml:"client_certificate"`
	ClientKey         string        `yaml:"client_key"`
	Mount             string        `yaml:"mount"`
	Key               string        `yaml:"key"`
	Timeout           time.Duration `yaml:"timeout"` // of one request
	Retries           *int          `yaml:"retries"`
	Auth              VaultAuth     `yaml:"auth"`
}

// VaultAuth says how to log in to Vault. Exactly one way is named.
type VaultAuth struct {
	Token       *VaultSecret      `yaml:"token"`
	AppRole     *VaultAppRole     `yaml:"app_role"`
	Kubernetes  *VaultKubernetes  `yaml:"kubernetes"`
	Certificate *VaultCertificate `yaml:"certificate"`
}

// VaultSecret says where a secret is: in a file or in an environment variable.
type VaultSecret struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// VaultAppRole is a role and its secret.
type VaultAppRole struct {
	Mount      string      `yaml:"mount"`
	RoleID     string      `yaml:"role_id"`
	RoleIDFile string      `yaml:"role_id_file"`
	SecretID   VaultSecret `yaml:"secret_id"`
}

// VaultKubernetes is the service account of a pod.
type VaultKubernetes struct {
	Mount   string `yaml:"mount"`
	Role    string `yaml:"role"`
	JWTFile string `yaml:"jwt_file"`
}

// VaultCertificate is the client certificate of the connection.
type VaultCertificate struct {
	Mount string `yaml:"mount"`
	Role  string `yaml:"role"`
}

// Config returns the configuration for package vault.
func (v *VaultKeystore) Config(getenv func(string) string) vault.Config {
	c := vault.Config{
		Address: v.Address, Namespace: v.Namespace, CAFile: v.CAFile, ServerName: v.ServerName,
		ClientCertificate: v.ClientCertificate, ClientKey: v.ClientKey,
		Mount: v.Mount, Key: v.Key, Timeout: v.Timeout, Getenv: getenv,
	}
	if v.Retries != nil {
		if c.Retries = *v.Retries; c.Retries == 0 {
			c.Retries = -1 // there 0 stands for the default
		}
	}
	if a := v.Auth.Token; a != nil {
		c.Auth.Token = &vault.TokenAuth{Secret: vault.Secret(*a)}
	}
	if a := v.Auth.AppRole; a != nil {
		c.Auth.AppRole = &vault.AppRoleAuth{Mount: a.Mount, RoleID: a.RoleID, RoleIDFile: a.RoleIDFile, SecretID: vault.Secret(a.SecretID)}
	}
	if a := v.Auth.Kubernetes; a != nil {
		c.Auth.Kubernetes = &vault.KubernetesAuth{Mount: a.Mount, Role: a.Role, JWTFile: a.JWTFile}
	}
	if a := v.Auth.Certificate; a != nil {
		c.Auth.Certificate = &vault.CertificateAuth{Mount: a.Mount, Role: a.Role}
	}
	return c
}

// check reports settings that can't be.
func (v *VaultKeystore) check(fault func(string, ...string)) {
	at := func(field string) []string {
		field, _, _ = strings.Cut(field, "[")
		return append([]string{"keystore", "vault"}, strings.Split(field, ".")...)
	}
	for _, f := range v.Config(nil).Validate() {
		fault(f.Error(), at(f.Field)...)
	}
	if v.Retries != nil && (*v.Retries < 0 || *v.Retries > 10) {
		fault("retries must be from 0 to 10", at("retries")...)
	}
	if v.Timeout != 0 && (v.Timeout < 10*time.Millisecond || v.Timeout > time.Minute) {
		fault("timeout must be from 10ms to 1m", at("timeout")...)
	}
}

// paths returns the settings that are paths.
func (v *VaultKeystore) paths() []*string {
	paths := []*string{&v.CAFile, &v.ClientCertificate, &v.ClientKey}
	if a := v.Auth.Token; a != nil {
		paths = append(paths, &a.File)
	}
	if a := v.Auth.AppRole; a != nil {
		paths = append(paths, &a.RoleIDFile, &a.SecretID.File)
	}
	if a := v.Auth.Kubernetes; a != nil {
		paths = append(paths, &a.JWTFile)
	}
	return paths
}
