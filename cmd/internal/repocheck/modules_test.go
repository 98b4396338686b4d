package repocheck

import (
	"encoding/json"
	"fmt"
	"testing"
)

// allowedModules are the modules that go.mod may require directly, each with its
// reason. What they need in turn is theirs to choose.
var allowedModules = map[string]string{
	"google.golang.org/grpc":                          "the transport",
	"google.golang.org/protobuf":                      "the messages",
	"google.golang.org/genproto/googleapis/rpc":       "google.rpc.Status, ErrorInfo, BadRequest and RetryInfo",
	"github.com/grpc-ecosystem/go-grpc-middleware/v2": "one chain for unary and streaming calls",
	"go.etcd.io/bbolt":                                "the embedded store",
	"github.com/tidwall/btree":                        "sorted maps: what the bbolt file hasn't yet",
	"go.yaml.in/yaml/v4":                              "configuration and policy, strictly decoded, errors with line and column",
	"github.com/google/cel-go":                        "the expressions of policy rules",
	"github.com/spf13/cobra":                          "the command line",
	"filippo.io/age":                                  "exports are encrypted to a recipient",
	"github.com/klauspost/compress":                   "zstd: closed segments of the audit log are compressed",
	"golang.org/x/crypto":                             "Argon2id for the passphrase of a root key file",
	"golang.org/x/mod":                                "sumdb/tlog and note: Merkle tree and signed checkpoints of the audit log",
	"golang.org/x/net":                                "idna: the domains of e-mail addresses",
	"golang.org/x/sync":                               "errgroup, singleflight, and how far a stream is read ahead",
	"golang.org/x/term":                               "whether to draw a progress bar",
	"golang.org/x/time":                               "the rate at which records are moved to a new key",
	"github.com/prometheus/client_golang":             "metrics",
	"go.opentelemetry.io/proto/otlp":                  "the messages of OTLP, in which the audit log is sent to collectors",
	"github.com/santhosh-tekuri/jsonschema/v6":        "tests alone: that the JSON Schema of policies says what the parser does",
	"github.com/rogpeppe/go-internal":                 "test scripts against the real main",
	"github.com/hashicorp/vault/api":                  "the transit keystore",
	"github.com/hashicorp/vault/api/auth/approle":     "logging in to Vault as an AppRole",
	"github.com/hashicorp/vault/api/auth/kubernetes":  "logging in to Vault with a service account",
}

// unexpected returns a line for each direct requirement that has no reason.
func unexpected(gomod []byte) ([]string, error) {
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal(gomod, &file); err != nil {
		return nil, err
	}
	var lines []string
	for _, r := range file.Require {
		if !r.Indirect && allowedModules[r.Path] == "" {
			lines = append(lines, fmt.Sprintf("go.mod requires %s, for which allowedModules has no reason", r.Path))
		}
	}
	for _, r := range file.Replace {
		lines = append(lines, fmt.Sprintf("go.mod replaces %s: a build from the module proxy would ignore it", r.Old.Path))
	}
	return lines, nil
}

func TestDirectDependencies(t *testing.T) {
	lines, err := unexpected(command(t, repoRoot(t), "go", "mod", "edit", "-json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		t.Error(line)
	}
}

func TestUnexpected(t *testing.T) {
	lines, err := unexpected([]byte(`{
		"Require": [
			{"Path": "google.golang.org/grpc"},
			{"Path": "github.com/pkg/errors"},
			{"Path": "golang.org/x/text", "Indirect": true}
		],
		"Replace": [{"Old": {"Path": "go.etcd.io/bbolt"}, "New": {"Path": "../bbolt"}}]
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2 {
		t.Errorf("want github.com/pkg/errors and the replacement of bbolt refused, have %q", lines)
	}
}
