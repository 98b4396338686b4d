// Package vault is a keystore.Backend whose root key is a key of HashiCorp
// Vault's transit engine, which never leaves Vault.
//
//	backend, err := vault.Open(vault.Config{
//		Address: []string{"https://vault.example.com:8200"},
//		Auth: vault.Auth{AppRole: &vault.AppRoleAuth{
//			RoleID:   "5f1c…",
//			SecretID: vault.Secret{File: "/run/secrets/secret-id"},
//		}},
//	})
//	...
//	defer backend.Close()
//
// Setup prepares Vault, with an administrator's token; Policy is all that the
// service itself may do there.
//
// # What Vault sees
//
// A key is sealed here, under a fresh secret of its own, and only that secret is
// sent to Vault to be encrypted (DESIGN.md section 5, ADR 8). So no key of ours
// ever leaves the process in clear, not even inside TLS, and what Vault's
// audit devices or anyone on its side could record opens nothing without our
// store.
//
// # Vault away, Vault refusing
//
// Requests that fail are made again, at the next address if there are several.
// What still fails then is keystore.ErrUnavailable: no connection, no answer in
// time, a sealed Vault, a standby, a rate limit. keystore.ErrDenied is Vault's own
// word that we may not: the login is refused, or a request is and a new login
// didn't help, or key or mount don't exist. An answer that isn't in Vault's form,
// as that of a proxy, never counts as a denial, and never condemns a wrapped key.
//
// # Secrets in memory
//
// Buffers that held a key or its secret are wiped as soon as they have served.
// Beyond our reach are what package crypto/tls and the HTTP transport buffer,
// and key schedules inside crypto/aes. Tokens and credentials are strings,
// which can't be wiped; they are dropped when the Backend is closed.
//
// # Compatibility
//
// Every wrapped key that a version of this package made is read by all later
// ones; a vector under testdata pins the form.
package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coatcheck/coatcheck/keystore"
)

// Backend wraps keys under a key of Vault's transit engine. Open makes it; the
// zero Backend must not be used. It is safe for concurrent use. Whatever Vault
// does, no call takes longer than Config.Timeout for each try. It prints
// addresses, mount and key, and nothing else.
type Backend struct {
	// A pointer to pointers, since package fmt, which ignores our methods on an
	// unexported field of somebody's struct, follows one pointer for a verb that
	// doesn't fit, and behind that one prints addresses.
	*parts
}

// parts are what a Backend has. They don't change.
type parts struct {
	cfg    *Config // valid, with its defaults
	http   *http.Client
	keeper *keeper
	life   context.Context // ends with Close
	end    context.CancelFunc
}

var _ keystore.Backend = (*Backend)(nil)

// Open returns the backend for a configuration. It makes no connection and
// reads no file: the first call logs in. The caller closes it.
//
// Errors: all that Validate finds, joined, each a FieldError.
func Open(cfg Config) (*Backend, error) {
	var errs []error
	for _, fault := range cfg.Validate() {
		errs = append(errs, fault)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("vault: %w", errors.Join(errs...))
	}
	cfg = cfg.withDefaults()
	cfg.Address = append([]string(nil), cfg.Address...)
	b := &Backend{&parts{cfg: &cfg}}
	b.life, b.end = context.WithCancel(context.Background())
	transports := newAddresses(b.life, cfg)
	b.http = &http.Client{
		Transport: transports,
		Timeout:   cfg.Timeout,
		// Vault's client follows a standby's redirect itself.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	b.keeper = &keeper{
		cfg: cfg, method: newMethod(cfg), transports: transports, newClient: b.newClient, life: b.life,
	}
	return b, nil
}

// Close ends what runs in the background and the calls that are under way, drops
// the token and closes the connections. The token isn't revoked, which would
// need Vault: it ends by itself. After Close every call is
// keystore.ErrUnavailable. Closing twice is fine; the error is always nil.
func (b *Backend) Close() error {
	b.keeper.close(b.end)
	b.http.CloseIdleConnections()
	return nil
}

