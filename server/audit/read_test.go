package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// readLog writes a log of 6 events, an hour apart, into three segments.
func readLog(t *testing.T) (dir string, at func(int) time.Time) {
	t.Helper()
	dir = t.TempDir()
	at = func(n int) time.Time { return time.Date(2026, 5, 1, n, 0, 0, 0, time.UTC) }
	log := tokenizer.LogID{1}
	prev := tokenizer.Genesis(log)
	for first := 1; first <= 6; first += 2 {
		var text []byte
		for n := first; n < first+2; n++ {
			e := Event{Time: at(n), RequestID: fmt.Sprint("call ", n), StatedReason: `","event":{`}
			entry := tokenizer.Entry{Sequence: uint64(n), Prev: prev, Body: e.Body()}
			text, prev = AppendLine(text, log, entry), entry.Hash()
		}
		if err := os.WriteFile(filepath.Join(dir, segmentName(uint64(first))), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, at
}

// readAll returns which events are read.
func readAll(t *testing.T, dir string, from, until time.Time) (calls string, err error) {
	t.Helper()
	for body, fault := range Read(dir, from, until) {
		if fault != nil {
			return calls, fault
		}
		_, rest, _ := strings.Cut(string(body), `"request_id":"call `)
		if !strings.HasPrefix(string(body), `{"v":1,`) || !strings.HasSuffix(string(body), "}") || rest == "" {
			t.Errorf("not an event: %s", body)
		}
		calls += rest[:1]
	}
	return calls, nil
}

func TestRead(t *testing.T) {
	dir, at := readLog(t)
	for _, c := range []struct {
		from, until time.Time
		want        string
	}{
		{want: "123456"},
		{from: at(3), want: "3456"},
		{until: at(3), want: "12"},
		{from: at(2), until: at(5).Add(1), want: "2345"},
		{from: at(2).In(time.FixedZone("", 7200)), until: at(3), want: "2"},
		{from: at(7), want: ""},
	} {
		if got, err := readAll(t, dir, c.from, c.until); err != nil || got != c.want {
			t.Errorf("from %v until %v: %q, %v", c.from, c.until, got, err)
		}
	}
	for range Read(dir, time.Time{}, time.Time{}) { // one that is left early
		break
	}
	if _, err := readAll(t, filepath.Join(dir, "nowhere"), time.Time{}, time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no directory: %v", err)
	}
}

// TestReadFaults cuts and spoils a log.
func TestReadFaults(t *testing.T) {
	for _, c := range []struct {
		name    string
		segment int
		change  func(string) string
		want    string
		err     error
	}{
		{"a last line that is being written", 5, func(s string) string { return s[:len(s)-5] }, "12345", nil},
		{"a line in the middle that is cut", 3, func(s string) string { return s[:len(s)-5] }, "123", ErrBroken},
		{"not a line", 3, func(string) string { return "hello\n" }, "12", ErrBroken},
		{"an empty line", 1, func(s string) string { return s + "\n" }, "12", ErrBroken},
		{"another version", 1, func(s string) string { return strings.ReplaceAll(s, `{"v":1`, `{"v":2`) }, "", ErrBroken},
	} {
		dir, _ := readLog(t)
		path := filepath.Join(dir, segmentName(uint64(c.segment)))
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(c.change(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(t, dir, time.Time{}, time.Time{}); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}
