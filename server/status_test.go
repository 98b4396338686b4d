package server

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coatcheck/coatcheck/server/policy"
)

// unreachable are exported sentinels that can't be what a call ends with, and
// why.
var unreachable = map[string]string{
	"keystore.ErrKeySize":     "a defect of a backend; told as INTERNAL",
	"keystore.ErrClass":       "a defect; told as INTERNAL",
	"keystore.ErrOpen":        "tokenizer turns it into ErrDamaged",
	"keystore.ErrTooLarge":    "no value is as large as that",
	"tokenizer.ErrNotFound":   "tokenizer turns it into ErrTokenNotFound",
	"tokenizer.ErrHoneytoken": "is tokenizer.ErrTokenNotFound, and told as nothing else",
	"tokenizer.ErrProfile":    "only when starting",
	"format.ErrValue":         "tokenizer turns it into ErrInvalidValue",
	"format.ErrToken":         "tokenizer wraps it in ErrInvalidToken",
	"audit.ErrTorn":           "only when reading segments",
	"audit.ErrBroken":         "only when reading segments",
	"audit.ErrMismatch":       "only when starting",
}

// TestEverySentinelHasARow finds the exported sentinels in the sources of the
// packages that a call goes through.
func TestEverySentinelHasARow(t *testing.T) {
	rows := sentinelsIn(t, "status.go")
	found := 0
	for _, dir := range []string{"../keystore", "../tokenizer", "../tokenizer/format", "policy", "audit", "limit", "crl"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no sources, %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for name := range declaredErrors(t, file) {
				found++
				full := filepath.Base(dir) + "." + name
				if rows[full] == (unreachable[full] != "") {
					t.Errorf("%s needs a row in status.go, or a reason why it can't get there; not both", full)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d sentinels found: the search is broken", found)
	}
}

// declaredErrors returns the exported variables named Err… of a file.
func declaredErrors(t *testing.T, file string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, decl := range parsed.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				if strings.HasPrefix(name.Name, "Err") {
					names[name.Name] = true
				}
			}
		}
	}
	return names
}

// sentinelsIn returns the package-qualified names that stand behind "err:" in
// a file's composite literals.
func sentinelsIn(t *testing.T, file string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	ast.Inspect(parsed, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok := pair.Key.(*ast.Ident)
		value, isSelector := pair.Value.(*ast.SelectorExpr)
		if ok && isSelector && key.Name == "err" {
			names[value.X.(*ast.Ident).Name+"."+value.Sel.Name] = true
		}
		return true
	})
	return names
}

func TestRefusals(t *testing.T) {
	form := regexp.MustCompile(`^[A-Z][A-Z0-9_]+[A-Z0-9]$`) // ErrorInfo demands it
	for _, r := range refusals {
		if !form.MatchString(r.reason) || r.message == "" || r.code == codes.OK || r.code == codes.Unknown {
			t.Errorf("row of %v: %+v", r.err, r)
		}
		inner := fmt.Errorf("secret inner cause: %w", r.err)
		got := refuse(inner)
		st := got.status(inner)
		if st.Code() != r.code || strings.Contains(st.String(), "secret") || len(st.Details()) == 0 {
			t.Errorf("%v is told as %v", r.err, st)
		}
	}
	got := refuse(errors.New("a defect with a secret"))
	if st := got.status(nil); !got.ours() || st.Code() != codes.Internal || strings.Contains(st.String(), "secret") {
		t.Errorf("an unknown error is told as %v", st)
	}
	for _, reason := range policy.Reasons {
		got := refuse(denial(policy.Decision{Reason: reason}))
		if got.ours() || got.code != codes.PermissionDenied || got.reason != string(reason) {
			t.Errorf("%s is told as %s", reason, got.reason)
		}
	}
}

func TestMethodsWithoutRowsStopTheStart(t *testing.T) {
	registered := make(map[string]grpc.ServiceInfo)
	for name := range methods {
		service, method, _ := strings.Cut(name[1:], "/")
		info := registered[service]
		info.Methods = append(info.Methods, grpc.MethodInfo{Name: method})
		registered[service] = info
	}
	if err := checkMethods(registered); err != nil {
		t.Fatalf("the table as it is: %v", err)
	}
	registered["coatcheck.v1.NewService"] = grpc.ServiceInfo{Methods: []grpc.MethodInfo{{Name: "Leak"}}}
	if err := checkMethods(registered); err == nil || !strings.Contains(err.Error(), "/coatcheck.v1.NewService/Leak") {
		t.Errorf("a method without a row: %v", err)
	}
	delete(registered, "coatcheck.v1.NewService")
	stream := maps.Clone(registered)
	stream["coatcheck.v1.TokenizationService"] = grpc.ServiceInfo{Methods: []grpc.MethodInfo{{Name: "Detokenize", IsServerStream: true}}}
	if err := checkMethods(stream); err == nil || !strings.Contains(err.Error(), "stream") {
		t.Errorf("a stream that nothing records: %v", err)
	}
	delete(registered, "coatcheck.v1.TokenizationService")
	if err := checkMethods(registered); err == nil || !strings.Contains(err.Error(), "Tokenize") {
		t.Errorf("rows without methods: %v", err)
	}
}

func TestErrorsOfContextsAreTold(t *testing.T) {
	for err, want := range map[error]codes.Code{context.Canceled: codes.Canceled, context.DeadlineExceeded: codes.DeadlineExceeded} {
		if r := refuse(err); r.ours() || r.code != want {
			t.Errorf("%v is told as %v", err, r.code)
		}
	}
}

// The comments of the API are its reference: every reason stands there.
func TestEveryReasonIsDocumented(t *testing.T) {
	files, err := filepath.Glob("../proto/coatcheck/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("no proto files: %v", err)
	}
	var text strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(content)
	}
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, r := range refusals {
		known[r.reason] = true
		if !strings.Contains(text.String(), r.reason) {
			t.Errorf("%s is not in the comments of the API", r.reason)
		}
		row := regexp.MustCompile("(?m)^\\|.*`" + r.reason + "`[^|]*\\| " + code.Code(r.code).String() + " \\|" + ifAny(r.field) + ".*$")
		if !row.Match(page) {
			t.Errorf("%s, %v, %q is not in docs/errors.md", r.reason, code.Code(r.code), r.field)
		}
	}
	for _, found := range regexp.MustCompile("(?m)^\\| `([A-Z_0-9]+)`").FindAllSubmatch(page, -1) {
		if !known[string(found[1])] {
			t.Errorf("docs/errors.md has %s, which nothing is refused with", found[1])
		}
	}
}

// ifAny is a cell with the name of a field, if there is one.
func ifAny(field string) string {
	if field == "" {
		return ""
	}
	return " `" + field + "` \\|"
}