// Wrap implements keystore.Backend. With a key of type aes256-gcm96 the result
// is 127 bytes long.
func (b *Backend) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	ctx, cancel, err := b.begin(ctx, "wrap")
	if err != nil {
		return nil, err
	}
	defer cancel()
	if len(key) != keystore.KeySize {
		return nil, fmt.Errorf("%w: %d bytes", keystore.ErrKeySize, len(key))
	}
	secret, err := newSecret()
	if err != nil {
		return nil, b.errorf(keystore.ErrUnavailable, "wrap", err.Error())
	}
	defer clear(secret)
	s, err := b.encrypt(ctx, secret)
	if err != nil {
		return nil, err
	}
	if s.sealed, err = seal(secret, key, label); err != nil {
		return nil, b.errorf(keystore.ErrUnavailable, "wrap", err.Error())
	}
	return s.build(), nil
}

// Unwrap implements keystore.Backend.
func (b *Backend) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	ctx, cancel, err := b.begin(ctx, "unwrap")
	if err != nil {
		return nil, err
	}
	defer cancel()
	s, err := parseStored(wrapped)
	if err != nil {
		return nil, err
	}
	secret, err := b.decrypt(ctx, s)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	key, err := open(secret, s.sealed, label)
	if err != nil {
		return nil, b.errorf(err, "unwrap", "altered, or of another label")
	}
	return key, nil
}

// Rewrap implements keystore.Backend. Only Vault sees the secret, and nobody the
// key: what seals it, label included, is neither opened nor verified.
func (b *Backend) Rewrap(ctx context.Context, wrapped, _ []byte) ([]byte, error) {
	ctx, cancel, err := b.begin(ctx, "rewrap")
	if err != nil {
		return nil, err
	}
	defer cancel()
	old, err := parseStored(wrapped)
	if err != nil {
		return nil, err
	}
	s, err := b.rewrap(ctx, old)
	if err != nil {
		return nil, err
	}
	if s.version <= old.version {
		return bytes.Clone(wrapped), nil
	}
	s.sealed = old.sealed
	return s.build(), nil
}

// RootVersion implements keystore.Backend: it is the version of the transit key.
//
// Errors: keystore.ErrUnwrap.
func (b *Backend) RootVersion(wrapped []byte) (uint32, error) {
	s, err := parseStored(wrapped)
	return s.version, err
}

// Forget implements keystore.Backend: it closes connections that nobody uses,
// whose buffers have answers of Vault in them.
func (b *Backend) Forget() { b.http.CloseIdleConnections() }

// Check implements keystore.Backend: it has transit encrypt and decrypt a secret,
// which needs the same rights as the real work.
func (b *Backend) Check(ctx context.Context) error {
	ctx, cancel, err := b.begin(ctx, "check")
	if err != nil {
		return err
	}
	defer cancel()
	probe, err := newSecret()
	if err != nil {
		return b.errorf(keystore.ErrUnavailable, "check", err.Error())
	}
	defer clear(probe)
	s, err := b.encrypt(ctx, probe)
	if err != nil {
		return err
	}
	secret, err := b.decrypt(ctx, s)
	if errors.Is(err, keystore.ErrUnwrap) || err == nil && subtle.ConstantTimeCompare(secret, probe) != 1 {
		err = b.errorf(keystore.ErrUnavailable, "check", "what was encrypted doesn't decrypt")
	}
	clear(secret)
	return err
}

// newSecret returns random bytes for seal.
func newSecret() ([]byte, error) {
	secret := make([]byte, secretSize)
	_, err := rand.Read(secret)
	return secret, err
}

// begin starts a call: it refuses a context that has ended, and bounds the rest.
func (b *Backend) begin(ctx context.Context, op string) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, b.wrapError(op, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.budget(), errBudget)
	return ctx, cancel, nil
}

// errorf returns a sentinel with what was tried and why it didn't work.
func (b *Backend) errorf(sentinel error, op, reason string) error {
	return fmt.Errorf("%w: vault: %s with key %s of %s: %s", sentinel, op, b.cfg.Key, b.cfg.Mount, reason)
}

// wrapError says what was tried with an error that has its sentinel.
func (b *Backend) wrapError(op string, err error) error {
	return fmt.Errorf("vault: %s with key %s of %s: %w", op, b.cfg.Key, b.cfg.Mount, err)
}

// String names the addresses, the mount and the key.
func (b *Backend) String() string {
	return fmt.Sprintf("Vault key %s of %s at %s", b.cfg.Key, b.cfg.Mount, strings.Join(b.cfg.Address, ", "))
}

// GoString is String.
func (b *Backend) GoString() string { return b.String() }

// Format prints String, whatever the verb.
func (b *Backend) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }
