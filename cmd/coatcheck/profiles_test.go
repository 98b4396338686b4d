package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
	"google.golang.org/grpc/status"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// The guide to profiles, whose examples are tested here: each block of YAML is
// profiles, and tables with these heads are examples.
const (
	guide = "../../docs/profiles.md"

	examplesHead = "profile | value | token | normal form | masked | parts"
	invalidHead  = "profile | refused value | why"
	capacityHead = "profile | tokens for a usual value"
	refusedHead  = "refused profile | what is said"
)

// guideParts is what is tested of the guide.
type guideParts struct {
	profiles string                       // YAML, at the margin
	declared map[string]config.Profile    // the same
	kinds    map[string]tokenizer.Profile // the same, with defaults
	tables   map[string][]guideRow        // by head
}

// guideRow is a row of a table.
type guideRow struct {
	line  int
	cells []string
}

// codeSpan finds code in a cell.
var codeSpan = regexp.MustCompile("`([^`]*)`")

// code returns the pieces of code in a cell.
func code(cell string) (pieces []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(cell, -1) {
		pieces = append(pieces, m[1])
	}
	return pieces
}

// only returns the one piece of code in a cell, "" for a dash.
func (r guideRow) only(t *testing.T, i int) string {
	t.Helper()
	pieces := code(r.cells[i])
	if len(pieces) == 0 && r.cells[i] == "—" {
		return ""
	}
	if len(pieces) != 1 {
		t.Fatalf("line %d: cell %d: %q is not one piece of code", r.line, i+1, r.cells[i])
	}
	return pieces[0]
}

// readGuide takes the guide apart.
func readGuide(t *testing.T) guideParts {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	g := guideParts{tables: make(map[string][]guideRow)}
	fence, head := "", ""
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "```") {
			if fence = strings.TrimPrefix(line, "```"); fence != "" && fence != "yaml" {
				t.Fatalf("line %d: a block of %q, which this test doesn't know", i+1, fence)
			}
			continue
		}
		if fence != "" {
			g.profiles += line + "\n"
			continue
		}
		row, ok := strings.CutPrefix(line, "| ")
		if !ok {
			head = ""
			continue
		}
		row = strings.TrimSuffix(row, " |")
		switch {
		case head == "":
			head = row
		case !strings.HasPrefix(row, "--- |"):
			cells := strings.Split(row, " | ")
			if len(cells) != strings.Count(head, "|")+1 {
				t.Fatalf("line %d: %d cells", i+1, len(cells))
			}
			g.tables[head] = append(g.tables[head], guideRow{i + 1, cells})
		}
	}
	if err := yaml.Load([]byte(g.profiles), &g.declared, yaml.WithUniqueKeys(), yaml.WithKnownFields()); err != nil {
		t.Fatalf("the profiles of the guide: %v", err)
	}
	g.kinds = make(map[string]tokenizer.Profile)
	for _, p := range (&config.Config{Profiles: g.declared}).TokenizerProfiles() {
		g.kinds[p.Name] = p.WithDefaults()
	}
	return g
}

// rows returns the rows of the table with the head; there must be some.
func (g guideParts) rows(t *testing.T, head string) []guideRow {
	t.Helper()
	if len(g.tables[head]) == 0 {
		t.Fatalf("the guide has no table %q", head)
	}
	return g.tables[head]
}

// profile returns the profile that a row is about.
func (g guideParts) profile(t *testing.T, r guideRow) tokenizer.Profile {
	t.Helper()
	p, ok := g.kinds[r.only(t, 0)]
	if !ok {
		t.Fatalf("line %d: the guide doesn't declare the profile %s", r.line, r.cells[0])
	}
	return p
}

// instanceWith makes an instance with the profiles, at the margin, and a policy
// that grants everything.
func instanceWith(t *testing.T, profiles string, names []string) (dir, path string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "instance")
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, devkit.ConfigFile)
	sample, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(sample), "\nprofiles:\n")
	if !ok {
		t.Fatal("the sample configuration has no profiles")
	}
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(profiles), "\n", "\n  ") + "\n"
	rules := fmt.Sprintf(`version: 1
rules:
  - name: in
    callers: ["spiffe://coatcheck.example/checkout"]
    actions: [tokenize]
    profiles: [%s]
  - name: out
    callers: ["spiffe://coatcheck.example/payments"]
    actions: [detokenize]
    profiles: [%[1]s]
    purposes: [support]
    reveal: FULL
`, strings.Join(names, ", "))
	for file, content := range map[string]string{path: before + "\nprofiles:\n" + indented, filepath.Join(dir, "policy.yaml"): rules} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, path
}

