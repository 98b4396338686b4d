package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

var logID = tokenizer.LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// event returns an event that carries alerts.
func event(kinds ...string) *audit.Event {
	return &audit.Event{
		Time: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), RequestID: "0011223344556677",
		Caller: "spiffe://coatcheck.example/payments", Rule: "payments-charge", Code: "OK", Alerts: kinds,
	}
}

// fakeSink is a sink that does what it is told, and remembers what came.
type fakeSink struct {
	name    string
	deliver func(ctx context.Context, a *Alert) error

	mu  sync.Mutex
	got []uint64
}

func (s *fakeSink) Name() string { return s.name }

func (s *fakeSink) Deliver(ctx context.Context, a *Alert) error {
	s.mu.Lock()
	s.got = append(s.got, a.Sequence)
	s.mu.Unlock()
	if s.deliver == nil {
		return nil
	}
	return s.deliver(ctx, a)
}

func (s *fakeSink) seen() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// run runs a Dispatcher that doesn't wait long, until stop is called.
func run(t *testing.T, d *Dispatcher) (stop func()) {
	t.Helper()
	d.pause = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPayload(t *testing.T) {
	e := event(audit.AlertBurst)
	a := newAlert(logID, 42, e)
	want := `{"log":"000102030405060708090a0b0c0d0e0f","seq":42,"event":` + string(e.Body()) + `}`
	if string(a.Payload) != want {
		t.Errorf("got %s, want %s", a.Payload, want)
	}
	if !json.Valid(a.Payload) {
		t.Error("not JSON")
	}
}

func TestDispatch(t *testing.T) {
	var log buffer
	sink := &fakeSink{name: "one"}
	d := NewDispatcher(slog.New(slog.NewTextHandler(&log, nil)), sink)
	stop := run(t, d)
	d.Raise(logID, 7, event(audit.AlertHoneytoken, audit.AlertNotify))
	d.Raise(logID, 8, event(audit.AlertNotify))
	stop()
	if got := fmt.Sprint(sink.seen()); got != "[7 8]" {
		t.Errorf("delivered %s", got)
	}
	if want := `level=WARN msg=alert kinds=HONEYTOKEN,NOTIFY request_id=0011223344556677 caller=spiffe://coatcheck.example/payments rule=payments-charge seq=7`; !strings.Contains(log.String(), want) {
		t.Errorf("the log has not %q: %s", want, &log)
	}
	counts := d.Counts()
	if got := fmt.Sprint(counts.Raised); got != "map[BURST:0 HONEYTOKEN:1 NOTIFY:2]" {
		t.Errorf("raised %s", got)
	}
	if n := counts.Deliveries[Delivery{"one", Delivered}]; n != 2 {
		t.Errorf("%d delivered", n)
	}
}

func TestTries(t *testing.T) {
	for _, row := range []struct {
		name   string
		err    error
		works  int // the try that does; 0 if none does
		tries  int
		result Result
	}{
		{"at once", nil, 1, 1, Delivered},
		{"at last", errors.New("away"), 4, 4, Delivered},
		{"never", errors.New("away"), 0, 4, Failed},
		{"refused", fmt.Errorf("%w with status 400", ErrRefused), 0, 1, Failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			var log buffer
			n := 0
			sink := &fakeSink{name: "s", deliver: func(context.Context, *Alert) error {
				if n++; n == row.works {
					return nil
				}
				return row.err
			}}
			d := NewDispatcher(slog.New(slog.NewTextHandler(&log, nil)), sink)
			run(t, d)
			d.Raise(logID, 1, event(audit.AlertBurst))
			waitFor(t, "the result", func() bool { return d.Counts().Deliveries[Delivery{"s", row.result}] == 1 })
			waitFor(t, "the bytes to be given back", func() bool { return d.workers[1].urgent.bytes.Load() == 0 })
			if len(sink.seen()) != row.tries {
				t.Errorf("%d tries", len(sink.seen()))
			}
			if row.result == Failed {
				waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "alert not delivered") })
			}
		})
	}
}

