package repocheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// An arrowRule says which imports a group of packages may not have. Only what the
// packages themselves import counts, not what their tests do.
//
// Patterns: "keystore" is the package of that name in this module; "keystore/..."
// is that package and all below it; "keystore/*" only those below it; "..." is
// every package of this module. A pattern whose first element has a dot is a
// package outside of this module. "std" is the standard library.
type arrowRule struct {
	name   string
	from   []string // packages that the rule is about,
	except []string // without these
	deny   []string // imports that they may not have
	allow  []string // or, if set, the only imports that they may have
	why    string
}

// grpcAndProtobuf is what only the server's side of the design may know.
var grpcAndProtobuf = []string{
	"google.golang.org/grpc/...",
	"google.golang.org/protobuf/...",
	"google.golang.org/genproto/...",
	"github.com/golang/protobuf/...",
	"github.com/grpc-ecosystem/...",
	"gen/...",
}

// arrowRules are the import arrows of the design: cmd → server → tokenizer → keystore.
var arrowRules = []arrowRule{
	{
		name: "no-grpc-below-server",
		from: []string{"keystore/...", "tokenizer/..."},
		deny: grpcAndProtobuf,
		why:  "keystore and tokenizer know nothing of gRPC or protobuf; only server translates",
	},
	{
		name: "no-grpc-in-policy-and-audit",
		from: []string{"server/policy/...", "server/audit/..."},
		deny: append([]string{"server"}, grpcAndProtobuf...),
		why:  "decisions and audit events are plain Go, so that they can be tested and verified without a server",
	},
	{
		name: "keystore-is-the-lowest",
		from: []string{"keystore/..."},
		deny: []string{"tokenizer/...", "server/...", "cmd/..."},
		why:  "keys know nothing of what they protect",
	},
	{
		name: "tokenizer-below-server",
		from: []string{"tokenizer/..."},
		deny: []string{"server/...", "cmd/..."},
		why:  "the tokenizer prepares and the server commits, never the other way round",
	},
	{
		name: "tokenizer-knows-no-backend",
		from: []string{"tokenizer"},
		deny: []string{"tokenizer/boltstore/...", "tokenizer/pgstore/...", "keystore/*"},
		why:  "the tokenizer is written against Store and Keyring, so that every backend is equal",
	},
	{
		name:  "format-is-pure",
		from:  []string{"tokenizer/format/..."},
		allow: []string{"std", "tokenizer/format/...", "golang.org/x/net/idna"},
		why:   "formats know no store and no key; idna is what e-mail domains are made of",
	},
	{
		name:  "ff1-is-pure",
		from:  []string{"tokenizer/ff1/..."},
		allow: []string{"std", "tokenizer/ff1/..."},
		why:   "FF1 is our own cryptography: it rests on crypto/aes and nothing else",
	},
	onlyCmdNames("keystore/local"),
	onlyCmdNames("keystore/vault"),
	onlyCmdNames("tokenizer/boltstore"),
	onlyCmdNames("tokenizer/pgstore"),
	{
		name:   "only-server-speaks-the-api",
		from:   []string{"..."},
		except: []string{"gen/...", "server", "server/servertest", "cmd/..."},
		deny:   []string{"gen/..."},
		why:    "generated messages stay at the edge",
	},
	{
		name:   "only-boltstore-uses-bbolt",
		from:   []string{"..."},
		except: []string{"tokenizer/boltstore/..."},
		deny:   []string{"go.etcd.io/bbolt/..."},
		why:    "Store is the contract; a transaction of bbolt must not show through it",
	},
	{
		name:   "only-keystore-vault-uses-vault",
		from:   []string{"..."},
		except: []string{"keystore/vault/..."},
		deny:   []string{"github.com/hashicorp/vault/..."},
		why:    "Backend is the contract; Vault's client must not show through it",
	},
	{
		name:   "nothing-imports-cmd",
		from:   []string{"..."},
		except: []string{"cmd/..."},
		deny:   []string{"cmd/..."},
		why:    "commands are the top",
	},
}

// onlyCmdNames is the rule that no package knows a concrete backend but itself and
// the wiring, which servertest does for tests.
func onlyCmdNames(backend string) arrowRule {
	return arrowRule{
		name:   "only-cmd-names-" + backend,
		from:   []string{"..."},
		except: []string{"cmd/...", "server/servertest", backend + "/..."},
		deny:   []string{backend + "/..."},
		why:    "wiring is the only place that names concrete backends",
	}
}

// A goPackage is what `go list -json` tells of a package, as far as it matters here.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// violations returns a line for each import that a rule forbids.
func violations(packages []goPackage, rules []arrowRule) []string {
	var lines []string
	for _, p := range packages {
		for _, r := range rules {
			if !matchesAny(r.from, p.ImportPath) || matchesAny(r.except, p.ImportPath) {
				continue
			}
			for _, imported := range p.Imports {
				if matchesAny(r.deny, imported) || r.allow != nil && !matchesAny(r.allow, imported) {
					lines = append(lines, fmt.Sprintf("%s imports %s (%s: %s)", p.ImportPath, imported, r.name, r.why))
				}
			}
		}
	}
	return lines
}

func matchesAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, importPath) })
}

