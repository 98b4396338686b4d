package repocheck

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	"github.com/coatcheck/coatcheck/cmd/internal/service"
)

// TestSamples puts the sample configuration and policy through what serve
// does with a configuration, plain and with a passphrase.
func TestSamples(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]devkit.Options{
		"plain":             {},
		"with a passphrase": {PassphraseFile: secret, Passphrase: []byte("a passphrase")},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir, o.Listen = filepath.Join(t.TempDir(), "instance"), "127.0.0.1:7443"
			if made, err := devkit.Ensure(o); err != nil || !made {
				t.Fatalf("Ensure: %v, %v", made, err)
			}
			if made, err := devkit.Ensure(o); err != nil || made {
				t.Fatalf("Ensure again: %v, %v", made, err)
			}
			c, err := config.Load(filepath.Join(o.Dir, devkit.ConfigFile))
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			if notes, err := service.Check(service.Options{Config: c, Getenv: os.Getenv, Log: log}); err != nil || notes != nil {
				t.Fatal(notes, err)
			}
		})
	}
}
