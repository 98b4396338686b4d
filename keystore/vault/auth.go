package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
)

// method reads what is needed to log in, anew each time.
//
// Errors: credentialsError.
type method func() (credentials, error)

// credentials are what is logged in with.
type credentials struct {
	// login gives the client a token and returns what Vault told about it: an
	// Auth with the token, and with its life if that is known and ends.
	login func(ctx context.Context, client *api.Client) (*api.Secret, error)

	// print tells these credentials from others.
	print fingerprint
}

// fingerprint is a hash of credentials.
type fingerprint [sha256.Size]byte

func printOf(parts ...string) fingerprint {
	return sha256.Sum256([]byte(strings.Join(parts, "\x00")))
}

// newMethod returns the method of a valid configuration with its defaults.
func newMethod(cfg Config) method {
	switch auth := cfg.Auth; {
	case auth.AppRole != nil:
		return func() (credentials, error) { return auth.AppRole.credentials(cfg.Getenv) }
	case auth.Kubernetes != nil:
		return auth.Kubernetes.credentials
	case auth.Certificate != nil:
		return func() (credentials, error) { return auth.Certificate.credentials(cfg.ClientCertificate) }
	default:
		return func() (credentials, error) { return auth.Token.credentials(cfg.Getenv) }
	}
}

func (a *AppRoleAuth) credentials(getenv func(string) string) (credentials, error) {
	roleID := a.RoleID
	if a.RoleIDFile != "" {
		var err error
		if roleID, err = (Secret{File: a.RoleIDFile}).read(getenv); err != nil {
			return credentials{}, err
		}
	}
	secretID, err := a.SecretID.read(getenv)
	if err != nil {
		return credentials{}, err
	}
	with, err := approle.NewAppRoleAuth(roleID, &approle.SecretID{FromString: secretID}, approle.WithMountPath(a.Mount))
	if err != nil {
		return credentials{}, credentialsError("role id or secret id is unusable")
	}
	return credentials{login: byMethod(with), print: printOf(roleID, secretID)}, nil
}

func (a *KubernetesAuth) credentials() (credentials, error) {
	jwt, err := Secret{File: a.JWTFile}.read(nil)
	if err != nil {
		return credentials{}, err
	}
	with, err := kubernetes.NewKubernetesAuth(a.Role,
		kubernetes.WithServiceAccountToken(jwt), kubernetes.WithMountPath(a.Mount))
	if err != nil {
		return credentials{}, credentialsError("role or token is unusable")
	}
	return credentials{login: byMethod(with), print: printOf(jwt)}, nil
}

// byMethod logs in with one of the methods that come with Vault's client.
func byMethod(with api.AuthMethod) func(context.Context, *api.Client) (*api.Secret, error) {
	return func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Auth().Login(ctx, with)
	}
}

// credentials of a certificate are the connection's, so they are what the file
// says only for a connection made from now on.
func (a *CertificateAuth) credentials(file string) (credentials, error) {
	pem, err := readFile(file)
	if err != nil {
		return credentials{}, credentialsError(err.Error())
	}
	return credentials{login: byMethod(certificateLogin(*a)), print: printOf(string(pem))}, nil
}

// certificateLogin is an api.AuthMethod, which Vault's client has for the others
// only.
type certificateLogin CertificateAuth

// Login implements api.AuthMethod.
func (a certificateLogin) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	body := map[string]any{}
	if a.Role != "" {
		body["name"] = a.Role
	}
	return client.Logical().WriteWithContext(ctx, "auth/"+a.Mount+"/login", body)
}

func (a *TokenAuth) credentials(getenv func(string) string) (credentials, error) {
	token, err := a.read(getenv)
	if err != nil {
		return credentials{}, err
	}
	login := func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		client.SetToken(token)
		return lookUp(ctx, client)
	}
	return credentials{login: login, print: printOf(token)}, nil
}

// lookUp returns what Vault tells of the client's token. A token that is bad and
// one that may not look itself up, for want of the policy "default", get the
// same answer, so this is no place to refuse one: its life is unknown then.
func lookUp(ctx context.Context, client *api.Client) (*api.Secret, error) {
	auth := &api.SecretAuth{ClientToken: client.Token()}
	found, err := client.Auth().Token().LookupSelfWithContext(ctx)
	if refused, ok := asRefusal(err); ok && refused.status == http.StatusForbidden {
		return &api.Secret{Auth: auth}, nil
	}
	if err != nil {
		return nil, err
	}
	ttl, err := found.TokenTTL()
	if err != nil {
		return nil, errors.New("the token's TTL isn't understood")
	}
	if auth.Renewable, err = found.TokenIsRenewable(); err != nil {
		return nil, errors.New("whether the token is renewable isn't understood")
	}
	auth.LeaseDuration = int(ttl / time.Second)
	return &api.Secret{Auth: auth}, nil
}
