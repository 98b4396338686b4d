package alert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
)

// script writes a shell script that is run as a command.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommand(t *testing.T) {
	out := t.TempDir()
	t.Setenv("COATCHECK_SECRET", "hush")
	t.Setenv("LANG", "C")
	c := Command{Argv: []string{script(t, `cat > "$1/stdin"; env > "$1/env"; echo "$2" > "$1/arg"; echo noise; echo noise >&2`), out, "$(echo a); b"}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	a := newAlert(logID, 3, event(audit.AlertBurst))
	if err := c.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := read("stdin"); got != string(a.Payload)+"\n" {
		t.Errorf("standard input was %q", got)
	}
	if got := read("arg"); got != "$(echo a); b\n" {
		t.Errorf("the argument was %q", got)
	}
	env := read("env")
	if !strings.Contains(env, "PATH=") || !strings.Contains(env, "LANG=C") || strings.Contains(env, "COATCHECK_SECRET") || strings.Contains(env, "HOME=") {
		t.Errorf("the environment was %s", env)
	}
}

// Nothing of our environment is passed on where there is neither PATH nor LANG.
func TestCommandWithoutPath(t *testing.T) {
	t.Setenv("COATCHECK_SECRET", "hush")
	for _, name := range []string{"PATH", "LANG"} {
		t.Setenv(name, "") // so that it is put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Command{Argv: []string{script(t, `test -z "$COATCHECK_SECRET"`)}}).Deliver(t.Context(), newAlert(logID, 1, event(audit.AlertBurst))); err != nil {
		t.Error("the environment is passed on")
	}
}

// A program is a path, and never one of the same name in PATH.
func TestCommandIsAPath(t *testing.T) {
	here := script(t, "exit 3")
	t.Chdir(filepath.Dir(here))
	elsewhere := script(t, "exit 0")
	t.Setenv("PATH", filepath.Dir(elsewhere))
	err := Command{Argv: []string{"page"}}.Deliver(t.Context(), newAlert(logID, 1, event(audit.AlertBurst)))
	if err == nil || err.Error() != "exit status 3" {
		t.Errorf("%v", err)
	}
}

func TestCommandsThatFail(t *testing.T) {
	big := event(audit.AlertBurst)
	big.StatedReason = strings.Repeat("x", 1<<20) // more than a pipe holds
	for name, row := range map[string]struct {
		argv  string
		works bool
	}{
		"exit 1":                        {script(t, "exit 1"), false},
		"killed":                        {script(t, "kill -9 $$"), false},
		"no such program":               {filepath.Join(t.TempDir(), "none"), false},
		"exit 0 without reading it all": {script(t, "exit 0"), true},
	} {
		t.Run(name, func(t *testing.T) {
			err := Command{Argv: []string{row.argv}}.Deliver(t.Context(), newAlert(logID, 1, big))
			if (err == nil) != row.works || errors.Is(err, ErrRefused) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCommandCheck(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if err := (Command{Argv: []string{path}}).Check(); err == nil {
			t.Errorf("%s is a program", path)
		}
	}
}

// A command that hangs is killed, and so is what it has started.
func TestAHangingCommandIsKilled(t *testing.T) {
	out := t.TempDir()
	hanging := script(t, `sleep 300 & echo $! > "$1/child.new"; mv "$1/child.new" "$1/child"; wait`)
	for name, deliver := range map[string]func(Command, *Alert) error{
		"after its timeout": func(c Command, a *Alert) error {
			c.Timeout = 500 * time.Millisecond
			return c.Deliver(t.Context(), a)
		},
		"when its time ends": func(c Command, a *Alert) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				for ctx.Err() == nil {
					if _, err := os.Stat(filepath.Join(out, "child")); err == nil {
						cancel()
					}
					time.Sleep(time.Millisecond)
				}
			}()
			return c.Deliver(ctx, a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			child := filepath.Join(out, "child")
			if err := os.RemoveAll(child); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err := deliver(Command{Argv: []string{hanging, out}}, newAlert(logID, 1, event(audit.AlertBurst)))
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > 60*time.Second {
				t.Errorf("took %v", took)
			}
			text, err := os.ReadFile(child)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the end of the child", func() bool { return gone(pid) })
		})
	}
}

// gone says whether a process has ended. One that nobody has waited for yet has.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(stat), ") Z ")
}
