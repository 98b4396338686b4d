// Package devkit makes what a development instance needs: a certificate
// authority, certificates for the server and some callers, a root key, a
// sample configuration and a sample policy.
package devkit

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"

	"github.com/coatcheck/coatcheck/keystore/local"
)

// Callers are the workloads of the sample policy. Each gets a certificate with
// the SPIFFE ID spiffe://coatcheck.example/<name>.
var Callers = []string{"checkout", "payments", "support", "privacy", "admin", "stranger"}

// ConfigFile is the name of the configuration in a development directory.
const ConfigFile = "coatcheck.yaml"

//go:embed sample
var sample embed.FS

// Options say what to make.
type Options struct {
	Dir            string
	Listen         string // host:port for the configuration
	PassphraseFile string // if set, the root key is encrypted under Passphrase
	Passphrase     []byte
}

// Ensure makes the directory unless it has been made before; then it is left
// as it is. It is there whole or not at all.
func Ensure(o Options) (made bool, err error) {
	_, err = os.Stat(filepath.Join(o.Dir, ConfigFile))
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return false, fmt.Errorf("%s is not empty and has no %s", o.Dir, ConfigFile)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(o.Dir)), 0o755); err != nil {
		return false, err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(filepath.Clean(o.Dir)), ".coatcheck-new-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	if err := fill(scratch, o); err != nil {
		return false, err
	}
	if err := errors.Join(syncDir(filepath.Join(scratch, "certs")), syncDir(scratch)); err != nil {
		return false, err
	}
	_ = os.Remove(o.Dir) // if it is there, it is empty
	if err := os.Rename(scratch, o.Dir); err != nil {
		return false, err
	}
	return true, syncDir(filepath.Dir(filepath.Clean(o.Dir)))
}

// fill makes everything in an empty directory.
func fill(dir string, o Options) error {
	if err := makeCertificates(filepath.Join(dir, "certs")); err != nil {
		return err
	}
	if err := local.Create(filepath.Join(dir, "root.key"), o.Passphrase); err != nil {
		return err
	}
	passphraseFile := o.PassphraseFile
	if passphraseFile != "" {
		// The configuration lies elsewhere than where the command runs.
		absolute, err := filepath.Abs(passphraseFile)
		if err != nil {
			return err
		}
		passphraseFile = absolute
	}
	for name, data := range map[string]any{
		"policy.yaml": nil,
		ConfigFile:    map[string]string{"Listen": o.Listen, "PassphraseFile": passphraseFile},
	} {
		if err := render(filepath.Join(dir, name), name, data); err != nil {
			return err
		}
	}
	return nil
}

// render writes one of the sample files.
func render(path, name string, data any) error {
	t, err := template.ParseFS(sample, "sample/"+name)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	return writeFile(path, text.Bytes())
}

// writeFile writes a new file and makes it durable.
func writeFile(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
