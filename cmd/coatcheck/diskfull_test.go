//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// onSmallDisk makes cmd run with the directory on a file system of its own, of
// the given size and with a file "filler" in it. It needs the right to make
// name spaces, which some containers don't grant.
func onSmallDisk(t *testing.T, cmd *exec.Cmd, dir string, size, filler int) {
	t.Helper()
	const script = `mount -t tmpfs -o size=$1 tmpfs "$2" && head -c $3 /dev/zero >"$2/filler" 2>/dev/null; shift 3; exec "$@"`
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	probe := exec.Command("sh", "-c", "mount -t tmpfs tmpfs /mnt")
	probe.SysProcAttr = attr
	if out, err := probe.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the gate needs the right to mount a small disk: %v: %s", err, out)
		}
		t.Skipf("no right to mount a small disk here: %v: %s", err, out)
	}
	cmd.Args = append([]string{"sh", "-c", script, "sh", fmt.Sprint(size), dir, fmt.Sprint(filler), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = attr
}

// A start on a full disk is one clear line and exit code 1.
func TestStartOnAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	for _, full := range []string{"data", "audit"} {
		cmd := exec.Command(os.Args[0], "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
		cmd.Env = append(os.Environ(), runMain+"=1")
		var said output
		cmd.Stderr = &said
		onSmallDisk(t, cmd, filepath.Join(dir, full), 64<<10, 64<<10)
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Run()
		timer.Stop()
		text := strings.TrimSpace(said.String())
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(lastLine(text), "no space left on device") || !strings.HasPrefix(lastLine(text), "coatcheck: ") {
			t.Errorf("%s full: exit code %d: %s", full, cmd.ProcessState.ExitCode(), text)
		}
	}
}

// When the disk of the store fills up, calls fail, nothing is revealed and
// nothing is lost; when there is room again, the service goes on by itself.
func TestDiskFillsUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	data := filepath.Join(dir, "data")
	if err := os.Rename(data, data+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil { // it is that of the store set aside
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p := startWith(t, func(cmd *exec.Cmd) { onSmallDisk(t, cmd, data, 96<<20, 48<<20) }, "serve", "--config", filepath.Join(dir, "coatcheck.yaml"))
	checkout := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout"))
	payments := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "payments"))
	values := make(map[string]string)
	fill := func() error {
		for i := range 4000 {
			value := fmt.Sprint(i, strings.Repeat("x", 30000))
			resp, err := checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: value})
			if err != nil {
				return err
			}
			values[resp.GetToken()] = value
		}
		return nil
	}
	if err := fill(); status.Code(err) != codes.Unavailable {
		t.Fatalf("with the disk full: %v", err)
	}
	health := grpc_health_v1.NewHealthClient(p.dial(t, dir, "stranger"))
	waitForHealth(t, health, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	for token := range values {
		resp, err := payments.Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
		if status.Code(err) == codes.Unavailable && resp.GetValue() == "" {
			break
		}
		if err != nil || resp.GetValue() != values[token] { // a small event may still fit in
			t.Fatalf("Detokenize with the disk full: %v", err)
		}
	}
	// Room again: the file system is seen through the process that has it.
	if err := os.Remove(filepath.Join("/proc", fmt.Sprint(p.Process.Pid), "root", data, "filler")); err != nil {
		t.Fatal(err)
	}
	waitForHealth(t, health, grpc_health_v1.HealthCheckResponse_SERVING)
	if _, err := checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "after"}); err != nil {
		t.Errorf("Tokenize with room again: %v", err)
	}
	for token, value := range values {
		resp, err := payments.Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "support"})
		if err != nil || resp.GetValue() != value {
			t.Errorf("an acknowledged token: %v", err)
		}
	}
	t.Logf("%d tokens fit in", len(values))
}

// waitForHealth waits until the whole service has the status.
func waitForHealth(t *testing.T, health grpc_health_v1.HealthClient, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err == nil && resp.GetStatus() == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("health is %v, %v; want %v", resp, err, want)
		}
	}
}
