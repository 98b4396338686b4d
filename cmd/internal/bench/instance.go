package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
)

// Profiles are those of an instance that Start makes, all of card numbers.
func Profiles() []string { return []string{"random", "digits", "convergent", "fpe"} }

// profiles are their declarations.
const profiles = `
profiles:
  random: {type: card-number, description: d, owner: o, business_task: t, purposes: [charge]}
  digits: {type: card-number, format: digits, description: d, owner: o, business_task: t, purposes: [charge]}
  convergent: {type: card-number, mode: convergent, description: d, owner: o, business_task: t, purposes: [charge]}
  fpe: {type: card-number, mode: fpe, format: digits, description: d, owner: o, business_task: t, purposes: [charge]}
`

const rules = `version: 1
rules:
  - {name: in, callers: ["spiffe://coatcheck.example/checkout"], actions: [tokenize], profiles: [random, digits, convergent, fpe]}
  - {name: out, callers: ["spiffe://coatcheck.example/payments"], actions: [detokenize], profiles: [random, digits, convergent, fpe], purposes: [charge], reveal: FULL}
`

// Make makes an instance in a directory, of default settings, on a port of its own.
func Make(dir string) (configPath string, err error) {
	if _, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: "127.0.0.1:0"}); err != nil {
		return "", err
	}
	configPath = filepath.Join(dir, devkit.ConfigFile)
	text, err := os.ReadFile(configPath)
	if err != nil {
		return "", err
	}
	head, _, found := strings.Cut(string(text), "\nprofiles:")
	if !found {
		return "", errors.New("the sample configuration has no profiles")
	}
	return configPath, errors.Join(
		os.WriteFile(configPath, []byte(head+profiles), 0o600),
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(rules), 0o600))
}

// Process is a server in a process of its own.
type Process struct {
	Address string
	cmd     *exec.Cmd
	said    chan string // all that it said, once it has ended
}

// servingOn is what a server says when it serves.
const servingOn = "coatcheck: serving on "

// Start starts this program with arguments, and waits until it serves.
func Start(ctx context.Context, args ...string) (*Process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.CommandContext(ctx, program, args...), said: make(chan string, 1)}
	endWithUs(p.cmd)
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stderr)
	var said strings.Builder
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if address, ok := strings.CutPrefix(line, servingOn); ok {
			p.Address = strings.TrimSpace(address)
			break
		}
		if err != nil {
			_ = p.cmd.Wait()
			return nil, fmt.Errorf("coatcheck %s: %s", args[0], strings.TrimSpace(said.String()))
		}
	}
	go func() {
		rest, _ := io.ReadAll(lines)
		p.said <- string(rest)
	}()
	return p, nil
}

// Stop ends the process, and returns an error unless it ended well.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	said := <-p.said
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("coatcheck %s: %w: %s", p.cmd.Args[1], err, strings.TrimSpace(said))
	}
	return nil
}

// tick is what /proc counts the time of processors in.
const tick = 10 * time.Millisecond

// Rest waits until the process has next to nothing to do, but no longer than some
// seconds, and returns how long it has kept all processors busy meanwhile.
func (p *Process) Rest(ctx context.Context) time.Duration {
	const patience, glance = 5 * time.Second, 100 * time.Millisecond
	began := processorTime(p.cmd.Process.Pid)
	for last, end := began, time.Now().Add(patience); ctx.Err() == nil && time.Now().Before(end); {
		time.Sleep(glance)
		now := processorTime(p.cmd.Process.Pid)
		if now-last <= tick {
			break
		}
		last = now
	}
	return (processorTime(p.cmd.Process.Pid) - began) / time.Duration(runtime.NumCPU())
}

// processorTime returns how long processors have worked for a process; 0 if that can't
// be told here.
func processorTime(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the name of the program
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick
}

// Resident returns how much memory of its own the process has in RAM.
func (p *Process) Resident() (bytes int64) { return Resident(p.cmd.Process.Pid) }

// Resident returns how much memory of its own a process has in RAM, in bytes, without
// what it shares with files; 0 if that can't be told here.
func Resident(pid int) (bytes int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &bytes); err == nil {
			return bytes << 10
		}
	}
	return 0
}