// A sink that hangs holds up nobody, and loses what it has no room for.
func TestASlowSink(t *testing.T) {
	release := make(chan struct{})
	slow := &fakeSink{name: "slow", deliver: func(context.Context, *Alert) error { <-release; return nil }}
	quick := &fakeSink{name: "quick"}
	var log buffer
	d := NewDispatcher(slog.New(slog.NewTextHandler(&log, nil)), slow, quick)
	run(t, d)
	const raised = maxQueued + 500
	var longest time.Duration
	for i := range raised {
		began := time.Now()
		d.Raise(logID, uint64(i+1), event(audit.AlertBurst))
		longest = max(longest, time.Since(began))
		if i%100 == 99 {
			waitFor(t, "the quick sink", func() bool { return len(quick.seen()) == i+1 })
		}
	}
	if longest > 5*time.Second {
		t.Errorf("Raise took %v", longest)
	}
	dropped := d.Counts().Deliveries[Delivery{"slow", Dropped}]
	if dropped != 499 && dropped != 500 { // one is being delivered, or not yet
		t.Errorf("%d dropped", dropped)
	}
	if n := d.Counts().Deliveries[Delivery{"quick", Dropped}]; n != 0 {
		t.Errorf("the quick sink lost %d", n)
	}
	close(release)
	waitFor(t, "the slow sink", func() bool { return d.Counts().Deliveries[Delivery{"slow", Delivered}] == raised-dropped })
	if want := fmt.Sprintf("sink=slow alerts=%d", dropped); !strings.Contains(log.String(), want) {
		t.Errorf("the log has not %q", want)
	}
}

// However much policy asks for waits, what is urgent has room, and comes next.
func TestUrgentAlertsComeFirst(t *testing.T) {
	began, release := make(chan struct{}, 1), make(chan struct{})
	slow := &fakeSink{name: "slow", deliver: func(context.Context, *Alert) error {
		select {
		case began <- struct{}{}:
		default:
		}
		<-release
		return nil
	}}
	d := NewDispatcher(slog.New(slog.DiscardHandler), slow)
	run(t, d)
	d.Raise(logID, 1, event(audit.AlertNotify))
	<-began
	for i := range 2 * maxQueued {
		d.Raise(logID, uint64(i+2), event(audit.AlertNotify))
	}
	const seq = 1 << 20
	d.Raise(logID, seq, event(audit.AlertNotify, audit.AlertHoneytoken))
	close(release)
	waitFor(t, "the second delivery", func() bool { return len(slow.seen()) > 1 })
	if got := slow.seen()[1]; got != seq {
		t.Errorf("event %d was next", got)
	}
}

func TestQueuesAreBoundedInBytes(t *testing.T) {
	w := newWorker(nil)
	large := &Alert{Payload: make([]byte, maxQueuedBytes+1)}
	if !w.put(large) {
		t.Fatal("what is larger than the bound finds no room in an empty queue")
	}
	if w.put(&Alert{Payload: []byte("x")}) {
		t.Error("there is room beside it")
	}
	w.usual.bytes.Add(-int64(len((<-w.usual.queue).Payload)))
	if !w.put(&Alert{Payload: make([]byte, maxQueuedBytes-1)}) || !w.put(&Alert{Payload: []byte("x")}) || w.put(&Alert{Payload: []byte("x")}) {
		t.Error("the bound is not the one that is said")
	}
}

func TestWhatWaitsHasABoundAtTheEnd(t *testing.T) {
	began := make(chan struct{}, 1)
	hangs := &fakeSink{name: "hangs", deliver: func(ctx context.Context, _ *Alert) error {
		select {
		case began <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	quick := &fakeSink{name: "quick"}
	d := NewDispatcher(slog.New(slog.DiscardHandler), hangs, quick)
	d.bound = 50 * time.Millisecond
	stop := run(t, d)
	for i := range 20 {
		d.Raise(logID, uint64(i+1), event(audit.AlertBurst))
	}
	<-began
	stop()
	counts := d.Counts()
	if n := counts.Deliveries[Delivery{"hangs", Dropped}]; n != 20 {
		t.Errorf("%d dropped", n)
	}
	if n := counts.Deliveries[Delivery{"quick", Delivered}]; n != 20 {
		t.Errorf("%d delivered to the other sink", n)
	}
}
