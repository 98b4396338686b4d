package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
	"github.com/coatcheck/coatcheck/keystore/vault"
	"github.com/coatcheck/coatcheck/server"
)

// openBackend opens what guards the keys, without asking it anything. The
// caller calls closeBackend once.
func openBackend(c config.Keystore, getenv func(string) string) (backend keystore.Backend, closeBackend func() error, err error) {
	if c.Vault != nil {
		if err := checkVaultFiles(c.Vault); err != nil {
			return nil, nil, err
		}
		b, err := vault.Open(c.Vault.Config(getenv))
		if err != nil {
			return nil, nil, err
		}
		return b, b.Close, nil
	}
	var passphrase []byte
	switch {
	case c.Local.PassphraseFile != "":
		data, err := read("passphrase_file", c.Local.PassphraseFile)
		if err != nil {
			return nil, nil, err
		}
		passphrase = TrimPassphrase(data)
	case c.Local.PassphraseEnv != "":
		passphrase = []byte(getenv(c.Local.PassphraseEnv))
		if len(passphrase) == 0 {
			return nil, nil, fmt.Errorf("passphrase_env: the environment has no %s", c.Local.PassphraseEnv)
		}
	}
	b, err := local.Open(c.Local.RootKey, passphrase)
	if err != nil {
		return nil, nil, fmt.Errorf("root_key: %w", err)
	}
	return b, func() error { return nil }, nil
}

// checkVaultFiles reads the files of the connection, so that a mistake is found
// now. They are read again whenever a connection is made. Those with secrets
// are not looked at: they may be put in place later.
func checkVaultFiles(c *config.VaultKeystore) error {
	if c.CAFile != "" {
		if _, err := loadAuthorities("ca_file", c.CAFile); err != nil {
			return err
		}
	}
	if c.ClientCertificate != "" {
		if _, err := tls.LoadX509KeyPair(c.ClientCertificate, c.ClientKey); err != nil {
			return fmt.Errorf("client_certificate %s, client_key %s: %w", c.ClientCertificate, c.ClientKey, err)
		}
	}
	return nil
}

// loadKeys loads the keyring, and makes the first keys if there are none. A
// guard that is away is waited for: for as long as the configuration says, or,
// if the service was told to wait, until it is there. One that refuses us is
// waited for only then.
func loadKeys(ctx context.Context, o Options, keys *keystore.Keystore) error {
	const first, last = 100 * time.Millisecond, 5 * time.Second
	began, bound := time.Now(), o.Config.Keystore.Wait()
	for pause := first; ; pause = min(2*pause, last) {
		_, err := keys.Keyring(ctx, server.DefaultNamespace)
		denied := errors.Is(err, keystore.ErrDenied)
		if err == nil || ctx.Err() != nil || !denied && !errors.Is(err, keystore.ErrUnavailable) || denied && !o.Wait {
			return err
		}
		waited := time.Since(began)
		if !o.Wait && waited >= bound {
			return fmt.Errorf("%w (waited %s; serve --wait waits until it is there)", err, waited.Round(100*time.Millisecond))
		}
		if pause == first {
			o.Log.Warn("waiting for the keystore", "error", err)
		}
		if !o.Wait {
			pause = min(pause, bound-waited)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// logState says in the log when the state of the keys changes.
func logState(log *slog.Logger) func(keystore.Status) {
	return func(s keystore.Status) {
		switch s.State {
		case keystore.Ready:
			log.Info("keystore ready: the keys are confirmed")
		case keystore.Offline:
			log.Error("keystore offline: keys in memory are used, none can be made", "until", s.Until.UTC().Format(time.RFC3339), "error", s.Cause)
		case keystore.Sealed:
			log.Error("keystore sealed: no key can be used until it is confirmed", "error", s.Cause)
		}
	}
}
