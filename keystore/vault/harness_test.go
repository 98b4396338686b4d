package vault_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
	"github.com/coatcheck/coatcheck/keystore/vault/testvault"
)

var testLabel = []byte("label")

// testKey returns a key whose bytes are all different.
func testKey() []byte {
	key := make([]byte, keystore.KeySize)
	for i := range key {
		key[i] = byte(3 + 7*i)
	}
	return key
}

// names numbers the keys and policies of this test binary.
var names atomic.Int64

// root is a transit key and a policy for it, both of the same new name.
type root struct {
	*testvault.Vault
	name string
}

// newVault starts a Vault with a transit engine.
func newVault(t testing.TB) *testvault.Vault {
	t.Helper()
	v := testvault.Start(t)
	v.EnableTransit("transit")
	return v
}

// newRoot makes a key, and the policy of deploy/vault for it.
func newRoot(v *testvault.Vault) root {
	r := root{v, fmt.Sprintf("key-%d", names.Add(1))}
	v.NewKey("transit", r.name)
	r.allow()
	return r
}

// allow writes the policy.
func (r root) allow() { r.WritePolicy(r.name, vault.Policy("transit", r.name)) }

// config is for the key, without a way to log in.
func (r root) config() vault.Config {
	return vault.Config{Address: []string{r.Address}, CAFile: r.CAFile, Key: r.name, Timeout: 10 * time.Second}
}

// appRole is config with an AppRole that has the policy, and "default".
func (r root) appRole(t testing.TB) vault.Config {
	t.Helper()
	cfg := r.config()
	roleID, secretID := r.AppRole(r.name)
	cfg.Auth.AppRole = &vault.AppRoleAuth{RoleID: roleID, SecretID: vault.Secret{File: writeFile(t, secretID)}}
	return cfg
}

// open opens a backend until the test ends.
func open(t testing.TB, cfg vault.Config) *vault.Backend {
	t.Helper()
	b, err := vault.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// writeFile writes a new file as editors do, with a line feed at its end.
func writeFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	replaceFile(t, path, content)
	return path
}

// replaceFile puts a file in the place of another in one step.
func replaceFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// wantErr fails unless the error wraps want, which may be nil.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// eventually fails unless done is true in a while.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}