func matches(pattern, importPath string) bool {
	switch {
	case pattern == "std":
		return !external(importPath)
	case pattern == "...":
		pattern = module + "/..."
	case !external(pattern):
		pattern = module + "/" + pattern
	}
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == below || strings.HasPrefix(importPath, below+"/")
	}
	if below, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(importPath, below+"/")
	}
	return importPath == pattern
}

// external reports whether a path begins with a host name, which no package of the
// standard library does.
func external(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}

func TestImportArrows(t *testing.T) {
	var packages []goPackage
	dec := json.NewDecoder(bytes.NewReader(command(t, repoRoot(t), "go", "list", "-e", "-json=ImportPath,Imports", "./...")))
	for {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatal("go list names no packages")
	}
	for _, line := range violations(packages, arrowRules) {
		t.Error(line)
	}
}

// TestArrowRulesCatch feeds each rule an import that it has to refuse and some that
// it must not, so that a rule whose pattern matches nothing doesn't go unnoticed.
func TestArrowRulesCatch(t *testing.T) {
	cases := []struct {
		from, to string
		want     []string // names of the rules broken
	}{
		{"keystore", "google.golang.org/grpc/codes", []string{"no-grpc-below-server"}},
		{"keystore/vault", "google.golang.org/grpc", []string{"no-grpc-below-server"}},
		{"tokenizer", "google.golang.org/protobuf/proto", []string{"no-grpc-below-server"}},
		{"tokenizer/boltstore", "gen/coatcheck/v1", []string{"no-grpc-below-server", "only-server-speaks-the-api"}},
		{"server/policy", "google.golang.org/genproto/googleapis/rpc/errdetails", []string{"no-grpc-in-policy-and-audit"}},
		{"server/audit", "server", []string{"no-grpc-in-policy-and-audit"}},
		{"keystore", "tokenizer/format", []string{"keystore-is-the-lowest"}},
		{"keystore/local", "server/audit", []string{"keystore-is-the-lowest"}},
		{"tokenizer", "server/policy", []string{"tokenizer-below-server"}},
		{"tokenizer/boltstore", "cmd/internal/config", []string{"tokenizer-below-server", "nothing-imports-cmd"}},
		{"tokenizer", "tokenizer/boltstore", []string{"tokenizer-knows-no-backend", "only-cmd-names-tokenizer/boltstore"}},
		{"tokenizer", "keystore/keystoretest", []string{"tokenizer-knows-no-backend"}},
		{"tokenizer/format", "keystore", []string{"format-is-pure"}},
		{"tokenizer/format", "golang.org/x/text/width", []string{"format-is-pure"}},
		{"tokenizer/ff1", "golang.org/x/crypto/argon2", []string{"ff1-is-pure"}},
		{"server", "keystore/local", []string{"only-cmd-names-keystore/local"}},
		{"server", "tokenizer/pgstore", []string{"only-cmd-names-tokenizer/pgstore"}},
		{"keystore", "keystore/vault", []string{"only-cmd-names-keystore/vault"}},
		{"tokenizer/boltstore", "keystore/local", []string{"only-cmd-names-keystore/local"}},
		{"server/policy", "gen/coatcheck/v1", []string{"no-grpc-in-policy-and-audit", "only-server-speaks-the-api"}},
		{"cmd/internal/dev", "go.etcd.io/bbolt", []string{"only-boltstore-uses-bbolt"}},
		{"keystore/local", "github.com/hashicorp/vault/api", []string{"only-keystore-vault-uses-vault"}},
		{"server", "cmd/internal/config", []string{"nothing-imports-cmd"}},

		{"keystore", "crypto/aes", nil},
		{"keystore/local", "keystore", nil},
		{"keystore/local", "golang.org/x/crypto/argon2", nil},
		{"keystore/vault", "github.com/hashicorp/vault/api", nil},
		{"tokenizer", "keystore", nil},
		{"tokenizer", "tokenizer/format", nil},
		{"tokenizer/format", "unicode/utf8", nil},
		{"tokenizer/format", "golang.org/x/net/idna", nil},
		{"tokenizer/ff1", "crypto/aes", nil},
		{"tokenizer/boltstore", "go.etcd.io/bbolt", nil},
		{"tokenizer/boltstore", "tokenizer/boltstore/journal", nil},
		{"server", "gen/coatcheck/v1", nil},
		{"server", "server/policy", nil},
		{"server/servertest", "tokenizer/boltstore", nil},
		{"cmd/internal/serve", "keystore/local", nil},
		{"cmd/internal/serve", "google.golang.org/grpc", nil},
	}
	caught := make(map[string]bool)
	full := func(path string) string {
		if external(path) || strings.HasPrefix(path, "crypto/") || strings.HasPrefix(path, "unicode/") {
			return path
		}
		return module + "/" + path
	}
	for _, tc := range cases {
		t.Run(tc.from+"→"+tc.to, func(t *testing.T) {
			graph := []goPackage{{ImportPath: full(tc.from), Imports: []string{"context", full(tc.to)}}}
			var got []string
			for _, r := range arrowRules {
				if n := len(violations(graph, []arrowRule{r})); n > 1 {
					t.Errorf("rule %s reports the import %d times", r.name, n)
				} else if n == 1 {
					got = append(got, r.name)
					caught[r.name] = true
				}
			}
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) {
				t.Errorf("broken rules %q, want %q", got, tc.want)
			}
		})
	}
	for _, r := range arrowRules {
		if !caught[r.name] {
			t.Errorf("no case shows that rule %s catches anything", r.name)
		}
	}
}
