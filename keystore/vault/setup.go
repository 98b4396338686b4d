package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/coatcheck/coatcheck/keystore"
)

// SetupConfig says what Setup makes. Names follow the rules of Config.
type SetupConfig struct {
	Mount  string // of the transit engine; default DefaultMount
	Key    string // the key in it; default DefaultKey
	Policy string // its name; default coatcheck

	// AppRole is the name of the role that the service logs in as. Empty makes
	// none, for those who log in in another way: that login needs the policy.
	AppRole      string
	AppRoleMount string // default approle
}

// Step is one thing that Setup makes.
type Step struct {
	What string // as in "make the key coatcheck"
	Done bool   // false if it was there already
}

func (c SetupConfig) withDefaults() SetupConfig {
	c.Mount, c.Key = orElse(c.Mount, DefaultMount), orElse(c.Key, DefaultKey)
	c.Policy, c.AppRoleMount = orElse(c.Policy, "coatcheck"), orElse(c.AppRoleMount, "approle")
	return c
}

// Validate returns all faults, each with its field.
func (c SetupConfig) Validate() []FieldError {
	c = c.withDefaults()
	var faults []FieldError
	match := func(ok bool, field string) {
		if !ok {
			faults = append(faults, FieldError{field, "is not a name that Vault's paths can have"})
		}
	}
	match(mountPattern.MatchString(c.Mount), "mount")
	match(namePattern.MatchString(c.Key), "key")
	// Vault keeps policies in lower case and has two of its own.
	match(namePattern.MatchString(c.Policy) && c.Policy == strings.ToLower(c.Policy) &&
		c.Policy != "root" && c.Policy != "default", "policy")
	match(c.AppRole == "" || namePattern.MatchString(c.AppRole), "app_role")
	match(mountPattern.MatchString(c.AppRoleMount), "app_role_mount")
	return faults
}

// Setup makes in Vault what the service needs: the transit engine, the key, the
// policy and, if asked to, an AppRole. It leaves what is there and right, writes a
// policy or role that differs, and refuses a key that could be exported or deleted.
// So it can be run again, after an error too.
//
// It is for an administrator: it takes the address, the token and all else from
// the environment variables VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and so on, and
// the token that `vault login` has left where VAULT_TOKEN isn't set.
//
// It returns what was done until the end or the error. Errors: FieldErrors,
// joined; keystore.ErrDenied, keystore.ErrUnavailable, or one without a sentinel
// that says what in Vault is not as it should be.
func Setup(ctx context.Context, cfg SetupConfig) ([]Step, error) {
	steps, err := cfg.steps()
	if err != nil {
		return nil, err
	}
	client, err := adminClient()
	if err != nil {
		return nil, err
	}
	var done []Step
	for _, s := range steps {
		wrote, err := s.run(ctx, client)
		if err != nil {
			if end := ctx.Err(); end != nil {
				err = end
			}
			return done, fmt.Errorf("vault: %s: %w", s.what, err)
		}
		done = append(done, Step{What: s.what, Done: wrote})
	}
	return done, nil
}

// NewSecretID makes a secret id for the AppRole that Setup has made, and returns
// it with the role's id: what the service logs in with. The secret id is a
// secret. Who may do so, and from where the environment is taken, is as for
// Setup.
//
// Errors: as those of Setup.
func NewSecretID(ctx context.Context, cfg SetupConfig) (roleID, secretID string, err error) {
	if cfg.AppRole == "" {
		return "", "", errors.New("vault: no AppRole is named")
	}
	if _, err := cfg.steps(); err != nil { // names that paths can have
		return "", "", err
	}
	client, err := adminClient()
	if err != nil {
		return "", "", err
	}
	cfg = cfg.withDefaults()
	role := "auth/" + cfg.AppRoleMount + "/role/" + cfg.AppRole
	id, err := client.Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		return "", "", fmt.Errorf("vault: read the role id: %w", adminError(err))
	}
	made, err := client.Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		return "", "", fmt.Errorf("vault: make a secret id: %w", adminError(err))
	}
	if id == nil || made == nil {
		return "", "", fmt.Errorf("vault: there is no role %s", cfg.AppRole)
	}
	roleID, _ = id.Data["role_id"].(string)
	secretID, _ = made.Data["secret_id"].(string)
	if roleID == "" || secretID == "" {
		return "", "", errors.New("vault: the answer has no id")
	}
	return roleID, secretID, nil
}

// SetupCommands returns what Setup does as commands of Vault's own program, for
// a shell, to be read and run by hand. Vault refuses to enable again what is
// enabled; the other commands can be repeated.
//
// Errors: FieldErrors, joined.
func SetupCommands(cfg SetupConfig) (string, error) {
	steps, err := cfg.steps()
	if err != nil {
		return "", err
	}
	cfg = cfg.withDefaults()
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "# %s%s.\n%s\n", strings.ToUpper(s.what[:1]), s.what[1:], s.command())
	}
	if cfg.AppRole != "" {
		role := "auth/" + cfg.AppRoleMount + "/role/" + cfg.AppRole
		fmt.Fprintf(&b, "# Read the role id, for the configuration.\nvault read -field=role_id %s/role-id\n\n", role)
		fmt.Fprintf(&b, "# Make a secret id, for the file that the configuration names.\n"+
			"vault write -force -field=secret_id %s/secret-id\n\n", role)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// adminClient returns a client as Vault's own program has it.
func adminClient() (*api.Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, errors.New("vault: a VAULT_ variable of the environment has a bad value")
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, errors.New("vault: a VAULT_ variable of the environment has a bad value")
	}
	if client.Token() == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, errors.New("vault: VAULT_TOKEN is not set")
		}
		token, err := Secret{File: filepath.Join(home, ".vault-token")}.read(os.Getenv)
		if err != nil {
			return nil, fmt.Errorf("vault: VAULT_TOKEN is not set: %w", err)
		}
		client.SetToken(token)
	}
	return client, nil
}

// run does a step unless that is done, and reports whether it had to.
func (s setupStep) run(ctx context.Context, client *api.Client) (wrote bool, err error) {
	found, err := client.Logical().ReadWithContext(ctx, s.look)
	// Older versions answer a look at what isn't there with 400.
	if refused, ok := asRefusal(err); ok && (refused.status == http.StatusNotFound || refused.status == http.StatusBadRequest) {
		found, err = nil, nil
	}
	if err != nil {
		return false, adminError(err)
	}
	if found != nil && found.Data != nil {
		there, err := s.there(found.Data)
		if there || err != nil {
			return false, err
		}
	}
	body := make(map[string]any)
	for _, f := range s.fields {
		body[f.name] = f.value
	}
	if _, err := client.Logical().WriteWithContext(ctx, s.path, body); err != nil {
		return false, adminError(err)
	}
	return true, nil
}

// adminError gives an error of Vault's client its sentinel. A status 400 has
// none: what we write is fixed, so something in Vault isn't as we expect it.
func adminError(err error) error {
	reason, sentinel := failure(err, nil)
	if sentinel == nil {
		return errors.New(reason)
	}
	if errors.Is(sentinel, keystore.ErrDenied) {
		reason += ": may this token administer Vault?"
	}
	return fmt.Errorf("%w: %s", sentinel, reason)
}
