package main

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
	"github.com/coatcheck/coatcheck/keystore/vault/testvault"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// onVault is an instance whose keys are in a real Vault.
type onVault struct {
	*testvault.Vault
	dir    string
	config string // its path
	auth   string // YAML of keystore.vault.auth
}

// newOnVault sets Vault up as the guide says, with vault-setup, and makes an
// instance that logs in as the role. settings are lines of YAML under keystore.
func newOnVault(t *testing.T, settings string) *onVault {
	t.Helper()
	v := testvault.Start(t)
	dir := filepath.Join(t.TempDir(), "instance")
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	setup := exec.Command(os.Args[0], "vault-setup", "--app-role", "coatcheck", "--apply", "--secret-id", filepath.Join(dir, "secret-id"))
	setup.Env = append(os.Environ(), runMain+"=1", "VAULT_ADDR="+v.Address, "VAULT_CACERT="+v.CAFile, "VAULT_TOKEN="+v.RootToken)
	out, err := setup.CombinedOutput()
	if err != nil {
		t.Fatalf("vault-setup: %v: %s", err, out)
	}
	_, roleID, ok := strings.Cut(string(out), "role_id: ")
	if !ok {
		t.Fatalf("vault-setup: %s", out)
	}
	i := &onVault{
		Vault: v, dir: dir, config: filepath.Join(dir, "coatcheck.yaml"),
		auth: fmt.Sprintf("app_role: {role_id: %s, secret_id: {file: secret-id}}", strings.TrimSpace(roleID)),
	}
	i.configure(t, settings)
	setPolicy(t, dir)
	return i
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configure writes the keystore's part of the configuration.
func (i *onVault) configure(t *testing.T, settings string) {
	t.Helper()
	text, err := os.ReadFile(i.config)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "\nkeystore:\n")
	_, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatalf("no keystore in %s", text)
	}
	section := fmt.Sprintf("  vault:\n    address: [%q]\n    ca_file: %q\n    timeout: 500ms\n    auth:\n      %s\n%s", i.Address, i.CAFile, i.auth, settings)
	write(t, i.config, before+"\nkeystore:\n"+section+"\n\n"+after)
}

func (i *onVault) start(t *testing.T, args ...string) *process {
	t.Helper()
	return start(t, append([]string{"serve", "--config", i.config}, args...)...)
}

// callers are clients of an instance.
type callers struct {
	checkout, payments coatcheckv1.TokenizationServiceClient
	tokens             coatcheckv1.TokenServiceClient
	keys               coatcheckv1.KeyServiceClient
	health             grpc_health_v1.HealthClient
}

func (p *process) callers(t *testing.T, dir string) callers {
	t.Helper()
	return callers{
		coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout")),
		coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments")),
		coatcheckv1.NewTokenServiceClient(p.dial(t, dir, "privacy")),
		coatcheckv1.NewKeyServiceClient(p.dial(t, dir, "admin")),
		grpc_health_v1.NewHealthClient(p.dial(t, dir, "stranger")),
	}
}

// inTime is a context for a call that must be answered.
func inTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (c callers) tokenize(t *testing.T, value string) (string, error) {
	resp, err := c.checkout.Tokenize(inTime(t), &coatcheckv1.TokenizeRequest{Profile: "note", Value: value})
	return resp.GetToken(), err
}

func (c callers) detokenize(t *testing.T, token string) (string, error) {
	resp, err := c.payments.Detokenize(inTime(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
	return resp.GetValue(), err
}

func (c callers) rotate(t *testing.T, class coatcheckv1.KeyClass) error {
	_, err := c.keys.RotateKey(inTime(t), &coatcheckv1.RotateKeyRequest{KeyClass: class})
	return err
}

// serving says what health says of a part.
func (c callers) serving(t *testing.T, name string) bool {
	resp, err := c.health.Check(inTime(t), &grpc_health_v1.HealthCheckRequest{Service: name})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
}

// reasonOf returns the code and the reason of a refusal.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return status.Code(err).String() + " " + info.GetReason()
		}
	}
	return status.Code(err).String()
}

// waitUntil waits until a condition holds.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

const keystoreAway = "Unavailable KEYSTORE_UNAVAILABLE"

