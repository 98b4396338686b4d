package command

import (
	"encoding/json"
	"strings"
	"testing"
)

// A honeytoken is made, listed, and gone once it is deleted.
func TestHoneytokenCommands(t *testing.T) {
	in := newInstance(t)
	var made jsonHoneytoken
	s := in.must(0, in.run("admin", "", "honeytoken", "create", "--profile", "pan", "--note", "row 17", "--json"))
	if err := json.Unmarshal([]byte(s.stdout), &made); err != nil || len(made.Token) != 16 || made.Note != "row 17" {
		t.Fatalf("%+v, %v", made, err)
	}
	list := func() (all []jsonHoneytoken) {
		t.Helper()
		s := in.must(0, in.run("admin", "", "honeytoken", "list", "--profile", "pan", "--json"))
		if err := json.Unmarshal([]byte(s.stdout), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := list(); len(all) != 1 || all[0] != made {
		t.Errorf("%+v, want %+v", all, made)
	}
	if n := in.tokens("pan"); n != 0 {
		t.Errorf("%d tokens", n)
	}
	remove := []string{"honeytoken", "delete", made.Token, "--profile", "pan", "--reason", "found"}
	if s := in.must(0, in.run("admin", "", remove...)); s.stdout != "" {
		t.Errorf("it prints %q", s.stdout)
	}
	if s := in.must(1, in.run("admin", "", remove...)); !strings.Contains(s.stderr, "TOKEN_NOT_FOUND") {
		t.Errorf("again: %s", s.stderr)
	}
	if all := list(); len(all) != 0 {
		t.Errorf("%+v is left", all)
	}
}
