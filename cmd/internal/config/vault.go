package config

import "time"

// VaultKeystore is a key of HashiCorp Vault's transit engine. Secrets come
// from files or environment variables, never from the configuration itself.
type VaultKeystore struct {
	Addresses         []string      `yaml:"addresses"` // https://host:port, tried in turn
	Namespace         string        `yaml:"namespace"` // of Vault Enterprise
	CA                string        `yaml:"ca"`        // PEM file; the system's authorities if empty
	ServerName        string        `yaml:"server_name"`
	ClientCertificate string        `yaml:"client_certificate"` // PEM files, for TLS and auth.certificate
	ClientKey         string        `yaml:"client_key"`
	Mount             string        `yaml:"mount"`
	Key               string        `yaml:"key"`
	Timeout           time.Duration `yaml:"timeout"` // of one request
	Retries           *int          `yaml:"retries"`
	Auth              VaultAuth     `yaml:"auth"`
}

// VaultAuth says how to log in to Vault. Exactly one way is named.
type VaultAuth struct {
	Token       *VaultToken       `yaml:"token"`
	AppRole     *VaultAppRole     `yaml:"approle"`
	Kubernetes  *VaultKubernetes  `yaml:"kubernetes"`
	Certificate *VaultCertificate `yaml:"certificate"`
}

// VaultToken is a token that somebody else has got, such as Vault Agent.
type VaultToken struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// VaultAppRole is a role and its secret.
type VaultAppRole struct {
	Mount        string `yaml:"mount"`
	RoleID       string `yaml:"role_id"`
	RoleIDFile   string `yaml:"role_id_file"`
	SecretIDFile string `yaml:"secret_id_file"`
	SecretIDEnv  string `yaml:"secret_id_env"`
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

// paths returns the settings that are paths.
func (v *VaultKeystore) paths() []*string {
	paths := []*string{&v.CA, &v.ClientCertificate, &v.ClientKey}
	if v.Auth.Token != nil {
		paths = append(paths, &v.Auth.Token.File)
	}
	if v.Auth.AppRole != nil {
		paths = append(paths, &v.Auth.AppRole.RoleIDFile, &v.Auth.AppRole.SecretIDFile)
	}
	if v.Auth.Kubernetes != nil {
		paths = append(paths, &v.Auth.Kubernetes.JWTFile)
	}
	return paths
}
