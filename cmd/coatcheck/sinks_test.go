package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

// arrivals are the lines of the audit log that a receiver has got, in its order.
type arrivals struct {
	mu    sync.Mutex
	lines []string
}

func (a *arrivals) add(line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = append(a.lines, line)
}

// distinct returns the lines without those that came again, which all came before.
func (a *arrivals) distinct() (text string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[string]bool)
	var b strings.Builder
	for _, line := range a.lines {
		if !seen[line] {
			seen[line] = true
			b.WriteString(line + "\n")
		}
	}
	return b.String(), len(seen)
}

// takeSyslog takes messages with their length before them from a listener.
func (a *arrivals) takeSyslog(t *testing.T, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for r := bufio.NewReader(conn); ; {
				length, err := r.ReadString(' ')
				if err != nil {
					return
				}
				n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
				if err != nil {
					t.Errorf("not a length: %q", length)
					return
				}
				message := make([]byte, n)
				if _, err := io.ReadFull(r, message); err != nil {
					return // it broke off
				}
				_, line, _ := bytes.Cut(message, []byte(`"] `))
				a.add(string(line))
			}
		}()
	}
}

// ServeHTTP takes log records by OTLP/HTTP.
func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	unpacked, err := gzip.NewReader(r.Body)
	if err != nil {
		return
	}
	body, err := io.ReadAll(unpacked)
	var message logs.LogsData
	if err != nil || proto.Unmarshal(body, &message) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, record := range message.ResourceLogs[0].ScopeLogs[0].LogRecords {
		a.add(record.Body.GetStringValue())
	}
}

// The process is killed again and again, and a receiver is away for a while: both receivers
// have the whole audit log in the end, in its order and byte for byte.
func TestSinksAfterKills(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	var syslog, otlp arrivals
	collector := httptest.NewServer(&otlp)
	defer collector.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	go syslog.takeSyslog(t, listener)
	path := filepath.Join(dir, "coatcheck.yaml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sinks := "audit:\n  syslog: {address: 'tcp://" + address + "'}\n  otlp: {url: '" + collector.URL + "/v1/logs'}\n"
	if err := os.WriteFile(path, []byte(strings.Replace(string(config), "audit:\n", sinks, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := &ledger{values: make(map[string]string)}
	for round := range 5 {
		switch round {
		case 2:
			_ = listener.Close()
		case 4:
			if listener, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go syslog.takeSyslog(t, listener)
		}
		tokenizeUntilKilled(t, start(t, "serve", "--config", path), dir, tokens)
	}
	p := start(t, "serve", "--config", path)
	segment := filepath.Join(dir, "audit", "audit-00000000000000000001.jsonl")
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := strings.Count(read(), "\n")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, a := syslog.distinct()
		_, b := otlp.distinct()
		if a >= want && b >= want {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("of %d events %d came by syslog and %d by OTLP: %s", want, a, b, p.stderr)
		}
	}
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	for name, a := range map[string]*arrivals{"syslog": &syslog, "otlp": &otlp} {
		text, n := a.distinct()
		if text != read() { // that it has stopped, too
			t.Errorf("%s: %d events came, which are not the log", name, n)
		}
		t.Logf("%s: %d events came %d times", name, n, len(a.lines))
		if _, err := os.Stat(filepath.Join(dir, "audit", "sinks", name+".position")); err != nil {
			t.Error(err)
		}
	}
}
