// Package server is Coatcheck's gRPC side: it identifies callers, asks policy,
// lets the tokenizer prepare, commits what was prepared together with the
// audit event, and only then answers. Nothing else in Coatcheck knows gRPC.
//
// The way of a call is the chain in chain.go; what is special about a method
// stands in its row in methods.go; how an error is told to a client, in
// status.go.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/burst"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Config holds what a Server is made of. All of it is required but where a
// field says otherwise. The caller opens and closes what it passes in.
type Config struct {
	// TLS must demand TLS 1.3 and verified client certificates. Its
	// GetConfigForClient is not asked; PrepareTLS is for another in its place.
	TLS *tls.Config

	// Revoked are the client certificates that are refused. It may be nil.
	Revoked *crl.Set

	// AllowCommonName lets a certificate without SPIFFE ID and DNS name be
	// identified by its common name.
	AllowCommonName bool

	Tokenizer *tokenizer.Tokenizer
	Policy    *policy.Live
	Store     tokenizer.Store
	Keystore  *keystore.Keystore
	Upkeep    *upkeep.Upkeep
	Audit     *audit.Log
	Segments  *audit.Segments
	Notary    *audit.Notary
	Index     *audit.Index
	Consents  Consents // nil if none are kept
	Shadow    *Shadow  // nil if there is none

	// SuspendThieves has a caller that uses a honeytoken suspended.
	SuspendThieves bool

	// Scratch is the directory for temporary files, of which large reports make some;
	// "" is that of the system.
	Scratch string

	Limits Limits // zero fields get the defaults
	Logger *slog.Logger

	// Alerts, if set, is told of committed events that carry alerts, and Bursts, if
	// set, of what is revealed to whom.
	Alerts *alert.Dispatcher
	Bursts *burst.Counter

	// Now is the clock for the limits of rules and for approvals; nil stands for time.Now.
	Now func() time.Time
}

// Limits bound what clients can ask of a server. A field that is zero stands
// for the default.
type Limits struct {
	MessageSize int           // bytes of a request or response; default 4 MiB
	HeaderSize  int           // bytes of the header block of a request; default 16 KiB
	InFlight    int           // calls at once, all connections together, and as many streams; default 4096
	Streams     int           // calls at once of one connection; default 256
	Deadline    time.Duration // the longest that a unary call may take; default 30s
	Commit      time.Duration // how long the commit of a call may be waited for; default 10s
	Handshake   time.Duration // how long a TLS handshake may take; default 10s
	Idle        time.Duration // a connection without calls is closed after it; default 15m
	Age         time.Duration // a connection is renewed after it, and so the look at its certificate; default 1h
	Keepalive   time.Duration // a silent connection is pinged after it; default 1m
	MinPing     time.Duration // clients that ping more often are cut off; default 10s
	Notice      time.Duration // from NOT_SERVING until no calls are taken; default 1s
	Drain       time.Duration // after it calls still in flight are cut off; default 15s
}

// DefaultLimits returns the limits of a Config that sets none.
func DefaultLimits() Limits {
	return Limits{
		MessageSize: 4 << 20, HeaderSize: 16 << 10, InFlight: 4096, Streams: 256,
		Deadline: 30 * time.Second, Commit: 10 * time.Second, Handshake: 10 * time.Second,
		Idle: 15 * time.Minute, Age: time.Hour, Keepalive: time.Minute, MinPing: 10 * time.Second,
		Notice: time.Second, Drain: 15 * time.Second,
	}
}

// withDefaults fills in the fields that are zero.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ field, fallback *int }{
		{&l.MessageSize, &d.MessageSize}, {&l.HeaderSize, &d.HeaderSize}, {&l.InFlight, &d.InFlight}, {&l.Streams, &d.Streams},
	} {
		if *f.field == 0 {
			*f.field = *f.fallback
		}
	}
	for _, f := range []struct{ field, fallback *time.Duration }{
		{&l.Deadline, &d.Deadline}, {&l.Commit, &d.Commit}, {&l.Handshake, &d.Handshake}, {&l.Idle, &d.Idle}, {&l.Age, &d.Age},
		{&l.Keepalive, &d.Keepalive}, {&l.MinPing, &d.MinPing}, {&l.Notice, &d.Notice}, {&l.Drain, &d.Drain},
	} {
		if *f.field == 0 {
			*f.field = *f.fallback
		}
	}
	return l
}

