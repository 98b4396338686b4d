package command

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestFormats(t *testing.T) {
	in := newInstance(t)
	blob := base64.StdEncoding.EncodeToString([]byte("\x00\xff\n"))
	for name, row := range map[string]struct {
		input  string
		args   []string // of both
		only   []string // of tokenize
		hidden []string
		want   string // after the way back
	}{
		"people.csv": {
			input:  "id,\"card\",note,who\r\n1,4111 1111 1111 1111,\"a, \"\"b\"\"\nc\",ann\r\n\r\n\"2\",,x,\r\n3,5555555555554444,\"\",bob\r\n",
			args:   []string{"--map", "card=card", "--map", "note=note"},
			only:   []string{"--subject-field", "who"},
			hidden: []string{"4111", "5555555555554444", "\"b\""},
			want:   "id,\"card\",note,who\r\n1,4111111111111111,\"a, \"\"b\"\"\nc\",ann\r\n\r\n\"2\",,x,\r\n3,5555555555554444,\"\",bob\r\n",
		},
		"people.jsonl": {
			input:  `{"z":1.0,"pay":{"card":4111111111111111,"k":[ ]},"file":"` + blob + `"}` + "\n" + `{ "file" : null , "pay":{"card":"5555-5555-5555-4444"}}`,
			args:   []string{"--map", "pay.card=card", "--map", "file=blob"},
			only:   []string{"--base64", "file"},
			hidden: []string{"4111", "5555", blob},
			want:   `{"z":1.0,"pay":{"card":"4111111111111111","k":[ ]},"file":"` + blob + `"}` + "\n" + `{ "file" : null , "pay":{"card":"5555555555554444"}}` + "\n",
		},
		"notes.txt": {
			input: "one\n\ntwo, \"three\"\r\nGrüße", args: []string{"--profile", "note"},
			hidden: []string{"one", "three", "Grüße"}, want: "one\n\ntwo, \"three\"\r\nGrüße\n",
		},
		"plain.tsv": {
			input: "4111111111111111\tx,y\n", args: []string{"--no-header", "--map", "1=card"},
			hidden: []string{"4111"}, want: "4111111111111111\tx,y\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := *in
			in.t = t
			in.write(name, row.input)
			args := append(append([]string{"tokenize", "--in", "@" + name, "--out", "@safe-" + name}, row.args...), row.only...)
			s := in.must(0, in.run("checkout", "", args...))
			safe := in.read("safe-" + name)
			for _, hidden := range row.hidden {
				if strings.Contains(safe+s.stdout+s.stderr, hidden) {
					t.Errorf("%q is in the output:\n%s%s", hidden, safe, s.stderr)
				}
			}
			format := map[string]string{"v": "csv", "l": "jsonl", "t": "lines"}[name[len(name)-1:]]
			args = append([]string{"detokenize", "--format", format, "--purpose", "charge", "--reveal", "FULL"}, row.args...)
			if strings.HasSuffix(name, ".tsv") {
				args = append(args, "--delimiter", "tab")
			}
			if s = in.must(0, in.run("payments", safe, args...)); s.stdout != row.want {
				t.Errorf("came back as\n%q, want\n%q", s.stdout, row.want)
			}
		})
	}
}

// TestOneWay shows that a profile without tokens leaves the masked form.
func TestOneWay(t *testing.T) {
	in := newInstance(t)
	s := in.must(0, in.run("checkout", "123\n", "tokenize", "--format", "lines", "--profile", "cvv"))
	if s.stdout != "***\n" {
		t.Errorf("%q", s.stdout)
	}
}

