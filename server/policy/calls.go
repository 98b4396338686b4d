package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
)

// What CEL leaves to the time of evaluation, and what costs more than CEL thinks.
var (
	errDynamicRegex = errors.New("what matches() compares with must be written out in quotes")
	errDynamicZone  = errors.New("a time zone must be written out in quotes")
)

// zoned are the functions that take a time zone.
var zoned = map[string]bool{
	overloads.TimeGetFullYear: true, overloads.TimeGetMonth: true, overloads.TimeGetDayOfYear: true, overloads.TimeGetDate: true,
	overloads.TimeGetDayOfMonth: true, overloads.TimeGetDayOfWeek: true, overloads.TimeGetHours: true, overloads.TimeGetMinutes: true,
	overloads.TimeGetSeconds: true, overloads.TimeGetMilliseconds: true,
}

// checkCalls checks the regular expressions and the time zones of an expression, and
// says how many states the former have.
func checkCalls(tree *ast.AST) (states int, err error) {
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || err != nil {
			return
		}
		call := e.AsCall()
		args := call.Args()
		switch {
		case call.FunctionName() == overloads.Matches && len(args) > 0:
			text, ok := literal(args[len(args)-1])
			if !ok {
				err = errDynamicRegex
				return
			}
			n, fault := regexStates(text)
			if states += n; fault != nil {
				err = fmt.Errorf("matches(%s): %w", quote(text), fault)
			}
		case zoned[call.FunctionName()] && call.IsMemberFunction() && len(args) == 1:
			if name, ok := literal(args[0]); !ok {
				err = errDynamicZone
			} else if _, fault := location(name); fault != nil {
				err = fault
			}
		}
	}))
	return states, err
}

// literal returns a string that is written out.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}

// EstimateCallCost tells CEL what matches costs: its states for each byte, ten steps of
// which are one of CEL's.
func (s sizes) EstimateCallCost(function, _ string, target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	if function != overloads.Matches || len(args) == 0 {
		return nil
	}
	text, ok := literal(args[len(args)-1].Expr())
	if !ok {
		return nil
	}
	states, err := regexStates(text)
	if err != nil {
		return nil
	}
	subject := args[0]
	if target != nil {
		subject = *target
	}
	size := checker.UnknownSizeEstimate()
	if known := subject.ComputedSize(); known != nil {
		size = *known
	} else if known := s.EstimateSize(subject); known != nil {
		size = *known
	}
	cost := size.Add(checker.FixedSizeEstimate(1)).MultiplyByCostFactor(float64(states) / 10)
	return &checker.CallEstimate{CostEstimate: checker.CostEstimate{Min: 0, Max: cost.Max}}
}

// location returns a time zone: a name, or the hours and minutes from UTC, as in
// +02:00.
func location(name string) (*time.Location, error) {
	hours, minutes, isOffset := strings.Cut(name, ":")
	if !isOffset {
		at, err := time.LoadLocation(name)
		if err != nil || name == "Local" {
			return nil, fmt.Errorf("unknown time zone %s", quote(name))
		}
		return at, nil
	}
	h, err := strconv.Atoi(hours)
	m, fault := strconv.Atoi(minutes)
	if err != nil || fault != nil || h < -23 || h > 23 || m < 0 || m > 59 {
		return nil, fmt.Errorf("%s is no time zone: write a name or an offset, as in +02:00", quote(name))
	}
	if strings.HasPrefix(hours, "-") {
		m = -m
	}
	return time.FixedZone("", 60*(60*h+m)), nil
}

// withLocation has a call know its time zone, which CEL would read from disk each time.
func withLocation(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok || !zoned[call.Function()] || len(call.Args()) != 2 {
		return i, nil
	}
	constant, ok := call.Args()[1].(interpreter.InterpretableConst)
	if !ok {
		return nil, errDynamicZone
	}
	name, ok := constant.Value().(types.String)
	if !ok {
		return nil, errDynamicZone
	}
	at, err := location(string(name))
	if err != nil {
		return nil, err
	}
	part := func(args ...ref.Val) ref.Val {
		t, ok := args[0].(types.Timestamp)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		return types.Timestamp{Time: t.In(at)}.Receive(call.Function(), "", nil)
	}
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), part), nil
}
