package command

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// identity makes an age identity, in a file of the test.
func (in *instance) identity(name string) (recipient string) {
	in.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		in.t.Fatal(err)
	}
	in.write(name, "# a comment\n"+id.String()+"\n")
	return id.Recipient().String()
}

// TestMove moves tokens from one instance to another, where they stand for the
// same values.
func TestMove(t *testing.T) {
	from, to := newInstance(t), newInstance(t)
	const n = 1300
	from.write("in.txt", strings.Join(cards(n), "\n")+"\n")
	from.must(0, from.run("checkout", "", "tokenize", "--profile", "pan", "--in", "@in.txt", "--out", "@tokens.txt"))
	tokens := strings.Fields(from.read("tokens.txt"))
	if _, err := coatcheckv1.NewTokenServiceClient(from.conn("admin")).RevokeToken(t.Context(), &coatcheckv1.RevokeTokenRequest{Token: tokens[600], Profile: "pan"}); err != nil {
		t.Fatal(err)
	}
	recipient := from.identity("identity.txt")

	// The first connection breaks in the middle.
	p := from.newProxy(90_000)
	args := []string{"export", "--profile", "pan", "--recipient", recipient, "--out", "@pan"}
	s := from.must(1, from.runAt(t.Context(), p.Addr().String(), "admin", "", append(args, "--retry", "0s")...))
	if !strings.Contains(s.stderr, "tokens in 1 page; --resume goes on") {
		t.Fatalf("said %q", s.stderr)
	}
	if s := from.must(1, from.run("admin", "", args...)); !strings.Contains(s.stderr, "is there already") {
		t.Errorf("said %q", s.stderr)
	}
	importing := []string{"import", "--in", "@pan", "--identity", "@identity.txt", "--any-signer", "--rejects", "@rejects.jsonl", "--json"}
	if s := from.must(1, from.run("admin", "", importing...)); !strings.Contains(s.stderr, "is not complete") {
		t.Errorf("said %q", s.stderr)
	}
	// Half a line, as a crash leaves it.
	torn, err := os.OpenFile(from.path("pan/manifest.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = torn.WriteString(`{"file":"page-0`)
	_ = torn.Close()
	s = from.must(0, from.run("admin", "", append(args, "--resume", "--json")...))
	if !strings.Contains(s.stdout, `"tokens": 1300`) || !strings.Contains(s.stderr, "signed by ") {
		t.Errorf("printed %s, said %q", s.stdout, s.stderr)
	}
	from.must(0, from.run("admin", "", append(args, "--resume")...))

	if err := os.CopyFS(to.path("pan"), os.DirFS(from.path("pan"))); err != nil {
		t.Fatal(err)
	}
	to.write("identity.txt", from.read("identity.txt"))
	s = to.must(1, to.run("admin", "", importing...))
	if !strings.Contains(s.stdout, `"rejected": 1,`) || strings.Contains(s.stdout+s.stderr, "4000") {
		t.Errorf("printed %s, said %q", s.stdout, s.stderr)
	}
	if got := to.read("rejects.jsonl"); strings.Count(got, "\n") != 1 || !strings.Contains(got, tokens[600]) || !strings.Contains(got, `"error_reason":"TOKEN_REVOKED"`) {
		t.Errorf("rejects:\n%s", got)
	}
	to.write("tokens.txt", strings.Join(append(tokens[:600:600], tokens[601:]...), "\n")+"\n")
	to.must(0, to.run("payments", "", "detokenize", "--profile", "pan", "--purpose", "charge", "--in", "@tokens.txt", "--out", "@back.txt"))
	want := append(cards(n)[:600:600], cards(n)[601:]...)
	if to.read("back.txt") != strings.Join(want, "\n")+"\n" {
		t.Error("they stand for other values")
	}
	tampered(t, to, importing)
}

// tampered tries exports that somebody has changed.
func tampered(t *testing.T, in *instance, importing []string) {
	t.Helper()
	other := base64.StdEncoding.EncodeToString(make([]byte, 32))
	if s := in.run("admin", "", append(importing[:5:5], "--public-key", other)...); s.code != 1 || !strings.Contains(s.stderr, "not signed by the key") {
		t.Errorf("said %q", s.stderr)
	}
	for _, args := range [][]string{importing[:5:5], append(importing[:6:6], "--public-key", other), {"import", "--in", "@tokens.txt", "--format", "csv", "--profile", "pan", "--any-signer"}} {
		if s := in.run("admin", "", args...); s.code != 2 || !strings.Contains(s.stderr, "--any-signer") {
			t.Errorf("%q: said %q", args, s.stderr)
		}
	}
	manifest, page := in.read("pan/manifest.jsonl"), in.read("pan/page-000002.age")
	for name, change := range map[string]func(){
		"a page":    func() { in.write("pan/page-000002.age", page[:len(page)-1]+"x") },
		"a count":   func() { in.write("pan/manifest.jsonl", strings.Replace(manifest, `"tokens":500`, `"tokens":400`, 1)) },
		"the order": func() { in.write("pan/page-000001.age", page) },
		"the tokens": func() {
			in.write("pan/manifest.jsonl", strings.Replace(manifest, `"profile":"pan"`, `"profile":"card"`, 1))
		},
	} {
		first := in.read("pan/page-000001.age")
		change()
		if s := in.run("admin", "", importing[:6]...); s.code != 1 || !strings.Contains(s.stderr, errSignature.Error()) {
			t.Errorf("%s: exit code %d, said %q", name, s.code, s.stderr)
		}
		in.write("pan/manifest.jsonl", manifest)
		in.write("pan/page-000001.age", first)
		in.write("pan/page-000002.age", page)
		_ = os.Remove(in.path("pan.state"))
	}
	in.identity("identity.txt")
	if s := in.run("admin", "", importing[:6]...); s.code != 1 || !strings.Contains(s.stderr, "page-000001.age: ") {
		t.Errorf("another identity: exit code %d, said %q", s.code, s.stderr)
	}
}

func TestImportRows(t *testing.T) {
	in := newInstance(t)
	in.write("old.csv", "id;pan;extra;subject\ntok-1;4111111111111111;x;\ntok-2;4111111111111112;;\ncc_pan_123;5555555555554444;;\ntok-1;5555555555554444;;\ntok-3;;;\n;5555555555554444;;\n\ntok-4;5555555555554444;;ann\n")
	args := []string{"import", "--in", "@old.csv", "--delimiter", ";", "--profile", "note", "--field", "token=id", "--field", "value=pan", "--rejects", "@rejects.csv"}
	in.must(1, in.run("admin", "", append(args, "--field", "subject=nobody")...))
	args[6] = "card"
	s := in.must(1, in.run("admin", "", args...))
	if !strings.Contains(s.stderr, "8 rows, 5 rows rejected and ") {
		t.Errorf("said %q, rejects:\n%s", s.stderr, in.read("rejects.csv"))
	}
	rejects := in.read("rejects.csv")
	for _, want := range []string{"tok-2;4111111111111112;;;3;value;INVALID_ARGUMENT;INVALID_VALUE;", ";TOKEN_TAKEN;", ";INVALID_TOKEN;", "tok-3;;;;6;value;", ";5555555555554444;;;7;token;"} {
		if !strings.Contains(rejects, want) {
			t.Errorf("rejects have no %q:\n%s", want, rejects)
		}
	}
	in.must(1, in.run("admin", "", append(args[:len(args)-1:len(args)-1], "@again.csv")...)) // it can be repeated
	s = in.must(0, in.run("payments", "tok-1\ntok-4\n", "detokenize", "--format", "lines", "--profile", "card", "--purpose", "charge"))
	if s.stdout != "4111111111111111\n5555555555554444\n" {
		t.Errorf("%q", s.stdout)
	}

	soon, past := time.Now().Add(time.Hour).Format(time.RFC3339), time.Now().Add(-time.Hour).Format(time.RFC3339)
	lines := fmt.Sprintf(`{"profile":"blob","token":"b","data":"AAH/","metadata":{"from":"old"},"state":"active","create_time":"x","expire_time":%q,"max_uses":5,"uses":3,"imported":true}
{"profile":"note","token":"n1","value":"a note","expire_time":%q}
{"profile":"note","token":"n2","value":"a note","max_uses":2,"uses":2}
{"profile":"note","token":"n3","value":"a note","metadata":{"from":1}}
{"profile":"note","token":"n4","data":"!"}
{"profile":"note","token":"n5","value":"a note","state":"lost"}
`, soon, past)
	s = in.must(1, in.run("admin", lines, "import", "--format", "jsonl"))
	for _, want := range []string{"line 2 is rejected: expire_time: FAILED_PRECONDITION TOKEN_EXPIRED: ", "line 3 is rejected: uses: FAILED_PRECONDITION TOKEN_SPENT", "line 4 is rejected: metadata:", "line 5 is rejected: data:", "line 6 is rejected: state:", "6 rows, 5 rows rejected and "} {
		if !strings.Contains(s.stderr, want) {
			t.Errorf("not said %q: %q", want, s.stderr)
		}
	}
	got, err := coatcheckv1.NewTokenServiceClient(in.conn("admin")).ListTokens(t.Context(), &coatcheckv1.ListTokensRequest{Profile: "blob"})
	if err != nil || len(got.GetTokens()) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if b := got.GetTokens()[0]; b.GetMaxUses() != 2 || b.GetMetadata()["from"] != "old" || time.Until(b.GetExpireTime().AsTime()).Round(time.Minute) != time.Hour {
		t.Errorf("imported as %v", b)
	}
	s = in.must(1, in.run("stranger", lines, "import", "--format", "jsonl"))
	if !strings.Contains(s.stderr, "NO_RULE") {
		t.Errorf("said %q", s.stderr)
	}
}

// TestImportResume breaks the connection in the middle.
func TestImportResume(t *testing.T) {
	in := newInstance(t)
	var old bytes.Buffer
	old.WriteString("token,value\n")
	for i, card := range cards(5000) {
		fmt.Fprintf(&old, "tok-%d,%s\n", i, card)
	}
	in.write("old.csv", old.String())
	args := []string{"import", "--in", "@old.csv", "--profile", "card", "--resume"}
	p := in.newProxy(60_000)
	s := in.must(1, in.runAt(t.Context(), p.Addr().String(), "admin", "", append(args, "--retry", "0s")...))
	if !strings.Contains(s.stderr, "--resume goes on") {
		t.Fatalf("said %q", s.stderr)
	}
	in = p.behind(in)
	in.must(0, in.run("admin", "", args...))
	in.must(0, in.run("admin", "", args...))
	if got := in.tokens("card"); got != 5000 {
		t.Errorf("%d tokens", got)
	}
	if _, err := os.Stat(filepath.Clean(in.path("old.csv.state"))); err != nil {
		t.Error(err)
	}
}

// TestImportOfMistypedFields shows that what a field says is not lost since its name
// is mistyped: a token that was revoked would come back.
func TestImportOfMistypedFields(t *testing.T) {
	in := newInstance(t)
	in.write("old.jsonl", `{"id":"tok-1","number":"4111111111111111","status":"revoked"}`+"\n")
	args := []string{"import", "--in", "@old.jsonl", "--profile", "card", "--field", "token=id", "--field", "value=number"}
	for field, want := range map[string]string{"state=stauts": "stauts: INVALID_ARGUMENT MALFORMED_ROW: has no such field", "state=status": "TOKEN_REVOKED"} {
		if s := in.must(1, in.run("admin", "", append(args, "--field", field)...)); !strings.Contains(s.stderr, want) || in.tokens("card") != 0 {
			t.Errorf("%s: said %q", field, s.stderr)
		}
		_ = os.Remove(in.path("old.jsonl.state"))
	}
	in.must(0, in.run("admin", "", append(args, "--field", "expire_time=expires", "--optional", "expires")...))
	in.write("old.csv", "token,value,State\ntok-2,5555555555554444,revoked\n")
	if s := in.must(0, in.run("admin", "", "import", "--in", "@old.csv", "--profile", "card")); !strings.Contains(s.stderr, "columns that mean nothing to an import: State\n") {
		t.Errorf("said %q", s.stderr)
	}
	if s := in.must(2, in.run("admin", "", append(args, "--optional", "x")...)); !strings.Contains(s.stderr, `--optional "x"`) {
		t.Errorf("said %q", s.stderr)
	}
}

// TestExportsAtOnce has two exports begin in one directory: one of them makes it, and
// what it makes is good.
func TestExportsAtOnce(t *testing.T) {
	in := newInstance(t)
	in.write("in.txt", strings.Join(cards(2000), "\n")+"\n")
	in.must(0, in.run("checkout", "", "tokenize", "--profile", "pan", "--in", "@in.txt", "--out", "@tokens.txt"))
	recipient := in.identity("identity.txt")
	for n := range 5 {
		args := []string{"export", "--profile", "pan", "--recipient", recipient, "--out", fmt.Sprint("@dir", n)}
		said := make(chan said, 2)
		for range 2 {
			go func() { said <- in.run("admin", "", args...) }()
		}
		first, second := <-said, <-said
		if first.code+second.code != 1 {
			t.Errorf("exit codes %d and %d: %q, %q", first.code, second.code, first.stderr, second.stderr)
		}
		if s := in.must(0, in.run("admin", "", append(args, "--resume")...)); !strings.Contains(s.stderr, "2,000 tokens in ") {
			t.Errorf("said %q", s.stderr)
		}
	}
}