// TestFieldsThatAreNotThere shows that a name that is mistyped lets nothing pass.
func TestFieldsThatAreNotThere(t *testing.T) {
	in := newInstance(t)
	const pan = "4111111111111111"
	in.write("in.jsonl", `{"id":1,"pay":{"card":"`+pan+`"}}`+"\n"+`{"id":2,"pay":{"card":null}}`+"\n"+`{"id":3,"pay":null}`+"\n\n")
	s := in.must(1, in.run("checkout", "", "tokenize", "--in", "@in.jsonl", "--out", "@out.jsonl", "--map", "pay.crad=card"))
	if !strings.Contains(s.stderr, "pay.crad: INVALID_ARGUMENT MALFORMED_ROW: has no such field") || in.read("out.jsonl") != "\n" || in.tokens("card") != 0 {
		t.Errorf("said %q, wrote %q", s.stderr, in.read("out.jsonl"))
	}
	s = in.must(1, in.run("checkout", "", "tokenize", "--in", "@in.jsonl", "--out", "@subject.jsonl", "--map", "pay.card=card", "--subject-field", "customer"))
	if !strings.Contains(s.stderr, "customer: INVALID_ARGUMENT MALFORMED_ROW: has no such field") || in.tokens("card") != 0 {
		t.Errorf("said %q", s.stderr)
	}
	// The third row lacks the field, the second has none of it.
	s = in.must(1, in.run("checkout", "", "tokenize", "--in", "@in.jsonl", "--out", "@2.jsonl", "--map", "pay.card=card", "--json"))
	if !strings.Contains(s.stderr, "line 3 is rejected") || !strings.Contains(s.stdout, "\"rows\": 4,\n  \"values\": 1,\n  \"rejected\": 1,") {
		t.Errorf("said %q, printed %s", s.stderr, s.stdout)
	}
	s = in.must(0, in.run("checkout", "", "tokenize", "--in", "@in.jsonl", "--out", "@3.jsonl", "--map", "pay.card=card", "--optional", "pay.card"))
	if got := in.read("3.jsonl"); strings.Count(got, "\n") != 4 || !strings.Contains(got, `{"id":3,"pay":null}`) || strings.Contains(got, pan) {
		t.Errorf("wrote %q", got)
	}
	if s := in.must(2, in.run("checkout", "", "tokenize", "--in", "@in.jsonl", "--map", "pay.card=card", "--optional", "card")); !strings.Contains(s.stderr, `--optional "card"`) {
		t.Errorf("said %q", s.stderr)
	}
}

// TestFromRejects repairs rejected rows and brings them again.
func TestFromRejects(t *testing.T) {
	in := newInstance(t)
	in.write("in.csv", "id,card,note\n1,4111111111111112,a\n2,5555555555554444,b\n3,x\n4,378282246310006,d\n")
	in.must(1, in.run("checkout", "", "tokenize", "--in", "@in.csv", "--out", "@out.csv", "--rejects", "@r1.csv", "--map", "card=card"))
	in.write("fixed.csv", strings.Replace(in.read("r1.csv"), "4111111111111112", "4111111111111111", 1))
	s := in.must(1, in.run("checkout", "", "tokenize", "--in", "@fixed.csv", "--from-rejects", "--out", "@out2.csv", "--rejects", "@r2.csv", "--map", "card=card"))
	if !strings.Contains(s.stderr, "3 rows, 1 value replaced, 2 rows rejected and kept in ") {
		t.Errorf("said %q", s.stderr)
	}
	if got := in.read("out2.csv"); !regexp.MustCompile(`^id,card,note\n1,cc_card_[0-9A-Za-z]+,a\n$`).MatchString(got) {
		t.Errorf("wrote %q", got)
	}
	if got := in.read("r2.csv"); strings.Count(got, "error_line") != 1 || !strings.Contains(got, "\n3,x,,3,,INVALID_ARGUMENT,MALFORMED_ROW,") ||
		!strings.Contains(got, "\n4,378282246310006,d,4,card,INVALID_ARGUMENT,INVALID_VALUE,") {
		t.Errorf("rejected %q", got)
	}
	if s := in.must(1, in.run("checkout", "", "tokenize", "--in", "@in.csv", "--from-rejects", "--out", "@out3.csv", "--map", "card=card")); !strings.Contains(s.stderr, "not a file of rejected rows") {
		t.Errorf("said %q", s.stderr)
	}
	if _, err := os.Stat(in.path("out3.csv.state")); err == nil {
		t.Error("a state is left")
	}
}

