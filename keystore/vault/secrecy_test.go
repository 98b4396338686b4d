package vault_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

// spellings are the forms in which bytes could be told.
func spellings(secret []byte) []string {
	forms := []string{
		string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		strings.Trim(fmt.Sprint(secret), "[]"),
	}
	// Base64 in each of the three places that bytes can have in a longer text,
	// without the digits that depend on what stands around them.
	for skip := range 3 {
		whole := secret[skip : skip+(len(secret)-skip)/3*3]
		forms = append(forms, base64.StdEncoding.EncodeToString(whole), base64.URLEncoding.EncodeToString(whole))
	}
	return forms
}

// shows reports whether a text has a secret in it.
func shows(text string, secret []byte) bool {
	for _, form := range spellings(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// secretsIn returns the plaintexts that transit has encrypted or decrypted, out of
// a raw audit file.
func secretsIn(t *testing.T, audit []byte) (secrets []string) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(audit))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Request, Response struct{ Data struct{ Plaintext string } }
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{entry.Request.Data.Plaintext, entry.Response.Data.Plaintext} {
			if secret != "" {
				secrets = append(secrets, secret)
			}
		}
	}
	return secrets
}

// Vault writes all that it is sent and answers into the one file, unhashed, and
// what it usually writes into the other. Our keys are in neither.
func TestVaultNeverSeesKeys(t *testing.T) {
	r := newRoot(newVault(t))
	raw, hashed := r.AuditFile(true), r.AuditFile(false)
	b := open(t, r.appRole(t))
	key := testKey()
	wrapped, err := b.Wrap(t.Context(), key, testLabel)
	if err != nil {
		t.Fatal(err)
	}
	r.RotateKey("transit", r.name)
	rewrapped, err := b.Rewrap(t.Context(), wrapped, testLabel)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Unwrap(t.Context(), rewrapped, testLabel); err != nil || !bytes.Equal(got, key) {
		t.Fatalf("unwrapped to %d bytes, error %v", len(got), err)
	}
	rawAudit, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	hashedAudit, err := os.ReadFile(hashed)
	if err != nil {
		t.Fatal(err)
	}
	if shows(string(rawAudit), key) || shows(string(hashedAudit), key) {
		t.Error("Vault has seen the key")
	}

	// That the search would have found it: the secrets are in the raw file.
	secrets := secretsIn(t, rawAudit)
	if len(secrets) < 2 {
		t.Fatalf("%d secrets in the raw file, want that of the encryption and of the decryption", len(secrets))
	}
	for _, secret := range secrets {
		decoded, err := base64.StdEncoding.DecodeString(secret)
		if err != nil || len(decoded) != 32 {
			t.Fatalf("a secret of %d bytes, error %v", len(decoded), err)
		}
		if !shows(string(rawAudit), decoded) {
			t.Error("a secret is not found where it is")
		}
		if shows(string(hashedAudit), decoded) {
			t.Error("a secret is in the hashed file")
		}
		if shows(string(wrapped), decoded) || shows(string(rewrapped), decoded) {
			t.Error("a secret is in a wrapped key")
		}
	}
}

// Neither a backend nor an error prints what we log in with.
func TestNothingPrintsSecrets(t *testing.T) {
	r := newRoot(newVault(t))
	appRole := r.appRole(t)
	secretID, err := os.ReadFile(appRole.Auth.AppRole.SecretID.File)
	if err != nil {
		t.Fatal(err)
	}
	byToken := r.config()
	token := r.Token(r.name, time.Hour)
	byToken.Auth.Token = &vault.TokenAuth{Secret: vault.Secret{File: writeFile(t, token)}}

	type hidden struct{ b *vault.Backend }
	secrets := []string{strings.TrimSpace(string(secretID)), token, "hvs."}
	check := func(what, printed string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(printed, secret) {
				t.Errorf("%s shows a secret: %q", what, printed)
			}
		}
		if shows(printed, testKey()) {
			t.Errorf("%s shows a key: %q", what, printed)
		}
	}
	for _, cfg := range []vault.Config{byToken, appRole} {
		b := open(t, cfg)
		wantWork(t, "at first", b)
		want := fmt.Sprintf("Vault key %s of transit at %s", r.name, r.Address)
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			if got := fmt.Sprintf(format, b); got != want {
				t.Errorf("%s printed %q, want %q", format, got, want)
			}
			for _, v := range []any{*b, hidden{b}, &hidden{b}} {
				check(fmt.Sprintf("%s of %T", format, v), fmt.Sprintf(format, v))
			}
		}
		wrapped, err := b.Wrap(t.Context(), testKey(), testLabel)
		if err != nil {
			t.Fatal(err)
		}
		var errs []error
		_, err = b.Unwrap(t.Context(), wrapped, nil)
		errs = append(errs, err)
		r.DeletePolicy(r.name)
		errs = append(errs, b.Check(t.Context()))
		r.RevokeTokensOf(r.name)
		errs = append(errs, b.Check(t.Context()))
		r.allow()
		r.Seal()
		errs = append(errs, b.Check(t.Context()))
		r.Stop()
		errs = append(errs, b.Check(t.Context()))
		for _, err := range errs {
			if err == nil {
				t.Error("no error")
			}
			check("an error", fmt.Sprintf("%v %+v %#v %q", err, err, err, err))
		}
		r.Restart()
	}
	_, err = open(t, appRole).Wrap(t.Context(), []byte(token), testLabel)
	wantErr(t, "Wrap of what is no key", err, keystore.ErrKeySize)
	check("an error", fmt.Sprint(err))
}