// instance makes an instance with the profiles of the guide.
func (g guideParts) instance(t *testing.T) (dir, path string) {
	t.Helper()
	var names []string
	for name := range g.declared {
		names = append(names, name)
	}
	slices.Sort(names)
	return instanceWith(t, g.profiles, names)
}

// Each type, format and mode has an example in the guide, and each profile in it
// is one.
func TestGuideIsComplete(t *testing.T) {
	g := readGuide(t)
	types, formats, modes, profiles := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range g.rows(t, examplesHead) {
		p := g.profile(t, r)
		types[p.Type], formats[string(p.Format)], modes[string(p.Mode)], profiles[p.Name] = true, true, true, true
	}
	for what, lists := range map[string]struct {
		want []string
		have map[string]bool
	}{
		"type":   {format.Names(), types},
		"format": {append(format.ShapeNames(), string(tokenizer.Opaque)), formats},
		"mode":   {allModes(t), modes},
	} {
		for _, name := range lists.want {
			if !lists.have[name] {
				t.Errorf("the guide has no example of the %s %s", what, name)
			}
		}
	}
	for name := range g.declared {
		if !profiles[name] {
			t.Errorf("the guide has no example of its profile %s", name)
		}
	}
}

// allModes returns the names of all modes, which only the error of one that is
// none tells.
func allModes(t *testing.T) []string {
	t.Helper()
	var bad *tokenizer.ProfileError
	err := tokenizer.Profile{Name: "p", Type: "text", Mode: "?"}.Validate()
	if !errors.As(err, &bad) || bad.Field != "mode" {
		t.Fatalf("a mode that is none: %v", err)
	}
	_, list, _ := strings.Cut(bad.Reason, "[")
	modes := strings.Fields(strings.TrimSuffix(list, "]"))
	if !slices.Contains(modes, string(tokenizer.OneWay)) {
		t.Fatalf("no modes in %q", bad.Reason)
	}
	return modes
}

// Every example of the guide is what a server with its profiles does.
func TestGuideExamples(t *testing.T) {
	g := readGuide(t)
	dir, path := g.instance(t)
	p := start(t, "serve", "--config", path)
	in := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout"))
	out := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments"))
	for _, r := range g.rows(t, examplesHead) {
		e := example{in: in, out: out, profile: g.profile(t, r), row: r}
		t.Run(fmt.Sprintf("line %d", r.line), e.test)
	}
	for _, r := range g.rows(t, invalidHead) {
		t.Run(fmt.Sprintf("line %d", r.line), func(t *testing.T) {
			e := example{in: in, profile: g.profile(t, r), row: r}
			_, err := e.tokenize(t, r.only(t, 1))
			if reasonOf(err) != "InvalidArgument INVALID_VALUE" || !strings.Contains(status.Convert(err).Message(), r.cells[2]) {
				t.Errorf("%v", err)
			}
		})
	}
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// example is a row of a table of examples.
type example struct {
	in, out coatcheckv1.TokenizationServiceClient
	profile tokenizer.Profile
	row     guideRow
}

// test tests the row.
func (e example) test(t *testing.T) {
	values := code(e.row.cells[1])
	if len(values) == 0 {
		t.Fatal("no value")
	}
	for _, value := range values {
		first := e.accepted(t, value)
		second := e.accepted(t, value)
		same := first.GetToken() == second.GetToken()
		switch e.profile.Mode {
		case tokenizer.Random:
			if same || second.GetReused() {
				t.Errorf("%s twice: %v", value, second)
			}
		case tokenizer.Convergent:
			if !same || !second.GetReused() {
				t.Errorf("%s twice: %v", value, second)
			}
		default:
			if !same || second.GetReused() {
				t.Errorf("%s twice: %v", value, second)
			}
		}
		if e.profile.Mode != tokenizer.OneWay {
			e.reveals(t, value)
		}
	}
}

// tokenize brings a value as the guide writes it.
func (e example) tokenize(t *testing.T, value string) (*coatcheckv1.TokenizeResponse, error) {
	t.Helper()
	req := &coatcheckv1.TokenizeRequest{Profile: e.profile.Name, Value: value}
	if e.profile.Binary() {
		req.Value, req.Data = "", e.binary(t, value)
	}
	return e.in.Tokenize(t.Context(), req)
}

// binary returns bytes that the guide writes in hexadecimal.
func (e example) binary(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// accepted brings a value, whose token and masked form have to be as the row
// says.
func (e example) accepted(t *testing.T, value string) *coatcheckv1.TokenizeResponse {
	t.Helper()
	resp, err := e.tokenize(t, value)
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	pattern := regexp.MustCompile(`^(?:` + e.row.only(t, 2) + `)$`)
	if !pattern.MatchString(resp.GetToken()) {
		t.Errorf("%s: the token %s", value, resp.GetToken())
	}
	if want := e.row.only(t, 4); resp.GetMasked() != want {
		t.Errorf("%s: masked %s, want %s", value, resp.GetMasked(), want)
	}
	return resp
}

// partText finds the parts that a row says a value has.
var partText = regexp.MustCompile("([A-Z0-9]+) `([^`]*)`")

// reveals reveals a value in each form that there is. Each token is used once.
func (e example) reveals(t *testing.T, value string) {
	t.Helper()
	want := map[string]string{"FULL": e.row.only(t, 3), "MASKED": e.row.only(t, 4)}
	for _, m := range partText.FindAllStringSubmatch(e.row.cells[5], -1) {
		want[m[1]] = m[2]
	}
	for name, number := range coatcheckv1.Reveal_value {
		name = strings.TrimPrefix(name, "REVEAL_")
		if name == "UNSPECIFIED" {
			continue
		}
		got, err := e.out.Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{
			Token: e.accepted(t, value).GetToken(), Profile: e.profile.Name, Purpose: "support", Reveal: coatcheckv1.Reveal(number),
		})
		text, ok := want[name]
		delete(want, name)
		switch {
		case !ok && reasonOf(err) != "InvalidArgument REVEAL_NOT_APPLICABLE":
			t.Errorf("%s: %s is not in the guide: %v, %v", value, name, got, err)
		case !ok:
		case err != nil:
			t.Errorf("%s: %s: %v", value, name, err)
		case name == "FULL" && e.profile.Binary():
			if !bytes.Equal(got.GetData(), e.binary(t, text)) || got.GetValue() != "" {
				t.Errorf("%s: %s is %x %q", value, name, got.GetData(), got.GetValue())
			}
		case got.GetValue() != text:
			t.Errorf("%s: %s is %q, want %q", value, name, got.GetValue(), text)
		}
	}
	for name := range want {
		t.Errorf("%s: there is no form %s", value, name)
	}
}

// outputOf runs coatcheck to its end and returns what it printed.
func outputOf(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), said.String()
}