// Vault goes away, by ending and by falling silent: keys are used for a while,
// then sealed, and when Vault is back everything goes on by itself.
func TestVaultGoesAway(t *testing.T) {
	i := newOnVault(t, "  lease: 200ms\n  max_offline: 5s\n")
	for name, outage := range map[string]struct{ begin, end func() }{
		"stopped": {i.Stop, i.Restart},
		"hanging": {i.Hang, i.Resume},
		"sealed":  {i.Seal, i.Restart},
	} {
		t.Run(name, func(t *testing.T) {
			p := i.start(t)
			c := p.callers(t, i.dir)
			token, err := c.tokenize(t, "before")
			if err != nil {
				t.Fatal(err)
			}
			outage.begin()
			waitUntil(t, "health tells that Vault is away", func() bool { return !c.serving(t, "keystore") })
			if !c.serving(t, "") || !c.serving(t, "keys") {
				t.Error("the service is down as soon as Vault is")
			}
			if value, err := c.detokenize(t, token); err != nil || value != "before" {
				t.Errorf("offline: %q, %v", value, err)
			}
			during, err := c.tokenize(t, "during")
			if err != nil {
				t.Errorf("offline: %v", err)
			}
			if err := c.rotate(t, coatcheckv1.KeyClass_KEY_CLASS_DATA); reasonOf(err) != keystoreAway {
				t.Errorf("offline: rotate: %v", err)
			}
			waitUntil(t, "the keys are sealed", func() bool { return !c.serving(t, "keys") && !c.serving(t, "") })
			if value, err := c.detokenize(t, token); reasonOf(err) != keystoreAway || value != "" {
				t.Errorf("sealed: %q, %v", value, err)
			}
			if _, err := c.payments.Detokenize(inTime(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"}); reasonOf(err) != "PermissionDenied PURPOSE_NOT_ALLOWED" {
				t.Errorf("sealed: a denial: %v", err)
			}
			if token, err := c.tokenize(t, "sealed"); reasonOf(err) != keystoreAway || token != "" {
				t.Errorf("sealed: %v", err)
			}
			if err := c.rotate(t, coatcheckv1.KeyClass_KEY_CLASS_DATA); reasonOf(err) != keystoreAway {
				t.Errorf("sealed: rotate: %v", err)
			}
			if resp, err := c.keys.ListKeys(inTime(t), &coatcheckv1.ListKeysRequest{}); err != nil || resp.GetKeystoreState() != coatcheckv1.KeystoreState_KEYSTORE_STATE_SEALED {
				t.Errorf("sealed: ListKeys: %v", err)
			}
			outage.end()
			waitUntil(t, "everything works again", func() bool { return c.serving(t, "") && c.serving(t, "keystore") && c.serving(t, "keys") })
			for token, want := range map[string]string{token: "before", during: "during"} {
				if value, err := c.detokenize(t, token); err != nil || value != want {
					t.Errorf("recovered: %q, %v", value, err)
				}
			}
			if err := c.rotate(t, coatcheckv1.KeyClass_KEY_CLASS_DATA); err != nil {
				t.Errorf("recovered: rotate: %v", err)
			}
			if code := p.terminate(t); code != 0 {
				t.Errorf("exit code %d: %s", code, p.stderr)
			}
		})
	}
}

// With max_offline 0 the keys are sealed at the first confirmation that fails.
func TestVaultGoesAwayWithNoTimeOffline(t *testing.T) {
	i := newOnVault(t, "  lease: 200ms\n  max_offline: 0s\n")
	p := i.start(t)
	c := p.callers(t, i.dir)
	token, err := c.tokenize(t, "value")
	if err != nil {
		t.Fatal(err)
	}
	i.Stop()
	waitUntil(t, "the keys are sealed", func() bool { return !c.serving(t, "keys") })
	if strings.Contains(p.stderr.String(), "keystore offline") {
		t.Errorf("it was offline first: %s", p.stderr)
	}
	i.Restart()
	waitUntil(t, "it works again", func() bool { value, err := c.detokenize(t, token); return err == nil && value == "value" })
}

// A token that is revoked seals the keys within a lease, however long Vault may
// be away; another one in its file opens them.
func TestVaultTokenRevoked(t *testing.T) {
	i := newOnVault(t, "")
	file := filepath.Join(i.dir, "token")
	token := i.Token("coatcheck", time.Hour)
	write(t, file, token+"\n")
	i.auth = "token: {file: token}"
	const lease = 2 * time.Second
	i.configure(t, "  lease: 2s\n  max_offline: 24h\n")
	c := i.start(t).callers(t, i.dir)
	ticket, err := c.tokenize(t, "value")
	if err != nil {
		t.Fatal(err)
	}
	i.RevokeToken(token)
	revoked := time.Now()
	waitUntil(t, "the keys are sealed", func() bool { _, err := c.detokenize(t, ticket); return reasonOf(err) == keystoreAway })
	if took := time.Since(revoked); took > lease+5*time.Second { // and what the requests take on a slow machine
		t.Errorf("sealed after %v, with a lease of %v", took, lease)
	}
	write(t, file, i.Token("coatcheck", time.Hour))
	waitUntil(t, "it works again", func() bool { value, err := c.detokenize(t, ticket); return err == nil && value == "value" })
}

// A start without Vault fails clearly after a bounded wait, or waits.
func TestStartWithoutVault(t *testing.T) {
	i := newOnVault(t, "  start_wait: 1s\n")
	i.Stop()
	began := time.Now()
	code, stderr := run("serve", "--config", i.config)
	if took := time.Since(began); code != 1 || !strings.HasPrefix(lastLine(stderr), "coatcheck: keys: ") || !strings.Contains(lastLine(stderr), "connection refused") || took > 20*time.Second {
		t.Errorf("exit code %d after %v: %s", code, took, stderr)
	}
	if _, err := os.Stat(filepath.Join(i.dir, "data", "coatcheck.db")); err != nil {
		t.Errorf("the store: %v", err)
	}
	waiting := exec.Command(os.Args[0], "serve", "--wait", "--config", i.config)
	waiting.Env = append(os.Environ(), runMain+"=1")
	var said output
	waiting.Stderr = &said
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = waiting.Process.Kill() }()
	waitUntil(t, "it says that it waits", func() bool { return strings.Contains(said.String(), "waiting for the keystore") })
	i.Restart()
	waitUntil(t, "it serves", func() bool { return strings.Contains(said.String(), "coatcheck: serving on ") })
	_ = waiting.Process.Signal(os.Interrupt)
	if err := waiting.Wait(); err != nil {
		t.Errorf("after SIGINT: %v: %s", err, said.String())
	}
	// Who is told to stop while it waits stops.
	i.Stop()
	waiting = exec.Command(os.Args[0], "serve", "--wait", "--config", i.config)
	waiting.Env = append(os.Environ(), runMain+"=1")
	var said2 output
	waiting.Stderr = &said2
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it says that it waits", func() bool { return strings.Contains(said2.String(), "waiting for the keystore") })
	_ = waiting.Process.Signal(os.Interrupt)
	if err := waiting.Wait(); err != nil {
		t.Errorf("stopped while it waits: %v: %s", err, said2.String())
	}
}

