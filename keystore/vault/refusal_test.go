package vault_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

// What an administrator does to key, mount and policy, and what it means for us.
func TestRefusals(t *testing.T) {
	v := newVault(t)
	rows := []struct {
		name string
		do   func(r root)
		// Of Wrap, Unwrap, Rewrap and Check. Nil is success.
		wrap, unwrap, rewrap, check error
	}{
		{"nothing", func(root) {}, nil, nil, nil, nil},
		{"the key is deleted", func(r root) {
			r.ConfigureKey("transit", r.name, map[string]any{"deletion_allowed": true})
			r.Do(http.MethodDelete, "transit/keys/"+r.name, nil, nil)
		}, keystore.ErrDenied, keystore.ErrDenied, keystore.ErrDenied, keystore.ErrDenied},
		{"its version is retired", func(r root) {
			r.RotateKey("transit", r.name)
			r.ConfigureKey("transit", r.name, map[string]any{"min_decryption_version": 2})
		}, nil, keystore.ErrUnwrap, keystore.ErrUnwrap, nil},
		{"another key has its name", func(r root) {
			r.ConfigureKey("transit", r.name, map[string]any{"deletion_allowed": true})
			r.Do(http.MethodDelete, "transit/keys/"+r.name, nil, nil)
			r.NewKey("transit", r.name)
		}, nil, keystore.ErrUnwrap, keystore.ErrUnwrap, nil},
		{"the policy is without decrypt", func(r root) {
			r.WritePolicy(r.name, strings.Replace(vault.Policy("transit", r.name), "transit/decrypt/", "transit/other/", 1))
		}, nil, keystore.ErrDenied, nil, keystore.ErrDenied},
		{"the policy is without rewrap", func(r root) {
			r.WritePolicy(r.name, strings.Replace(vault.Policy("transit", r.name), "transit/rewrap/", "transit/other/", 1))
		}, nil, nil, keystore.ErrDenied, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := newRoot(v)
			b := open(t, r.appRole(t))
			wrapped, err := b.Wrap(t.Context(), testKey(), testLabel)
			if err != nil {
				t.Fatal(err)
			}
			row.do(r)
			_, err = b.Wrap(t.Context(), testKey(), testLabel)
			wantErr(t, "Wrap", err, row.wrap)
			_, err = b.Unwrap(t.Context(), wrapped, testLabel)
			wantErr(t, "Unwrap", err, row.unwrap)
			_, err = b.Rewrap(t.Context(), wrapped, testLabel)
			wantErr(t, "Rewrap", err, row.rewrap)
			wantErr(t, "Check", b.Check(t.Context()), row.check)
		})
	}
}

// A key that nobody has made isn't made by encrypting.
func TestKeyIsNotMade(t *testing.T) {
	r := newRoot(newVault(t))
	r.WritePolicy(r.name, vault.Policy("transit", "missing"))
	cfg := r.appRole(t)
	cfg.Key = "missing"
	_, err := open(t, cfg).Wrap(t.Context(), testKey(), testLabel)
	wantErr(t, "Wrap", err, keystore.ErrDenied)
	if !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "transit") || !strings.Contains(err.Error(), "403") {
		t.Errorf("error %q doesn't name key, mount and status", err)
	}
	if status, _, err := r.Try(r.RootToken, http.MethodGet, "transit/keys/missing", nil); status != http.StatusNotFound {
		t.Errorf("the key is there: status %d, error %v", status, err)
	}
}

func TestMountIsMissing(t *testing.T) {
	r := newRoot(newVault(t))
	r.WritePolicy(r.name, vault.Policy("elsewhere", r.name))
	cfg := r.appRole(t)
	cfg.Mount = "elsewhere"
	_, err := open(t, cfg).Wrap(t.Context(), testKey(), testLabel)
	wantErr(t, "Wrap", err, keystore.ErrDenied)
}

// What was rewrapped opens after its old version is retired.
func TestRewrapBeforeRetiring(t *testing.T) {
	r := newRoot(newVault(t))
	b := open(t, r.appRole(t))
	old, err := b.Wrap(t.Context(), testKey(), testLabel)
	if err != nil {
		t.Fatal(err)
	}
	r.RotateKey("transit", r.name)
	rewrapped, err := b.Rewrap(t.Context(), old, testLabel)
	if err != nil {
		t.Fatal(err)
	}
	r.ConfigureKey("transit", r.name, map[string]any{"min_decryption_version": 2})
	if key, err := b.Unwrap(t.Context(), rewrapped, testLabel); err != nil || string(key) != string(testKey()) {
		t.Errorf("rewrapped: %d bytes, error %v", len(key), err)
	}
	_, err = b.Unwrap(t.Context(), old, testLabel)
	wantErr(t, "Unwrap of the old form", err, keystore.ErrUnwrap)
}

func TestRateLimit(t *testing.T) {
	r := newRoot(newVault(t))
	cfg := r.appRole(t)
	cfg.Retries = -1
	b := open(t, cfg)
	wantWork(t, "without a limit", b)
	r.Do(http.MethodPost, "sys/quotas/rate-limit/transit", map[string]any{"path": "transit", "rate": 1, "interval": "10m"}, nil)
	var err error
	for range 10 {
		if err = b.Check(t.Context()); err != nil {
			break
		}
	}
	wantErr(t, "Check over the limit", err, keystore.ErrUnavailable)
	if err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("error %v doesn't say why", err)
	}
}

// Transit decrypts for whoever may use the key. What somebody else had it encrypt
// is not a secret of ours.
func TestForeignCiphertext(t *testing.T) {
	r := newRoot(newVault(t))
	b := open(t, r.appRole(t))
	wrapped, err := b.Wrap(t.Context(), testKey(), testLabel)
	if err != nil {
		t.Fatal(err)
	}
	for _, plaintext := range []string{"", "AA==", strings.Repeat("A", 40) + "AAA="} {
		var made struct {
			Data struct {
				Ciphertext string `json:"ciphertext"`
			} `json:"data"`
		}
		r.Do(http.MethodPost, "transit/encrypt/"+r.name, map[string]any{"plaintext": plaintext}, &made)
		foreign := vault.WithCiphertext(t, wrapped, made.Data.Ciphertext)
		_, err = b.Unwrap(t.Context(), foreign, testLabel)
		if !errors.Is(err, keystore.ErrUnwrap) {
			t.Errorf("plaintext of %d bytes: error %v", len(plaintext)/4*3, err)
		}
	}
}
