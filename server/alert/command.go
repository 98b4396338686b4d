package alert

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DefaultTimeout bounds a delivery where nothing else is said.
const DefaultTimeout = 10 * time.Second

// pipeWait is how long a command that has ended may leave its input to others.
const pipeWait = time.Second

// Command is a Sink that runs a program for each alert, without a shell, with the
// payload and a line feed on its standard input. The alert is delivered when it exits
// with 0. Its environment is PATH and LANG, as far as the process has them; what it
// prints is discarded.
type Command struct {
	Argv    []string      // the path of the program, and its arguments
	Timeout time.Duration // after it the program is killed, with its process group; default DefaultTimeout
}

// Name implements Sink.
func (Command) Name() string { return "command" }

// Check says whether there is a program.
func (c Command) Check() error {
	info, err := os.Stat(c.Argv[0])
	if err != nil {
		return fmt.Errorf("alerts: command: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("alerts: command: %s is not a program", c.Argv[0])
	}
	return nil
}

// Deliver implements Sink.
func (c Command) Deliver(ctx context.Context, a *Alert) error {
	program, err := filepath.Abs(c.Argv[0]) // a name without a slash would be looked for in PATH
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.Timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, c.Argv[1:]...)
	cmd.Stdin = io.MultiReader(bytes.NewReader(a.Payload), strings.NewReader("\n"))
	cmd.Env = []string{}
	for _, name := range []string{"PATH", "LANG"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	// What the program has started is in its process group, unless it left it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeWait
	if err = cmd.Run(); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

func orDefault(timeout time.Duration) time.Duration {
	if timeout == 0 {
		return DefaultTimeout
	}
	return timeout
}
