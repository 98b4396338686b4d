package server

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// A stage is a link of the chain. It sees the context of a call and its name,
// may refuse it, and else has the rest done, which returns the call's error. A stage
// works on unary and streaming calls alike.
type stage func(ctx context.Context, name string, next rest) error

// rest is what comes behind a stage. It may be done again.
type rest struct {
	call *passage
	at   int // of the stage that comes next
}

func (r rest) do(ctx context.Context) error {
	if r.at == len(r.call.stages) {
		return r.call.handle(ctx)
	}
	return r.call.stages[r.at](ctx, r.call.name, rest{r.call, r.at + 1})
}

// passage is the way of one call through the chain.
type passage struct {
	stages []stage
	name   string
	handle func(context.Context) error
}

// chain returns the interceptors that lead every RPC of every service through all of
// the stages, outermost first.
//
//	recover    a panic further in becomes an error
//	admit      bounds how many calls are in flight
//	record     begins the record; at the end commits it, before the answer goes
//	recover    a panic further in is recorded as any failure
//	identify   the certificate names the caller
//	authorize  some rule lets the caller do this at all
//	deadline   bounds how long the call may take
//	end        ends endless streams when the server drains, or the client is trusted no more
//	recover    a panic of the handler, which end may run on its own
func (s *Server) chain() []grpc.ServerOption {
	stages := []stage{s.admit, s.record, s.rescue, s.identify, s.authorize, s.deadline, s.end, s.rescue}
	catch := recovery.WithRecoveryHandlerContext(func(ctx context.Context, thrown any) error {
		return answer(s.recovered(ctx, thrown), method{})
	})
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		var resp any
		p := passage{stages, info.FullMethod, func(ctx context.Context) (err error) {
			resp, err = handler(ctx, req)
			return err
		}}
		if err := (rest{call: &p}).do(ctx); err != nil {
			return nil, err
		}
		return resp, nil
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		p := passage{stages, info.FullMethod, func(ctx context.Context) error {
			wrapped := middleware.WrapServerStream(ss)
			wrapped.WrappedContext = ctx
			return handler(srv, wrapped)
		}}
		return rest{call: &p}.do(ss.Context())
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(catch), unary),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(catch), stream),
	}
}

// rescue makes a panic further in an error.
func (s *Server) rescue(ctx context.Context, _ string, next rest) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = s.recovered(ctx, thrown)
		}
	}()
	return next.do(ctx)
}

// recovered logs where a panic came from. What was thrown is logged only if it
// is an error of the Go runtime, since anything else might hold a value.
func (s *Server) recovered(ctx context.Context, thrown any) error {
	text := "not shown"
	var fault runtime.Error
	if err, ok := thrown.(error); ok && errors.As(err, &fault) {
		text = fault.Error()
	}
	log := s.log
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		log = log.With("request_id", c.event.RequestID)
	}
	log.Error("panic", "fault", text, "stack", string(debug.Stack()))
	return errPanic
}

// maxEndless is how many endless streams may be open at once.
const maxEndless = 256

// admit refuses calls beyond the number that may be in flight. Streams are counted
// apart, so that idle ones can't keep calls out. Health, which is cheap and which
// nobody may keep others from, is always answered.
func (s *Server) admit(ctx context.Context, name string, next rest) error {
	m, _ := rowOf(name)
	inFlight, limit := &s.inFlight, s.limits.InFlight
	switch {
	case m.action == "":
		return answer(next.do(ctx), m)
	case m.endless:
		inFlight, limit = &s.endless, maxEndless
	case m.stream:
		inFlight = &s.streams
	}
	if inFlight.Add(1) > int64(limit) {
		inFlight.Add(-1)
		s.overloaded.Add(1)
		return answer(errOverloaded, m)
	}
	defer inFlight.Add(-1)
	return answer(next.do(ctx), m)
}

// answer turns an error into what the client is told. The services that come
// with grpc speak in statuses already, which tell nothing of ours.
func answer(err error, m method) error {
	if _, ok := status.FromError(err); ok && (err == nil || m.standard) {
		return err
	}
	return refuse(err).status(err).Err()
}

