package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	rtmetrics "runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A receiver that breaks off in the middle of a message, ends connections in order too
// early, or is slow gets every event in the end.
func TestReceiversThatFail(t *testing.T) {
	for name, row := range map[string]struct {
		read  func(int64, net.Conn, func(io.Reader))
		plain bool
	}{
		"breaks off in the middle of a message": {read: func(n int64, conn net.Conn, all func(io.Reader)) {
			if n < 30 {
				all(io.LimitReader(conn, rand.Int64N(40_000)))
				_ = conn.(*tls.Conn).NetConn().Close() // without the end that TLS has
				return
			}
			all(conn)
		}},
		"ends at once": {read: func(n int64, conn net.Conn, all func(io.Reader)) {
			if n > 5 {
				all(conn)
			}
		}},
		// What TLS has read and nobody has asked it for would be lost without a trace.
		"ends in order after some messages": {plain: true, read: func(n int64, conn net.Conn, all func(io.Reader)) {
			if n > 20 {
				all(conn)
				return
			}
			from := bufio.NewReaderSize(iotest.OneByteReader(conn), 16)
			for range rand.IntN(20) {
				frame, err := readFrame(from)
				if err != nil {
					return
				}
				all(strings.NewReader(strconv.Itoa(len(frame)) + " " + string(frame)))
			}
		}},
		"is slow": {read: func(_ int64, conn net.Conn, all func(io.Reader)) {
			all(slowly{conn})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, r := openStore(t), newSyslogReceiver(t)
			r.read = row.read
			if row.plain {
				r.config = nil
			}
			s := r.sender()
			if row.plain {
				s.Address = "tcp://" + r.addr
			}
			commit(t, store, many(150)...)
			f := follow(t, t.TempDir(), store, s)
			commit(t, store, many(150)...)
			f.delivered(t, 300)
			r.check(t, lines(t, store))
			if name == "is slow" {
				return
			}
			f.stop() // so that all is logged
			fails, works := strings.Count(f.log.String(), "audit sink fails"), strings.Count(f.log.String(), "works again")
			if f.Counts().Failed == 0 || fails == 0 || fails != works {
				t.Errorf("%+v, and logged %d failures, %d ends of them: %s", f.Counts(), fails, works, f.log)
			}
		})
	}
}

// slowly reads little at once, and waits after it.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 2048)])
}

// A receiver that is away is told of once, and gets all when it is back. Neither commits
// nor who tells of them wait for it.
func TestReceiverThatIsAway(t *testing.T) {
	store, r := openStore(t), newSyslogReceiver(t)
	s := r.sender()
	r.close()
	f := follow(t, t.TempDir(), store, s)
	for n := range uint64(500) {
		commit(t, store, event(0))
		f.Committed(n + 1)
	}
	waitFor(t, "failures", func() bool { return f.Counts().Failed > 10 })
	if c := f.Counts(); c.Lag != 500 || c.Delivered != 0 {
		t.Errorf("%+v", c)
	}
	if n := strings.Count(f.log.String(), "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, f.log)
	}
	r.listen()
	f.delivered(t, 500)
	r.check(t, lines(t, store))
	waitFor(t, "line", func() bool { return strings.Contains(f.log.String(), "works again") })
}

// Telling a sink of a commit costs nothing, whatever it is doing.
func TestCommittedIsCheap(t *testing.T) {
	f, err := Open(t.Context(), t.TempDir(), false, generate(nil, 0), &Syslog{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	if allocs := testing.AllocsPerRun(1000, func() { n++; f.Committed(n) }); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
	if f.Counts().Lag != n {
		t.Errorf("%+v", f.Counts())
	}
}

// What a receiver accepts and never reads isn't delivered; the connection ends when the
// service does.
func TestReceiverThatHangs(t *testing.T) {
	store, r := openStore(t), newSyslogReceiver(t)
	release := make(chan struct{})
	defer close(release)
	r.read = func(int64, net.Conn, func(io.Reader)) { <-release }
	commit(t, store, event(0))
	f := follow(t, t.TempDir(), store, r.sender())
	waitFor(t, "connection", func() bool { return r.conns.Load() > 0 })
	time.Sleep(50 * time.Millisecond)
	f.Follower.pacing.last = 50 * time.Millisecond
	began := time.Now()
	f.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if c := f.Counts(); c.Delivered != 0 || c.Lag != 1 {
		t.Errorf("%+v", c)
	}
}

// A sink goes on where it ended, and sends what was committed last before it ends.
func TestResume(t *testing.T) {
	store, r, dir := openStore(t), newSyslogReceiver(t), t.TempDir()
	for n := uint64(1); n <= 5; n++ {
		sender := r.sender()
		sender.bounds.Age = time.Hour // it is confirmed at the end
		f := follow(t, dir, store, sender)
		commit(t, store, many(20)...)
		f.stop()
		if c := f.Counts(); c.Lag != 0 || c.Delivered != 20 {
			t.Errorf("%+v: %s", c, f.log)
		}
	}
	if r.count() != 100 {
		t.Errorf("%d events came, not each once", r.count())
	}
	r.check(t, lines(t, store))
	if info, err := os.Stat(filepath.Join(dir, "syslog.position")); err != nil || info.Mode() != 0o600 {
		t.Error(info, err)
	}
}

// Without its file, with a damaged one and with that of another log a sink sends the whole
// log again, and says so.
func TestPositionsThatAreLost(t *testing.T) {
	store, r, dir := openStore(t), newSyslogReceiver(t), t.TempDir()
	commit(t, store, many(10)...)
	follow(t, dir, store, r.sender()).delivered(t, 10)
	path := filepath.Join(dir, "syslog.position")
	waitFor(t, "position", func() bool { p, err := loadPosition(path); return err == nil && p.Sequence == 10 })
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ content, logged string }{
		"good":                   {string(good), ""},
		"empty":                  {"", "has lost its position"},
		"half":                   {string(good[:40]), "has lost its position"},
		"of another log":         {strings.Replace(string(good), store.LogID().String(), strings.Repeat("0", 32), 1), "another log"},
		"of an event to come":    {strings.Replace(string(good), `"seq":10`, `"seq":11`, 1), "another log"},
		"of a different history": {strings.Replace(string(good), `"seq":10`, `"seq":9`, 1), "another log"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "syslog.position"), []byte(row.content))
			var log logBuffer
			f, err := Open(t.Context(), dir, true, store, r.sender(), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if row.logged == "" && (f.sent.last != 10 || log.String() != "") || row.logged != "" && (f.sent.last != 0 || !strings.Contains(log.String(), row.logged)) {
				t.Errorf("begins at %d: %s", f.sent.last, &log)
			}
		})
	}
}

