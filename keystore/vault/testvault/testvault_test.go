package testvault_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore/vault/testvault"
)

// encrypt reports whether a token may use the key coatcheck.
func encrypt(t *testing.T, v *testvault.Vault, token string) (status int) {
	t.Helper()
	status, _, err := v.Try(token, http.MethodPost, "transit/encrypt/coatcheck", map[string]any{"plaintext": "AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestVault(t *testing.T) {
	v := testvault.Start(t)
	v.EnableTransit("transit")
	v.NewKey("transit", "coatcheck")
	v.WritePolicy("coatcheck", `path "transit/encrypt/coatcheck" { capabilities = ["update"] }`)
	token := v.Token("coatcheck", time.Hour)
	if status := encrypt(t, v, token); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}

	t.Run("restarted", func(t *testing.T) {
		address, root := v.Address, v.RootToken
		v.Stop()
		if status, _, err := v.Try(token, http.MethodGet, "sys/health", nil); err == nil {
			t.Fatalf("a stopped Vault answers with status %d", status)
		}
		v.Restart()
		if v.Address != address || v.RootToken != root {
			t.Errorf("it is another one now, at %s", v.Address)
		}
		if status := encrypt(t, v, token); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
	t.Run("hung", func(t *testing.T) {
		v.Hang()
		answered := make(chan int)
		go func() {
			status, _, _ := v.Try(token, http.MethodGet, "sys/health", nil)
			answered <- status
		}()
		select {
		case status := <-answered:
			t.Errorf("a hung Vault answers with status %d", status)
		case <-time.After(100 * time.Millisecond): // it would have by now
		}
		v.Resume()
		if status := <-answered; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
	t.Run("sealed", func(t *testing.T) {
		v.Seal()
		if status := encrypt(t, v, token); status != http.StatusServiceUnavailable {
			t.Errorf("status %d", status)
		}
		v.Restart()
	})
	t.Run("revoked", func(t *testing.T) {
		if n := len(v.TokensOf("coatcheck")); n != 1 {
			t.Errorf("%d tokens", n)
		}
		v.RevokeTokensOf("coatcheck")
		if status := encrypt(t, v, token); status != http.StatusForbidden {
			t.Errorf("status %d", status)
		}
	})
}

func TestAppRole(t *testing.T) {
	v := testvault.Start(t)
	roleID, secretID := v.AppRole("nothing")
	status, response, err := v.Try("", http.MethodPost, "auth/approle/login",
		map[string]any{"role_id": roleID, "secret_id": secretID})
	if err != nil || status != http.StatusOK || !strings.Contains(string(response), `"nothing"`) {
		t.Errorf("status %d, error %v", status, err)
	}
}
