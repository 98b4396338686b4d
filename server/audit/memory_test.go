package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

var ctx = context.Background()

// memoryStore is a store that has nothing but a log, which tests can fail and
// tamper with. What it lacks of tokenizer.Store panics.
type memoryStore struct {
	tokenizer.Store
	id tokenizer.LogID

	mu      sync.Mutex
	entries []tokenizer.Entry
	fail    error // of Entries
	asked   int   // the largest limit of Entries
}

// newMemoryStore returns a store whose log has n events.
func newMemoryStore(id byte, n int) *memoryStore {
	s := &memoryStore{id: tokenizer.LogID{id}}
	s.addEvents(n)
	return s
}

func (s *memoryStore) addEvents(n int) {
	for range n {
		s.add(event(len(s.entries) + 1).Body())
	}
}

func (s *memoryStore) add(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prev := tokenizer.Genesis(s.id)
	if n := len(s.entries); n > 0 {
		prev = s.entries[n-1].Hash()
	}
	s.entries = append(s.entries, tokenizer.Entry{Sequence: uint64(len(s.entries) + 1), Prev: prev, Body: body})
}

func (s *memoryStore) LogID() tokenizer.LogID { return s.id }

func (s *memoryStore) Entries(ctx context.Context, after uint64, limit int) ([]tokenizer.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.asked = max(s.asked, limit)
	if s.fail != nil {
		return nil, s.fail
	}
	rest := s.entries[min(after, uint64(len(s.entries))):]
	return rest[:min(limit, len(rest))], nil
}

// text returns what the segments of the store should hold.
func (s *memoryStore) text() []byte {
	var b []byte
	for _, e := range s.entries {
		b = AppendLine(b, s.id, e)
	}
	return b
}

// event returns an event that differs from those of other numbers, in its
// length too.
func event(n int) *Event {
	return &Event{RequestID: binaryDigits(n), Action: "tokenize", Code: "OK"}
}

func binaryDigits(n int) string { return fmt.Sprintf("%b", n) }

func decimal(n int) string { return fmt.Sprint(n) }

// logBuffer collects what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestMemoryStoreIsWhole(t *testing.T) {
	s := newMemoryStore(1, 5)
	if sum, err := Verify("log", bytes.NewReader(s.text())); err != nil || sum.Events != 5 {
		t.Fatalf("%+v, %v", sum, err)
	}
	if binary.Size(s.id) != 16 {
		t.Fatal("the id of a log has 16 bytes")
	}
}