// A sink that begins with what comes next doesn't send what was before, and remembers
// where it began.
func TestBeginWithTheNext(t *testing.T) {
	for _, before := range []int{0, 1, 2, 3, 7, 64, 100} {
		log, dir := generate([]byte("{}"), before), t.TempDir()
		for range 2 {
			f, err := Open(t.Context(), dir, true, log, &Syslog{}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if f.sent.last != uint64(before) || f.Counts().Lag != 0 {
				t.Errorf("begins at %d, not %d: %+v", f.sent.last, before, f.Counts())
			}
			log = generate([]byte("{}"), before+5)
		}
	}
}

// pruned is a log that lacks events.
type pruned struct {
	tokenizer.Store
	first, last uint64
}

func (p pruned) Entries(ctx context.Context, after uint64, limit int) ([]tokenizer.Entry, error) {
	all, err := p.Store.Entries(ctx, after, limit+int(p.last-p.first+1))
	var left []tokenizer.Entry
	for _, e := range all {
		if (e.Sequence < p.first || e.Sequence > p.last) && len(left) < limit {
			left = append(left, e)
		}
	}
	return left, err
}

// What was pruned before it was sent is told of, and what is behind it is sent.
func TestPruned(t *testing.T) {
	for _, hole := range []pruned{{first: 1, last: 30}, {first: 5, last: 6}, {first: 8, last: 40}} {
		store, r := openStore(t), newSyslogReceiver(t)
		commit(t, store, many(50)...)
		hole.Store = store
		f := follow(t, t.TempDir(), hole, r.sender())
		n := hole.last - hole.first + 1
		f.delivered(t, 50-n)
		if c := f.Counts(); c.Skipped != n || r.count() != int(50-n) || r.text[hole.first] != "" || strings.Count(f.log.String(), "have been pruned") != 1 {
			t.Errorf("%+v, %d came: %s", c, r.count(), f.log)
		}
	}
}

// generated is a log of events with one body.
type generated struct {
	body []byte
	prev []tokenizer.Hash
}

func generate(body []byte, n int) generated {
	g := generated{body: body}
	head := tokenizer.Genesis(g.LogID())
	for i := range n {
		g.prev = append(g.prev, head)
		head = tokenizer.Entry{Sequence: uint64(i) + 1, Prev: head, Body: body}.Hash()
	}
	return g
}

func (generated) LogID() tokenizer.LogID { return tokenizer.LogID{1} }

func (g generated) Entries(_ context.Context, after uint64, limit int) (entries []tokenizer.Entry, err error) {
	for i := after; i < uint64(len(g.prev)) && len(entries) < limit; i++ {
		entries = append(entries, tokenizer.Entry{Sequence: i + 1, Prev: g.prev[i], Body: slices.Clone(g.body)})
	}
	return entries, nil
}

// However large the log and its events are, what is in memory stays small.
func TestMemory(t *testing.T) {
	large := event(5000)
	log := generate(large.Body(), 100)
	r := newSyslogReceiver(t)
	r.read = func(_ int64, conn net.Conn, _ func(io.Reader)) { _, _ = io.Copy(io.Discard, conn) }
	s := r.sender()
	s.MaxSize, s.bounds = MaxMessage, Bounds{Bytes: (*Syslog)(nil).Bounds().Bytes, Age: 50 * time.Millisecond}
	before, most := live(), uint64(0)
	f := follow(t, t.TempDir(), log, s)
	for f.Counts().Delivered < 100 {
		most = max(most, live())
		time.Sleep(10 * time.Millisecond)
	}
	most -= min(before, most)
	t.Logf("%.1f MB live at most, of a log of %d MB", float64(most)/1e6, 100*len(log.body)/1e6)
	if most > 16<<20 {
		t.Errorf("%d bytes in memory", most)
	}
}

// live returns how many bytes the heap had when it was last collected.
func live() uint64 {
	runtime.GC()
	sample := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	rtmetrics.Read(sample)
	return sample[0].Value.Uint64()
}
