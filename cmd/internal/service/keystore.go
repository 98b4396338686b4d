package service

import (
	"context"
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

// loadKeys loads the keyring, and makes the first keys if there are none. A
// guard that is away is waited for: for as long as the configuration says, or,
// if the service was told to wait, until it is there. One that refuses us is
// waited for only then.
func loadKeys(ctx context.Context, o Options, keys *keystore.Keystore) error {
	const first, last = 100 * time.Millisecond, 5 * time.Second
	bound := o.Config.Keystore.Wait()
	began := time.Now()
	attempt, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if o.Wait {
		attempt = ctx
	}
	var cause error // of the latest attempt that was not cut off by the bound
	for pause := first; ; pause = min(2*pause, last) {
		_, err := keys.Keyring(attempt, server.DefaultNamespace)
		away := errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
		if err == nil || ctx.Err() != nil || !away && !(o.Wait && errors.Is(err, keystore.ErrDenied)) {
			return err
		}
		if cause == nil && attempt.Err() == nil {
			o.Log.Warn("waiting for the keystore", "error", err)
		}
		if cause == nil || attempt.Err() == nil {
			cause = err
		}
		if attempt.Err() != nil || !o.Wait && time.Since(began)+pause > bound {
			return fmt.Errorf("%w (waited %s; serve --wait waits until it is there)", cause, time.Since(began).Round(100*time.Millisecond))
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