// TestDoneMeansThere shows that a run that is done isn't taken for done once what
// it wrote is gone or cut.
func TestDoneMeansThere(t *testing.T) {
	in := newInstance(t)
	in.write("in.csv", "id,card\n1,4111111111111111\n2,x\n")
	args := []string{"tokenize", "--in", "@in.csv", "--out", "@out.csv", "--rejects", "@rejects.csv", "--map", "card=card", "--resume"}
	for range 2 {
		if s := in.must(1, in.run("checkout", "", args...)); !strings.Contains(s.stderr, "2 rows, 1 value replaced, 1 row rejected") {
			t.Fatalf("said %q", s.stderr)
		}
	}
	for _, name := range []string{"out.csv", "rejects.csv"} {
		content := in.read(name)
		for what, spoil := range map[string]func() error{
			"cut":  func() error { return os.Truncate(in.path(name), 5) },
			"gone": func() error { return os.Remove(in.path(name)) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if s := in.must(1, in.run("checkout", "", args...)); !strings.Contains(s.stderr, "is not there as that run wrote it") || !strings.Contains(s.stderr, name) {
				t.Errorf("%s %s: said %q", name, what, s.stderr)
			}
			in.write(name, content)
		}
	}
}

// TestFilesOfOthers shows that a run writes to no file but those that it has made.
func TestFilesOfOthers(t *testing.T) {
	in := newInstance(t)
	const content = "card\n4111111111111111\n"
	in.write("in.csv", content)
	args := func(more ...string) []string {
		return append([]string{"tokenize", "--in", "@in.csv", "--map", "card=card"}, more...)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if s := in.must(1, in.run("checkout", "", args...)); !strings.Contains(s.stderr, want) {
			t.Errorf("want %q, said %q", want, s.stderr)
		}
	}
	// The same file under two names.
	refused("is there already", args("--out", "@o.csv", "--rejects", in.dir+"/./o.csv")...)
	if _, err := os.Stat(in.path("o.csv")); err == nil {
		t.Error("a file is left")
	}
	// Files that would be written beside the state.
	in.write("st.new", "mine")
	in.must(0, in.run("checkout", "", args("--out", "@1.csv", "--state", "@st")...))
	if in.read("st.new") != "mine" {
		t.Error("another file is written over")
	}
	if err := os.Symlink(in.path("in.csv"), in.path("link")); err != nil {
		t.Fatal(err)
	}
	refused("is not a regular file", args("--out", "@2.csv", "--state", "@link")...)
	// A state of another output, or with a link in the place of its output.
	in.must(0, in.run("checkout", "", args("--out", "@3.csv", "--state", "@st3")...))
	in.write("other.csv", strings.Repeat("x", 1000))
	refused("--out was", args("--out", "@other.csv", "--state", "@st3", "--resume")...)
	state, err := openState(in.path("st3"))
	if err != nil {
		t.Fatal(err)
	}
	state.Done = false
	if err := errors.Join(state.write(), state.close(), os.Remove(in.path("3.csv")), os.Symlink(in.path("other.csv"), in.path("3.csv"))); err != nil {
		t.Fatal(err)
	}
	refused("too many levels of symbolic links", args("--out", "@3.csv", "--state", "@st3", "--resume")...)
	if got := in.read("other.csv"); len(got) != 1000 {
		t.Error("a file is cut through a link")
	}
	if in.read("in.csv") != content {
		t.Error("the input has changed")
	}
	// Two that begin at once with one output and states of their own: one wins.
	for n := range 5 {
		said := make(chan said, 2)
		for k := range 2 {
			go func() {
				said <- in.run("checkout", "", args("--out", fmt.Sprint("@both", n), "--state", fmt.Sprint("@state", n, k))...)
			}()
		}
		if first, second := <-said, <-said; first.code+second.code != 1 || strings.Count(in.read(fmt.Sprint("both", n)), "\n") != 2 {
			t.Errorf("exit codes %d and %d: %q, %q", first.code, second.code, first.stderr, second.stderr)
		}
	}
}

func TestRejects(t *testing.T) {
	in := newInstance(t)
	const input = "id,card,note\n1,4111111111111111,a\n2,4111111111111112,b\n3,x\n4,5555555555554444,c\n5,378282246310006,d\n"
	in.write("in.csv", input)
	args := []string{"tokenize", "--in", "@in.csv", "--map", "card=card", "--out", "@out.csv", "--rejects", "@rejects.csv", "--json"}
	s := in.must(1, in.run("checkout", "", args...))
	if !strings.Contains(s.stderr, "5 rows, 2 values replaced, 3 rows rejected and kept in ") || strings.Contains(s.stderr, "4111111111111112") {
		t.Errorf("said %q", s.stderr)
	}
	if want := "{\n  \"rows\": 5,\n  \"values\": 2,\n  \"rejected\": 3,\n  \"done\": true\n}\n"; s.stdout != want {
		t.Errorf("summary %s", s.stdout)
	}
	token := regexp.MustCompile(`cc_card_[0-9A-Za-z]+`)
	if got := token.ReplaceAllString(in.read("out.csv"), "TOKEN"); got != "id,card,note\n1,TOKEN,a\n4,TOKEN,c\n" {
		t.Errorf("out:\n%s", got)
	}
	rejects := in.read("rejects.csv")
	for _, want := range []string{
		"id,card,note,error_line,error_field,error_code,error_reason,error_message\n",
		"\n2,4111111111111112,b,3,card,INVALID_ARGUMENT,INVALID_VALUE,value: ",
		"\n3,x,,4,,INVALID_ARGUMENT,MALFORMED_ROW,has 2 columns and not 3\n",
		"\n5,378282246310006,d,6,card,INVALID_ARGUMENT,INVALID_VALUE,value: ",
	} {
		if !strings.Contains(rejects, want) {
			t.Errorf("rejects have no %q:\n%s", want, rejects)
		}
	}
	for _, name := range []string{"out.csv", "rejects.csv", "out.csv.state"} {
		if info, err := os.Stat(in.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	// Nothing is written over it, and there is nothing to go on with.
	if s := in.must(1, in.run("checkout", "", args...)); !strings.Contains(s.stderr, "is there already") {
		t.Errorf("said %q", s.stderr)
	}
	if s := in.must(1, in.run("checkout", "", append(args, "--resume")...)); !strings.Contains(s.stderr, "3 rows rejected") || in.tokens("card") != 2 {
		t.Errorf("said %q, %d tokens", s.stderr, in.tokens("card"))
	}
	// Without a file for them they are told of, without what they hold.
	s = in.must(1, in.run("checkout", input, "tokenize", "--format", "csv", "--map", "card=card"))
	if !strings.Contains(s.stderr, "line 3 is rejected: card: INVALID_ARGUMENT INVALID_VALUE: ") || !strings.Contains(s.stderr, "left out") ||
		strings.Contains(s.stderr, "4111") || strings.Contains(s.stderr, "3782") {
		t.Errorf("said %q", s.stderr)
	}
	s = in.must(1, in.run("checkout", input, "tokenize", "--format", "csv", "--map", "card=card", "--max-rejects", "1"))
	if !strings.Contains(s.stderr, "--max-rejects") {
		t.Errorf("said %q", s.stderr)
	}
}

// TestRefused shows that what is not about a row ends the command, and leaves
// nothing behind.
func TestRefused(t *testing.T) {
	in := newInstance(t)
	in.write("in.txt", strings.Repeat("secret\n", 20000))
	for name, row := range map[string]struct {
		caller string
		args   []string
		want   string
	}{
		"no rule":       {"stranger", []string{"tokenize", "--profile", "note"}, "PERMISSION_DENIED NO_RULE"},
		"no profile":    {"checkout", []string{"tokenize", "--profile", "nothing"}, "UNKNOWN_PROFILE"},
		"no purpose":    {"payments", []string{"detokenize", "--profile", "pan", "--purpose", "fun"}, "PURPOSE_NOT_ALLOWED"},
		"odd purpose":   {"payments", []string{"detokenize", "--profile", "pan", "--purpose", "FUN"}, "INVALID_PURPOSE"},
		"nobody's":      {"checkout", []string{"tokenize", "--profile", "shut"}, "NO_RULE"},
		"nobody there":  {"checkout", []string{"tokenize", "--profile", "note", "--address", "127.0.0.1:1"}, "UNAVAILABLE"},
		"not for long":  {"checkout", []string{"tokenize", "--profile", "note", "--address", "127.0.0.1:1", "--retry", "300ms"}, "trying again for 300ms"},
		"wrong machine": {"checkout", []string{"tokenize", "--profile", "note", "--server-name", "example.com"}, "UNAVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			s := in.run(row.caller, "", append(row.args, "--in", "@in.txt", "--out", "@out.txt", "--rejects", "@rejects.csv")...)
			if s.code != 1 || !strings.Contains(s.stderr, row.want) || strings.Contains(s.stderr, "secret") {
				t.Errorf("exit code %d, said %q", s.code, s.stderr)
			}
			for _, file := range []string{"out.txt", "rejects.csv", "out.txt.state"} {
				if _, err := os.Stat(in.path(file)); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", file, err)
				}
			}
		})
	}
}

// TestBrokenConnections has the connection break again and again, at whatever
// byte that is: everything arrives, in order, and no value has two tokens.
func TestBrokenConnections(t *testing.T) {
	in := newInstance(t)
	const n = 6000
	values := cards(n)
	in.write("in.txt", strings.Join(values, "\n")+"\n")
	p := in.newProxy(150_000)
	s := in.must(0, in.runAt(t.Context(), p.Addr().String(), "checkout", "", "tokenize", "--profile", "card", "--in", "@in.txt", "--out", "@out.txt", "--in-flight", "500"))
	if !strings.Contains(s.stderr, "the server is away, trying again") {
		t.Errorf("nothing broke: %q", s.stderr)
	}
	if got := in.tokens("card"); got != n {
		t.Errorf("%d tokens of %d values", got, n)
	}
	p.mu.Lock()
	p.limit = 200_000
	p.mu.Unlock()
	in.must(0, in.runAt(t.Context(), p.Addr().String(), "payments", "", "detokenize", "--profile", "card", "--purpose", "charge", "--in", "@out.txt", "--out", "@back.txt"))
	if in.read("back.txt") != in.read("in.txt") {
		t.Error("it came back as something else")
	}
}

// TestServerRestart stops the server in the middle and starts it again.
func TestServerRestart(t *testing.T) {
	in := newInstance(t)
	const n = 10000
	in.write("in.txt", strings.Join(cards(n), "\n")+"\n")
	ended := make(chan said, 1)
	go func() {
		ended <- in.run("checkout", "", "tokenize", "--profile", "card", "--in", "@in.txt", "--out", "@out.txt", "--in-flight", "200")
	}()
	for {
		if info, err := os.Stat(in.path("out.txt")); err == nil && info.Size() > 0 {
			break
		}
		select {
		case s := <-ended:
			t.Fatalf("it ended early: %q", s.stderr)
		case <-time.After(time.Millisecond):
		}
	}
	in.halt()
	in.start()
	s := in.must(0, <-ended)
	if !strings.Contains(s.stderr, "SHUTTING_DOWN") {
		t.Logf("the server went away as %q", s.stderr)
	}
	if got := in.tokens("card"); got != n {
		t.Errorf("%d tokens of %d values", got, n)
	}
	in.must(0, in.run("payments", "", "detokenize", "--profile", "card", "--purpose", "charge", "--in", "@out.txt", "--out", "@back.txt"))
	if in.read("back.txt") != in.read("in.txt") {
		t.Error("it came back as something else")
	}
}

// TestResume stops a client in the middle: told to, cut off, and as kill -9
// leaves it, with a state that is older than the output.
func TestResume(t *testing.T) {
	in := newInstance(t)
	const n = 5000
	var input strings.Builder
	input.WriteString("id,card\n")
	for i, card := range cards(n) {
		if i%1000 == 7 {
			card += "x"
		}
		fmt.Fprintf(&input, "%d,%s\n", i, card)
	}
	in.write("in.csv", input.String())
	args := []string{"tokenize", "--in", "@in.csv", "--out", "@out.csv", "--rejects", "@rejects.csv", "--map", "card=card", "--resume", "--in-flight", "300"}
	first := in.newProxy(120_000)
	direct := in
	s := in.must(1, in.runAt(t.Context(), first.Addr().String(), "checkout", "", append(args, "--retry", "0s")...))
	if !strings.Contains(s.stderr, "--resume goes on") {
		t.Fatalf("said %q", s.stderr)
	}
	began, err := openState(in.path("out.csv.state"))
	if err != nil || began.Rows == 0 || began.Rows >= n || began.Done {
		t.Fatalf("the state is %+v, %v", began, err)
	}
	// As long as a run has the state, there is no other.
	if s := in.must(1, in.run("checkout", "", args...)); !strings.Contains(s.stderr, "another run is at work") {
		t.Errorf("said %q", s.stderr)
	}
	in = first.behind(in)
	// As it was at the beginning, with more in the outputs than it knows of.
	older := began
	older.Rows, older.Rejected, older.Output, older.Rejects = 0, 0, 0, 0
	older.Position.Offset, older.Position.Line, older.Position.Width = 0, 0, 0
	if err := errors.Join(older.write(), older.close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	s = in.must(1, in.runAt(ctx, in.address, "checkout", "", args...))
	cancel()
	if !strings.Contains(s.stderr, "interrupted") {
		t.Errorf("said %q", s.stderr)
	}
	refusals(t, in, args)
	if s := in.must(1, direct.run("checkout", "", args...)); !strings.Contains(s.stderr, "can't be resumed: --address was") {
		t.Errorf("said %q", s.stderr)
	}
	in.must(1, in.run("checkout", "", args...))
	if got := in.tokens("card"); got != n-n/1000 {
		t.Errorf("%d tokens", got)
	}
	if got := strings.Count(in.read("rejects.csv"), "\n"); got != 1+n/1000 {
		t.Errorf("%d lines of rejects", got)
	}
	in.must(0, in.run("payments", "", "detokenize", "--map", "card", "--purpose", "charge", "--in", "@out.csv", "--out", "@back.csv"))
	want := regexp.MustCompile(`(?m)^.*x\n`).ReplaceAllString(input.String(), "")
	if in.read("back.csv") != want {
		t.Error("it came back as something else")
	}
}

// refusals tries what can't be resumed.
func refusals(t *testing.T, in *instance, args []string) {
	t.Helper()
	for want, change := range map[string][]string{
		`--map was "card=card" and is "card=pan"`: append(append([]string{}, args[:8]...), "card=pan", "--resume"),
		"another --idempotency-prefix":            append(append([]string{}, args...), "--idempotency-prefix", "mine"),
		"--resume needs files":                    {"tokenize", "--resume", "--format", "lines", "--profile", "note"},
		"run that did not end":                    {"tokenize", "--in", "@in.csv", "--out", "@out.csv", "--map", "card=card"},
	} {
		if s := in.run("checkout", "", change...); s.code == 0 || !strings.Contains(s.stderr, want) {
			t.Errorf("want %q, said %q", want, s.stderr)
		}
	}
	info, err := os.Stat(in.path("in.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(in.path("in.csv"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if s := in.run("checkout", "", args...); s.code != 1 || !strings.Contains(s.stderr, "the input has changed") {
		t.Errorf("said %q", s.stderr)
	}
	if err := os.Chtimes(in.path("in.csv"), time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestOneUse shows that a use is counted once, though the answer is lost.
func TestOneUse(t *testing.T) {
	in := newInstance(t)
	const n = 3000
	in.write("in.txt", strings.Repeat("a secret\n", n))
	in.must(0, in.run("checkout", "", "tokenize", "--profile", "once", "--in", "@in.txt", "--out", "@out.txt"))
	p := in.newProxy(60_000)
	in.must(0, in.runAt(t.Context(), p.Addr().String(), "payments", "", "detokenize", "--profile", "", "--purpose", "charge", "--in", "@out.txt", "--out", "@back.txt"))
	if in.read("back.txt") != in.read("in.txt") {
		t.Error("it came back as something else")
	}
	s := in.must(1, in.run("payments", "", "detokenize", "--purpose", "charge", "--in", "@out.txt", "--out", "@again.txt"))
	if !strings.Contains(s.stderr, "TOKEN_SPENT") || !strings.Contains(s.stderr, "3,000 rows rejected") {
		t.Errorf("said %q", s.stderr)
	}
}
