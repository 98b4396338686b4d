package local_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
)

func TestCreate(t *testing.T) {
	rows := []struct {
		name       string
		passphrase []byte
		wantType   string
	}{
		{"plain", nil, "-----BEGIN COATCHECK ROOT KEY-----"},
		{"encrypted", []byte("pass \x00\xff phrase"), "-----BEGIN COATCHECK ENCRYPTED ROOT KEY-----"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "root.key")
			if err := local.Create(path, r.passphrase); err != nil {
				t.Fatal(err)
			}
			wantAlone(t, dir, "root.key")
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(file), r.wantType) || !strings.HasPrefix(string(file), "# ") {
				t.Errorf("the file is:\n%s", file)
			}
			first, err := local.Open(path, r.passphrase)
			if err != nil {
				t.Fatal(err)
			}
			second, err := local.Open(path, r.passphrase)
			if err != nil || first.String() != second.String() {
				t.Errorf("opened as %v and %v, error %v", first, second, err)
			}
			if err := first.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// wantAlone fails unless the directory has one file only, which only its owner
// may access.
func wantAlone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Fatalf("the directory has %v, want %s alone", entries, name)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v; want 0600", info.Mode(), err)
	}
}

func TestCreateWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o777} {
		t.Run(fmt.Sprintf("%04o", mask), func(t *testing.T) {
			dir := t.TempDir()
			old := syscall.Umask(mask)
			err := local.Create(filepath.Join(dir, "root.key"), nil)
			syscall.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			wantAlone(t, dir, "root.key")
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nothing"), link); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, path string
		passphrase []byte
		wantErr    error
	}{
		{"a file is there", file, nil, fs.ErrExist},
		{"a directory is there", dir, nil, fs.ErrExist},
		{"a dangling link is there", link, nil, fs.ErrExist},
		{"no such directory", filepath.Join(dir, "missing", "root.key"), nil, fs.ErrNotExist},
		{"empty passphrase", filepath.Join(dir, "root.key"), []byte{}, local.ErrPassphraseRequired},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			err := local.Create(r.path, r.passphrase)
			if !errors.Is(err, r.wantErr) {
				t.Errorf("error %v, want %v", err, r.wantErr)
			}
			if err != nil && !strings.Contains(err.Error(), r.path) {
				t.Errorf("error %q doesn't name the file", err)
			}
		})
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "somebody's" {
		t.Errorf("the file is now %q, error %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, error %v", entries, err)
	}
}

func TestCreateRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = local.Create(path, nil) })
	}
	wg.Wait()
	first := 0
	for _, err := range errs {
		if err == nil {
			first++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if first != 1 {
		t.Errorf("%d callers made the file", first)
	}
	wantAlone(t, dir, "root.key")
	if _, err := local.Open(path, nil); err != nil {
		t.Error(err)
	}
}

func TestOpenPassphrase(t *testing.T) {
	plain, encrypted := vectorFile(t, "plain-v1.rootkey"), vectorFile(t, "encrypted-v1.rootkey")
	rows := []struct {
		name, path string
		passphrase []byte
		wantErr    error
	}{
		{"none for an encrypted file", encrypted, nil, local.ErrPassphraseRequired},
		{"empty for an encrypted file", encrypted, []byte{}, local.ErrPassphraseRequired},
		{"a wrong one", encrypted, []byte("incorrect horse"), local.ErrPassphrase},
		{"a line feed more", encrypted, []byte(vectorPassphrase + "\n"), local.ErrPassphrase},
		{"one for a plain file", plain, []byte(vectorPassphrase), local.ErrNotEncrypted},
		{"an empty one for a plain file", plain, []byte{}, local.ErrNotEncrypted},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			backend, err := local.Open(r.path, r.passphrase)
			if !errors.Is(err, r.wantErr) || backend != nil {
				t.Fatalf("backend %v, error %v; want %v", backend, err, r.wantErr)
			}
			if len(r.passphrase) > 0 && strings.Contains(err.Error(), string(r.passphrase)) {
				t.Errorf("the error shows the passphrase: %v", err)
			}
		})
	}
}

func TestOpenMode(t *testing.T) {
	file, err := os.ReadFile("testdata/plain-v1.rootkey")
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		mode    os.FileMode
		wantErr error
	}{
		{0o600, nil},
		{0o400, nil},
		{0o700, nil},
		{0o640, local.ErrPermissions},
		{0o620, local.ErrPermissions},
		{0o610, local.ErrPermissions},
		{0o604, local.ErrPermissions},
		{0o602, local.ErrPermissions},
		{0o644, local.ErrPermissions},
		{0o666, local.ErrPermissions},
	}
	for _, r := range rows {
		t.Run(fmt.Sprintf("%04o", r.mode), func(t *testing.T) {
			_, err := local.Open(writeFile(t, file, r.mode), nil)
			if !errors.Is(err, r.wantErr) {
				t.Fatalf("error %v, want %v", err, r.wantErr)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%04o", r.mode)) {
				t.Errorf("error %q doesn't name the mode", err)
			}
		})
	}
}

// A link is followed, and it is the file behind it that counts.
func TestOpenLink(t *testing.T) {
	dir := t.TempDir()
	link := func(name, target string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file, err := os.ReadFile("testdata/plain-v1.rootkey")
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, path string
		wantErr    error
	}{
		{"private file", link("private", vectorFile(t, "plain-v1.rootkey")), nil},
		{"public file", link("public", writeFile(t, file, 0o644)), local.ErrPermissions},
		{"nothing", link("dangling", filepath.Join(dir, "nothing")), fs.ErrNotExist},
		{"a device", link("device", os.DevNull), local.ErrFormat},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if _, err := local.Open(r.path, nil); !errors.Is(err, r.wantErr) {
				t.Errorf("error %v, want %v", err, r.wantErr)
			}
		})
	}
}

func TestOpenRefusesFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, path string
		wantErr    error
	}{
		{"missing", filepath.Join(dir, "missing"), fs.ErrNotExist},
		{"directory", dir, local.ErrFormat},
		{"named pipe", pipe, local.ErrFormat}, // and at once, without a writer
		{"empty", writeFile(t, nil, 0o600), local.ErrFormat},
		{"too large", writeFile(t, make([]byte, 1<<20), 0o600), local.ErrFormat},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			backend, err := local.Open(r.path, nil)
			if !errors.Is(err, r.wantErr) || backend != nil {
				t.Fatalf("backend %v, error %v; want %v", backend, err, r.wantErr)
			}
			if !strings.Contains(err.Error(), r.path) {
				t.Errorf("error %q doesn't name the file", err)
			}
		})
	}
}

// The message of a key that is wrapped under another root key says so.
func TestUnwrapNamesRootKeys(t *testing.T) {
	ours, err := local.Open(vectorFile(t, "plain-v1.rootkey"), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := local.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	theirs, err := local.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := theirs.Wrap(t.Context(), make([]byte, keystore.KeySize), []byte("label"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = ours.Unwrap(t.Context(), wrapped, []byte("label"))
	if !errors.Is(err, keystore.ErrUnwrap) {
		t.Fatalf("error %v, want ErrUnwrap", err)
	}
	for _, b := range []*local.Backend{ours, theirs} {
		if id := strings.TrimPrefix(b.String(), "local root key "); !strings.Contains(err.Error(), id) {
			t.Errorf("error %q doesn't name root key %s", err, id)
		}
	}
}
