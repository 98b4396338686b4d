package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
)

// condition is the CEL expression of a rule, compiled (https://cel.dev).
type condition struct {
	text       string
	program    cel.Program
	needsToken bool
	constant   bool // whether it speaks of nothing
	states     int  // of all regular expressions in it
}

// Bounds of an expression. Its cost is CEL's own measure, about one for each step; an
// expression whose worst case is more than maxCost is refused when the file is read,
// and one that comes to more all the same stops there.
const (
	maxExpression = 4096 // bytes
	maxCost       = 10_000
	maxNesting    = 32
	maxLoops      = 16
	maxLabels     = 32
	maxLabelSize  = 256 // bytes of what a label is called, and of what it says
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
	"request.reason":    {cel.StringType, 256},
	"request.address":   {cel.StringType, 64},
	"request.items":     {cel.IntType, 0},

	"token.metadata":    {cel.MapType(cel.StringType, cel.StringType), maxLabels},
	"token.has_subject": {cel.BoolType, 0},
	"token.created":     {cel.TimestampType, 0},
	"token.expires":     {cel.TimestampType, 0},

	"time.now": {cel.TimestampType, 0},
}

// environment is what expressions are compiled in.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(maxNesting),
		cel.ASTValidators(cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals(), cel.ValidateComprehensionNestingLimit(2)),
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
	if len(path) == 0 {
		return nil
	}
	v, ok := variables[path[0]]
	if !ok {
		return nil
	}
	size := v.size
	if len(path) > 1 { // a label of the metadata, or what it is called
		size = maxLabelSize
	}
	return &checker.SizeEstimate{Min: 0, Max: size}
}

// celError is what is wrong with an expression, at its place in it.
type celError struct {
	line, column int // from 1, and from 0
	message      string
}

func (e *celError) Error() string { return e.message }

// parseCondition parses an expression and says how many loops it has, such as all and map.
// To check the types of one takes milliseconds, so it may have few.
func parseCondition(text string) (parsed *cel.Ast, loops int, err error) {
	if len(text) > maxExpression {
		return nil, 0, fmt.Errorf("an expression has at most %d bytes", maxExpression)
	}
	env, err := environment()
	if err != nil {
		return nil, 0, err
	}
	parsed, issues := env.Parse(text)
	if err := firstOf(text, issues); err != nil {
		return nil, 0, err
	}
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.ComprehensionKind {
			loops++
		}
	}))
	if loops > maxLoops {
		return nil, loops, fmt.Errorf("it has more than %d of all, exists, exists_one, filter and map", maxLoops)
	}
	return parsed, loops, nil
}

// firstOf returns the first of the issues with a text as an error, nil if there are none.
func firstOf(text string, issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	first := issues.Errors()[0]
	line, column := first.Location.Line(), first.Location.Column()
	return &celError{line, column, hint(text, line, column, strings.ReplaceAll(first.Message, "\n", " "))}
}

// checkCondition compiles what has been parsed, which must be a bool.
func checkCondition(text string, parsed *cel.Ast) (*condition, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Check(parsed)
	if err := firstOf(text, issues); err != nil {
		return nil, err
	}
	if checked.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("an expression is true or false; this is of the type %s", checked.OutputType())
	}
	states, err := checkCalls(checked.NativeRep())
	if err != nil {
		return nil, err
	}
	cost, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, err
	}
	if cost.Max > maxCost {
		return nil, fmt.Errorf("it may cost up to %d steps, and %d is the most", cost.Max, maxCost)
	}
	program, err := env.Program(checked, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(withLocation))
	if err != nil {
		return nil, err
	}
	c := &condition{text: text, program: program, states: states, constant: true}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		_, variable := variables[reference.Name]
		c.constant = c.constant && !variable
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
