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
	"sync"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/burst"
	"github.com/coatcheck/coatcheck/server/metrics"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/upkeep"
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

	// Wait has a start wait for what guards the keys for as long as it takes.
	Wait bool

	// Reload has the files that are followed looked at right away, for each that comes.
	Reload <-chan os.Signal

	// Ready, if set, is called once the service answers, with its address.
	Ready func(net.Addr)
}

// Check reads everything that a service reads before it opens its store, and
// reports what is wrong with it. notes is what is to be noted about the policy and the
// revocation lists, one a line.
func Check(o Options) (notes, err error) {
	parts, err := load(o)
	if err != nil {
		return nil, err
	}
	defer parts.close()
	if v := o.Config.Keystore.Vault; v != nil {
		err = v.Config(o.Getenv).CheckFiles()
	}
	notes = errors.Join(parts.server.Policy.Current().Notes(), parts.secured.notes(time.Now()))
	if s := parts.server.Shadow; s != nil && s.Current() != nil {
		notes = errors.Join(notes, s.Current().Notes())
	}
	return notes, errors.Join(err, parts.shadowFault)
}

// loaded is a configuration with the files that it names read.
type loaded struct {
	server  server.Config // TLS, Revoked, Policy, Shadow, Limits, Logger, Alerts
	secured secured

	shadowFault error // what is wrong with the shadow policy

	senders []sender // of the audit log

	backend keystore.Backend
	close   func() error // of backend
}

func load(o Options) (loaded, error) {
	c := o.Config
	tls, err := loadTLS(c.Server.TLS, time.Now())
	if err != nil {
		return loaded{}, err
	}
	rules, err := LoadPolicy(c)
	if err != nil {
		return loaded{}, err
	}
	shadow, shadowFault := loadShadow(c)
	alerts, err := newDispatcher(c.Alerts, o.Log)
	if err != nil {
		return loaded{}, err
	}
	senders, err := newSenders(c.Audit)
	if err != nil {
		return loaded{}, err
	}
	backend, closeBackend, err := openBackend(c.Keystore, o.Getenv)
	if err != nil {
		return loaded{}, err
	}
	return loaded{
		server: server.Config{
			TLS: tls.config, Revoked: tls.revoked, AllowCommonName: c.Server.AllowCommonName,
			Policy: policy.NewLive(rules), Shadow: shadow, Limits: c.ServerLimits(), Logger: o.Log, Alerts: alerts,
			SuspendThieves: c.Honeytokens.SuspendCaller, Scratch: c.Store.Bolt.Directory,
		},
		secured: tls, shadowFault: shadowFault, senders: senders, backend: backend, close: closeBackend,
	}, nil
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
	defer func() { err = errors.Join(err, parts.close()) }()
	if parts.shadowFault != nil {
		o.Log.Error("there is no shadow policy until its file is mended", "error", parts.shadowFault)
	}
	// The ports come before anything is written, so that a second start by
	// mistake leaves no trace.
	var f facilities
	if f.listener, err = net.Listen("tcp", o.Config.Server.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer f.listener.Close()
	if f.metrics, err = listenMetrics(o); err != nil {
		return err
	}
	if f.metrics != nil {
		defer f.metrics.Close()
	}
	store, err := openStore(o.Config.Store.Bolt.Directory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore(store)) }()
	if store.Upgraded() {
		o.Log.Warn("the store has been upgraded: earlier versions of this program can't read it any more")
	}
	if r := store.Recovered(); r.Cut > 0 {
		// Nobody was told that it is durable.
		o.Log.Warn("a write that was interrupted is cut off the journal", "bytes", r.Cut, "place", r.Place)
	}
	if r := store.Recovered(); r.Frames > 0 {
		o.Log.Info("the journal had what the file of the store hasn't", "frames", r.Frames, "last", r.Last)
	}
	f.store = store
	if f.segments, err = audit.OpenSegments(ctx, o.Config.Audit.Directory, store, o.Config.Audit.Options(), o.Log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.segments.Close()) }()
	if f.notary, err = audit.OpenNotary(ctx, f.segments, o.Config.Audit.Checkpoints()); err != nil {
		return err
	}
	followed := make(chan error, 1)
	followCtx, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	go func() { followed <- f.segments.Run(followCtx) }()
	defer func() {
		stopFollowing()
		err = errors.Join(err, <-followed)
		err = errors.Join(err, f.notary.Close(context.WithoutCancel(ctx)))
	}()
	f.log = audit.NewLog(store, f.segments)
	if f.sinks, err = openSinks(ctx, parts.senders, o.Config.Audit.Directory, store, f.log, o.Log); err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		f.sinks.run(followCtx)
	}()
	defer func() {
		stopFollowing()
		<-sent
	}()
	f.index = audit.NewIndex(o.Config.Audit.Directory, store, o.Log)
	return serve(ctx, o, parts, f)
}

// facilities are what a service has opened. run closes them.
type facilities struct {
	listener, metrics net.Listener // metrics is nil where none are served
	store             tokenizer.Store
	segments          *audit.Segments
	notary            *audit.Notary
	index             *audit.Index
	log               *audit.Log
	sinks             sinks // of log
}

// listenMetrics listens where metrics are to be served, if they are.
func listenMetrics(o Options) (net.Listener, error) {
	if o.Config.Metrics.Listen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", o.Config.Metrics.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics: listen: %w", err)
	}
	return listener, nil
}

