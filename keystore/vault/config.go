package vault

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// Defaults of Config.
const (
	DefaultMount   = "transit"
	DefaultKey     = "coatcheck"
	DefaultTimeout = 5 * time.Second
	DefaultRetries = 2

	// DefaultJWTFile is where Kubernetes puts a pod's service account token.
	DefaultJWTFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// Config says which key of which Vault guards the keys, and how to reach it.
type Config struct {
	// Address lists the addresses of one Vault, in the order in which they are
	// tried: https://HOST[:PORT]; http:// for a loopback host only, as that of a
	// Vault Agent; or unix:// and the path of a socket. See addresses for when
	// another one is tried.
	Address []string

	// Namespace is that of Vault Enterprise and HCP. Empty is the root namespace.
	Namespace string

	// CAFile is a PEM file with the authorities of Vault's certificate. Empty
	// means those of the system.
	CAFile string

	// ClientCertificate and ClientKey are PEM files with the certificate, and
	// its chain, that is shown to Vault. Both are set or none.
	ClientCertificate string
	ClientKey         string

	// ServerName is the name that Vault's certificate must have, if it isn't
	// the host of the address.
	ServerName string

	// Mount is the path at which the transit engine is mounted, without slashes
	// around it, and Key the name of the key in it. Empty means the default.
	Mount string
	Key   string

	// Timeout limits each request, and with it how long one address is waited
	// for. Zero means DefaultTimeout.
	Timeout time.Duration

	// Retries is how often a request is made again that Vault didn't answer, or
	// answered with 429 or 5xx. Every address is tried once at least. Zero means
	// DefaultRetries, and less means none.
	//
	// Whatever Vault does, no call takes longer than Timeout for each try.
	Retries int

	// Auth says how to log in.
	Auth Auth

	// Getenv looks an environment variable up. Nil means os.Getenv.
	Getenv func(name string) string
}

// Auth is how to log in. Exactly one field is set.
type Auth struct {
	Token       *TokenAuth
	AppRole     *AppRoleAuth
	Kubernetes  *KubernetesAuth
	Certificate *CertificateAuth
}

// TokenAuth uses a token that others provide, as Vault Agent does in a file. It
// is renewed where it can be.
type TokenAuth struct {
	Secret
}

// AppRoleAuth logs in as an AppRole.
type AppRoleAuth struct {
	Mount      string // default approle
	RoleID     string // or RoleIDFile, a file that holds it
	RoleIDFile string
	SecretID   Secret
}

// KubernetesAuth logs in with the token of a service account.
type KubernetesAuth struct {
	Mount   string // default kubernetes
	Role    string
	JWTFile string // default DefaultJWTFile
}

// CertificateAuth logs in with the client certificate of the connection.
type CertificateAuth struct {
	Mount string // default cert
	Role  string // empty lets Vault find the one that the certificate matches
}

// FieldError is a fault of a Config.
type FieldError struct {
	// Field is the path of the field, by the names of the Go fields in snake
	// case: address[0], auth.app_role.secret_id. A Secret is one field.
	Field string

	// Reason says what is wrong with it. It never holds a secret.
	Reason string
}

// Error implements error.
func (e FieldError) Error() string { return e.Field + " " + e.Reason }

// withDefaults returns the configuration with nothing left empty that has a
// default.
func (c Config) withDefaults() Config {
	c.Mount, c.Key = orElse(c.Mount, DefaultMount), orElse(c.Key, DefaultKey)
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Retries == 0 {
		c.Retries = DefaultRetries
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if a := c.Auth.AppRole; a != nil {
		with := *a
		with.Mount = orElse(a.Mount, "approle")
		c.Auth.AppRole = &with
	}
	if a := c.Auth.Kubernetes; a != nil {
		with := *a
		with.Mount, with.JWTFile = orElse(a.Mount, "kubernetes"), orElse(a.JWTFile, DefaultJWTFile)
		c.Auth.Kubernetes = &with
	}
	if a := c.Auth.Certificate; a != nil {
		with := *a
		with.Mount = orElse(a.Mount, "cert")
		c.Auth.Certificate = &with
	}
	return c
}

// tries is how many times a request is made at most.
func (c Config) tries() int { return max(c.Retries+1, len(c.Address), 1) }

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// Names that need no escaping in a path of Vault's API.
var (
	mountPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$`)
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)
)

// Validate returns all faults of the configuration, each with its field. It
// reads no file and makes no connection: what those hold can change.
func (c Config) Validate() []FieldError {
	c = c.withDefaults()
	var faults []FieldError
	fault := func(bad bool, field, reason string) {
		if bad {
			faults = append(faults, FieldError{field, reason})
		}
	}
	fault(len(c.Address) == 0, "address", "is missing")
	for i, address := range c.Address {
		reason := addressFault(address)
		fault(reason != "", fmt.Sprintf("address[%d]", i), reason)
	}
	fault(strings.ContainsFunc(c.Namespace, func(r rune) bool { return r <= ' ' || r >= 0x7f }),
		"namespace", "has characters that no namespace has")
	fault((c.ClientCertificate == "") != (c.ClientKey == ""), "client_key", "and client_certificate need each other")
	fault(!mountPattern.MatchString(c.Mount), "mount", "is not the path of a mount, such as transit")
	fault(!namePattern.MatchString(c.Key), "key", "is not the name of a key, such as coatcheck")
	fault(c.Timeout < 0, "timeout", "is below zero")
	fault(c.Retries > 100, "retries", "is more than 100")
	return append(faults, c.authFaults()...)
}

// addressFault returns what is wrong with an address, or nothing.
func addressFault(address string) string {
	if socket, ok := strings.CutPrefix(address, "unix://"); ok {
		if !strings.HasPrefix(socket, "/") {
			return "needs the absolute path of a socket behind unix://"
		}
		return ""
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not of the form https://HOST:PORT"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "has more than a scheme, a host and a port"
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "is plain HTTP to another host, where anyone on the way could read and change what is sent"
	}
	return ""
}

// loopback reports whether a host is this one, by what it is called.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// authFaults is the part of Validate about Auth, of a configuration with its
// defaults.
func (c Config) authFaults() []FieldError {
	var faults []FieldError
	methods := 0
	mount := func(field, path string) {
		methods++
		if !mountPattern.MatchString(path) {
			faults = append(faults, FieldError{field, "is not the path of a mount"})
		}
	}
	if a := c.Auth.Token; a != nil {
		methods++
		faults = append(faults, a.faults("auth.token")...)
	}
	if a := c.Auth.AppRole; a != nil {
		mount("auth.app_role.mount", a.Mount)
		if (a.RoleID == "") == (a.RoleIDFile == "") {
			faults = append(faults, FieldError{"auth.app_role.role_id", "or role_id_file is needed, and not both"})
		}
		faults = append(faults, a.SecretID.faults("auth.app_role.secret_id")...)
	}
	if a := c.Auth.Kubernetes; a != nil {
		mount("auth.kubernetes.mount", a.Mount)
		if a.Role == "" {
			faults = append(faults, FieldError{"auth.kubernetes.role", "is missing"})
		}
	}
	if a := c.Auth.Certificate; a != nil {
		mount("auth.certificate.mount", a.Mount)
		if c.ClientCertificate == "" {
			faults = append(faults, FieldError{"client_certificate", "is missing, which auth.certificate logs in with"})
		}
	}
	if methods != 1 {
		faults = append(faults, FieldError{"auth", fmt.Sprintf("names %d methods; it has to be exactly one", methods)})
	}
	return faults
}

// CheckFiles reads everything that the configuration names once, so that a
// mistake is found before it matters, and keeps nothing of it. What is there now
// can change until it is used.
func (c Config) CheckFiles() error {
	c = c.withDefaults()
	if _, err := newMethod(c)(); err != nil {
		return fmt.Errorf("vault: auth: %w", err)
	}
	if _, err := (dialer{cfg: c}).tlsConfig("localhost:0"); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}