// Server is a Coatcheck service. It serves once.
type Server struct {
	grpc            *grpc.Server
	health          *componentHealth
	policy          *policy.Live
	consents        Consents
	shadow          *Shadow
	limiter         *limit.Limiter
	suspended       *suspensions
	suspendThieves  bool
	approvals       *approvals
	keys            *keystore.Keystore
	upkeep          *upkeep.Upkeep
	audit           *audit.Log
	logID           tokenizer.LogID   // of the audit log
	alerts          *alert.Dispatcher // or nil
	bursts          *burst.Counter    // or nil
	log             *slog.Logger
	limits          Limits
	commits         bound // how long they may take
	allowCommonName bool
	trust           atomic.Pointer[trust]

	inFlight   atomic.Int64
	streams    atomic.Int64 // those that commit in groups
	endless    atomic.Int64 // those that last as long as the client likes
	overloaded atomic.Int64 // calls refused as OVERLOADED that have not been logged yet
	draining   chan struct{}
}

// New returns a Server with every service registered. It fails if the TLS
// configuration would let anyone in without a certificate, and if an RPC is
// without a row in the method table.
func New(cfg Config) (*Server, error) {
	trusted, err := newTrust(cfg.TLS, cfg.Revoked)
	if err != nil {
		return nil, err
	}
	if cfg.Tokenizer == nil || cfg.Policy == nil || cfg.Store == nil || cfg.Keystore == nil ||
		cfg.Upkeep == nil || cfg.Audit == nil || cfg.Segments == nil || cfg.Notary == nil || cfg.Index == nil || cfg.Logger == nil {
		return nil, errors.New("server: incomplete configuration")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		policy: cfg.Policy, consents: cfg.Consents, shadow: cfg.Shadow, suspendThieves: cfg.SuspendThieves, keys: cfg.Keystore, upkeep: cfg.Upkeep, audit: cfg.Audit, log: cfg.Logger, limits: cfg.Limits.withDefaults(),
		limiter:   limit.New(cfg.Store, cfg.Now),
		suspended: &suspensions{store: cfg.Store, log: cfg.Logger, callers: make(map[string]bool)},
		logID:     cfg.Store.LogID(), alerts: cfg.Alerts, bursts: cfg.Bursts,
		allowCommonName: cfg.AllowCommonName, draining: make(chan struct{}),
		health: newHealth(cfg.Logger, []component{
			{name: "store", check: cfg.Store.Check},
			{name: "keystore", check: cfg.Keystore.Check, spare: true},
			{name: "keys", check: cfg.Keystore.Usable, keys: true},
			{name: "audit", check: func(context.Context) error { return cfg.Segments.Check() }},
		}),
	}
	s.commits.time = s.limits.Commit
	s.approvals = &approvals{store: cfg.Store, suspended: s.suspended, now: cfg.Now}
	s.trust.Store(trusted)
	s.grpc = grpc.NewServer(append(s.options(), s.chain()...)...)
	service := &tokenization{tokenizer: cfg.Tokenizer, server: s}
	services := lateDecoder{s.grpc, newLateCodec()}
	coatcheckv1.RegisterTokenizationServiceServer(services, service)
	after := &tokens{tokenization: service}
	coatcheckv1.RegisterTokenServiceServer(services, after)
	coatcheckv1.RegisterHoneytokenServiceServer(services, &honeytokens{tokens: after})
	coatcheckv1.RegisterCallerServiceServer(services, &callerService{suspended: s.suspended})
	coatcheckv1.RegisterApprovalServiceServer(services, &approvalService{tokenization: service, approvals: s.approvals})
	coatcheckv1.RegisterAuditServiceServer(services, &auditService{segments: cfg.Segments, notary: cfg.Notary, index: cfg.Index, tokenizer: cfg.Tokenizer, server: s})
	coatcheckv1.RegisterPrivacyServiceServer(services, &privacyService{tokenization: service, store: cfg.Store, notary: cfg.Notary, scratch: cfg.Scratch, turn: make(chan struct{}, 1)})
	coatcheckv1.RegisterPolicyServiceServer(services, &policyService{tokenization: service})
	coatcheckv1.RegisterKeyServiceServer(services, &keyService{keys: cfg.Keystore, store: cfg.Store, upkeep: cfg.Upkeep, log: cfg.Logger})
	grpc_health_v1.RegisterHealthServer(services, s.health)
	reflection.RegisterV1(s.grpc)
	return s, checkMethods(s.grpc.GetServiceInfo())
}

// callWorkers is how many goroutines wait for calls. One that is new has a small
// stack, which a call grows by copying it again and again; these have one that is
// large enough. Calls beyond them get goroutines of their own.
const callWorkers = 256

// options returns what grpc itself enforces.
func (s *Server) options() []grpc.ServerOption {
	return append(TransportOptions(s.limits),
		grpc.Creds(loggedHandshakes{credentials.NewTLS(s.handshakes()), s}),
		grpc.ForceServerCodecV2(newLateCodec()),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod }),
	)
}

