package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	physfile "github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

// The engines and auth methods that this Vault has beside its own.
var (
	secretEngines = map[string]logical.Factory{"transit": transit.Factory}
	authMethods   = map[string]logical.Factory{
		"approle":    approle.Factory,
		"cert":       cert.Factory,
		"kubernetes": kubeauth.Factory,
	}
	auditDevices = map[string]audit.Factory{"file": auditfile.Factory}
)

// registry tells Vault's plugin catalog what is built in.
type registry struct{}

func (registry) of(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return secretEngines
	case consts.PluginTypeCredential:
		return authMethods
	default:
		return nil
	}
}

// Contains implements vault.BuiltinRegistry.
func (r registry) Contains(name string, kind consts.PluginType) bool {
	return r.of(kind)[name] != nil
}

// Get implements vault.BuiltinRegistry.
func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, ok := r.of(kind)[name]
	return func() (any, error) { return factory, nil }, ok
}

// Keys implements vault.BuiltinRegistry.
func (r registry) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range r.of(kind) {
		names = append(names, name)
	}
	return names
}

// DeprecationStatus implements vault.BuiltinRegistry.
func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

// openedCore is an unsealed Vault.
type openedCore struct {
	core    *vault.Core
	handler http.Handler
}

// close seals Vault and waits until it has stopped.
func (c *openedCore) close() { _ = c.core.ShutdownWait() }

// secrets is what Vault tells once, when it is initialized.
type secrets struct {
	UnsealKey []byte `json:"unseal_key"`
	RootToken string `json:"root_token"`
}

// openCore opens the Vault of a directory, which it initializes if it is new,
// and unseals it.
func openCore(ctx context.Context, dir string) (_ *openedCore, rootToken string, err error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Error, Output: os.Stderr})
	storage, err := physfile.NewFileBackend(map[string]string{"path": filepath.Join(dir, "data")}, logger)
	if err != nil {
		return nil, "", fmt.Errorf("open storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        "file",
		BuiltinRegistry:    registry{},
		LogicalBackends:    secretEngines,
		CredentialBackends: authMethods,
		AuditBackends:      auditDevices,
		DisableMlock:       true, // nothing here is secret
		Logger:             logger,
	})
	if err != nil {
		return nil, "", fmt.Errorf("make core: %w", err)
	}
	known, err := initialize(ctx, core, filepath.Join(dir, "init.json"))
	if err != nil {
		return nil, "", errors.Join(err, core.ShutdownWait())
	}
	if unsealed, err := core.Unseal(known.UnsealKey); err != nil || !unsealed {
		return nil, "", errors.Join(fmt.Errorf("unseal: done is %v: %w", unsealed, err), core.ShutdownWait())
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core})
	return &openedCore{core: core, handler: handler}, known.RootToken, nil
}

// initialize returns what Vault told when it was initialized, from the file if
// that was before.
func initialize(ctx context.Context, core *vault.Core, path string) (secrets, error) {
	var known secrets
	content, err := os.ReadFile(path)
	if err == nil {
		return known, json.Unmarshal(content, &known)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return known, err
	}
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	result, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: nil})
	if err != nil {
		return known, fmt.Errorf("initialize: %w", err)
	}
	known = secrets{UnsealKey: result.SecretShares[0], RootToken: result.RootToken}
	if content, err = json.Marshal(known); err != nil {
		return known, err
	}
	return known, os.WriteFile(path, content, 0o600)
}