// serve puts the parts together and serves. What works in the background goes
// on while the server drains, and has ended when serve returns.
func serve(ctx context.Context, o Options, parts loaded, f facilities) (err error) {
	cfg, err := newConfig(ctx, o, parts, f)
	if err != nil {
		return err
	}
	srv, err := server.New(cfg)
	if err != nil {
		return err
	}
	if _, err := cfg.Upkeep.LogSigner(ctx); err != nil {
		// The notary tries it again, and says when it works.
		o.Log.Warn("the key of the audit checkpoints is not there yet", "error", err)
	}
	declare := func(unit *tokenizer.Unit) error {
		return cfg.Tokenizer.Declare(ctx, server.DefaultNamespace, unit)
	}
	if err := systemEvent(ctx, f.log, cfg.Policy, audit.ActionStart, declare); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() {
		nothing := func(*tokenizer.Unit) error { return nil }
		err = errors.Join(err, systemEvent(context.WithoutCancel(ctx), f.log, cfg.Policy, audit.ActionStop, nothing))
	}()
	var background sync.WaitGroup
	defer background.Wait()
	backgroundCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background.Go(func() { cfg.Keystore.Run(backgroundCtx) })
	background.Go(func() { cfg.Upkeep.Run(backgroundCtx) })
	background.Go(func() { f.index.Run(backgroundCtx) })
	background.Go(func() { f.notary.Run(backgroundCtx, cfg.Upkeep.LogSigner) })
	background.Go(func() { cfg.Alerts.Run(backgroundCtx) })
	files := &securedFiles{config: o.Config.Server.TLS, prepare: srv.PrepareTLS, work: parts.secured, hash: cfg.Policy.Hash, audit: f.log, log: o.Log}
	files.lookAtTime()
	lists := newFollower(&listSource{files}, "revocation list", o.Log)
	certificates := newFollower(&tlsSource{files, lists.again}, "server's certificate, key or client_ca", o.Log)
	trusted := group{[]*follower{certificates}, files.lookAtTime}
	if len(o.Config.Server.TLS.CRL) > 0 {
		trusted.followers = append(trusted.followers, lists)
	}
	rules := newFollower(&policySource{o.Config, cfg.Policy, f.log, o.Log}, "policy file", o.Log)
	groups := []group{trusted, {followers: []*follower{rules}}}
	var shadow *metrics.Shadow
	if cfg.Shadow != nil {
		f := newFollower(&shadowSource{o.Config, cfg.Shadow, o.Log}, "shadow policy file", o.Log)
		groups = append(groups, group{followers: []*follower{f}})
		shadow = &metrics.Shadow{Differences: cfg.Shadow.Differences, Refused: f.refused.Load}
	}
	background.Go(func() { follow(backgroundCtx, o.Reload, groups...) })
	if f.metrics != nil {
		sources := metrics.Sources{
			Namespace: server.DefaultNamespace, Keystore: cfg.Keystore, Upkeep: cfg.Upkeep, Store: f.store, Profiles: o.Config.TokenizerProfiles(),
			PolicyRefused: rules.refused.Load, TLSRefused: certificates.refused.Load, CRLRefused: lists.refused.Load, Revoked: srv.Revoked, Alerts: cfg.Alerts.Counts,
			Limited: srv.Limited, Notary: f.notary.Status, Shadow: shadow, Sinks: f.sinks.counts,
		}
		o.Log.Info("serving metrics", "address", f.metrics.Addr().String())
		background.Go(func() {
			if err := serveMetrics(backgroundCtx, f.metrics, sources); err != nil {
				o.Log.Error("metrics are served no more", "error", err)
			}
		})
	}
	if o.Ready != nil {
		o.Ready(f.listener.Addr())
	}
	return srv.Serve(ctx, f.listener)
}

// newConfig returns what a server is made of, with its keys loaded.
func newConfig(ctx context.Context, o Options, parts loaded, f facilities) (server.Config, error) {
	cfg := parts.server
	options := o.Config.Keystore.Options()
	options.Changed = logState(o.Log)
	shelf := &upkeep.Shelf{Store: f.store, Audit: f.log, PolicyHash: cfg.Policy.Hash}
	keys := keystore.New(parts.backend, shelf, options)
	if err := loadKeys(ctx, o, keys); err != nil {
		return cfg, fmt.Errorf("keys: %w", err)
	}
	tokens, err := tokenizer.New(keys, f.store, o.Config.TokenizerProfiles())
	if err != nil {
		return cfg, err
	}
	keeping := o.Config.Keystore.Upkeep()
	keeping.Namespace, keeping.Keystore, keeping.Tokenizer = server.DefaultNamespace, keys, tokens
	keeping.Store = f.store
	keeping.Audit, keeping.PolicyHash, keeping.Logger = f.log, cfg.Policy.Hash, o.Log
	cfg.Tokenizer, cfg.Store, cfg.Keystore, cfg.Upkeep = tokens, f.store, keys, upkeep.New(keeping)
	cfg.Audit, cfg.Segments, cfg.Notary, cfg.Index = f.log, f.segments, f.notary, f.index
	if rule, ok := o.Config.Alerts.Burst.Rule(); ok {
		cfg.Bursts = burst.NewCounter(rule, time.Now())
	}
	return cfg, nil
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

// systemEventTimeout is how long the commit of a system event is waited for.
const systemEventTimeout = 10 * time.Second

// systemEvent commits something that the service does by itself, with what is
// prepared for it; anew if another replica was faster.
func systemEvent(ctx context.Context, log *audit.Log, p *policy.Live, action string, prepare func(*tokenizer.Unit) error) error {
	ctx, cancel := context.WithTimeout(ctx, systemEventTimeout)
	defer cancel()
	for {
		var unit tokenizer.Unit
		if err := prepare(&unit); err != nil {
			return err
		}
		event := audit.SystemEvent(action, "", p.Hash())
		if _, err := log.Commit(ctx, unit, &event); !errors.Is(err, tokenizer.ErrConflict) {
			return err
		}
	}
}
