package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// condition is the CEL expression of a rule, compiled (https://cel.dev).
type condition struct {
	text       string
	program    cel.Program
	needsToken bool
}

// Bounds of an expression. Its cost is CEL's own measure, about one for each step; an
// expression whose worst case is more than maxCost is refused when the file is read,
// and one that comes to more all the same stops there.
const (
	maxExpression = 4096 // bytes
	maxCost       = 10_000
	maxNesting    = 32
)

// variables are what an expression can speak of, and how long what is text can be at
// most.
var variables = map[string]struct {
	kind *cel.Type
	size uint64
}{
	"caller.id":           {cel.StringType, maxSPIFFE},
	"caller.kind":         {cel.StringType, 6},
	"caller.trust_domain": {cel.StringType, maxTrustDomain},
	"caller.path":         {cel.StringType, maxSPIFFE},

	"request.action":    {cel.StringType, 64},
	"request.namespace": {cel.StringType, 255},
	"request.profile":   {cel.StringType, 255},
	"request.purpose":   {cel.StringType, 31},
	"request.reveal":    {cel.StringType, 16},
	"request.reason":    {cel.StringType, 256},
	"request.address":   {cel.StringType, 64},
	"request.items":     {cel.IntType, 0},

	"token.metadata":    {cel.MapType(cel.StringType, cel.StringType), 64},
	"token.has_subject": {cel.BoolType, 0},
	"token.created":     {cel.TimestampType, 0},
	"token.expires":     {cel.TimestampType, 0},

	"time.now": {cel.TimestampType, 0},
}

// environment is what expressions are compiled in.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(maxNesting),
		cel.ASTValidators(cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals(), cel.ValidateRegexLiterals(), cel.ValidateComprehensionNestingLimit(2)),
	}
	for name, v := range variables {
		options = append(options, cel.Variable(name, v.kind))
	}
	return cel.NewEnv(options...)
})

// sizes tells CEL how large what it can't know may be.
type sizes struct{}

func (sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	if v, ok := variables[strings.Join(path[:min(len(path), 2)], ".")]; ok {
		size := v.size
		if len(path) > 2 { // a label of the metadata, or what it is called
			size = 1024
		}
		return &checker.SizeEstimate{Min: 0, Max: size}
	}
	return nil
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// celError is what is wrong with an expression, at its place in it.
type celError struct {
	line, column int // from 1, and from 0
	message      string
}

func (e *celError) Error() string { return e.message }

// compileCondition compiles an expression, which must be a bool.
func compileCondition(text string) (*condition, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("an expression has at most %d bytes", maxExpression)
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, &celError{first.Location.Line(), first.Location.Column(), strings.ReplaceAll(first.Message, "\n", " ")}
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("an expression is true or false; this is of the type %s", ast.OutputType())
	}
	cost, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, err
	}
	if cost.Max > maxCost {
		return nil, fmt.Errorf("it may cost up to %d steps, and %d is the most", cost.Max, maxCost)
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	c := &condition{text: text, program: program}
	for _, reference := range ast.NativeRep().ReferenceMap() {
		c.needsToken = c.needsToken || strings.HasPrefix(reference.Name, "token.")
	}
	return c, nil
}

// errNotBool can't come of an expression that was checked.
var errNotBool = errors.New("policy: an expression is neither true nor false")

// met evaluates the expression.
func (c *condition) met(q *Request) (bool, error) {
	facts := factsPool.Get().(*facts)
	facts.request = *q
	out, _, err := c.program.Eval(facts)
	*facts = noFacts
	factsPool.Put(facts)
	if err != nil {
		return false, err
	}
	is, ok := out.(types.Bool)
	if !ok {
		return false, errNotBool
	}
	return bool(is), nil
}

// facts is what an expression sees of a request.
type facts struct{ request Request }

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
	case "request.reveal":
		return types.String(q.Reveal.String()), true
	case "request.reason":
		return types.String(q.StatedReason), true
	case "request.address":
		if !q.Address.IsValid() {
			return types.String(""), true
		}
		return types.String(q.Address.Unmap().String()), true
	case "request.items":
		return types.Int(q.Items), true
	case "time.now":
		return types.Timestamp{Time: q.Time.UTC()}, true
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
		return moment(token.Expires()), true
	}
	return nil, false
}

// moment returns a time as CEL has it; that of a token that never expires is the last
// that CEL knows.
func moment(t time.Time) ref.Val {
	if t.IsZero() {
		t = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
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
