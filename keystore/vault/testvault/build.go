//go:build unix

package testvault

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// built is the program of this test binary, built once.
var built = sync.OnceValues(build)

// program returns the path of the program, which is built if anything that it
// is made of has changed. The first time takes minutes; after that the build
// cache has it.
func program(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatalf("testvault: build Vault: %v", err)
	}
	return path
}

func build() (path string, err error) {
	module, err := moduleDir()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // no home directory
	}
	// Each checkout has its own, so that two don't replace each other's.
	dir := filepath.Join(cache, fmt.Sprintf("coatcheck-vaulttest-%x", sha256.Sum256([]byte(module)))[:len("coatcheck-vaulttest-")+12])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	path = filepath.Join(dir, "vaulttest")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, ".")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "PWD="+module, "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w in %s\n%s", err, module, output)
	}
	return path, nil
}

// lock waits for its turn among the test binaries that build at the same time.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// moduleDir returns the directory of the module vaulttest.
func moduleDir() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(filepath.Dir(file)), "vaulttest"), nil
	}
	// Built with -trimpath.
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/coatcheck/coatcheck").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "keystore", "vault", "vaulttest"), nil
}
