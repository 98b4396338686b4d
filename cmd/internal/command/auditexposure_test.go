package command

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// The report is one JSON document, of which the other forms are made without a server, and
// a change of which is found.
func TestAuditExposure(t *testing.T) {
	in := newInstance(t)
	const customer = `=cmd|"<b>O'Neil & sons</b>`
	client := coatcheckv1.NewTokenizationServiceClient(in.conn("checkout"))
	made, err := client.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a note", Subject: customer})
	if err != nil {
		t.Fatal(err)
	}
	reveal := &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "charge"}
	if _, err := coatcheckv1.NewTokenizationServiceClient(in.conn("payments")).Detokenize(t.Context(), reveal); err != nil {
		t.Fatal(err)
	}
	since := time.Now().Add(-time.Hour).Format(time.RFC3339)
	known := time.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339)
	ask := []string{"audit", "exposure", "--since", since, "--caller", "spiffe://coatcheck.example/payments", "--known-since", known}

	document := in.must(0, in.run("admin", "", append(ask, "--subjects", "--json")...)).stdout
	var whole struct {
		People []struct {
			Subject string `json:"subject"`
		} `json:"subjects"`
		Count uint64 `json:"subject_count"`
	}
	if err := json.Unmarshal([]byte(document), &whole); err != nil || whole.Count != 1 || len(whole.People) != 1 || whole.People[0].Subject != customer {
		t.Fatalf("%+v, %v", whole, err)
	}
	path := filepath.Join(t.TempDir(), "report.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(document)
	form := func(format string) string {
		t.Helper()
		return in.must(0, in.run("admin", "", "audit", "exposure", "--verify", path, "--format", format, "--contact", "dpo@coatcheck.example")).stdout
	}
	table, err := csv.NewReader(strings.NewReader(form("csv"))).ReadAll()
	if err != nil || len(table) != 2 || table[1][0] != "'"+customer || table[1][7] != "note: FULL" || table[1][8] != "charge" {
		t.Errorf("csv: %q, %v", table, err)
	}
	for _, want := range []string{"71 hours", "dpo@coatcheck.example", "spiffe://coatcheck.example/payments", "note", "FULL (1)", "127.0.0.1"} {
		if page := form("html"); !strings.Contains(page, want) || strings.Contains(page, "O'Neil") {
			t.Errorf("the page lacks %q, or names people:\n%s", want, page)
		}
	}
	text := form("text")
	for _, want := range []string{"People       1\n", "Records      1\n", "note (text): people 1, records 1, FULL (1)", "charge (1)", "(71 hours"} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	t.Run("changed", func(t *testing.T) {
		for _, change := range [][2]string{
			{`"subject_count":1`, `"subject_count":0`}, {"O'Neil", "O'Nell"}, {`"signature":"`, `"signature":"AAAA`}, {"}\n]", "}\n,{}\n]"},
			{document[strings.Index(document, "],"):], ""}, {"}\n", "}"},
		} {
			write(strings.Replace(document, change[0], change[1], 1))
			s := in.must(1, in.run("admin", "", "audit", "exposure", "--verify", path))
			if !strings.Contains(s.stderr, "don't use the report") || s.stdout != "" {
				t.Errorf("%q: %s%s", change, s.stdout, s.stderr)
			}
		}
		write(document + "\n")
		in.must(1, in.run("admin", "", "audit", "exposure", "--verify", path))
	})
	t.Run("another key", func(t *testing.T) {
		write(document)
		s := in.must(1, in.run("admin", "", "audit", "exposure", "--verify", path, "--public-key", strings.Repeat("A", 43)+"="))
		if !strings.Contains(s.stderr, "it is signed by another key") {
			t.Error(s.stderr)
		}
	})
	t.Run("who may", func(t *testing.T) {
		if s := in.must(0, in.run("payments", "", append(ask, "--json")...)); strings.Contains(s.stdout, "O'Neil") || !strings.Contains(s.stdout, `"reference":"a1:`) {
			t.Error(s.stdout)
		}
		if s := in.must(1, in.run("payments", "", append(ask, "--subjects")...)); !strings.Contains(s.stderr, "NO_RULE") || s.stdout != "" {
			t.Error(s.stdout, s.stderr)
		}
		if s := in.must(1, in.run("checkout", "", ask...)); !strings.Contains(s.stderr, "NO_RULE") {
			t.Error(s.stderr)
		}
	})
	t.Run("usage", func(t *testing.T) {
		for _, args := range [][]string{
			{}, {"--since", "yesterday"}, {"--since", since, "--format", "pdf"}, {"--since", since, "--public-key", "x"}, {"--since", since, "--known-since", "now"},
		} {
			in.must(2, in.run("admin", "", append([]string{"audit", "exposure"}, args...)...))
		}
		for _, args := range [][]string{
			{"--since", "2999-01-01"}, {"--since", since, "--until", "2020-01-01"}, {"--since", since, "--certificate", "beef"}, {"--since", since, "--caller", "x"},
			{"--since", since, "--profile", "nosuch"},
		} {
			if s := in.must(1, in.run("admin", "", append([]string{"audit", "exposure"}, args...)...)); !strings.Contains(s.stderr, "INVALID_ARGUMENT") {
				t.Error(args, s.stderr)
			}
		}
	})
}
