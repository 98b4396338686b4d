package policy

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// facts is what an expression sees of a request.
type facts struct{ request Request }

// errNotKnown says that a request doesn't have what an expression speaks of.
var errNotKnown = errors.New("policy: it isn't known")

// never is the last time that CEL knows.
var never ref.Val = types.Timestamp{Time: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}

var (
	noFacts   facts
	factsPool = sync.Pool{New: func() any { return new(facts) }}
)

// Parent is part of the interface.
func (f *facts) Parent() cel.Activation { return nil }

// ResolveName returns what a variable holds.
func (f *facts) ResolveName(name string) (any, bool) {
	q := &f.request
	switch name {
	case "caller.id":
		return types.String(q.Caller), true
	case "caller.kind":
		kind, _, _ := strings.Cut(q.Caller, ":")
		return types.String(kind), true
	case "caller.trust_domain":
		domain, _ := spiffeParts(q.Caller)
		return types.String(domain), true
	case "caller.path":
		_, path := spiffeParts(q.Caller)
		return types.String(path), true
	case "request.action":
		return types.String(q.Action), true
	case "request.namespace":
		return types.String(q.namespace()), true
	case "request.profile":
		return types.String(q.Profile), true
	case "request.purpose":
		return types.String(q.Purpose), true
	case "request.reason":
		return types.String(q.StatedReason), true
	case "request.address":
		if !q.Address.IsValid() {
			return types.WrapErr(errNotKnown), true
		}
		return types.String(q.Address.Unmap().String()), true
	case "request.items":
		return types.Int(q.Items), true
	case "time.now":
		return moment(q.Time), true
	}
	if q.Token == nil {
		return nil, false
	}
	return f.ofToken(name)
}

// ofToken returns what a variable holds that is about the token. What can't be known
// is an error, which fails the expression.
func (f *facts) ofToken(name string) (any, bool) {
	token := f.request.Token
	switch name {
	case "token.metadata":
		labels, err := token.Metadata()
		if err != nil {
			return types.WrapErr(err), true
		}
		if labels == nil {
			labels = map[string]string{}
		}
		return types.DefaultTypeAdapter.NativeToValue(labels), true
	case "token.has_subject":
		subject, err := token.Subject()
		if err != nil {
			return types.WrapErr(err), true
		}
		return types.Bool(subject != ""), true
	case "token.created":
		return moment(token.Created()), true
	case "token.expires":
		if token.Expires().IsZero() {
			return never, true
		}
		return moment(token.Expires()), true
	}
	return nil, false
}

// moment returns a time as CEL has it. One that isn't known fails the expression.
func moment(t time.Time) ref.Val {
	if t.IsZero() {
		return types.WrapErr(errNotKnown)
	}
	return types.Timestamp{Time: t.UTC()}
}

// spiffeParts returns the trust domain and the path of a SPIFFE ID, "" of another
// caller.
func spiffeParts(caller string) (domain, path string) {
	rest, ok := strings.CutPrefix(caller, "spiffe://")
	if !ok {
		return "", ""
	}
	domain, path, _ = strings.Cut(rest, "/")
	return domain, path
}

// namespace returns the namespace of the request.
func (q *Request) namespace() string {
	if q.Namespace == "" {
		return DefaultNamespace
	}
	return q.Namespace
}