// The numbers of tokens that the guide tells are those that check-config prints.
func TestGuideCapacities(t *testing.T) {
	g := readGuide(t)
	_, path := g.instance(t)
	code, stdout, stderr := outputOf(t, "check-config", "--config", path, "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var checked struct {
		Profiles []struct {
			Profile  string
			Capacity json.Number
		}
	}
	if err := json.Unmarshal([]byte(stdout), &checked); err != nil {
		t.Fatal(err)
	}
	capacities := make(map[string]string)
	for _, p := range checked.Profiles {
		capacities[p.Profile] = p.Capacity.String()
	}
	for _, r := range g.rows(t, capacityHead) {
		if p := g.profile(t, r); capacities[p.Name] != r.cells[1] {
			t.Errorf("line %d: there are %s", r.line, capacities[p.Name])
		}
	}
}

// What the guide says is refused is refused, in the words that it says.
func TestGuideRefusals(t *testing.T) {
	g := readGuide(t)
	var profiles strings.Builder
	rows := g.rows(t, refusedHead)
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = fmt.Sprintf("line-%d", r.line)
		fmt.Fprintf(&profiles, "%s: %s\n", names[i], r.only(t, 0))
	}
	_, path := instanceWith(t, profiles.String(), names)
	code, _, stderr := outputOf(t, "check-config", "--config", path)
	if code != 1 {
		t.Fatalf("exit code %d", code)
	}
	said := make(map[string]string)
	for line := range strings.Lines(stderr) {
		if _, fault, ok := strings.Cut(strings.TrimSpace(line), `: profile "`); ok {
			name, text, _ := strings.Cut(fault, `": `)
			said[name] = text
		}
	}
	for i, r := range rows {
		if want := r.only(t, 1); said[names[i]] != want {
			t.Errorf("line %d: %q", r.line, said[names[i]])
		}
	}
	if t.Failed() {
		t.Log(stderr)
	}
}

// The reference of the configuration has every key of a profile.
func TestProfileKeysAreListed(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config.Profile]().Fields() {
		if key := field.Tag.Get("yaml"); !strings.Contains(string(text), "\n| `"+key+"` |") {
			t.Errorf("docs/configuration.md has no row for the key %s of a profile", key)
		}
	}
}