// copyStore copies the files of a store, which may be running, and returns the path
// of the copy. The journal comes first: a file that has more than it does no harm.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "coatcheck.db.journal-????????"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no journal in %s: %v", dir, err)
	}
	to := t.TempDir()
	for _, file := range append(files, filepath.Join(dir, "coatcheck.db")) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, filepath.Base(file)), string(content))
	}
	return filepath.Join(to, "coatcheck.db")
}

// wrapped returns the wrapped keys of an instance, which may be running.
func (i *onVault) wrapped(t *testing.T) []keystore.WrappedKey {
	t.Helper()
	store, err := boltstore.Open(copyStore(t, filepath.Join(i.dir, "data")))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	wrapped, err := store.WrappedKeys(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// secrets returns what the keys of an instance are wrapped under, and Vault has
// encrypted (ADR 8).
func (i *onVault) secrets(t *testing.T) map[string][]byte {
	t.Helper()
	secrets := make(map[string][]byte)
	for _, k := range i.wrapped(t) {
		version, n := binary.BigEndian.Uint32(k.Wrapped[1:]), binary.BigEndian.Uint16(k.Wrapped[5:])
		ciphertext := fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(k.Wrapped[7:7+n]))
		var out struct{ Data struct{ Plaintext []byte } }
		i.Do("POST", "transit/decrypt/coatcheck", map[string]any{"ciphertext": ciphertext}, &out)
		secrets[k.String()] = out.Data.Plaintext
	}
	return secrets
}

// keyBytes returns the keys of an instance as Vault opens them.
func (i *onVault) keyBytes(t *testing.T) map[string][]byte {
	t.Helper()
	backend, err := vault.Open(vault.Config{
		Address: []string{i.Address}, CAFile: i.CAFile,
		Auth: vault.Auth{AppRole: &vault.AppRoleAuth{RoleID: i.RoleID("coatcheck"), SecretID: vault.Secret{File: filepath.Join(i.dir, "secret-id")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	keys := make(map[string][]byte)
	for _, k := range i.wrapped(t) {
		if keys[k.String()], err = backend.Unwrap(t.Context(), k.Wrapped, k.Label()); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// forms are the ways in which a key could lie about.
func forms(key []byte) map[string][]byte {
	pad := func(b byte) []byte { // HMAC's
		padded := bytes.Clone(key)
		for i := range padded {
			padded[i] ^= b
		}
		return padded
	}
	swapped := bytes.Clone(key) // a key schedule of 32-bit words
	for i := 0; i < len(swapped); i += 4 {
		swapped[i], swapped[i+1], swapped[i+2], swapped[i+3] = swapped[i+3], swapped[i+2], swapped[i+1], swapped[i]
	}
	return map[string][]byte{
		"plain": key, "half": key[:16], "other half": key[16:], "words": swapped, "inner pad": pad(0x36), "outer pad": pad(0x5c),
		"hex": []byte(hex.EncodeToString(key)), "base64": []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(key), "=")),
	}
}

// When the keys are sealed, none is left in the memory of the process.
func TestSealedMemoryHoldsNoKey(t *testing.T) {
	i := newOnVault(t, "  lease: 500ms\n  max_offline: 0s\n")
	p := i.start(t)
	c := p.callers(t, i.dir)
	for n := range 200 {
		token, err := c.tokenize(t, fmt.Sprint("value ", n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.detokenize(t, token); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.rotate(t, coatcheckv1.KeyClass_KEY_CLASS_DATA); err != nil {
		t.Fatal(err)
	}
	keys := i.keyBytes(t)
	if len(keys) != 7 {
		t.Fatalf("%d keys", len(keys))
	}
	for version := 1; version <= 2; version++ { // what keys of subjects are derived from
		name := fmt.Sprintf("data key %d of namespace \"default\"", version)
		salt, err := hkdf.Expand(sha256.New, keys[name], "coatcheck subject keys v1", 32)
		if err != nil {
			t.Fatal(err)
		}
		keys["the salt of "+name] = salt
	}
	secrets := i.secrets(t)
	before := searchMemory(t, p, keys)
	for name := range keys {
		if len(before[name]) == 0 {
			t.Errorf("%s isn't found while it is in use, so the search finds nothing", name)
		}
	}
	i.Stop()
	waitUntil(t, "the keys are sealed", func() bool { return !c.serving(t, "keys") })
	waitUntil(t, "the keys are wiped", func() bool { return len(searchMemory(t, p, keys)) == 0 })
	// What they were wrapped under went through buffers that aren't ours.
	t.Logf("secrets left in memory: %v", searchMemory(t, p, secrets))
}

// searchMemory returns in which forms keys are in the memory of a process.
func searchMemory(t *testing.T, p *process, keys map[string][]byte) map[string][]string {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	found := make(map[string][]string)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		region := make([]byte, to-from)
		n, err := memory.ReadAt(region, from)
		if err != nil && err != io.EOF && n == 0 {
			continue
		}
		for name, key := range keys {
			for form, needle := range forms(key) {
				if bytes.Contains(region[:n], needle) {
					found[name] = append(found[name], form)
				}
			}
		}
	}
	return found
}

// What Vault gets to see, even where it is told to record everything in clear:
// no value and no key of ours.
func TestVaultSeesNoValueAndNoKey(t *testing.T) {
	i := newOnVault(t, "  lease: 300ms\n")
	raw, hashed := i.AuditFile(true), i.AuditFile(false)
	p := i.start(t)
	c := p.callers(t, i.dir)
	const value = "canary of the vault, 4929813547860131"
	token, err := c.tokenize(t, value)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.detokenize(t, token); err != nil || got != value {
		t.Fatal(got, err)
	}
	for _, class := range []coatcheckv1.KeyClass{coatcheckv1.KeyClass_KEY_CLASS_DATA, coatcheckv1.KeyClass_KEY_CLASS_TOKEN, coatcheckv1.KeyClass_KEY_CLASS_INDEX} {
		if err := c.rotate(t, class); err != nil {
			t.Fatal(err)
		}
	}
	i.RotateKey("transit", "coatcheck")
	if _, err := c.keys.Rewrap(inTime(t), &coatcheckv1.RewrapRequest{}); err != nil {
		t.Fatal(err)
	}
	keys := i.keyBytes(t)
	p.terminate(t)
	for _, path := range []string{raw, hashed} {
		log, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(log, []byte("transit/decrypt/coatcheck")) || !bytes.Contains(log, []byte("transit/rewrap/coatcheck")) {
			t.Fatalf("%s: %d bytes, %v", path, len(log), err)
		}
		for name, key := range keys {
			for form, needle := range forms(key) {
				if bytes.Contains(log, needle) {
					t.Errorf("%s: has %s (%s)", filepath.Base(path), name, form)
				}
			}
		}
		for form, needle := range map[string][]byte{"plain": []byte(value), "part": []byte("canary"), "base64": []byte(base64.StdEncoding.EncodeToString([]byte(value))), "token": []byte(token)} {
			if bytes.Contains(log, needle) {
				t.Errorf("%s: has the value (%s)", filepath.Base(path), form)
			}
		}
	}
	// Without log_raw not even what the keys are wrapped under is there.
	log, err := os.ReadFile(hashed)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		if _, plain, ok := bytes.Cut(line, []byte(`"plaintext":"`)); ok && !bytes.HasPrefix(plain, []byte("hmac-sha256:")) {
			t.Fatalf("a plaintext in Vault's audit log: %.60s", plain)
		}
	}
}