// TransportOptions returns what grpc enforces of the limits, and how it transports
// messages. Limits that are 0 have their defaults.
func TransportOptions(l Limits) []grpc.ServerOption {
	l = l.withDefaults()
	return []grpc.ServerOption{
		grpc.NumStreamWorkers(callWorkers),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.MaxRecvMsgSize(l.MessageSize),
		grpc.MaxSendMsgSize(l.MessageSize),
		grpc.MaxHeaderListSize(uint32(l.HeaderSize)),
		grpc.MaxConcurrentStreams(uint32(l.Streams)),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: l.Idle, MaxConnectionAge: l.Age, MaxConnectionAgeGrace: l.Deadline,
			Time: l.Keepalive, Timeout: l.Handshake,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: l.MinPing, PermitWithoutStream: true}),
	}
}

// checkTLS refuses a configuration that would let in a client without a
// certificate, or speak anything older than TLS 1.3.
func checkTLS(config *tls.Config) error {
	switch {
	case config == nil:
		return errors.New("server: no TLS configuration")
	case config.MinVersion < tls.VersionTLS13:
		return errors.New("server: the TLS configuration allows less than TLS 1.3")
	case config.ClientAuth != tls.RequireAndVerifyClientCert || config.ClientCAs == nil:
		return errors.New("server: the TLS configuration doesn't demand client certificates")
	case len(config.Certificates) == 0 && config.GetCertificate == nil:
		return errors.New("server: the TLS configuration has no certificate")
	}
	return nil
}

// loggedHandshakes logs the handshakes that fail: a client without a
// certificate, or with a bad one, gets no further, so there is no call to
// record.
type loggedHandshakes struct {
	credentials.TransportCredentials
	server *Server
}

// ServerHandshake does the handshake, and finds out who the client is.
func (h loggedHandshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := h.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		h.server.log.Warn("TLS handshake refused", "peer", conn.RemoteAddr().String(), "reason", handshakeFault(err))
	}
	if found, ok := info.(credentials.TLSInfo); ok {
		info = newClient(conn.RemoteAddr(), found, h.server.allowCommonName, &h.server.trust)
	}
	return secured, info, err
}

// handshakeFault says in fixed words why a handshake failed: the error may hold
// whatever a client put into its certificate.
func handshakeFault(err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, crl.ErrRevoked):
		return "the certificate has been revoked"
	case errors.Is(err, crl.ErrOutdated):
		return "the revocation list of the certificate's issuer is out of date"
	case errors.As(err, &unknown):
		return "the certificate is of an authority that is not trusted"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not valid yet"
	case errors.As(err, &invalid):
		return "the certificate is not fit for a client"
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return "no certificate"
	}
	return "no TLS 1.3 handshake"
}

// Clone is part of the interface.
func (h loggedHandshakes) Clone() credentials.TransportCredentials {
	return loggedHandshakes{h.TransportCredentials.Clone(), h.server}
}

// Serve answers calls on the listener until ctx ends, then drains: health says
// NOT_SERVING, and calls go on being taken for Limits.Notice, so that load
// balancers can look elsewhere; then no more are taken and those in flight
// have until Limits.Drain to finish; what is left after that is cut off, and a
// handler that is stuck is left behind. The listener is closed. Serve returns
// nil after a drain, complete or not.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var background sync.WaitGroup
	defer background.Wait()
	healthCtx, stop := context.WithCancel(ctx)
	defer stop()
	s.health.check(ctx)
	if err := s.suspended.load(ctx); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	background.Go(func() { s.suspended.run(healthCtx) })
	background.Go(func() { s.health.run(healthCtx) })
	background.Go(func() { s.logOverload(healthCtx) })
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("server: %w", err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.log.Info("draining", "notice", s.limits.Notice, "bound", s.limits.Drain)
	time.Sleep(s.limits.Notice)
	close(s.draining)
	s.drain()
	return nil
}

// logOverload says once a second how many calls have been refused as
// OVERLOADED, if any: they leave no other trace.
func (s *Server) logOverload(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		if n := s.overloaded.Swap(0); n > 0 {
			s.log.Warn("calls refused: too many in flight", "calls", n, "limit", s.limits.InFlight)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// InFlight returns how many calls and streams are being worked on, those of the
// health service apart.
func (s *Server) InFlight() int { return int(s.inFlight.Load() + s.streams.Load()) }

// drain waits for the calls in flight, for as long as it may.
func (s *Server) drain() {
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
		s.log.Info("drained")
	case <-time.After(s.limits.Drain):
		s.log.Warn("calls still in flight are cut off", "calls", s.InFlight())
		// Not waited for: grpc waits for handlers, and one may be stuck.
		go s.grpc.Stop()
	}
}
