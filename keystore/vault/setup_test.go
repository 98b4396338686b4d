package vault_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
	"github.com/coatcheck/coatcheck/keystore/vault/testvault"
)

// administer sets the environment as an administrator has it.
func administer(t *testing.T, v *testvault.Vault) {
	t.Helper()
	t.Setenv("VAULT_ADDR", v.Address)
	t.Setenv("VAULT_CACERT", v.CAFile)
	t.Setenv("VAULT_TOKEN", v.RootToken)
}

var someSetup = vault.SetupConfig{Mount: "deep/transit", Key: "keys-key", Policy: "keys", AppRole: "coats", AppRoleMount: "roles"}

// wantSetUp fails unless a backend can work with what someSetup made.
func wantSetUp(t *testing.T, v *testvault.Vault) {
	t.Helper()
	var role struct {
		Data struct {
			RoleID   string `json:"role_id"`
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	v.Do(http.MethodGet, "auth/roles/role/coats/role-id", nil, &role)
	v.Do(http.MethodPost, "auth/roles/role/coats/secret-id", map[string]any{}, &role)
	b := open(t, vault.Config{
		Address: []string{v.Address}, CAFile: v.CAFile, Mount: "deep/transit", Key: "keys-key",
		Auth: vault.Auth{AppRole: &vault.AppRoleAuth{
			Mount: "roles", RoleID: role.Data.RoleID, SecretID: vault.Secret{File: writeFile(t, role.Data.SecretID)},
		}},
	})
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	var key struct {
		Data map[string]any `json:"data"`
	}
	v.Do(http.MethodGet, "deep/transit/keys/keys-key", nil, &key)
	for name, want := range map[string]any{
		"type": "aes256-gcm96", "exportable": false, "deletion_allowed": false, "allow_plaintext_backup": false,
	} {
		if key.Data[name] != want {
			t.Errorf("the key's %s is %v, want %v", name, key.Data[name], want)
		}
	}
}

func TestSetup(t *testing.T) {
	v := testvault.Start(t)
	administer(t, v)
	steps, err := vault.Setup(t.Context(), someSetup)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 5 || slices.ContainsFunc(steps, func(s vault.Step) bool { return !s.Done }) {
		t.Errorf("done at first: %+v", steps)
	}
	wantSetUp(t, v)

	steps, err = vault.Setup(t.Context(), someSetup)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 5 || slices.ContainsFunc(steps, func(s vault.Step) bool { return s.Done }) {
		t.Errorf("done again: %+v", steps)
	}

	// What has been changed is put right.
	v.WritePolicy("keys", `path "*" { capabilities = ["sudo", "read"] }`)
	v.Do(http.MethodPost, "auth/roles/role/coats", map[string]any{"token_policies": "other"}, nil)
	if steps, err = vault.Setup(t.Context(), someSetup); err != nil || !steps[2].Done || !steps[4].Done {
		t.Errorf("after changes, done: %+v, error %v", steps, err)
	}
	wantSetUp(t, v)
}

// The printed commands, carried out, give the same.
func TestSetupCommands(t *testing.T) {
	v := testvault.Start(t)
	commands, err := vault.SetupCommands(someSetup)
	if err != nil {
		t.Fatal(err)
	}
	written := 0
	lines := bufio.NewScanner(strings.NewReader(commands))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), " <<'EOF'")
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "vault" || words[1] != "write" || words[2] == "-force" {
			continue
		}
		body := make(map[string]any)
		for _, word := range words[3:] {
			name, value, ok := strings.Cut(word, "=")
			if !ok {
				t.Fatalf("no field: %q", word)
			}
			if value == "-" {
				value = ""
				for lines.Scan() && lines.Text() != "EOF" {
					value += lines.Text() + "\n"
				}
			}
			body[name] = value
		}
		v.Do(http.MethodPut, words[2], body, nil)
		written++
	}
	if written != 5 {
		t.Errorf("%d commands in:\n%s", written, commands)
	}
	wantSetUp(t, v)

	// Setup agrees that nothing is left to do.
	administer(t, v)
	steps, err := vault.Setup(t.Context(), someSetup)
	if err != nil || slices.ContainsFunc(steps, func(s vault.Step) bool { return s.Done }) {
		t.Errorf("done after the commands: %+v, error %v", steps, err)
	}
	if strings.Contains(commands, v.RootToken) {
		t.Error("the commands show the token")
	}
}

func TestSetupRefuses(t *testing.T) {
	v := newVault(t)
	administer(t, v)
	v.Do(http.MethodPost, "transit/keys/leaky", map[string]any{"exportable": true}, nil)
	v.Do(http.MethodPost, "transit/keys/signing", map[string]any{"type": "ed25519"}, nil)
	v.NewKey("transit", "frail")
	v.ConfigureKey("transit", "frail", map[string]any{"deletion_allowed": true})
	rows := []struct {
		name string
		cfg  vault.SetupConfig
		want string
	}{
		{"an exportable key", vault.SetupConfig{Key: "leaky"}, "exportable"},
		{"a key that may be deleted", vault.SetupConfig{Key: "frail"}, "deletion_allowed"},
		{"a key of another type", vault.SetupConfig{Key: "signing"}, "ed25519"},
		{"another engine's mount", vault.SetupConfig{Mount: "cubbyhole"}, "cubbyhole"},
		{"a key that is no name", vault.SetupConfig{Key: "a/b"}, "key is not a name"},
		{"Vault's own policy", vault.SetupConfig{Policy: "default"}, "policy is not a name"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			steps, err := vault.Setup(t.Context(), r.cfg)
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("done %v, error %v; want one about %q", steps, err, r.want)
			}
		})
	}
	t.Run("a token that may not", func(t *testing.T) {
		token := v.Token("nothing", time.Hour)
		t.Setenv("VAULT_TOKEN", token)
		_, err := vault.Setup(t.Context(), vault.SetupConfig{})
		wantErr(t, "Setup", err, keystore.ErrDenied)
		if strings.Contains(fmt.Sprint(err), token) {
			t.Error("the error shows the token")
		}
	})
	t.Run("no token", func(t *testing.T) {
		t.Setenv("VAULT_TOKEN", "")
		t.Setenv("HOME", t.TempDir())
		if _, err := vault.Setup(t.Context(), vault.SetupConfig{}); err == nil || !strings.Contains(err.Error(), "VAULT_TOKEN") {
			t.Errorf("error %v", err)
		}
	})
}

// The file that administrators are given is what Setup writes.
func TestPolicyFile(t *testing.T) {
	file, err := os.ReadFile("../../deploy/vault/coatcheck.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != vault.Policy(vault.DefaultMount, vault.DefaultKey) {
		t.Error("deploy/vault/coatcheck.hcl is not the policy of Setup")
	}
}
