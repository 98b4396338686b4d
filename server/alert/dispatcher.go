package alert

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Bounds of what waits for a sink.
const (
	maxQueued      = 1024
	maxQueuedBytes = 32 << 20 // of payloads; one that is larger waits alone
)

// How a delivery is tried.
const (
	tries      = 4
	firstPause = time.Second // before it is tried again, then twice as long each time
	lastBound  = 5 * time.Second
)

// Result is how the delivery of an alert to a sink ended.
type Result string

// Results.
const (
	Delivered Result = "delivered"
	Failed    Result = "failed"  // however often it was tried
	Dropped   Result = "dropped" // not tried to the end: too many waited, or the process ended
)

// Delivery names what is counted of deliveries.
type Delivery struct {
	Sink   string
	Result Result
}

// Counts are how many alerts there were, by kind, and what became of their deliveries.
// Whatever can be counted is there, be it zero.
type Counts struct {
	Raised     map[string]uint64
	Deliveries map[Delivery]uint64
}

// Dispatcher sends alerts to sinks, each of which has a queue and a goroutine of its
// own, so that one that is slow holds up no other. It is safe for concurrent use.
type Dispatcher struct {
	log     *slog.Logger
	workers []*worker
	pause   time.Duration // firstPause, but in tests
	bound   time.Duration // lastBound, but in tests

	mu     sync.Mutex
	counts Counts
}

// worker is a sink with what waits for it. What policy asks for, which may be much, has
// a queue of its own, and waits for what doesn't, such as honeytokens.
type worker struct {
	sink          Sink
	urgent, usual backlog
	lost          atomic.Int64 // alerts for which there was no room, which are not logged yet
}

// backlog is what waits for a sink.
type backlog struct {
	queue chan *Alert
	bytes atomic.Int64 // of the payloads in the queue, and of the one that is being delivered
}

// NewDispatcher returns a Dispatcher for the sinks and, always, the log.
func NewDispatcher(log *slog.Logger, sinks ...Sink) *Dispatcher {
	d := &Dispatcher{log: log, pause: firstPause, bound: lastBound, counts: Counts{Raised: make(map[string]uint64), Deliveries: make(map[Delivery]uint64)}}
	for _, kind := range []string{audit.AlertHoneytoken, audit.AlertBurst, audit.AlertNotify} {
		d.counts.Raised[kind] = 0
	}
	for _, sink := range append([]Sink{logSink{log}}, sinks...) {
		d.workers = append(d.workers, newWorker(sink))
		for _, result := range []Result{Delivered, Failed, Dropped} {
			d.counts.Deliveries[Delivery{sink.Name(), result}] = 0
		}
	}
	return d
}

func newWorker(sink Sink) *worker {
	w := &worker{sink: sink}
	w.urgent.queue, w.usual.queue = make(chan *Alert, maxQueued), make(chan *Alert, maxQueued)
	return w
}

// Raise has an event that carries alerts, and has been committed under the number,
// delivered. It takes what it needs of the event, and never waits for a sink.
func (d *Dispatcher) Raise(log tokenizer.LogID, sequence uint64, e *audit.Event) {
	a := newAlert(log, sequence, e)
	d.mu.Lock()
	for _, kind := range a.Kinds {
		d.counts.Raised[kind]++
	}
	d.mu.Unlock()
	for _, w := range d.workers {
		if !w.put(a) {
			w.lost.Add(1)
			d.count(w, Dropped)
		}
	}
}

// Counts returns what has been counted so far.
func (d *Dispatcher) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Counts{maps.Clone(d.counts.Raised), maps.Clone(d.counts.Deliveries)}
}

func (d *Dispatcher) count(w *worker, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.Deliveries[Delivery{w.sink.Name(), r}]++
}

// Run delivers until ctx ends; what waits then has 5 seconds. It must be called once.
func (d *Dispatcher) Run(ctx context.Context) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d.bound, cancel) })
	defer stop()
	var workers sync.WaitGroup
	for _, w := range d.workers {
		workers.Go(func() { d.work(ctx, last, w) })
	}
	workers.Wait()
}

// work delivers what waits for a sink: until ctx ends all that comes, and then, until
// last ends, what is there.
func (d *Dispatcher) work(ctx, last context.Context, w *worker) {
	for {
		b, a := w.next(ctx)
		if a == nil {
			return
		}
		d.deliver(last, w, a)
		b.bytes.Add(-int64(len(a.Payload)))
	}
}

// next waits for an alert until ctx ends, and then returns what is there, nil if nothing
// is. What is urgent comes first.
func (w *worker) next(ctx context.Context) (*backlog, *Alert) {
	select {
	case a := <-w.urgent.queue:
		return &w.urgent, a
	default:
	}
	if ctx.Err() == nil {
		select {
		case a := <-w.urgent.queue:
			return &w.urgent, a
		case a := <-w.usual.queue:
			return &w.usual, a
		case <-ctx.Done():
		}
	}
	for _, b := range []*backlog{&w.urgent, &w.usual} {
		select {
		case a := <-b.queue:
			return b, a
		default:
		}
	}
	return nil, nil
}

// deliver delivers an alert, and says what became of it.
func (d *Dispatcher) deliver(ctx context.Context, w *worker, a *Alert) {
	result, err := d.try(ctx, w.sink, a)
	d.count(w, result)
	if result != Delivered {
		d.log.Error("alert not delivered", "sink", w.sink.Name(), "seq", a.Sequence, "result", string(result), "error", err)
	}
	if n := w.lost.Swap(0); n > 0 {
		d.log.Error("alerts dropped: too many wait", "sink", w.sink.Name(), "alerts", n)
	}
}

// try tries to deliver an alert a few times, until ctx ends.
func (d *Dispatcher) try(ctx context.Context, sink Sink, a *Alert) (result Result, err error) {
	pause := d.pause
	for n := 1; ctx.Err() == nil; n++ {
		if err = sink.Deliver(ctx, a); err == nil {
			return Delivered, nil
		}
		if n == tries || errors.Is(err, ErrRefused) {
			return Failed, err
		}
		wait(ctx, pause)
		pause *= 2
	}
	return Dropped, cmp.Or(err, ctx.Err())
}

// wait waits for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// put adds an alert to what waits for the sink, and says whether there was room.
func (w *worker) put(a *Alert) bool {
	b := &w.usual
	if a.urgent() {
		b = &w.urgent
	}
	size := int64(len(a.Payload))
	if total := b.bytes.Add(size); total > maxQueuedBytes && total > size {
		b.bytes.Add(-size)
		return false
	}
	select {
	case b.queue <- a:
		return true
	default:
		b.bytes.Add(-size)
		return false
	}
}