// record begins a call's record and, when the rest of the chain is through,
// commits the event together with what the call changes. No answer goes out
// before that (DESIGN.md section 3, "One commit").
func (s *Server) record(ctx context.Context, name string, next rest) error {
	m, known := rowOf(name)
	if !known {
		name = "unknown"
	}
	c := newCall(ctx, name, m, s.policy.Current())
	c.consents, c.shadow, c.limiter = s.consents != nil, s.shadow, s.limiter
	ctx = context.WithValue(ctx, callKey{}, c)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-request-id", c.event.RequestID))
	err := s.conclude(ctx, c, next, next.do(ctx))
	c.measured(err == nil)
	c.tellLimits(ctx)
	return err
}

// conclude commits a call whose handler has ended with err, and returns what it
// is answered with. It is apart from record, whose part of the stack stays there
// while the handler runs.
func (s *Server) conclude(ctx context.Context, c *call, next rest, err error) error {
	if c.committed || c.method.action == "" {
		return err
	}
	if err == nil {
		err = ctx.Err() // nobody waits for the answer any more
	}
	failed := s.commit(c, err)
	for attempt := 1; attempt < maxAttempts && retriable(failed); attempt++ {
		// What the unit rests on has changed since the handler looked: a key of it
		// has been retired or replaced, or somebody else brought the same value, or
		// spent what was left of a budget.
		// Nothing has happened yet, so all of it is done again.
		if err = s.fresh(ctx, failed); err == nil {
			c.begin(ctx, c.event.Method, c.method, s.policy.Current())
			err = next.do(ctx)
		}
		if err == nil {
			err = ctx.Err()
		}
		failed = s.commit(c, err)
	}
	if failed != nil && !c.committed {
		// The unit itself was refused, and nothing is recorded yet.
		err = failed
		failed = s.commit(c, err)
	}
	if failed != nil {
		return failed
	}
	if err == nil && c.after != nil {
		c.after(context.WithoutCancel(ctx))
	}
	return err
}

// maxAttempts is how often a call is done before it is told that others were
// always first. Each time somebody else has got further.
const maxAttempts = 64

// retriable says whether a unit would be another one if it were prepared again.
func retriable(err error) bool {
	return errors.Is(err, keystore.ErrKeyVersion) || errors.Is(err, tokenizer.ErrConflict) || errors.Is(err, tokenizer.ErrBudgetSpent)
}

// fresh sees to it that a call is done again with the keys of now.
func (s *Server) fresh(ctx context.Context, failed error) error {
	if errors.Is(failed, keystore.ErrKeyVersion) {
		return s.keys.Reload(ctx, DefaultNamespace)
	}
	return nil
}

// commitGroup commits a part of a stream: do prepares it, and does so again if
// others were first. Nothing of it may be sent before commitGroup has returned
// nil.
func (s *Server) commitGroup(ctx context.Context, c *call, do func() error) (err error) {
	defer func() { c.measured(err == nil) }()
	err = s.barred(c)
	if err == nil {
		err = do()
	}
	failed := s.commit(c, err)
	for attempt := 1; attempt < maxAttempts && retriable(failed); attempt++ {
		if err = s.fresh(ctx, failed); err == nil {
			c.again()
			if err = s.barred(c); err == nil {
				err = do()
			}
		}
		failed = s.commit(c, err)
	}
	if failed != nil && !c.committed {
		err = failed
		failed = s.commit(c, err)
	}
	if failed != nil {
		return failed
	}
	return err
}

