// Package service builds a running Coatcheck out of a configuration. It is the
// only place that names concrete backends.
package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/local"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// storeFile is the name of the bbolt file in its directory.
const storeFile = "coatcheck.db"

// Options are what a service needs beside its configuration.
type Options struct {
	Config *config.Config
	Getenv func(string) string
	Log    *slog.Logger

	// Ready, if set, is called once the service answers, with its address.
	Ready func(net.Addr)
}

// Check reads everything that a service reads before it opens its store, and
// reports what is wrong with it.
func Check(o Options) error {
	_, err := load(o)
	return err
}

// loaded is a configuration with the files that it names read.
type loaded struct {
	server  server.Config // TLS, Policy, Limits, Logger
	backend keystore.Backend
}

func load(o Options) (loaded, error) {
	c := o.Config
	tlsConfig, err := loadTLS(c.Server.TLS, time.Now())
	if err != nil {
		return loaded{}, err
	}
	rules, err := loadPolicy(c)
	if err != nil {
		return loaded{}, err
	}
	backend, err := openBackend(c.Keystore, o.Getenv)
	if err != nil {
		return loaded{}, err
	}
	return loaded{
		server: server.Config{
			TLS: tlsConfig, AllowCommonName: c.Server.AllowCommonName,
			Policy: rules, Limits: c.ServerLimits(), Logger: o.Log,
		},
		backend: backend,
	}, nil
}

// loadPolicy reads the policy file against the method table and the profiles.
func loadPolicy(c *config.Config) (*policy.Policy, error) {
	data, err := read("policy", c.Policy)
	if err != nil {
		return nil, err
	}
	profiles := make(map[string][]string)
	for name, p := range c.Profiles {
		profiles[name] = p.Purposes
	}
	return policy.Parse(c.Policy, data, policy.Vocabulary{Actions: server.Actions(), Profiles: profiles})
}

// openBackend opens what guards the keys.
func openBackend(c config.Keystore, getenv func(string) string) (keystore.Backend, error) {
	var passphrase []byte
	switch {
	case c.Local.PassphraseFile != "":
		data, err := read("passphrase_file", c.Local.PassphraseFile)
		if err != nil {
			return nil, err
		}
		passphrase = TrimPassphrase(data)
	case c.Local.PassphraseEnv != "":
		passphrase = []byte(getenv(c.Local.PassphraseEnv))
		if len(passphrase) == 0 {
			return nil, fmt.Errorf("passphrase_env: the environment has no %s", c.Local.PassphraseEnv)
		}
	}
	backend, err := local.Open(c.Local.RootKey, passphrase)
	if err != nil {
		return nil, fmt.Errorf("root_key: %w", err)
	}
	return backend, nil
}

// TrimPassphrase takes the line end off a passphrase that was read from a file.
func TrimPassphrase(data []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
}

// Run serves until ctx ends and then drains. It returns an error if the
// service can't start, or stops by itself; being told to stop while it starts
// is none.
func Run(ctx context.Context, o Options) error {
	err := run(ctx, o)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func run(ctx context.Context, o Options) (err error) {
	parts, err := load(o)
	if err != nil {
		return err
	}
	// The port comes before anything is written, so that a second start by
	// mistake leaves no trace.
	listener, err := net.Listen("tcp", o.Config.Server.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	store, err := openStore(o.Config.Store.Bolt.Directory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store)) }()
	segments, err := audit.OpenSegments(ctx, o.Config.Audit.Directory, store, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, segments.Close()) }()

	followed := make(chan error, 1)
	followCtx, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	go func() { followed <- segments.Run(followCtx) }()
	defer func() {
		stopFollowing()
		err = errors.Join(err, <-followed)
	}()

	log := audit.NewLog(store, segments)
	srv, err := newServer(ctx, o, parts, store, segments, log)
	if err != nil {
		return err
	}
	if err := systemEvent(ctx, log, parts.server.Policy, audit.ActionStart, tokenizer.Unit{}); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer func() {
		stopped := systemEvent(context.WithoutCancel(ctx), log, parts.server.Policy, audit.ActionStop, tokenizer.Unit{})
		err = errors.Join(err, stopped)
	}()
	if o.Ready != nil {
		o.Ready(listener.Addr())
	}
	return srv.Serve(ctx, listener)
}

// newServer puts the parts together and makes the first keys if there are
// none.
func newServer(ctx context.Context, o Options, parts loaded, store tokenizer.Store, segments *audit.Segments, log *audit.Log) (*server.Server, error) {
	keys := keystore.New(parts.backend, &shelf{store, log, parts.server.Policy})
	if _, err := keys.Keyring(ctx, server.DefaultNamespace); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	tokens, err := tokenizer.New(keys, store, o.Config.TokenizerProfiles())
	if err != nil {
		return nil, err
	}
	cfg := parts.server
	cfg.Tokenizer, cfg.Store, cfg.Keystore, cfg.Audit, cfg.Segments = tokens, store, keys, log, segments
	return server.New(cfg)
}

// openStore opens the store in its directory, which it makes if need be.
func openStore(dir string) (*boltstore.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	store, err := boltstore.Open(filepath.Join(dir, storeFile))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return store, nil
}

// closeTimeout is how long closing the store may take: as long as a write that
// has begun.
const closeTimeout = 10 * time.Second

// closeStore closes the store, unless its disk hangs.
func closeStore(store *boltstore.Store) error {
	closed := make(chan error, 1)
	go func() { closed <- store.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTimeout):
		return errors.New("store: not closed: a write hangs")
	}
}

// shelf keeps wrapped keys in the store, each addition with its audit event.
type shelf struct {
	tokenizer.Store
	log    *audit.Log
	policy *policy.Policy
}

// AddWrappedKeys commits the keys. The first keys are a store's first event: a
// store that has events and yet no keys has lost them, and new ones over the
// lost would end any hope of getting them back.
func (s *shelf) AddWrappedKeys(ctx context.Context, keys []keystore.WrappedKey) error {
	entries, err := s.Entries(ctx, 0, 1)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: the store has events, but no keys", keystore.ErrDamaged)
	}
	return systemEvent(ctx, s.log, s.policy, audit.ActionCreateKeys, tokenizer.Unit{Keys: keys})
}

// systemEventTimeout is how long the commit of a system event is waited for.
const systemEventTimeout = 10 * time.Second

// systemEvent commits something that the service does by itself.
func systemEvent(ctx context.Context, log *audit.Log, p *policy.Policy, action string, unit tokenizer.Unit) error {
	ctx, cancel := context.WithTimeout(ctx, systemEventTimeout)
	defer cancel()
	event := audit.Event{Time: time.Now(), Action: action, Policy: p.Hash(), Code: code.Code_OK.String()}
	if len(unit.Keys) > 0 {
		event.Namespace = unit.Keys[0].Namespace
	}
	return log.Commit(ctx, unit, &event)
}
