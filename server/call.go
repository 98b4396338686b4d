package server

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/metadata"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// call is what the chain and the handler know of one RPC. The handler fills in
// unit and the parts of event that only it can know; the chain commits both.
type call struct {
	method    method
	policy    *policy.Policy // by which all of it is judged
	address   netip.Addr     // of the client
	consents  bool           // whether consents are kept
	shadow    *Shadow        // nil if there is none
	limiter   *limit.Limiter
	meter     *limit.Meter // once a limit applies
	event     audit.Event
	unit      tokenizer.Unit
	committed bool
	sequence  uint64 // of the event, once it is committed

	// items are those of its deeds, until the event takes them over.
	items []audit.Item

	// grants are those that it can draw on, if it reveals anything.
	grants grants

	// after, if set, is called once unit is committed, before the answer goes.
	after func(context.Context)

	// defect is why an item failed, if one did for a reason that is ours.
	defect error
}

type callKey struct{}

// callFrom returns the call of a context that came through the chain.
func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// newCall begins the record of an RPC.
func newCall(ctx context.Context, name string, m method, p *policy.Policy) *call {
	c := &call{event: audit.Event{Time: time.Now(), RequestID: newRequestID()}}
	c.begin(ctx, name, m, p)
	return c
}

// begin forgets all but what was so from the first moment, for a call that is
// done again.
func (c *call) begin(ctx context.Context, name string, m method, p *policy.Policy) {
	from := clientOf(ctx)
	*c = call{method: m, policy: p, address: from.ip, consents: c.consents, shadow: c.shadow, limiter: c.limiter, meter: c.meter, event: audit.Event{
		Time:        c.event.Time,
		RequestID:   c.event.RequestID,
		TraceID:     traceOf(ctx),
		Peer:        from.address,
		Certificate: from.fingerprint,
		Method:      name,
		Action:      m.action,
		Policy:      p.Hash(),
	}}
	c.remeasure()
}

// traceOf returns the id of the trace that a call belongs to, "" if it names none in the
// form of W3C Trace Context: "traceparent" is VERSION-TRACE-PARENT-FLAGS in hexadecimal
// digits. Nothing else of what a client says there is kept.
func traceOf(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if len(values) != 1 {
		return ""
	}
	parent := values[0]
	if len(parent) < 55 || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' || strings.HasPrefix(parent, "ff") {
		return ""
	}
	id := parent[3:35]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return strings.Clone(id)
}

// newRequestID returns 16 random hexadecimal digits. Nothing rests on nobody being
// able to guess them.
func newRequestID() string {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	return hex.EncodeToString(id[:])
}

// group returns the record of a part of a stream: the same call, about other
// things, and judged by the policy of now.
func (c *call) group(p *policy.Policy) *call {
	g := &call{method: c.method, policy: p, address: c.address, consents: c.consents, shadow: c.shadow, limiter: c.limiter, meter: c.meter, event: c.event}
	g.event.Time, g.event.Items, g.event.Records, g.event.Policy = time.Now(), nil, 0, p.Hash()
	g.event.Alerts = nil
	return g
}

// stillNamed says whether the client is still who the call began with. A stream asks for
// each part.
func (c *call) stillNamed(ctx context.Context) error {
	_, err := clientOf(ctx).name(time.Now())
	if err != nil {
		c.event.Decision, c.event.Rule = audit.Deny, ""
	}
	return err
}

// again forgets what has been prepared, for a part of a stream that is done again.
func (c *call) again() {
	event := c.event
	event.Items, event.Profile, event.Purpose, event.Reveal, event.StatedReason = nil, "", "", "", ""
	event.Decision, event.Rule, event.Alerts, event.AboutCaller, event.Approval, event.Shadow = "", "", nil, "", "", ""
	event.Action, event.AboutCertificate, event.Since, event.Until = c.method.action, "", "", ""
	*c = call{method: c.method, policy: c.policy, address: c.address, consents: c.consents, shadow: c.shadow, limiter: c.limiter, meter: c.meter, event: event}
	c.remeasure()
}

// ask asks policy, and returns why it doesn't allow it.
func (c *call) ask(r policy.Request) (policy.Decision, error) {
	d := c.policy.Decide(r)
	if c.shadow != nil {
		c.event.Shadow = c.shadow.compare(d, r)
	}
	return d, c.decide(d)
}

// decide records a decision and returns its error, nil for one that allows.
func (c *call) decide(d policy.Decision) error {
	if !d.Allowed || d.Pending { // nothing that is decided here depends on a token
		return c.judged(d, denial(d))
	}
	return c.judged(d, nil)
}

// judged records a decision, and why it denies, if it does, which it returns.
func (c *call) judged(d policy.Decision, err error) error {
	c.event.Decision, c.event.Rule = audit.Allow, d.Rule
	if err != nil {
		c.event.Decision = audit.Deny
		return err
	}
	if d.Duties().Notify() {
		c.alert(audit.AlertNotify)
	}
	return nil
}

// request returns what policy is asked of a thing that the call is about, as far as it
// is the same for all of them.
func (c *call) request(profile string) policy.Request {
	return policy.Request{
		Caller: c.event.Caller, Action: c.method.action, Namespace: DefaultNamespace, Profile: profile,
		Address: c.address, Time: c.event.Time, Items: max(len(c.items), 1), Consents: c.consents,
	}
}

// finish records how the call ended. What a call that failed was about to
// change is dropped: only its event is committed.
func (c *call) finish(r refusal, err error) {
	c.event.Code = code.Code_OK.String()
	if err != nil {
		c.event.Code, c.event.Reason = code.Code(r.code).String(), r.reason // the same numbers
		c.unit = tokenizer.Unit{}
		c.event.Reveal = ""
		if c.method.values {
			c.event.Approval = ""
		}
		for i := range c.event.Items {
			c.event.Items[i].Reveal, c.event.Items[i].Approval = "", ""
		}
		if errors.Is(err, audit.ErrTooLarge) {
			c.event.Items = nil
		}
	}
}