// commit makes a call's unit and event durable. It outlives the client's
// patience, since whatever happened has to be recorded, but not its own bound.
//
// Errors: tokenizer.ErrUnavailable, errAuditUnavailable, or why the store
// refuses the unit, which is then not recorded.
func (s *Server) commit(c *call, err error) error {
	var r refusal
	if err != nil {
		// That the keys are sealed is logged once, when they are.
		if r = refuse(err); r.ours() && !errors.Is(err, keystore.ErrSealed) {
			s.log.Error("call failed", "request_id", c.event.RequestID, "method", c.event.Method, "error", err)
		}
	}
	if c.defect != nil {
		s.log.Error("item failed", "request_id", c.event.RequestID, "method", c.event.Method, "error", c.defect)
	}
	if err != nil && errors.Is(err, tokenizer.ErrHoneytoken) {
		c.alert(audit.AlertHoneytoken)
	}
	c.finish(r, err)
	failed := s.commitEvent(c)
	for _, unit := range unitErrors {
		if errors.Is(failed, unit) {
			return failed
		}
	}
	c.committed = true
	if failed == nil {
		if len(c.unit.Updates)+len(c.unit.Deletes)+len(c.unit.Rewraps) > 0 || c.unit.Retire != (keystore.KeyID{}) {
			s.upkeep.ScrubSoon()
		}
		return nil
	}
	s.log.Error("commit failed", "request_id", c.event.RequestID, "error", failed)
	if !c.unit.Empty() {
		return tokenizer.ErrUnavailable
	}
	return errAuditUnavailable
}

// end lets an endless stream go on until the server drains, or the client isn't who
// may call any more, which is looked at once a second. What is left of
// its handler ends when grpc closes the stream under it.
func (s *Server) end(ctx context.Context, name string, next rest) error {
	if !methods[name].endless {
		return next.do(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- next.do(ctx) }()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-s.draining:
			return errDraining
		case <-look.C:
			if _, err := clientOf(ctx).name(time.Now()); err != nil {
				return err
			}
			if err := s.stillMay(callFrom(ctx)); err != nil {
				return err
			}
		}
	}
}

// stillMay says whether the caller of an endless stream may still have it.
func (s *Server) stillMay(c *call) error {
	if c.method.action == "" {
		return nil
	}
	if s.suspended.has(c.event.Caller) {
		return errSuspended
	}
	request := c.request("")
	request.Time = time.Now()
	if decision := s.policy.Current().Decide(request); !decision.Allowed {
		return denial(decision)
	}
	return nil
}

// identify finds out who calls.
func (s *Server) identify(ctx context.Context, _ string, next rest) error {
	c := callFrom(ctx)
	caller, err := clientOf(ctx).name(time.Now())
	if err != nil {
		c.event.Decision = audit.Deny
		return err
	}
	c.event.Caller = caller
	return next.do(ctx)
}

// authorize refuses callers that no rule allows the action at all. What
// exactly is allowed, for which profile and purpose, the handler asks once it
// has seen the request.
func (s *Server) authorize(ctx context.Context, _ string, next rest) error {
	c := callFrom(ctx)
	if c.method.action == "" {
		return next.do(ctx)
	}
	if c.method == unknownMethod {
		return errUnknownMethod
	}
	if err := s.barred(c); err != nil {
		return err
	}
	if c.method.kind == policy.PlainAction { // there is nothing more to know
		decision, err := c.ask(c.request(""))
		if err != nil {
			return err
		}
		if err := c.pay(decision.Duties()); err != nil {
			return err
		}
	} else if _, ok := c.policy.May(c.event.Caller, DefaultNamespace, c.method.action); !ok {
		if c.shadow != nil {
			c.event.Shadow = c.shadow.compareAtAll(c.event.Caller, DefaultNamespace, c.method.action)
		}
		return c.decide(c.policy.Decide(c.request("")))
	}
	if c.method.endless {
		// It may never end; it is recorded before anything is sent.
		if err := s.commit(c, nil); err != nil {
			return err
		}
	}
	return next.do(ctx)
}

// deadline bounds how long a call may take, whatever deadline the client set.
func (s *Server) deadline(ctx context.Context, name string, next rest) error {
	if m := methods[name]; m.endless || m.stream {
		return next.do(ctx)
	}
	bounded := &boundedContext{Context: ctx, deadline: callFrom(ctx).event.Time.Add(s.limits.Deadline)} // however often it is done again
	defer bounded.end()
	return next.do(bounded)
}
